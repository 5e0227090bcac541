"""Progress on a terminal, silence elsewhere: what every command that takes a while shows.

May import: lab/phases.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from qemu_odx.lab.phases import Observer, Silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Shown(Observer, Protocol):
    """An observer that can also pass on a line of somebody else's."""

    def note(self, text: str) -> None:
        """Print a line on stderr, above what is drawn there."""


class Plain(Silent):
    """For a stderr that is no terminal: lines of others, no progress."""

    def note(self, text: str) -> None:
        """See `Shown`."""
        click.echo(text, err=True)


@contextmanager
def shown(titles: Mapping[str, str]) -> Iterator[Shown]:
    """An observer that draws a line for each phase on stderr; `titles` are what people call the phases."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Plain()
        return
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress, titles)


class _Bars:
    """One line for each phase."""

    def __init__(self, progress: Progress, titles: Mapping[str, str]) -> None:
        self._progress, self._titles = progress, titles
        self._task = TaskID(0)

    def phase_began(self, name: str) -> None:
        self._task = self._progress.add_task(self._titles[name], total=None, detail="")

    def detail(self, text: str) -> None:
        self._progress.update(self._task, detail=text)

    def progress(self, done: int, total: int) -> None:
        # A full bar would count as a finished phase; the last step of a phase is not its end.
        self._progress.update(self._task, completed=min(done, total - 1), total=total)

    def phase_ended(self, name: str, seconds: float) -> None:
        self._progress.update(self._task, completed=1, total=1, detail=f"{name} {seconds:.1f} s")

    def note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)
