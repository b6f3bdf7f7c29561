"""A generated shop on disk: its orders file, and its truth. It must never hold more text than a piece of the file."""

import csv
from pathlib import Path

import msgspec

from services.runtime.shutdown import KnownProblem
from services.trainer.generation.file_rows import KINDS
from services.trainer.generation.shop import Shop
from services.trainer.orders_file import COLUMNS, OrdersTable

ROWS_A_PIECE = 100_000


def write_orders(shop: Shop, path: Path) -> None:
    """Parquet if the name ends so, else CSV. Raises KnownProblem if it cannot be written.

    Bytes that are no UTF-8 are written as such; a Parquet column with any of them is of bytes instead of text.
    """
    try:
        if path.suffix.lower() == ".parquet":
            _write_parquet(shop, path)
        else:
            _write_csv(shop, path)
    except OSError as error:
        raise KnownProblem(f"cannot write {path}: {error.strerror or error}") from None


def write_truth(shop: Shop, path: Path) -> None:
    """Shop.truth() as JSON. Raises KnownProblem if it cannot be written."""
    try:
        path.write_bytes(msgspec.json.encode(shop.truth()) + b"\n")
    except OSError as error:
        raise KnownProblem(f"cannot write {path}: {error.strerror or error}") from None


def _write_csv(shop: Shop, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for piece in shop.chunks(ROWS_A_PIECE):
            writer.writerows(zip(*(piece.columns[name].tolist() for name in COLUMNS), strict=True))


def _write_parquet(shop: Shop, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    has_bytes = bool((shop.rows.breakage == KINDS.index("bad_utf8")).any())
    kinds = {name: pa.binary() if has_bytes and name == "customer_id" else pa.string() for name in COLUMNS}
    schema = pa.schema(list(kinds.items()))

    def columns(piece: OrdersTable) -> dict[str, list[str] | list[bytes]]:
        return {
            name: [cell.encode("utf-8", "surrogateescape") for cell in piece.columns[name].tolist()]
            if kind == pa.binary()
            else piece.columns[name].tolist()
            for name, kind in kinds.items()
        }

    with pq.ParquetWriter(path, schema) as writer:
        for piece in shop.chunks(ROWS_A_PIECE):
            writer.write_table(pa.table(columns(piece), schema=schema))
