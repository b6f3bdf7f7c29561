"""Keys are made, listed and revoked in a file that services can read at any moment."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.api_keys import app
from services.runtime.http.api_keys import ApiKeys
from services.runtime.http.key_file import Scope, parse_keys
from services.runtime.shutdown import KnownProblem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def create(file: Path, *more: str, name: str = "shop", scopes: str = "read,predict") -> str:
    result = run("create", "--file", file, "--name", name, "--scopes", scopes, *more)
    assert result.exit_code == 0, result.output
    (key,) = result.stdout.split()
    return key


def test_a_key_is_shown_once_and_opens_what_was_asked_for(file: Path):
    key = create(file, "--expires-days", "30", "--requests-per-second", "5")
    found = ApiKeys.from_file(file).find(key.encode())
    assert found is not None
    assert (found.name, found.scopes, found.requests_per_second) == ("shop", (Scope.READ, Scope.PREDICT), 5.0)
    assert found.expires_at is not None
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)
    secret = key.rpartition("_")[2]
    for text in (file.read_text(), run("list", "--file", file).output, run("list", "--file", file, "--json").output):
        assert secret not in text
    assert found.sha256 not in run("list", "--file", file, "--json").output


def test_the_file_is_for_its_owner_alone_and_keeps_a_mode_that_it_was_given(file: Path):
    create(file)
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    create(file)
    assert file.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(file: Path):
    one, other = create(file, name="one"), create(file, name="other")
    key_id = one.split("_")[1]
    assert run("revoke", "--file", file, key_id).exit_code == 0
    first_text = file.read_text()
    assert run("revoke", "--file", file, key_id).exit_code == 0
    assert file.read_text() == first_text, "the moment of the first revocation stays"
    keys = ApiKeys.from_file(file)
    assert (keys.find(one.encode()), keys.find(other.encode()) is not None) == (None, True)
    shown = json.loads(run("list", "--file", file, "--json").stdout)
    assert [(each["name"], each["state"]) for each in shown] == [("one", "revoked"), ("other", "active")]
    assert "revoked" in run("list", "--file", file).stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["create", "--name", "x", "--scopes", "read,everything"], "everything"),
        (["create", "--name", "x", "--scopes", ","], "--scopes"),
        (["create", "--name", "", "--scopes", "read"], "name"),
        (["create", "--name", "x", "--scopes", "read", "--requests-per-second", "0"], "requests_per_second"),
        (["revoke", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(file: Path, words: list[str], part: str):
    create(file)
    before = file.read_bytes()
    with pytest.raises(KnownProblem, match=part) as raised:
        run(words[0], "--file", file, *words[1:])
    assert "\n" not in str(raised.value)
    assert file.read_bytes() == before


def test_a_file_that_is_broken_is_not_written_over(file: Path):
    file.write_text("{")
    with pytest.raises(KnownProblem, match="line 1"):
        create(file)
    assert file.read_text() == "{"
    with pytest.raises(KnownProblem, match="is not there"):
        run("list", "--file", file.with_name("other"))


def test_commands_at_the_same_time_lose_no_key_and_no_reader_sees_half_a_file(file: Path):
    create(file)
    done, seen = threading.Event(), []

    def read() -> None:
        while not done.is_set():
            seen.append(len(parse_keys(file.read_text())))

    def make() -> None:
        from cli.api_keys import create as make_key

        for _ in range(10):
            make_key(file=file, name="x", scopes="read")

    reader = threading.Thread(target=read)
    makers = [threading.Thread(target=make) for _ in range(4)]
    for thread in (reader, *makers):
        thread.start()
    for thread in makers:
        thread.join()
    done.set()
    reader.join()
    assert len(parse_keys(file.read_text())) == 41
    assert seen == sorted(seen)
    assert seen[0] >= 1
