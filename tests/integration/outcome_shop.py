"""A shop whose future is known: events, predictions made along the way, and what they should be held against.

The oracle goes by tables of the raw events (pandas): it shares nothing with the product but the definition.
"""

from datetime import date, timedelta
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from domain.customer import DAY_MS, Event, OrderCancelled, OrderPlaced, OrderRefunded, fold
from domain.features import day_of
from schemas.customer_rows import PROGRESS_KEY, Progress, Row, encode
from schemas.predictions import Prediction, prediction_id
from tests.unit.sink.examples import prediction

FIRST_DAY = date(2023, 1, 2)
DAYS = 150
HORIZON_DAYS = 30
MODELS = ("model-a", "model-b")


class Shop:
    """Customers c0 … with orders, refunds, cancellations and predictions, all from a seed."""

    def __init__(self, customers: int, seed: int = 1, predictions_each: int = 12) -> None:
        self.chance = np.random.default_rng(seed)
        self.names = [f"c{number}" for number in range(customers)]
        orders, refunds, cancellations = [], [], []
        for name in self.names:
            for number in range(1 + int(self.chance.poisson(6))):
                order, day = f"{name}-o{number}", int(self.chance.integers(0, DAYS))
                orders.append((name, order, day, int(self.chance.integers(100, 20_000))))
                if self.chance.random() < 0.2:
                    back_on = day + int(self.chance.integers(0, 40))
                    refunds.append((name, order, back_on, int(self.chance.integers(50, 25_000))))
                if self.chance.random() < 0.1:
                    cancellations.append((name, order, day + int(self.chance.integers(0, 40))))
            if self.chance.random() < 0.3:
                refunds.append((name, None, int(self.chance.integers(0, DAYS)), int(self.chance.integers(50, 3000))))
        self.orders = pd.DataFrame(orders, columns=["customer", "order", "day", "minor"])
        self.refunds = pd.DataFrame(refunds, columns=["customer", "order", "day", "minor"])
        self.cancellations = pd.DataFrame(cancellations, columns=["customer", "order", "day"])
        self.predictions = [self._prediction(name, number) for name in self.names for number in range(predictions_each)]
        self.predictions = list({each.prediction_id: each for each in self.predictions}.values())

    def _prediction(self, name: str, number: int) -> Prediction:
        day = int(self.chance.integers(0, DAYS - HORIZON_DAYS))
        known = self.orders[(self.orders.customer == name) & (self.orders.day <= day)]
        model = MODELS[int(self.chance.integers(0, 2))]
        value = float(np.round(self.chance.gamma(2.0, 30.0), 2))
        version = day * 1000 + number
        return msgspec.structs.replace(
            prediction(name, version, prediction_id(name, version, model), value=value, model=model),
            as_of=(FIRST_DAY + timedelta(days=day)).isoformat(),
            horizon_days=HORIZON_DAYS,
            p_active=float(np.round(self.chance.random(), 3)),
            value_p10=0.0 if self.chance.random() < 0.7 else value / 4,
            value_p90=value * 2,
            historical_value=value / 2,
            inputs={"days_since_last_purchase": float(day - known.day.max()) if len(known) else None},
        )

    def rows(self) -> list[tuple[bytes, bytes]]:
        """Each customer's row of the changelog, at the end."""
        found = []
        for name in self.names:
            events: list[Event] = [
                OrderPlaced(each.order, each.minor, _ms(each.day) + 3600_000) for each in _of(self.orders, name)
            ]
            events += [
                OrderRefunded(
                    f"r{at}", each.order if isinstance(each.order, str) else None, each.minor, _ms(each.day) + 7200_000
                )
                for at, each in enumerate(_of(self.refunds, name))
            ]
            events += [OrderCancelled(each.order, _ms(each.day) + 7200_000) for each in _of(self.cancellations, name)]
            found.append((name.encode(), encode(Row(len(events), 0, len(events), fold(events)))))
        return found

    @cache  # noqa: B019 - a shop lives as long as its test
    def expected(self) -> pd.DataFrame:
        """What each prediction that is to be compared came to, by prediction_id: the first of a customer's week."""
        made = pd.DataFrame(
            [
                {
                    "id": each.prediction_id,
                    "customer": each.customer_id,
                    "model": each.model_version,
                    "version": each.feature_version,
                    "day": (date.fromisoformat(each.as_of) - FIRST_DAY).days,
                    "knew": each.inputs["days_since_last_purchase"] == 0,
                    **{name: getattr(each, name) for name in ("expected_value", "p_active", "value_p10", "value_p90")},
                }
                for each in self.predictions
            ]
        )
        made["begin"] = made.day + made.knew
        made["end"] = made.begin + HORIZON_DAYS
        made["week"] = (made.day + (FIRST_DAY - date(1970, 1, 1)).days) // 7
        made = made.sort_values(["end", "version"]).drop_duplicates(["customer", "model", "week"])
        made = made.set_index("id").sort_index()
        came = self._came(made.reset_index()).reindex(made.index, fill_value=0)
        made["orders"] = came.orders
        made["value"] = (came.net - self._loose(made.reset_index()).reindex(made.index, fill_value=0)) / 100
        return made

    def _came(self, made: pd.DataFrame) -> pd.DataFrame:
        """Orders that count and their net value, by prediction: each order of the window beside each of its refunds."""
        found = made[["id", "customer", "begin", "end"]].merge(self.orders, on="customer")
        found = found[(found.day >= found.begin) & (found.day < found.end)]
        found = found.merge(self.cancellations.groupby("order").day.min().rename("gone"), on="order", how="left")
        found = found[~(found.gone < found.end)]
        back = found[["id", "order", "end"]].merge(self.refunds[["order", "day", "minor"]], on="order")
        back = back[back.day < back.end].groupby(["id", "order"]).minor.sum().rename("back").reset_index()
        found = found.merge(back, on=["id", "order"], how="left")
        found["net"] = (found.minor - found.back.fillna(0)).clip(lower=0)
        return found.groupby("id").agg(orders=("order", "size"), net=("net", "sum"))

    def _loose(self, made: pd.DataFrame) -> "pd.Series[float]":
        loose = self.refunds[self.refunds.order.isna()][["customer", "day", "minor"]]
        found = made[["id", "customer", "begin", "end"]].merge(loose, on="customer")
        return found[(found.day >= found.begin) & (found.day < found.end)].groupby("id").minor.sum()


def figures(expected: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The metrics of each model."""
    found = {}
    for model, part in expected.groupby("model"):
        active = (part.orders > 0).astype(float)
        found[str(model)] = {
            "clv_realised_predictions": len(part),
            "clv_realised_bias": part.expected_value.sum() / part.value.sum() - 1,
            "clv_realised_mae": (part.expected_value - part.value).abs().mean(),
            "clv_realised_above_p90_ratio": (part.value > part.value_p90).mean(),
            "clv_realised_below_p10_ratio": (part.value < part.value_p10).mean(),
            "clv_realised_brier": ((part.p_active - active) ** 2).mean(),
            "clv_realised_active_ratio": active.mean(),
        }
    return found


def clock_row(day: int) -> tuple[bytes, bytes]:
    """A partition's own row that says that time has come to the day's noon."""
    return PROGRESS_KEY, encode(Progress(day, 0, 9, _ms(day) + DAY_MS // 2, 0, None, 0))


def _ms(day: int) -> int:
    return (day_of(FIRST_DAY) + day) * DAY_MS


def _of(table: pd.DataFrame, name: str) -> list[Any]:
    return list(table[table.customer == name].itertuples())
