"""`./clv api-keys`: make, list and revoke the keys of the HTTP sides, in the file that CLV_HTTP_KEYS_FILE names.

The file is replaced as a whole, so that a service never reads half of it. Must never write a key into it: a key is
shown once, when it is made.
"""

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.runtime.http.key_file import KeyFileError, KeyRecord, Scope, encode_keys, new_key, parse_keys
from services.runtime.shutdown import KnownProblem

app = typer.Typer(help="Keys that clients of the HTTP sides need: make, list, revoke.", no_args_is_help=True)

_FILE_MODE = 0o600

_File = Annotated[Path, typer.Option("--file", envvar="CLV_HTTP_KEYS_FILE", help="The file of keys.")]


@app.command()
def create(
    file: _File,
    name: Annotated[str, typer.Option(help="Who it is for; shown in lists.")],
    scopes: Annotated[str, typer.Option(help=f"What it may do, comma-separated: {', '.join(Scope)}.")],
    expires_days: Annotated[
        int | None, typer.Option(help="Days after which it opens nothing.", min=1, max=36_500)
    ] = None,
    requests_per_second: Annotated[
        float | None, typer.Option(help="Its own rate; that of the services' settings if left out.")
    ] = None,
) -> None:
    """Make a key, and print it: this is the only time that it is shown."""
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        made = new_key(
            name,
            _scopes(scopes),
            now,
            expires_at=None if expires_days is None else now + timedelta(days=expires_days),
            requests_per_second=requests_per_second,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise KnownProblem(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    with _locked(file):
        _write(file, [*_read(file, missing_ok=True), made.record])
    print(made.key)
    print(f"key {made.record.id} is in {file}; it is not shown again", file=sys.stderr)


@app.command("list")
def list_keys(
    file: _File, as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False
) -> None:
    """Show the keys, without what opens anything."""
    records, now = _read(file), datetime.now(UTC)
    if as_json:
        shown = [
            {**record.model_dump(mode="json", exclude={"sha256"}), "state": _state(record, now)} for record in records
        ]
        print(json.dumps(shown, indent=2))
        return
    table = Table(box=None, padding=(0, 2))
    for heading in ("id", "name", "scopes", "created", "expires", "requests/s", "state"):
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("name", "scopes"))
    for record in records:
        table.add_row(
            record.id,
            escape(record.name),
            ", ".join(record.scopes),
            f"{record.created_at:%Y-%m-%d}",
            "never" if record.expires_at is None else f"{record.expires_at:%Y-%m-%d}",
            "" if record.requests_per_second is None else f"{record.requests_per_second:g}",
            _state(record, now),
        )
    Console().print(table)


@app.command()
def revoke(file: _File, key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")]) -> None:
    """Let a key open nothing any more. Services follow within seconds."""
    with _locked(file):
        records = {record.id: record for record in _read(file)}
        if key_id not in records:
            raise KnownProblem(f"{file} holds no key {key_id}: see ./clv api-keys list")
        if records[key_id].revoked_at is None:
            now = datetime.now(UTC).replace(microsecond=0)
            records[key_id] = records[key_id].model_copy(update={"revoked_at": now})
            _write(file, list(records.values()))
    print(f"key {key_id} is revoked", file=sys.stderr)


def _scopes(text: str) -> list[Scope]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [each for each in names if each not in list(Scope)]
    if unknown or not names:
        raise KnownProblem(f"--scopes: {', '.join(unknown) or 'nothing'} is none of {', '.join(Scope)}")
    return [Scope(each) for each in names]


def _state(record: KeyRecord, now: datetime) -> str:
    if record.revoked_at is not None:
        return "revoked"
    return "active" if now.timestamp() < record.ends_at() else "expired"


def _read(file: Path, *, missing_ok: bool = False) -> list[KeyRecord]:
    try:
        return parse_keys(file.read_text())
    except FileNotFoundError:
        if missing_ok:
            return []
        raise KnownProblem(f"{file} is not there: make it with ./clv api-keys create") from None
    except (OSError, UnicodeDecodeError, KeyFileError) as error:
        raise KnownProblem(f"{file}: {error}") from error


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep other commands from changing the file meanwhile. The lock is the folder's: the file itself is replaced."""
    try:
        folder = os.open(file.absolute().parent, os.O_RDONLY)
    except OSError as error:
        raise KnownProblem(f"{file}: {error}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(file: Path, records: list[KeyRecord]) -> None:
    """Replace the file. It keeps its owner and mode; a new one is for its owner alone."""
    text = encode_keys(records)
    try:
        parse_keys(text)  # what services would refuse is not written
    except KeyFileError as error:
        raise KnownProblem(f"{file}: {error}") from error
    target = file.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w") as out:
            if target.exists():
                known = target.stat()
                os.fchown(out.fileno(), known.st_uid, known.st_gid)
                os.fchmod(out.fileno(), known.st_mode & 0o777)
            else:
                os.fchmod(out.fileno(), _FILE_MODE)
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(target)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise KnownProblem(f"{file}: {error}") from error
