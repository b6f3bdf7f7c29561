"""The registry pointer and the shared part of a model bundle: whole or a clear problem, never half."""

import threading
from pathlib import Path

import msgspec
import pytest

from domain.features import FEATURE_NAMES
from domain.rfm_scores import Quintiles
from services.runtime.bundle import (
    CHALLENGER_POINTER,
    METADATA,
    POINTER,
    BundleHead,
    challenger_bundle,
    current_bundle,
    point_to,
    read_head,
    read_metadata,
)
from services.runtime.shutdown import KnownProblem
from tests.bundles import write_bundle

HEAD = BundleHead(
    model_version="abc",
    horizon_days=90,
    currency="USD",
    feature_names=list(FEATURE_NAMES),
    quintiles=Quintiles((1.0, 2.0, 3.0, 4.0), (0.0, 1.0, 2.0, 3.0), (10.0, 20.0, 30.0, 40.0)),
    segment_thresholds=(1.0, 2.0, 3.0),
)


def a_bundle(models: Path, name: str, content: bytes | None = None) -> Path:
    (models / name).mkdir()
    (models / name / METADATA).write_bytes(msgspec.json.encode(HEAD) if content is None else content)
    return models / name


def test_a_folder_without_a_pointer_says_how_to_get_a_model(tmp_path: Path):
    with pytest.raises(KnownProblem, match=r"no model in .*clv train"):
        current_bundle(tmp_path)


def test_a_folder_that_does_not_exist_says_the_same(tmp_path: Path):
    with pytest.raises(KnownProblem, match="no model in"):
        current_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize("pointed", ["gone", "", "."])
def test_a_pointer_to_no_bundle_is_a_clear_problem(tmp_path: Path, pointed: str):
    (tmp_path / POINTER).write_text(pointed + "\n")
    with pytest.raises(KnownProblem, match="no model bundle"):
        current_bundle(tmp_path)


def test_the_bundle_pointed_to_is_found_and_read(tmp_path: Path):
    a_bundle(tmp_path, "first")
    second = a_bundle(tmp_path, "second")
    point_to(tmp_path, "first")
    point_to(tmp_path, "second")
    assert current_bundle(tmp_path) == second
    assert read_head(second) == HEAD
    assert sorted(path.name for path in tmp_path.iterdir()) == [POINTER, "first", "second"]


def test_fields_that_other_services_put_into_the_metadata_are_passed_over(tmp_path: Path):
    content = msgspec.json.decode(msgspec.json.encode(HEAD)) | {"metrics": {"mae": 1.0}}
    assert read_head(a_bundle(tmp_path, "b", msgspec.json.encode(content))) == HEAD


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"model_version": 1}', b"\xff"])
def test_metadata_that_cannot_be_read_is_a_clear_problem(tmp_path: Path, content: bytes):
    with pytest.raises(KnownProblem, match="cannot be read as a model bundle"):
        read_head(a_bundle(tmp_path, "b", content))


def test_missing_metadata_is_a_clear_problem(tmp_path: Path):
    with pytest.raises(KnownProblem, match="cannot be read as a model bundle"):
        read_head(tmp_path)


def test_a_reader_sees_the_old_or_the_new_bundle_while_the_pointer_moves(tmp_path: Path):
    bundles = {a_bundle(tmp_path, name) for name in ("first", "second")}
    point_to(tmp_path, "first")
    done = threading.Event()

    def move() -> None:
        for turn in range(300):
            point_to(tmp_path, ("first", "second")[turn % 2])
        done.set()

    mover = threading.Thread(target=move)
    mover.start()
    seen = set()
    while not done.is_set():
        seen.add(current_bundle(tmp_path))
    mover.join()
    assert seen <= bundles


def test_many_may_move_the_pointer_at_once(tmp_path: Path):
    bundles = {a_bundle(tmp_path, name) for name in ("first", "second")}
    problems: list[Exception] = []

    def move(name: str) -> None:
        try:
            for _ in range(100):
                point_to(tmp_path, name)
        except OSError as problem:
            problems.append(problem)

    movers = [threading.Thread(target=move, args=(name,)) for name in ("first", "second") * 3]
    for mover in movers:
        mover.start()
    for mover in movers:
        mover.join()
    assert problems == []
    assert current_bundle(tmp_path) in bundles
    assert sorted(path.name for path in tmp_path.iterdir()) == [POINTER, "first", "second"]


def test_a_challenger_is_named_or_there_is_none(tmp_path: Path):
    assert challenger_bundle(tmp_path) is None
    point_to(tmp_path, "", CHALLENGER_POINTER)
    assert challenger_bundle(tmp_path) is None
    second = a_bundle(tmp_path, "second")
    point_to(tmp_path, "second", CHALLENGER_POINTER)
    assert challenger_bundle(tmp_path) == second
    point_to(tmp_path, "third", CHALLENGER_POINTER)
    with pytest.raises(KnownProblem, match="which is no model bundle"):
        challenger_bundle(tmp_path)


def test_metadata_is_read_only_from_a_bundle_whose_content_is_its_version(tmp_path: Path):
    folder = tmp_path / write_bundle(tmp_path)
    assert read_metadata(folder)["model_version"] == folder.name
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(KnownProblem, match="its content is"):
        read_metadata(folder)
    (folder / "model.onnx").unlink()
    with pytest.raises(KnownProblem, match="cannot be read as a model bundle"):
        read_metadata(folder)
