"""The task set: which tasks are under way, so that each ends exactly once and task management can find it.

Imports the port only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.gate import Course
    from qemu_odx.target.port import Nexus, Reply, Task
    from qemu_odx.tokens.operations import Operation


@dataclass(slots=True, eq=False)
class Entry:
    """A task under way.

    Attributes:
        copy: the foreground copy operation it waits for, told to stop if the task is aborted.
        aborted: a task management function hit it.
        course: its way through the gate, if somebody watches.
    """

    task: Task
    tasks: TaskSet
    copy: Operation | None = None
    aborted: bool = False
    course: Course[Reply] | None = None
    when_over: list[Callable[[], None]] = field(default_factory=list)

    def abort(self, over: Callable[[], None]) -> None:
        """Stop it; `over` is called once it has ended."""
        self.aborted = True
        self.when_over.append(over)
        if self.copy is not None:
            self.copy.abort = True  # not noted: what aborts it is sent again too
        if self.course is not None:
            self.course.abort()

    def finish(self, reply: Reply) -> None:
        """The task has ended; an aborted one shows no status."""
        self.tasks.leave(self)
        self.task.done(replace(reply, aborted=True) if self.aborted else reply)
        for callback in self.when_over:
            callback()


@dataclass(slots=True)
class TaskSet:
    """All tasks of a target that have not ended."""

    _entries: dict[int, Entry] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self, task: Task) -> Entry:
        """A task begins."""
        entry = Entry(task, self)
        self._entries[id(entry)] = entry
        return entry

    def leave(self, entry: Entry) -> None:
        """A task ends. KeyError if it ended before: a bug of ours."""
        del self._entries[id(entry)]

    def select(self, nexus: Nexus | None, lun: int | None = None, tag: int | None = None) -> list[Entry]:
        """Tasks of a nexus (None: of all), of a logical unit, with a tag."""
        return [
            entry
            for entry in self._entries.values()
            if (nexus is None or entry.task.nexus == nexus)
            and (lun is None or entry.task.lun == lun)
            and (tag is None or entry.task.tag == tag)
        ]

    def abort(self, entries: list[Entry], over: Callable[[], None]) -> None:
        """Stop some tasks; `over` is called once they have all ended, at once if there are none.

        Guest buffers may be in use until then, so nothing is declared over before.
        """
        waiting = len(entries)
        if not waiting:
            over()
            return

        def one_over() -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                over()

        for entry in entries:
            entry.abort(one_over)
