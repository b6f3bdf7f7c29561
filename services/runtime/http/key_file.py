"""The file of API keys: one JSON object a line, with the key's hash and never the key itself.

Pure but for the secret of a new key. A key is `clv_<id>_<secret>`; the hash is SHA-256 of the whole key, which needs no
salt and no slowness, since the secret is 32 random bytes.
"""

import hashlib
import math
import secrets
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

SECRET_BYTES = 32
KEYS_MAX = 1000
"""A key that is presented is compared with all of them."""


class Scope(StrEnum):
    """What a key may do."""

    READ = "read"
    PREDICT = "predict"
    INGEST = "ingest"
    ERASE = "erase"


class KeyRecord(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]{4,32}$")
    name: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    requests_per_second: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)
    revoked_at: AwareDatetime | None = None

    def ends_at(self) -> float:
        """Seconds since 1970 from which it opens nothing."""
        if self.revoked_at is not None:
            return -math.inf
        return math.inf if self.expires_at is None else self.expires_at.timestamp()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.expires_at is not None and self.expires_at <= self.created_at:
            raise ValueError("expires_at must be after created_at")
        return self


class KeyFileError(ValueError):
    """A file that cannot be used; the message names the line, and nothing of its contents."""


class NewKey(NamedTuple):
    """A key that was just made: the only moment at which the key itself is known."""

    key: str
    record: KeyRecord


def new_key(
    name: str,
    scopes: Iterable[Scope],
    now: datetime,
    *,
    expires_at: datetime | None = None,
    requests_per_second: float | None = None,
) -> NewKey:
    """Make a key. Raises pydantic.ValidationError if the facts do not fit together."""
    key_id = secrets.token_hex(4)
    key = f"clv_{key_id}_{secrets.token_hex(SECRET_BYTES)}"
    record = KeyRecord(
        id=key_id,
        name=name,
        sha256=digest(key.encode()).hex(),
        scopes=tuple(dict.fromkeys(scopes)),
        created_at=now,
        expires_at=expires_at,
        requests_per_second=requests_per_second,
    )
    return NewKey(key, record)


def digest(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key).digest()


def parse_keys(text: str) -> list[KeyRecord]:
    """The records of a file. Raises KeyFileError."""
    records: dict[str, KeyRecord] = {}
    hashes: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = KeyRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise KeyFileError(f"line {number}: {where + ': ' if where else ''}{first['msg']}") from None
        if record.id in records or record.sha256 in hashes:
            raise KeyFileError(f"line {number}: key {record.id} is there twice")
        records[record.id] = record
        hashes.add(record.sha256)
    if len(records) > KEYS_MAX:
        raise KeyFileError(f"it holds {len(records)} keys, at most {KEYS_MAX} are accepted")
    return list(records.values())


def encode_keys(records: Iterable[KeyRecord]) -> str:
    """The text of a file."""
    return "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records)
