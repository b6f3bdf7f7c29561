"""Which features a model leans on: how much worse it ranks and guesses when a group of them is shuffled among customers
(Breiman 2001, permutation importance). It must never refit anything, nor shuffle without its seed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.features import FEATURE_NAMES
from domain.metrics import mean_absolute_error, normalised_gini
from services.trainer.feature_groups import feature_groups
from services.trainer.history import Targets

Floats = NDArray[np.float64]

ROWS_MAX = 2_500
REPEATS = 4


def importance(
    features: Floats, targets: Targets, predict: Callable[[Floats], Mapping[str, Floats]], seed: int
) -> dict[str, Any]:
    """For each group of features, the mean loss of nGini and rise of MAE when its columns are shuffled as one, and the
    lowest and highest loss of the repeats; the group that matters most first. Empty where nGini is undefined.

    Features that say the same in other words (recency is in the orders of the last 30 days too) stand in for one
    another: what remains after one group is shuffled is what the others do not know.
    """
    step = max(1, -(-len(features) // ROWS_MAX))
    matrix, value = features[::step], targets.value[::step]
    if len(matrix) < 2 or not np.isfinite(normalised_gini(value, value)):
        return {}
    before = predict(matrix)["expected_value"]
    ranked, erred = normalised_gini(value, before), mean_absolute_error(value, before)
    chance = np.random.default_rng(seed)
    places = [chance.permutation(len(matrix)) for _ in range(REPEATS)]
    groups = []
    for name, columns in feature_groups().items():
        known = matrix[:, columns]
        if (np.isnan(known) | (known == known[0])).all():  # unknown of all or the same for all: nothing to shuffle
            continue
        shuffled = np.concatenate([matrix] * REPEATS)
        shuffled[:, columns] = np.concatenate([matrix[place][:, columns] for place in places])
        guesses = np.split(np.asarray(predict(shuffled)["expected_value"]), REPEATS)
        losses = [ranked - normalised_gini(value, guess) for guess in guesses]
        rises = [mean_absolute_error(value, guess) - erred for guess in guesses]
        groups.append(
            {
                "group": name,
                "features": [FEATURE_NAMES[column] for column in columns],
                "ngini_loss": float(np.mean(losses)),
                "ngini_loss_min": float(min(losses)),
                "ngini_loss_max": float(max(losses)),
                "mae_rise": float(np.mean(rises)),
            }
        )
    groups.sort(key=lambda group: (-float(str(group["ngini_loss"])), str(group["group"])))
    return {"customers": len(matrix), "repeats": REPEATS, "ngini": ranked, "mae": erred, "groups": groups}
