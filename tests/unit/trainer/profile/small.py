"""A small shop's profiles, trained on once for all tests of this folder."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray

from services.trainer.profile.candidates import Candidate, TrainingRows, fit_candidates
from services.trainer.profile.columns import columns_of, fit_preparation
from services.trainer.profile.nodes import build_graph
from services.trainer.profile.table import ProfileTable, Split, generated_table, split_customers
from services.trainer.profile.train import TrainedProfile, train_profile

Floats = NDArray[np.float64]
CUSTOMERS, SEED = 700, 3


@cache
def profiles() -> ProfileTable:
    return generated_table(CUSTOMERS, 3, SEED)


@cache
def trained() -> TrainedProfile:
    return train_profile(profiles(), Path(mkdtemp()), seed=SEED, with_network=False)


@cache
def scored() -> tuple[ProfileTable, Split]:
    """The profiles with scores, and their split."""
    split = split_customers(profiles().customer_ids, SEED)
    return profiles().with_quintiles(profiles().fit_quintiles(split.training)), split


@cache
def candidates() -> tuple[Candidate, ...]:
    table, split = scored()
    quintiles = table.fit_quintiles(split.training)
    columns = columns_of(table.inputs[split.training], quintiles)
    preparation = fit_preparation(columns)
    rows = TrainingRows(preparation.apply(columns), table.value[split.training], preparation, quintiles)
    return tuple(fit_candidates(rows, SEED, with_network=False, progress=lambda _: None))


@cache
def graphs() -> dict[str, bytes]:
    """The graph of each candidate."""
    return {each.name: build_graph(each).SerializeToString() for each in candidates()}
