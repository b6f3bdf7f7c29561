"""Progress bars of long work, on standard error, so that what a command prints stays what it found."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column


class ProgressBars:
    """A services.trainer.progress.Progress for a person: a bar where it is known how much there is, else a line.

    Each piece of work is taken for done when the next one begins, and moves up out of the way: a screen of any height
    shows the one that runs. Nothing is shown where standard error is no terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        """console: standard error if left out."""
        console = console or Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}", table_column=Column(min_width=28)),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._what: str | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "ProgressBars":
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Show it."""
        if what != self._what or self._task is None:
            self._finish()
            self._what, self._task = what, self._bars.add_task(what, total=total)
        self._bars.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        if self._task is None:
            return
        (task,) = self._bars.tasks
        if not task.finished:
            total = task.total or 1
            self._bars.update(self._task, total=total, completed=total)
        self._bars.remove_task(self._task)
        self._task = None
        if not self._bars.disable:
            self._bars.console.print(self._bars.make_tasks_table([task]))
