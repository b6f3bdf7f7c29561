"""What is told of a run."""

import io
import json
from collections import Counter

from rich.console import Console

from cli.chaos.faults import Fault, Kind
from cli.chaos.findings import EXAMPLES_MAX, Findings, Wrong
from cli.chaos.load import Shape, shape_for
from cli.chaos.report import as_json, show
from cli.chaos.run import Options, Outcome, Survived


def outcome(findings: Findings) -> Outcome:
    survived = [
        Survived(Fault(0, 3.0, Kind.KILL_SINK, ("sink",)), 2.0),
        Survived(Fault(1, 9.0, Kind.KILL_SINK, ("sink",)), 8.0),
        Survived(Fault(2, 12.0, Kind.PAUSE_SCORER, ("scorer",), 16.0), 17.5),
    ]
    killed = Counter(sink=2)
    return Outcome(Options(60.0, 7), findings, survived, Counter(), killed, Counter(), 100, 104, {"faults": 60.0})


def test_median_and_longest_recovery_are_told_by_kind_of_fault():
    told = json.loads(json.dumps(as_json(outcome(Findings()))))
    assert told["faults"] == 3
    assert told["faults_by_kind"] == {
        "kill_sink": {"survived": 2, "recovery_seconds": {"median": 5.0, "max": 8.0}},
        "pause_scorer": {"survived": 1, "recovery_seconds": {"median": 17.5, "max": 17.5}},
    }
    assert told["recovery_seconds"] == {"median": 8.0, "max": 17.5}
    assert [told[wrong] for wrong in ("lost", "double_counted", "stale", "mismatches")] == [0, 0, 0, 0]
    assert told["schedule"][2]["targets"] == ["scorer"]


def test_what_is_wrong_is_counted_in_full_and_shown_with_its_first_examples():
    findings = Findings()
    for number in range(EXAMPLES_MAX + 5):
        findings.add(Wrong.LOST, f"event [{number}]", count=2)
    assert not findings.clean
    assert findings.counts[Wrong.LOST] == 2 * (EXAMPLES_MAX + 5)
    assert len(findings.examples[Wrong.LOST]) == EXAMPLES_MAX
    text = io.StringIO()
    show(outcome(findings), Console(file=text, width=120))
    assert "event [0]" in text.getvalue()
    assert "kill_sink" in text.getvalue()


def test_a_longer_run_has_more_customers_so_that_none_of_them_has_orders_folded():
    assert shape_for(3) == Shape()
    assert shape_for(60).customers == 6000
