"""The fault harness against the real product, and against a product with a guard taken out: it must be able to fail."""

import sys
from pathlib import Path

import pytest

from cli.chaos.faults import WORKERS, Fault, Kind
from cli.chaos.findings import Wrong
from cli.chaos.load import Shape
from cli.chaos.report import as_json
from cli.chaos.run import Options, Outcome, run

pytestmark = pytest.mark.e2e

SMALL = Shape(customers=300, wholesale=2, wholesale_orders=1150)


def harness(models: Path, folder: Path, options: Options) -> Outcome:
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    outcome = run(options, models, folder, said.append)
    print(*said, as_json(outcome), sep="\n")
    return outcome


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_counted_twice_under_eight_faults(cdnow_models: Path, tmp_path: Path):
    kinds = (
        Kind.KILL_TWO, Kind.KILL_MID_CHUNK, Kind.PAUSE_MID_CHUNK, Kind.BROKER_RESTART, Kind.MONGO_RESTART,
        Kind.MONGO_STEP_DOWN, Kind.REBALANCE_MID_CHUNK, Kind.STATE_DELETED,
    )  # fmt: skip
    targets = {
        Kind.KILL_TWO: ("ingest", "scorer"),
        Kind.KILL_MID_CHUNK: (WORKERS[0],),
        Kind.PAUSE_MID_CHUNK: (WORKERS[1],),
        Kind.BROKER_RESTART: ("kafka-1",),
        Kind.STATE_DELETED: (WORKERS[0],),
    }
    seconds = {Kind.PAUSE_MID_CHUNK: 14.0, Kind.MONGO_STEP_DOWN: 3.0}
    faults = [
        Fault(number, 1.0 + 3 * number, kind, targets.get(kind, ("mongo",)), seconds.get(kind, 0.0), 0.1)
        for number, kind in enumerate(kinds)
    ]
    settings = {"CLV_FEATURES_COMMIT_SECONDS": "8"}  # so that faults fall between a write and its commit
    for seed in (1, 2):  # on a slow machine they may not all the same: such a run proves little
        options = Options(seconds=27, seed=seed, shape=SMALL, burst_events=4000, faults=faults, settings=settings)
        outcome = harness(cdnow_models, tmp_path / str(seed), options)
        assert outcome.findings.clean, outcome.findings.examples
        assert len(outcome.survived) == len(kinds)
        if outcome.hazards["replayed_records"]:
            break
    assert outcome.hazards["replayed_records"] > 0, "nothing was delivered again: the faults did not bite"
    compared = outcome.findings.compared
    assert compared["accepted_events"] > 10_000
    assert min(compared["states"], compared["predictions"], compared["customer_documents"]) > 250


@pytest.mark.long
def test_workers_killed_before_their_first_commit_count_nothing_twice(cdnow_models: Path, tmp_path: Path):
    settings = {"CLV_FEATURES_COMMIT_SECONDS": "15"}
    for at in (3.0, 6.0):  # on a slow machine they may not have written anything by then: such a run proves little
        faults = [Fault(number, at, Kind.KILL_FEATURES, (worker,)) for number, worker in enumerate(WORKERS)]
        options = Options(seconds=at + 3, seed=1, shape=SMALL, faults=faults, settings=settings)
        outcome = harness(cdnow_models, tmp_path / str(at), options)
        assert outcome.findings.clean, outcome.findings.examples
        if outcome.hazards["replayed_records"]:
            break
    assert outcome.hazards["replayed_records"] > 0, "nothing was delivered again: the kills did not bite"


def sabotaged(sabotage: str, settings: dict[str, str], kills: list[tuple[float, float]]) -> Options:
    """Workers in turn are killed in the middle of chunks. kills: seconds of the run, and after a first chunk."""
    return Options(
        seconds=kills[-1][0] + 4,
        seed=1,
        shape=SMALL,
        burst_events=5000,
        commands={"features": (sys.executable, "-m", "tests.chaos.sabotaged_features", sabotage)},
        settings=settings,
        faults=[
            Fault(number, at, Kind.KILL_MID_CHUNK, (WORKERS[number % 2],), seconds_in=moment)
            for number, (at, moment) in enumerate(kills)
        ],
    )


@pytest.mark.long
def test_a_worker_without_its_replay_guard_is_found_to_count_twice(cdnow_models: Path, tmp_path: Path):
    options = sabotaged("--replay-guard-off", {"CLV_FEATURES_COMMIT_SECONDS": "30"}, [(1.0, 0.2), (1.0, 0.3)])
    findings = harness(cdnow_models, tmp_path, options).findings
    assert findings.counts[Wrong.DOUBLE_COUNTED] > 0
    assert findings.counts[Wrong.LOST] == 0


@pytest.mark.long
def test_a_worker_that_commits_early_is_found_to_lose_events(cdnow_models: Path, tmp_path: Path):
    early = {"CLV_FEATURES_COMMIT_SECONDS": "0.02", "CLV_FEATURES_CHUNK_RECORDS": "10000"}
    kills = [(1.0, 0.7), (1.0, 1.0), (9.0, 0.7), (9.0, 1.0)]  # a chunk takes two seconds there
    findings = harness(cdnow_models, tmp_path, sabotaged("--offsets-early", early, kills)).findings
    assert findings.counts[Wrong.LOST] > 0
