"""Shops that never were: order histories with known truth, for tests, benchmarks and trying the product out. Everything
follows from a ShopSpec and its seed. It must never look at a clock or at real data."""

from services.trainer.generation.shop import Shop, generate
from services.trainer.generation.spec import PRESETS, ShopSpec, preset

__all__ = ["PRESETS", "Shop", "ShopSpec", "generate", "preset"]
