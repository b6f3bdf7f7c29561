"""A small but real model bundle and real feature messages for tests: an ONNX graph, features computed from orders.

Not a fixture file: the graph is built by hand, so that each of its outputs can be checked against plain numpy.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from domain.customer import DAY_MS, CustomerState, OrderPlaced, fold
from domain.features import FEATURE_NAMES, INPUT_NAMES, date_of, features
from domain.rfm_scores import Quintiles
from schemas.customer_features import CustomerFeatures, feature_version
from schemas.model_bundle import (
    INPUT_NAME,
    METADATA_FILE,
    MODEL_FILE,
    OUTPUT_NAMES,
    bundle_version,
    metadata_without_version,
)

QUINTILES = Quintiles((10.0, 40.0, 90.0, 200.0), (0.0, 1.0, 2.0, 5.0), (20.0, 60.0, 120.0, 400.0))
OTHER_QUINTILES = Quintiles((5.0, 20.0, 60.0, 100.0), (0.0, 0.5, 3.0, 8.0), (10.0, 30.0, 90.0, 200.0))
HORIZON_DAYS = 90
AS_OF_DAY = 19_800


def graph(scale: float = 1.0, outputs: tuple[str, ...] = OUTPUT_NAMES) -> bytes:
    """orders = orders_per_month × 3 × scale; value = orders × average order value; 0 where `monetary` is unknown."""
    nodes, constants = [], []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str) -> str:
        nodes.append(helper.make_node(kind, inputs, [output]))
        return output

    def column(name: str) -> str:
        at = constant(f"at_{name}", np.array([FEATURE_NAMES.index(name)], dtype=np.int64))
        nodes.append(helper.make_node("Gather", [INPUT_NAME, at], [f"col_{name}"], axis=1))
        return f"col_{name}"

    zero = constant("zero", np.array(0.0))
    unknown = node("IsNaN", [column("monetary")], "unknown")
    rate = node("Mul", [column("orders_per_month"), constant("rate", np.array(3.0 * scale))], "rate_raw")
    node("Where", [unknown, zero, rate], "expected_orders")
    value = node("Mul", ["expected_orders", column("average_order_value")], "value_raw")
    node("Where", [unknown, zero, value], "expected_value")
    gone = node("Exp", [node("Neg", ["expected_orders"], "minus_orders")], "gone")
    active = node("Sub", [constant("one", np.array(1.0)), gone], "active")
    nodes.append(helper.make_node("Cast", [active], ["p_active"], to=TensorProto.FLOAT))
    for name, factor in (
        ("value_p10", 0.25),
        ("value_p50", 0.75),
        ("value_p90", 2.0),
        ("next_order_days", 0.1),
    ):
        node("Mul", ["expected_value", constant(f"factor_{name}", np.array(factor))], name)
    kinds = {name: TensorProto.FLOAT if name == "p_active" else TensorProto.DOUBLE for name in outputs}
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.DOUBLE, [None, len(FEATURE_NAMES)])],
            [helper.make_tensor_value_info(name, kind, [None, 1]) for name, kind in kinds.items()],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def metadata(**changes: Any) -> dict[str, Any]:
    """metadata.json without the version."""
    return {
        "horizon_days": HORIZON_DAYS,
        "currency": "USD",
        "feature_names": list(FEATURE_NAMES),
        "quintiles": {
            "recency_days": QUINTILES.recency_days,
            "frequency": QUINTILES.frequency,
            "monetary": QUINTILES.monetary,
        },
        "segment_thresholds": (40.0, 90.0, 200.0),
        **changes,
    }


def write_bundle(models_dir: Path, onnx_bytes: bytes | None = None, **changes: Any) -> str:
    """Write a bundle and return its version, its folder's name. `changes` go into metadata.json before it is named."""
    import msgspec

    onnx_bytes = onnx_bytes or graph()
    facts = metadata(**changes)
    version = bundle_version(onnx_bytes, metadata_without_version(facts))
    folder = models_dir / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(onnx_bytes)
    (folder / METADATA_FILE).write_bytes(msgspec.json.encode({"model_version": version, **facts}))
    return version


def feature_messages(
    customers: int, *, seed: int = 0, events: int = 1, quintiles: Quintiles = QUINTILES, prefix: str = "c"
) -> list[CustomerFeatures]:
    """A message for each of the customers: features computed from random orders; every twentieth has no order."""
    chance = random.Random(seed)
    states: list[CustomerState] = []
    for number in range(customers):
        orders = 0 if number % 20 == 19 else chance.randint(1, 8)
        mean = chance.lognormvariate(3.5, 0.8)
        states.append(
            fold(
                OrderPlaced(
                    f"o{number}-{each}",
                    max(1, round(100 * chance.uniform(0.5, 1.5) * mean)),
                    (AS_OF_DAY - chance.randint(0, 700)) * DAY_MS,
                )
                for each in range(orders)
            )
        )
    rows = features(states, [AS_OF_DAY] * customers, quintiles, 100)
    return [
        CustomerFeatures(
            customer_id=f"{prefix}{number}",
            feature_version=feature_version(events, AS_OF_DAY),
            as_of=date_of(AS_OF_DAY).isoformat(),
            quintiles=quintiles.fingerprint,
            currency="USD",
            last_order_on=None,
            inputs=_named(INPUT_NAMES, inputs),
            features=_named(FEATURE_NAMES, row),
        )
        for number, (inputs, row) in enumerate(zip(rows.inputs.tolist(), rows.features.tolist(), strict=True))
    ]


def _named(names: tuple[str, ...], values: list[float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in zip(names, values, strict=True)}
