"""A profile model as whoever answers a what-if form uses it: loaded, checked, then a pure function of the seven inputs.
It must never serve a model whose features or content are not what it says, and imports nothing of training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from domain.features import INPUT_NAMES, engineer
from domain.rfm_scores import Quintiles
from schemas.profile_model import (
    ENGINEERED_NAMES,
    INPUT_NAME,
    METADATA_FILE,
    MODEL_FILE,
    OUTPUT_NAME,
    profile_version,
)
from services.runtime.shutdown import KnownProblem

Floats = NDArray[np.float64]

MAY_BE_MISSING = "customer_age"


class ProfileHead(msgspec.Struct, frozen=True):
    """The part of profile.json that serving needs."""

    model_version: str
    currency: str
    input_names: list[str]
    engineered_names: list[str]
    quintiles: Quintiles


class ProfileModel:
    """A profile model ready to answer. Immutable; may be called from several threads."""

    def __init__(self, head: ProfileHead, session: ort.InferenceSession) -> None:
        self.head = head
        self._session = session

    def predict(self, inputs: Floats) -> Floats:
        """Monetary value (n,), major units, of inputs (n, 7) in INPUT_NAMES order. Raises ValueError for another
        shape."""
        if inputs.ndim != 2 or inputs.shape[1] != len(INPUT_NAMES):
            raise ValueError(f"expected (n, {len(INPUT_NAMES)}) inputs, got {inputs.shape}")
        if len(inputs) == 0:
            return np.empty(0)
        (found,) = self._session.run([OUTPUT_NAME], {INPUT_NAME: np.ascontiguousarray(inputs, dtype=np.float64)})
        return np.asarray(found, dtype=np.float64).reshape(len(inputs))

    def engineered(self, inputs: Floats) -> Floats:
        """The 18 engineered features, (n, 18), by this model's quintiles."""
        return engineer(inputs, self.head.quintiles)


def what_if(model: ProfileModel, inputs: Mapping[str, float | None]) -> float:
    """Monetary value, major units of the model's currency, of one form: a number for each of INPUT_NAMES.

    The age may be None or absent. Raises ValueError that names an input which is missing, unknown or no number.
    """
    return float(model.predict(input_row(inputs))[0])


def input_row(inputs: Mapping[str, float | None]) -> Floats:
    """A form as the row (1, 7) that a model takes. Raises ValueError as what_if() does."""
    unknown = sorted(set(inputs) - set(INPUT_NAMES))
    if unknown:
        raise ValueError(f"there is no input {', '.join(unknown)}; inputs are {', '.join(INPUT_NAMES)}")
    row = []
    for name in INPUT_NAMES:
        given = inputs.get(name)
        if given is None and name != MAY_BE_MISSING:
            raise ValueError(f"{name} is missing: only {MAY_BE_MISSING} may be")
        number = float("nan") if given is None else float(given)
        if np.isnan(number) and name != MAY_BE_MISSING:
            raise ValueError(f"{name} is no number")
        row.append(number)
    return np.array([row])


def load_profile(folder: Path, currency: str | None = None) -> ProfileModel:
    """The profile model in a folder. currency: that of the money that goes in, checked where it is given.

    Raises KnownProblem that says what is wrong: unreadable, other features than this code's, changed after training.
    """
    try:
        onnx_bytes = (folder / MODEL_FILE).read_bytes()
        raw: dict[str, Any] = msgspec.json.decode((folder / METADATA_FILE).read_bytes(), type=dict[str, Any])
        head = msgspec.convert(raw, ProfileHead)
    except (OSError, ValueError) as error:
        raise KnownProblem(
            f"{folder} cannot be read as a profile model ({error}): make one with `./clv train-profile`"
        ) from None
    _check_names(folder, "inputs", head.input_names, INPUT_NAMES)
    _check_names(folder, "engineered features", head.engineered_names, ENGINEERED_NAMES)
    if currency is not None and head.currency != currency:
        raise KnownProblem(f"profile model {folder} is in {head.currency}, not in {currency}: train it again")
    version = profile_version(onnx_bytes, raw)
    if head.model_version != version:
        raise KnownProblem(
            f"profile model {folder} says it is {head.model_version}, but its content is {version}: it was changed "
            "after training; train again with `./clv train-profile`"
        )
    return ProfileModel(head, _session(folder, onnx_bytes))


def _check_names(folder: Path, what: str, found: list[str], wanted: tuple[str, ...]) -> None:
    if tuple(found) != wanted:
        differing = ", ".join(sorted(set(found) ^ set(wanted))) or "the same names in another order"
        raise KnownProblem(
            f"profile model {folder} was trained on other {what} than this version has ({differing}): train again with "
            "`./clv train-profile`"
        )


def _session(folder: Path, onnx_bytes: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (ONNX Runtime's errors share no base class)
        raise KnownProblem(f"{folder / MODEL_FILE} is no model that ONNX Runtime can load: {error}") from None
    ports = ({each.name: each.type for each in nodes} for nodes in (session.get_inputs(), session.get_outputs()))
    if tuple(ports) != ({INPUT_NAME: "tensor(double)"}, {OUTPUT_NAME: "tensor(double)"}):
        raise KnownProblem(f"{folder / MODEL_FILE} has other inputs or outputs than a profile model: train again")
    return session
