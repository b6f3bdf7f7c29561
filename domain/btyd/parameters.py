"""What the buy-till-you-die models are made of: fitted parameters, fit reports and predictions as frozen, JSON-able
records. It must never fit, predict or guess: a record that cannot be a model is refused when made."""

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class NotEnoughRepeatBuyers(ValueError):
    """The purchase history is too thin to identify a model. Carries the counts, so that the caller can fall back."""

    def __init__(self, model: str, repeat_buyers: int, repeat_buyers_min: int) -> None:
        self.model = model
        self.repeat_buyers = repeat_buyers
        self.repeat_buyers_min = repeat_buyers_min
        super().__init__(
            f"{model} needs at least {repeat_buyers_min} customers with a repeat purchase, got {repeat_buyers}: "
            "give a longer history or use a simpler model"
        )


# Far beyond what any data can tell apart, and what predictions are known to be finite for.
PARAMETER_MIN, PARAMETER_MAX = 1e-6, 1e9


def _require_in_range(record: msgspec.Struct) -> None:
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if not PARAMETER_MIN <= value <= PARAMETER_MAX:
            message = f"must be between {PARAMETER_MIN:g} and {PARAMETER_MAX:g}"
            raise ValueError(f"{type(record).__name__}.{name} {message}, got {value}")


class BgNbd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bg_nbd", tag_field="model"):
    """BG/NBD (Fader, Hardie, Lee 2005): λ ~ Gamma(r, alpha_days), p ~ Beta(a, b), dropout after each repeat."""

    r: float
    alpha_days: float
    a: float
    b: float

    def __post_init__(self) -> None:
        _require_in_range(self)


class MbgNbd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="mbg_nbd", tag_field="model"):
    """MBG/NBD (Batislam, Denizel, Filiztekin 2007): as BG/NBD, and a customer may drop out after the first purchase."""

    r: float
    alpha_days: float
    a: float
    b: float

    def __post_init__(self) -> None:
        _require_in_range(self)


class ParetoNbd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="pareto_nbd", tag_field="model"):
    """Pareto/NBD (Schmittlein, Morrison, Colombo 1987): λ ~ Gamma(r, alpha_days), dropout rate μ ~ Gamma(s, beta)."""

    r: float
    alpha_days: float
    s: float
    beta_days: float

    def __post_init__(self) -> None:
        _require_in_range(self)


class GammaGamma(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="gamma_gamma", tag_field="model"):
    """Gamma-Gamma spend model (Fader & Hardie 2013): spend ~ Gamma(p, ν), ν ~ Gamma(q, gamma_money); q > 1.

    `gamma_money` has the unit of the spend that was fitted. q > 1 keeps the mean of the population finite.
    """

    p: float
    q: float
    gamma_money: float

    def __post_init__(self) -> None:
        _require_in_range(self)
        if self.q <= 1:
            raise ValueError(f"GammaGamma.q must be > 1 (the mean spend of the population is infinite), got {self.q}")


OrderModel = BgNbd | MbgNbd | ParetoNbd


class OrderModelFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fitted purchase model. `at_bounds` names parameters at the edge of the search: the data do not fix them."""

    params: OrderModel
    log_likelihood: float  # with time in days
    customers: int
    repeat_buyers: int
    evaluations: int
    converged: bool
    at_bounds: tuple[str, ...] = ()


class SpendModelFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fitted spend model. `customers_skipped` had no positive mean spend, which the model cannot describe."""

    params: GammaGamma
    log_likelihood: float  # density of the spend in its own unit
    customers: int
    customers_skipped: int
    evaluations: int
    converged: bool
    at_bounds: tuple[str, ...] = ()


class Outlook(NamedTuple):
    """Predictions of n customers over one horizon, each an array of shape (n,), finite and never negative."""

    p_alive: FloatArray  # P(still a customer at as_of)
    expected_orders: FloatArray  # expected purchase days in (as_of, as_of + horizon]
    p_order: FloatArray  # P(at least one purchase day in that time)


def to_json(record: OrderModel | GammaGamma | OrderModelFit | SpendModelFit) -> bytes:
    """The record as JSON; parameters carry their model's name in `model`."""
    return msgspec.json.encode(record)


def order_model_from_json(data: bytes | str) -> OrderModel:
    """Inverse of `to_json` for a purchase model. Raises ValueError for an unknown model, field or value."""
    model: OrderModel = msgspec.json.decode(data, type=OrderModel)
    return model


def spend_model_from_json(data: bytes | str) -> GammaGamma:
    """Inverse of `to_json` for a spend model. Raises ValueError for an unknown field or an impossible value."""
    return msgspec.json.decode(data, type=GammaGamma)
