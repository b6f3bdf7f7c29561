"""Who may call what: keys, scopes, and the file that they stand in."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.runtime.http import api_keys
from services.runtime.http.api_keys import OPEN_PATHS, ApiKeys
from services.runtime.http.key_file import KeyFileError, Scope, encode_keys, new_key, parse_keys
from services.runtime.shutdown import KnownProblem
from tests.unit.runtime.http.application import NOW, build, client_of, write_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


def opened(file: Path, at=NOW) -> ApiKeys:
    return ApiKeys.from_file(file, at.timestamp)


async def test_a_key_opens_what_its_scopes_allow_and_403_names_the_one_that_lacks(file: Path):
    reader, forms = write_keys(file, {"scopes": [Scope.READ]}, {"scopes": [Scope.PREDICT, Scope.ERASE]})
    async with client_of(build(file)) as client:
        for key, method, path, status in [
            (reader, "GET", "/v1/nested/1", 200),
            (reader, "DELETE", "/v1/nested/1", 403),
            (reader, "POST", "/v1/forms", 403),
            (forms, "GET", "/v1/nested/1", 403),
            (forms, "DELETE", "/v1/nested/1", 200),
            (forms, "POST", "/v1/forms", 200),
        ]:
            body = {"json": {"orders": 1}} if method == "POST" else {}
            answer = await client.request(method, path, headers={"x-api-key": key}, **body)
            assert answer.status_code == status, (path, answer.text)
        refused = await client.post("/v1/forms", json={"orders": 1}, headers={"x-api-key": reader})
    assert "`predict`" in refused.json()["detail"]
    assert 'scope="predict"' in refused.headers["www-authenticate"]


async def test_a_key_may_come_as_a_bearer_token(file: Path):
    (key,) = write_keys(file, {})
    async with client_of(build(file)) as client:
        for headers, status in [
            ({"authorization": f"Bearer {key}"}, 200),
            ({"authorization": f"bearer  {key}"}, 200),
            ({"authorization": f"Basic {key}"}, 401),
            ({"authorization": key}, 401),
            ({"authorization": f"Bearer {key}", "x-api-key": "clv_other"}, 401),
        ]:
            assert (await client.get("/v1/nested/1", headers=headers)).status_code == status, headers


async def test_401_is_the_same_whatever_is_wrong_with_the_key(file: Path):
    good, expired, revoked = write_keys(file, {}, {"expires_at": NOW + timedelta(seconds=1)}, {"revoked_at": NOW})
    app = build(file)  # by the real clock, long after NOW
    presented = [None, "", "x", "clv_", good[:-1], good + "0", good.upper(), expired, revoked, "é", "x" * 5000]
    seen = set()
    async with client_of(app) as client:
        for key in presented:
            headers = {} if key is None else {"x-api-key": key.encode()}
            answer = await client.get("/v1/nested/1", headers=headers)
            assert answer.status_code == 401, key
            assert answer.headers["www-authenticate"].startswith("Bearer")
            problem = answer.json()
            assert problem.pop("request_id")
            seen.add(json.dumps(problem))
        assert (await client.get("/v1/nested/1", headers={"x-api-key": good})).status_code == 200
    assert len(seen) == 1


async def test_without_a_key_only_the_open_paths_answer(file: Path):
    (key,) = write_keys(file, {})
    async with client_of(build(file)) as client:
        for path in sorted(OPEN_PATHS):
            assert (await client.get(path)).status_code in (200, 404), path
        for path in ("/nowhere", "/v1/logged", "/v1/fault", "//healthz", "/healthz/", "/metrics/x"):
            assert (await client.get(path)).status_code == 401, path
        assert (await client.get("/nowhere", headers={"x-api-key": key})).status_code == 404


async def test_without_a_keys_file_everything_is_open_and_that_is_said_once():
    with capture_logs() as logs:
        app = build()
        assert logs == [], "an application that is only described says nothing"
        async with client_of(app) as client:
            assert (await client.get("/v1/nested/1")).status_code == 200
            assert (await client.get("/v1/nested/1", headers={"x-api-key": "whatever"})).status_code == 200
    assert [each["event"] for each in logs if each["log_level"] == "warning"] == ["no_api_keys"]


async def test_the_openapi_document_says_which_scope_an_operation_needs(file: Path):
    write_keys(file, {})
    documents = []
    for keys in (file, None):
        async with client_of(build(keys)) as client:
            documents.append((await client.get("/openapi.json")).json())
    locked, open_to_all = documents
    assert locked["components"]["securitySchemes"].keys() == {"ApiKey", "Bearer"}
    nested = locked["paths"]["/v1/nested/{number}"]
    assert nested["get"]["security"] == [{"ApiKey": ["read"]}, {"Bearer": ["read"]}]
    assert nested["delete"]["security"] == [{"ApiKey": ["erase"]}, {"Bearer": ["erase"]}]
    assert {"401", "403"} <= nested["get"]["responses"].keys()
    assert locked["paths"]["/v1/large"]["post"]["security"] == [{"ApiKey": []}, {"Bearer": []}]
    assert "securitySchemes" not in open_to_all["components"]
    assert all("security" not in each for path in open_to_all["paths"].values() for each in path.values())


def test_a_key_is_compared_with_all_keys_wherever_it_stands(file: Path, monkeypatch: pytest.MonkeyPatch):
    keys = write_keys(file, *({} for _ in range(20)))
    known = opened(file)
    compared: list[bool] = []
    original = api_keys.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(original(one, other))
        return compared[-1]

    monkeypatch.setattr(api_keys, "compare_digest", counted)
    for presented in (keys[0], keys[10], keys[19], "clv_nobody"):
        compared.clear()
        known.find(presented.encode())
        assert len(compared) == 20
        assert sum(compared) == (presented in keys)


def test_a_key_opens_until_it_expires(file: Path):
    (key,) = write_keys(file, {"expires_at": NOW + timedelta(days=1)})
    assert opened(file, NOW + timedelta(hours=23, minutes=59)).find(key.encode()) is not None
    assert opened(file, NOW + timedelta(days=1)).find(key.encode()) is None


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch):
    """Moves the clock by which the file is looked at."""
    now = [1000.0]
    monkeypatch.setattr(api_keys.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_the_file_is_read_again_when_it_changes(file: Path, passing):
    (old,) = write_keys(file, {})
    known = opened(file)
    (new,) = write_keys(file, {})
    passing(1.0)
    assert known.find(new.encode()) is not None
    assert known.find(old.encode()) is None


def test_the_file_is_looked_at_once_a_second_however_many_requests_come(
    file: Path, passing, monkeypatch: pytest.MonkeyPatch
):
    (key,) = write_keys(file, {})
    known, looked = opened(file), []
    original = ApiKeys._version
    monkeypatch.setattr(ApiKeys, "_version", lambda self: looked.append(1) or original(self))
    for _ in range(1000):
        passing(0.0051)
        assert known.find(key.encode())
    assert 4 <= len(looked) <= 6


@pytest.mark.parametrize("broken", ["{", '{"id": "abcd"}', "", "\n\n", None, b"\xff"])
def test_a_broken_file_leaves_the_keys_that_were_read_last_and_is_told_once(file: Path, passing, broken):
    (key,) = write_keys(file, {})
    known = opened(file)
    if broken is None:
        file.unlink()
    else:
        file.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    with capture_logs() as logs:
        for _ in range(5):
            passing(1.5)
            assert known.find(key.encode()) is not None
    assert [each["event"] for each in logs] == ["keys_file_unusable"]
    (later,) = write_keys(file, {})
    passing(1.5)
    assert known.find(later.encode()) is not None
    assert known.find(key.encode()) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "holds no key"),
        ("{", "line 1"),
        ('\n{"id": "abcd"}', "line 2"),
        (None, "No such file"),
    ],
)
def test_at_start_a_file_that_cannot_be_used_is_fatal_in_one_line(file: Path, text: str | None, part: str):
    if text is not None:
        file.write_text(text)
    with pytest.raises(KnownProblem) as raised:
        ApiKeys.from_file(file)
    assert part in str(raised.value)
    assert str(raised.value).startswith(f"CLV_HTTP_KEYS_FILE={file}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o604, True), (0o644, True)])
def test_a_file_that_everybody_may_read_is_warned_about(file: Path, mode: int, warned: bool):
    write_keys(file, {})
    file.chmod(mode)
    with capture_logs() as logs:
        ApiKeys.from_file(file)
    assert [each["event"] for each in logs] == (["keys_file_is_readable_by_all"] if warned else [])


def test_a_key_carries_32_random_bytes_and_the_file_only_its_hash():
    made = [new_key("shop", [Scope.READ], NOW) for _ in range(50)]
    for key, record in made:
        assert re.fullmatch(rf"clv_{record.id}_[0-9a-f]{{64}}", key)
        text = encode_keys([record])
        assert key not in text
        assert key.rpartition("_")[2] not in text
        assert parse_keys(text) == [record]
    assert len({key for key, _ in made}) == 50


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "00"},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"created_at": "2026-05-04T12:00:00"},
        {"expires_at": "2026-05-04T12:00:00Z"},
        {"requests_per_second": 0},
        {"secret": "x"},
        {"name": ""},
    ],
)
def test_a_record_that_cannot_be_meant_is_refused_without_repeating_it(changes: dict):
    _, record = new_key("shop", [Scope.READ], NOW)
    line = json.dumps(record.model_dump(mode="json", exclude_none=True) | changes)
    with pytest.raises(KeyFileError) as raised:
        parse_keys(line)
    assert record.sha256 not in str(raised.value)


def test_an_id_or_a_hash_may_be_there_once():
    _, record = new_key("shop", [Scope.READ], NOW)
    for again in (record, record.model_copy(update={"id": "other"})):
        with pytest.raises(KeyFileError, match=r"line 2.*twice"):
            parse_keys(encode_keys([record, again]))
