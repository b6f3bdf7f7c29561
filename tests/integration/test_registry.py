"""The registry against a real MongoDB: one champion whatever happens, bundles that come back as they went in."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from pymongo import MongoClient

from deploy.local.folders import free_ports
from deploy.local.mongo import LocalMongo
from schemas.models import BUNDLES, MODEL_POINTER, MODELS, Status
from services.runtime.bundle import challenger_bundle, current_bundle, point_to, read_metadata
from services.runtime.registry import Registry, RegistryAway, mirror, with_registry
from services.runtime.shutdown import KnownProblem
from tests.bundles import graph, write_bundle

pytestmark = pytest.mark.integration
Run = Callable[[Callable[[Registry], Awaitable[Any]]], Any]


@pytest.fixture
def run(mongo: LocalMongo, mongo_database: str) -> Run:
    return lambda work: asyncio.run(with_registry(mongo.uri, mongo_database, work))


@pytest.fixture
def raw(mongo: LocalMongo, mongo_database: str):
    with MongoClient(mongo.uri) as client:
        yield client[mongo_database]


@pytest.fixture
def bundles(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "trained"
    made = [folder / write_bundle(folder, graph(scale=scale), cutoff="2026-01-01") for scale in (1.0, 2.0, 3.0)]
    (made[0] / "plots").mkdir()
    (made[0] / "plots" / "lift.png").write_bytes(os.urandom(3_000_000))
    return made


async def _register(registry: Registry, bundles: list[Path]) -> list[str]:
    return [(await registry.register(each, "ann"))[0].version for each in bundles]


def test_a_bundle_comes_back_byte_for_byte_wherever_it_is_fetched(run: Run, bundles: list[Path], tmp_path: Path):
    async def work(registry: Registry):
        (version,) = await _register(registry, bundles[:1])
        await asyncio.gather(*(registry.fetch(version, tmp_path / "cache") for _ in range(4)))
        return version

    fetched = tmp_path / "cache" / run(work)

    def content(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert content(fetched) == content(bundles[0])
    assert [path.name for path in fetched.parent.iterdir()] == [fetched.name], "nothing half-fetched is left"


def test_registering_again_changes_nothing_and_leaves_no_files_behind(run: Run, bundles: list[Path], raw):
    async def work(registry: Registry):
        return await asyncio.gather(*(registry.register(bundles[0], f"p{number}") for number in range(5)))

    found = run(work)
    assert sum(new for _, new in found) == 1
    (document,) = raw[MODELS].find()
    run(lambda registry: registry.register(bundles[0], "again"))
    assert raw[MODELS].find_one() == document
    kept = {ObjectId(file["gridfs_id"]) for file in document["files"]}
    assert kept <= {each["_id"] for each in raw[f"{BUNDLES}.files"].find()}
    assert len(document["files"]) == 3


def test_what_an_interrupted_registration_left_goes_with_the_next(run: Run, bundles: list[Path], raw):
    raw[f"{BUNDLES}.files"].insert_one(
        {"filename": "x", "length": 0, "chunkSize": 1, "metadata": {"model": bundles[0].name}}
    )
    run(lambda registry: registry.register(bundles[0], "ann"))
    assert raw[f"{BUNDLES}.files"].count_documents({}) == 3


def test_a_changed_bundle_is_neither_registered_nor_fetched(run: Run, bundles: list[Path], tmp_path: Path, raw):
    run(lambda registry: _register(registry, bundles[:1]))
    with (bundles[1] / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(KnownProblem, match="its content is"):
        run(lambda registry: registry.register(bundles[1], "ann"))
    chunk = raw[f"{BUNDLES}.chunks"].find_one()
    raw[f"{BUNDLES}.chunks"].update_one(
        {"_id": chunk["_id"]}, {"$set": {"data": bytes([chunk["data"][0] ^ 1]) + chunk["data"][1:]}}
    )
    with pytest.raises(KnownProblem, match="not what was registered"):
        run(lambda registry: registry.fetch(bundles[0].name, tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("*")) == []


def test_a_file_name_cannot_lead_out_of_the_bundle(run: Run, bundles: list[Path], tmp_path: Path, raw):
    run(lambda registry: _register(registry, bundles[:1]))
    raw[MODELS].update_one({}, {"$set": {"files.0.name": "../../escaped"}})
    with pytest.raises(KnownProblem, match="no place in a bundle"):
        run(lambda registry: registry.fetch(bundles[0].name, tmp_path / "cache" / "deep"))
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "cache" / "escaped").exists()


def test_promotion_trial_and_rollback_are_told_by_pointer_documents_and_history(run: Run, bundles: list[Path]):
    async def work(registry: Registry):
        one, two, three = await _register(registry, bundles)
        await registry.promote(one, "ann", "the first")
        await registry.challenge(two, "ann")
        await registry.promote(two, "bob", "better")
        await registry.challenge(three, "bob")
        await registry.rollback("eve", "it was not")
        return one, two, three, await registry.pointer(), {each.version: each for each in await registry.models()}

    one, two, three, pointer, models = run(work)
    assert (pointer.champion, pointer.challenger, pointer.former, pointer.revision) == (one, three, (), 5)
    told = {name: [(each.was, each.now, each.by, each.why) for each in models[name].history] for name in models}
    assert told[one] == [
        (None, Status.REGISTERED, "ann", ""),
        (Status.REGISTERED, Status.CHAMPION, "ann", "the first"),
        (Status.CHAMPION, Status.ARCHIVED, "bob", "better"),
        (Status.ARCHIVED, Status.CHAMPION, "eve", "it was not"),
    ]
    assert [each[:3] for each in told[two]][1:] == [
        (Status.REGISTERED, Status.CHALLENGER, "ann"),
        (Status.CHALLENGER, Status.CHAMPION, "bob"),
        (Status.CHAMPION, Status.ARCHIVED, "eve"),
    ]
    assert {name: models[name].status for name in models} == {
        one: Status.CHAMPION,
        two: Status.ARCHIVED,
        three: Status.CHALLENGER,
    }
    assert models[one].promoted_at == models[one].history[-1].at
    assert (models[one].cutoff, models[one].horizon_days, models[one].currency) == ("2026-01-01", 90, "USD")


def test_of_many_who_promote_at_once_one_succeeds_and_one_is_champion(run: Run, bundles: list[Path], raw):
    async def work(registry: Registry):
        one, two, three = await _register(registry, bundles)
        for _ in range(3):
            seen = await registry.pointer()
            wanted = [each for each in (one, two, three) if each != seen.champion] * 4
            done = await asyncio.gather(
                *(registry.promote(each, f"p{at}", revision=seen.revision) for at, each in enumerate(wanted)),
                return_exceptions=True,
            )
            failed = [each for each in done if isinstance(each, BaseException)]
            assert len(failed) == len(done) - 1
            assert {str(each)[:16] for each in failed} == {"somebody else ha"}, failed
            after = await registry.pointer()
            assert after.revision == seen.revision + 1
            assert raw[MODELS].count_documents({"status": "champion"}) == 1
            assert raw[MODELS].find_one({"status": "champion"})["_id"] == after.champion

    run(work)


def test_moves_that_do_not_say_what_they_saw_are_all_made_one_after_another(run: Run, bundles: list[Path], raw):
    async def work(registry: Registry):
        one, two, _ = await _register(registry, bundles)
        done = await asyncio.gather(
            *(registry.promote((one, two)[at % 2], str(at)) for at in range(10)), return_exceptions=True
        )
        return await registry.pointer(), sum(not isinstance(each, BaseException) for each in done)

    pointer, succeeded = run(work)
    assert pointer.revision == succeeded >= 1, "a move to the champion itself is refused, any other is made"
    statuses = Counter(each["status"] for each in raw[MODELS].find())
    assert statuses["champion"] == 1
    steps = sum(each["now"] == "champion" for model in raw[MODELS].find() for each in model["history"])
    assert steps == succeeded


def test_a_move_to_an_unknown_model_changes_nothing(run: Run, bundles: list[Path], raw):
    async def work(registry: Registry):
        (one,) = await _register(registry, bundles[:1])
        await registry.promote(one, "ann")
        before = raw[MODEL_POINTER].find_one()
        for move in (registry.promote, registry.challenge):
            with pytest.raises(KnownProblem, match="no model in the registry is 'nobody'"):
                await move("nobody", "ann")
        with pytest.raises(KnownProblem, match="no former champion"):
            await registry.rollback("ann")
        with pytest.raises(KnownProblem, match="champion already"):
            await registry.promote(one, "ann")
        assert raw[MODEL_POINTER].find_one() == before

    run(work)


def test_a_model_may_be_named_by_its_beginning_if_that_is_clear(run: Run, bundles: list[Path]):
    async def work(registry: Registry):
        one, *_ = await _register(registry, bundles)
        assert (await registry.model(one[:9])).version == one
        for unclear in ("", "zz", "."):
            with pytest.raises(KnownProblem, match="clv models list"):
                await registry.model(unclear)

    run(work)


def test_a_mirrored_folder_says_what_the_registry_says(run: Run, bundles: list[Path], tmp_path: Path):
    folder = tmp_path / "cache"

    async def work(registry: Registry):
        assert (await mirror(registry, folder)).champion is None
        one, two, _ = await _register(registry, bundles)
        await registry.promote(one, "ann")
        await registry.challenge(two, "ann")
        await mirror(registry, folder)
        assert (current_bundle(folder).name, current_bundle(folder, "champion").name) == (one, one)
        assert challenger_bundle(folder).name == two
        point_to(folder, two)  # somebody trained into the same folder
        await registry.challenge(None, "ann")
        await mirror(registry, folder)
        assert (current_bundle(folder).name, challenger_bundle(folder)) == (one, None)
        assert read_metadata(current_bundle(folder))["model_version"] == one

    run(work)


def test_a_registry_that_is_away_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.runtime.registry.SELECTION_SECONDS", 0.3)
    (port,) = free_ports(1)
    uri = f"mongodb://user:secret@127.0.0.1:{port}/?replicaSet=clv"
    with pytest.raises(RegistryAway, match="does not answer") as problem:
        asyncio.run(with_registry(uri, "clv", lambda registry: mirror(registry, tmp_path)))
    assert "secret" not in str(problem.value)
