"""A loaded model bundle: checked against the code and the settings, then a function from features to outcomes.

The only place that knows ONNX Runtime. Must never serve a bundle whose features, currency or content are not what they
are said to be.
"""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from domain.customer import CustomerState
from domain.features import FEATURE_NAMES, features
from domain.segments import Thresholds
from schemas.model_bundle import (
    INPUT_NAME,
    METADATA_FILE,
    MODEL_FILE,
    OUTPUT_NAMES,
    VALUE_QUANTILES,
    bundle_version,
    metadata_without_version,
)
from services.inference.graph_rows import run_rows
from services.runtime.bundle import BundleHead
from services.runtime.shutdown import KnownProblem

Floats = NDArray[np.float64]


class ScorerMetadata(BundleHead, frozen=True):
    """The part of metadata.json that the scorer needs."""

    value_quantiles: list[float] | None = None
    """expected_value of the reference population at its 0th, 1st, … 100th percentile."""


class Outcomes(NamedTuple):
    """What the model says of n customers, each array (n,): money in major units of the bundle's currency."""

    expected_value: Floats
    expected_orders: Floats
    p_active: Floats
    value_p10: Floats
    value_p50: Floats
    value_p90: Floats
    next_order_days: Floats
    """Days until the next order, if one comes within the horizon."""


class Model:
    """A bundle ready to score. Immutable; may be called from several threads."""

    def __init__(self, metadata: ScorerMetadata, session: ort.InferenceSession) -> None:
        self.metadata = metadata
        self._session = session

    @property
    def version(self) -> str:
        """The bundle's content address."""
        return self.metadata.model_version

    @property
    def thresholds(self) -> Thresholds:
        """Segment thresholds of the training population."""
        return Thresholds(*self.metadata.segment_thresholds)

    def predict(self, matrix: Floats) -> Outcomes:
        """Outcomes of n customers. matrix: (n, len(FEATURE_NAMES)) in FEATURE_NAMES order; NaN is unknown.

        Raises ValueError for another shape. A row's outcomes depend on that row alone.
        """
        if matrix.ndim != 2 or matrix.shape[1] != len(FEATURE_NAMES):
            raise ValueError(f"expected (n, {len(FEATURE_NAMES)}) features, got {matrix.shape}")
        if len(matrix) == 0:
            return Outcomes(*(np.empty(0) for _ in OUTPUT_NAMES))
        return Outcomes(*run_rows(self._session, OUTPUT_NAMES, matrix))


def load_model(folder: Path, currency: str, threads: int = 1) -> Model:
    """The model in a bundle's folder. Raises KnownProblem that says what is wrong with the bundle.

    currency: the reporting currency (ISO 4217) of the money that goes in. threads: of one call.
    """
    try:
        onnx_bytes = (folder / MODEL_FILE).read_bytes()
        raw: dict[str, Any] = msgspec.json.decode((folder / METADATA_FILE).read_bytes(), type=dict[str, Any])
        metadata = msgspec.convert(raw, ScorerMetadata)
    except (OSError, ValueError) as error:
        raise KnownProblem(f"{folder} cannot be read as a model bundle: {error}") from None
    _check_metadata(folder, metadata, currency)
    version = bundle_version(onnx_bytes, metadata_without_version(raw))
    if metadata.model_version != version:
        raise KnownProblem(
            f"bundle {folder} says it is {metadata.model_version}, but its content is {version}: it was changed after "
            "training; train again with `./clv train`"
        )
    model = Model(metadata, _session(folder, onnx_bytes, threads))
    _check_graph(folder, model)
    return model


def _check_metadata(folder: Path, metadata: ScorerMetadata, currency: str) -> None:
    if tuple(metadata.feature_names) != FEATURE_NAMES:
        differing = sorted(set(metadata.feature_names) ^ set(FEATURE_NAMES))
        what = f"differing: {', '.join(differing)}" if differing else "the same names in another order"
        raise KnownProblem(
            f"bundle {folder} was trained on other features than this version computes ({what}): train again"
        )
    if metadata.currency != currency:
        raise KnownProblem(
            f"bundle {folder} is in {metadata.currency}, but CLV_CURRENCY is {currency}: set it, or train again"
        )
    if list(metadata.segment_thresholds) != sorted(metadata.segment_thresholds):
        raise KnownProblem(f"bundle {folder}: segment_thresholds are not ascending: {metadata.segment_thresholds}")
    quantiles = metadata.value_quantiles
    if quantiles is not None and (len(quantiles) != VALUE_QUANTILES or quantiles != sorted(quantiles)):
        raise KnownProblem(f"bundle {folder}: value_quantiles must be {VALUE_QUANTILES} ascending numbers")
    if metadata.horizon_days <= 0:
        raise KnownProblem(f"bundle {folder}: horizon_days must be positive, and is {metadata.horizon_days}")


def _session(folder: Path, onnx_bytes: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for where in ("intra", "inter"):  # a spinning thread would take the core that Kafka's client needs
        options.add_session_config_entry(f"session.{where}_op.allow_spinning", "0")
    ort.disable_telemetry_events()
    try:
        return ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors share no base class)
        raise KnownProblem(f"{folder / MODEL_FILE} is no model that ONNX Runtime can load: {error}") from None


def _check_graph(folder: Path, model: Model) -> None:
    """The graph takes and gives what schemas.model_bundle declares, tried with a customer without an order."""
    session = model._session
    inputs = {node.name: node.type for node in session.get_inputs()}
    if inputs != {INPUT_NAME: "tensor(double)"}:
        raise KnownProblem(f"bundle {folder}: the graph's inputs are {inputs}, expected {INPUT_NAME}: tensor(double)")
    missing = set(OUTPUT_NAMES) - {node.name for node in session.get_outputs()}
    if missing:
        raise KnownProblem(f"bundle {folder}: the graph has no output {', '.join(sorted(missing))}")
    try:
        outcomes = model.predict(features([CustomerState()], [0], model.metadata.quintiles, 1).features)
    except Exception as error:  # noqa: BLE001 (as above)
        raise KnownProblem(f"bundle {folder}: the graph does not run on this version's features: {error}") from None
    if any(output[0] != 0.0 for output in outcomes):
        raise KnownProblem(f"bundle {folder}: the graph must give 0 for a customer without an order, gave {outcomes}")
