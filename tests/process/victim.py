"""A server with a state folder that is killed and started again under its guests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from guests import eventually

from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from qemu_odx.testing.driver import Request
    from qemu_odx.testing.frontend import FrontEnd


def await_notes(folder: Path) -> None:
    """Wait until it is noted that the guest need not be told of a restart: with what tokens need, once a second."""
    journal = folder / "state" / "journal.sqlite3-wal"
    for _ in range(2):
        before = journal.stat().st_mtime_ns
        eventually(lambda: journal.stat().st_mtime_ns != before, "nothing is noted")  # noqa: B023
    time.sleep(0.1)  # the end of the second note


class Victim:
    """A server that is killed and started again, and the front end that comes back to it."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], stack: ExitStack) -> None:
        self._folder, self._arguments, self._stack = folder, arguments, stack
        self.server = stack.enter_context(ServeProcess(arguments, cwd=folder))

    def kill(self, front: FrontEnd) -> None:
        """Now; the front end comes back at once."""
        self.server.kill()
        self.start_again()
        front.resume()

    def start_again(self) -> None:
        """The server is dead; the next one."""
        assert self.server.errors() == ""
        self.server.close()
        self.server = self._stack.enter_context(ServeProcess(self._arguments, cwd=self._folder))


def completed(front: FrontEnd, queue: int, *requests: Request) -> None:
    """Wait for the end of requests."""

    def all_over() -> bool:
        front.queues[queue].completions()
        return all(request.written is not None for request in requests)

    eventually(all_over, "a command never ended")
