"""What a person sees of long work, and what a file or a pipe does not."""

from io import StringIO

import pytest
from rich.console import Console

from cli.progress import ProgressBars


def lines(screen: StringIO) -> list[str]:
    """What is left on the screen, of which only the last line is ever written anew."""
    return [line.rpartition("\x1b[2K")[2] for line in screen.getvalue().split("\n")]


def shown(*, terminal: bool, fails: bool = False) -> list[str]:
    """What is left on the screen when two pieces of work were done, one of them counted."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100, color_system=None)
    try:
        with ProgressBars(console) as progress:
            progress("rows read", 10, 40)
            progress("rows read", 40, 40)
            progress("purchase models")
            if fails:
                raise OSError
    except OSError:
        pass
    return lines(screen)


def test_counted_work_shows_how_much_and_the_other_that_it_is_done() -> None:
    counted, other, *_ = shown(terminal=True)
    assert counted.startswith("✓ rows read")
    assert "40/40" in counted
    assert other.startswith("✓ purchase models")


def test_work_that_failed_is_not_shown_as_done() -> None:
    counted, other, *_ = shown(terminal=True, fails=True)
    assert counted.startswith("✓ rows read")
    assert "purchase models" in other
    assert "✓" not in other


def test_a_pipe_gets_nothing() -> None:
    assert "".join(shown(terminal=False)).strip() == ""


@pytest.mark.parametrize("totals", [(100, 120), (100, 90)])
def test_an_estimate_may_change_on_the_way(totals: tuple[int, int]) -> None:
    screen = StringIO()
    with ProgressBars(Console(file=screen, force_terminal=True, width=100)) as progress:
        for done, total in zip((50, totals[1]), totals, strict=True):
            progress("rows read", done, total)
    assert f"{totals[1]}/{totals[1]}" in lines(screen)[0]


def test_a_low_screen_shows_the_work_that_runs() -> None:
    screen = StringIO()
    with ProgressBars(Console(file=screen, force_terminal=True, width=100, height=5, color_system=None)) as progress:
        for number in range(9):
            progress(f"customers as of day {number}", 1, 2)
        assert "customers as of day 8" in lines(screen)[-1]
