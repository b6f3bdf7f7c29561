"""What a run came to, as a table for people and as JSON."""

from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.chaos.findings import Wrong
from cli.chaos.run import Outcome, kinds_of


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything of a run that can be compared with another one's."""
    options, findings = outcome.options, outcome.findings
    kinds = kinds_of(outcome.survived)
    every = [each.recovery_seconds for each in outcome.survived]
    return {
        "seconds": options.seconds,
        "seed": options.seed,
        "brokers": options.brokers,
        "events_per_second": options.events_per_second,
        "events_accepted": outcome.events_accepted,
        "deliveries": outcome.deliveries,
        **{wrong.value: findings.counts[wrong] for wrong in Wrong},
        "examples": {wrong.value: found for wrong, found in findings.examples.items()},
        "compared": dict(findings.compared),
        "faults": len(outcome.survived),
        "recovery_seconds": _summary(every),
        "faults_by_kind": {
            kind.value: {"survived": len(found), "recovery_seconds": _summary(found)} for kind, found in kinds.items()
        },
        "hazards": dict(outcome.hazards),
        "processes_killed": dict(outcome.killed),
        "processes_ended_by_themselves": dict(outcome.ended),
        "seconds_by_phase": outcome.seconds,
        "schedule": [
            {
                "at_seconds": fault.at_seconds,
                "kind": fault.kind.value,
                "targets": list(fault.targets),
                "seconds": fault.seconds,
                "recovery_seconds": seconds,
            }
            for fault, seconds in outcome.survived
        ],
    }


def _summary(seconds: list[float]) -> dict[str, float] | None:
    return {"median": round(median(seconds), 2), "max": max(seconds)} if seconds else None


def show(outcome: Outcome, console: Console) -> None:
    """Faults by kind, and what the comparison found."""
    table = Table(box=None, padding=(0, 2))
    for heading in ("fault", "survived", "recovery median", "max"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for kind, found in kinds_of(outcome.survived).items():
        table.add_row(kind.value, str(len(found)), f"{median(found):.1f} s", f"{max(found):.1f} s")
    every = [each.recovery_seconds for each in outcome.survived]
    if every:
        table.add_row("[bold]all", f"[bold]{len(every)}", f"[bold]{median(every):.1f} s", f"[bold]{max(every):.1f} s")
    console.print(table)
    for title, numbers in (
        ("met", outcome.hazards),
        ("ended by themselves and started again", outcome.ended),
        ("compared", outcome.findings.compared),
    ):
        console.print(
            f"{title}: {', '.join(f'{name} {count:,}' for name, count in numbers.items()) or 'none'}", soft_wrap=True
        )
    console.print(f"accepted: {outcome.events_accepted:,} events in {outcome.deliveries:,} deliveries")
    for wrong in Wrong:
        number = outcome.findings.counts[wrong]
        console.print(f"{wrong.value:<15} [{'red' if number else 'green'}]{number}[/]")
        for example in outcome.findings.examples.get(wrong, [])[:5]:
            console.print(f"  {example}", markup=False, highlight=False, soft_wrap=True)
