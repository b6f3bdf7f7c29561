"""The population against a dictionary that keeps everything, and rebuilding it from the predictions in order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.segments import ASCENDING, Segment
from services.scorer.population import Last, Population

names = st.sampled_from([f"c{number}" for number in range(6)])
segments = st.sampled_from([each.value for each in ASCENDING])
records = st.tuples(
    names,
    st.integers(0, 5),
    st.none() | st.floats(0, 100),
    segments,
    st.none() | segments,
    st.sampled_from(["m1", "m2"]),
)
steps = st.lists(st.one_of(records, names), max_size=60)


def fill(population: Population, history: list) -> None:
    for step in history:
        if isinstance(step, str):
            population.forget(step)
        else:
            name, version, value, segment, previous, model = step
            population.record(
                name,
                feature_version=version,
                expected_value=value,
                segment=segment,
                previous_segment=previous,
                model_version=model,
                features_offset=10 * version,
            )


@given(steps)
def test_it_holds_the_newest_of_each_customer(history: list) -> None:
    population, naive = Population(), {}
    fill(population, history)
    for step in history:
        if isinstance(step, str):
            naive.pop(step, None)
        elif step[0] not in naive or step[1] >= naive[step[0]][1]:
            naive[step[0]] = step
    assert len(population) == len(naive)
    for name in [f"c{number}" for number in range(6)]:
        expected = None
        if name in naive:
            _, version, _, segment, previous, _ = naive[name]
            expected = Last(version, Segment(segment), None if previous is None else Segment(previous), 10 * version)
        assert population.last(name) == expected
    for model in ("m1", "m2", "unseen"):
        values = sorted(step[2] for step in naive.values() if step[5] == model and step[2] is not None)
        assert sorted(population.values(model).tolist()) == values
    assert population.buyers == sum(step[2] is not None for step in naive.values())


@given(st.lists(records, max_size=40), st.integers(0, 40))
def test_reading_the_end_of_the_log_again_changes_nothing(log: list, again_from: int) -> None:
    once, twice = Population(), Population()
    fill(once, log)
    fill(twice, log)
    fill(twice, log[again_from:])
    for name in {step[0] for step in log}:
        assert once.last(name) == twice.last(name)
    for model in ("m1", "m2"):
        assert sorted(once.values(model)) == sorted(twice.values(model))


def test_it_grows_and_reuses_the_rows_of_the_forgotten() -> None:
    population = Population()
    everyone = [(f"c{number}", 1, float(number), "at_risk", None, "m") for number in range(5000)]
    fill(population, everyone)
    fill(population, [f"c{number}" for number in range(0, 5000, 2)])
    fill(population, [(f"n{number}", 1, 0.5, "at_risk", None, "m") for number in range(2500)])
    assert len(population) == 5000
    expected = [float(number) for number in range(1, 5000, 2)] + [0.5] * 2500
    np.testing.assert_array_equal(np.sort(population.values("m")), np.sort(expected))


def test_changes_tell_whether_anything_happened() -> None:
    population = Population()
    fill(population, [("a", 2, 1.0, "at_risk", None, "m")])
    before = population.changes
    fill(population, [("a", 1, 9.0, "high_value", None, "m"), "nobody"])
    assert population.changes == before
    assert population.values("m").tolist() == [1.0]
