"""One life of a server without its process: disks, a target and a journal in a folder; it can be killed."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

from qemu_odx.disk.file import open_disk
from qemu_odx.server.journal.folder import StateFolder
from qemu_odx.server.journal.revival import revive
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import LoginNexus, Task
from qemu_odx.target.target import Target
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.runner import InlineRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 4 << 20
NEXUS = LoginNexus("p", 1)


NO_HURRY = 3600.0
"""Seconds of grace, for tests on a machine that may stand still at any moment."""


class Killed(BaseException):
    """The process is no more."""


class Life:
    """Two disks, d0 and d1, as logical units 0 and 1.

    Args:
        folder: of the images, and of the state folder `state`.
        clock: of the copy manager.
        runner: does the copies.
        more: for `StateFolder`.

    Attributes:
        fuse: steps of the journal until it dies; None: it does not.
        first: the answer to the first command.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        *,
        policy: Any = "copy-before-write",
        runner: Any = None,
        **more: Any,
    ) -> None:
        self.folder = folder
        self.fuse: int | None = None
        self.dead = False
        self.state = StateFolder(folder / "state", **more)
        self._together, self.state.store.together = self.state.store.together, self._all  # type: ignore[method-assign]
        self._write, self.state.store.write = self.state.store.write, self._step  # type: ignore[method-assign]
        self.disks = [self._disk(name, policy) for name in ("d0", "d1")]
        self.runner = InlineRunner() if runner is None else runner
        self.manager = CopyManager(self.runner, clock, journal=self.state.copies(clock))
        revive(self.manager, self.state, self.disks)
        self.target = Target.on(dict(enumerate(self.disks)), self.manager, self.runner)
        self.target.port = NEXUS.port
        self.manager.go_on()
        self.initiator = Initiator(self.carry)
        self.first = self.initiator.command(0, "00")
        self.initiator.command(1, "00")
        self.state.beat()

    def _step(self, sql: str, *rows: tuple[Any, ...]) -> None:
        self._burn()
        self._write(sql, *rows)
        self._burn()

    @contextlib.contextmanager
    def _all(self) -> Iterator[None]:
        with self._together():
            yield
        self._burn()

    def _burn(self) -> None:
        if self.fuse is not None and not self.dead:
            self.fuse -= 1
            if self.fuse < 0:
                self.kill()
                raise Killed

    def contents(self, lun: int) -> bytes:
        """All of a disk."""
        into = bytearray(SIZE)
        self.disks[lun].read(0, [memoryview(into)])
        return bytes(into)

    def _disk(self, name: str, policy: Any) -> Any:
        journal = self.state.disk(name)
        return open_disk(name, self.folder / f"{name}.img", size=SIZE, snapshots=policy, journal=journal)

    def carry(
        self,
        lun: int,
        cdb: bytes,
        data_out: bytes,
        stamp: bytes | None = None,
        nexus: LoginNexus = NEXUS,
    ) -> Answer:
        """Send a command."""
        replies: list[Any] = []
        into = bytearray(0 if data_out else 8192)
        views = [memoryview(data_out)], [memoryview(into)]
        self.target.submit(Task(nexus, lun, cdb, *views, replies.append, stamp=stamp))
        if self.dead:
            raise Killed
        (reply,) = replies
        return Answer(reply.status, reply.sense, bytes(into[: reply.data_in_length]))

    def kill(self) -> None:
        """Nothing is written any more, and every lock is gone."""
        self.dead = True
        self.state.store._failed = None
        self.state.store._db.close()
        os.close(self.state._lock)
        for disk in self.disks:
            disk._file.close()
            if disk._side._file:
                disk._side._file.close()

    def end(self) -> None:
        """An orderly end."""
        self.manager.pause()
        for disk in self.disks:
            disk.close()
        self.state.close()
