"""Metrics: declared once, registered at first use, refused when used as what they are not."""

import pytest
from prometheus_client import REGISTRY, generate_latest

from services.runtime.telemetry import METRICS, Metric


def sample(name: str, labels: dict[str, str] | None = None) -> float | None:
    return REGISTRY.get_sample_value(name, labels or {})


def test_no_name_is_declared_twice():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


def test_a_metric_appears_once_it_is_used():
    metric = Metric("gauge", "all", "clv_test_unused_then_used", "1", "Test.")
    assert b"clv_test_unused_then_used" not in generate_latest()
    metric.set(2)
    assert sample("clv_test_unused_then_used") == 2


def test_a_counter_counts_by_its_labels():
    metric = Metric("counter", "all", "clv_test_things_total", "things", "Test.", ("colour",))
    metric.inc(colour="red")
    metric.inc(2, colour="red")
    metric.inc(5, colour="blue")
    assert sample("clv_test_things_total", {"colour": "red"}) == 3
    assert sample("clv_test_things_total", {"colour": "blue"}) == 5


def test_a_gauge_is_set_and_moved():
    metric = Metric("gauge", "all", "clv_test_level", "1", "Test.", ("where",))
    metric.set(4, where="here")
    metric.inc(-1.5, where="here")
    assert sample("clv_test_level", {"where": "here"}) == 2.5


def test_a_histogram_counts_into_its_own_buckets():
    metric = Metric("histogram", "all", "clv_test_wait_seconds", "seconds", "Test.", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.5, 5.0):
        metric.observe(seconds)
    counts = [sample("clv_test_wait_seconds_bucket", {"le": bound}) for bound in ("0.1", "1.0", "+Inf")]
    assert counts == [1, 2, 3]
    assert sample("clv_test_wait_seconds_sum") == pytest.approx(5.55)


@pytest.mark.parametrize("labels", [{}, {"color": "red"}, {"colour": "red", "size": "1"}])
def test_labels_other_than_the_declared_ones_are_refused(labels: dict[str, str]):
    metric = Metric("counter", "all", f"clv_test_{len(labels)}_{'_'.join(labels)}_total", "1", "Test.", ("colour",))
    with pytest.raises((ValueError, AttributeError)):
        metric.inc(**labels)


@pytest.mark.parametrize(("kind", "call"), [("counter", "set"), ("histogram", "set"), ("gauge", "observe")])
def test_a_metric_is_used_only_as_its_kind(kind, call: str):
    metric = Metric(kind, "all", f"clv_test_{kind}_{call}", "1", "Test.")
    with pytest.raises(AssertionError, match="clv_test"):
        getattr(metric, call)(1.0)
