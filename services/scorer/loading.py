"""A bundle as the scorer uses it: the model, and what its training population looked like.

The one place where the scorer reads a bundle's folder. Must never give a model whose content is not what it says it is.
"""

from pathlib import Path
from typing import NamedTuple

from services.inference.model import Model, load_model
from services.runtime.bundle import read_metadata
from services.runtime.logs import logger
from services.scorer.drift import References

log = logger(__name__)


class Loaded(NamedTuple):
    """A bundle in memory."""

    model: Model
    references: References


def load(folder: Path, currency: str, threads: int) -> Loaded:
    """Read a bundle. Raises KnownProblem that says what is wrong with it. Arguments as of services.inference.model."""
    model = load_model(folder, currency, threads)
    references = References(read_metadata(folder))
    if references.unknown:
        log.info("drift_not_measured", model_version=model.version, columns=sorted(references.unknown))
    return Loaded(model, references)
