"""Shops made up for tests: orders drawn from known distributions, as the text columns of an orders file."""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from services.trainer.orders_file import COLUMNS, OrdersTable

FIRST_DAY = date(2024, 1, 1)


def table(rows: Sequence[dict[str, str]], name: str = "orders.csv") -> OrdersTable:
    """A table of these rows; what a row does not say is empty."""
    columns = {}
    for column in COLUMNS:
        cells = np.empty(len(rows), dtype=object)
        cells[:] = [row.get(column, "") for row in rows]
        columns[column] = cells
    return OrdersTable(name, columns)


def order(number: object, customer: object, day: int, amount: str = "20.00") -> dict[str, str]:
    """An order on the day-th day of the shop."""
    at = (FIRST_DAY + timedelta(days=day)).isoformat()
    return {
        "type": "order",
        "order_id": f"o{number}",
        "customer_id": str(customer),
        "occurred_at": at,
        "amount": amount,
    }


def shop(customers: int, days: int, *, seed: int = 0, repeats: bool = True) -> list[dict[str, str]]:
    """Customers who arrive in the first half, buy at their own rate and may leave; amounts around their own mean."""
    chance = np.random.default_rng(seed)
    rows: list[dict[str, str]] = []
    for customer in range(customers):
        day = float(chance.integers(0, max(days // 2, 1)))
        mean = chance.lognormal(3.5, 0.6)
        gap = chance.gamma(1.0, 40.0) + 3
        leaves = chance.beta(1.0, 2.5)
        while day < days:
            amount = f"{max(0.01, mean * chance.gamma(8, 1 / 8)):.2f}"
            rows.append(order(len(rows), f"c{customer:05d}", int(day), amount))
            if not repeats or chance.random() < leaves:
                break
            day += 1 + chance.exponential(gap)
    return rows
