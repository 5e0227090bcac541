"""A virtio-blk guest over our own front end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qemu_odx.testing.frontend import FrontEnd
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.testing.driver import DriverQueue

MIB = 1 << 20
SIZE = 64 * MIB


class Blk:
    """A virtio-blk guest: a connected, started front end and its requests."""

    def __init__(self, path: str, **options: object) -> None:
        self.front = FrontEnd(path, **options)  # type: ignore[arg-type]  # handed through

    def go(self) -> Blk:
        """Connect and start."""
        self.front.connect()
        self.front.start()
        return self

    @property
    def queue(self) -> DriverQueue:
        """The first queue."""
        return self.front.queues[0]

    def request(self, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        """One request; its status and data."""
        done = self.queue.execute(blk.HEADER.pack(kind, 0, sector) + data, room + 1)
        return done.data_in[-1], done.data_in[:-1]

    def write(self, sector: int, data: bytes) -> None:
        """Write, and insist."""
        assert self.request(blk.RequestType.OUT, sector, data) == (blk.Status.OK, b"")

    def read(self, sector: int, length: int) -> bytes:
        """Read, and insist."""
        status, data = self.request(blk.RequestType.IN, sector, room=length)
        assert status == blk.Status.OK
        return data


@contextmanager
def one_export(folder: Path) -> Iterator[ServeProcess]:
    """A server with one disk behind the socket `s`."""
    arguments = [
        "--disk",
        f"id=d0,path=a.img,size={SIZE}",
        "--export",
        "type=vhost-user-blk,socket=s,disk=d0",
    ]
    with ServeProcess(arguments, cwd=folder) as process:
        yield process


@contextmanager
def three_exports(folder: Path) -> Iterator[ServeProcess]:
    """A server with two disks; d0 behind two blk exports, d1 behind one."""
    arguments = [
        *("--disk", f"id=d0,path=a.img,size={SIZE},serial=SERIAL0"),
        *("--disk", f"id=d1,path=b.img,size={SIZE}"),
        *("--export", "type=vhost-user-blk,socket=b0.sock,disk=d0,num-queues=8"),
        *("--export", "type=vhost-user-blk,socket=b1.sock,disk=d0"),
        *("--export", "type=vhost-user-blk,socket=b2.sock,disk=d1,num-queues=2"),
    ]
    with ServeProcess(arguments, cwd=folder) as process:
        process.sockets = [str(folder / name) for name in process.sockets]
        yield process


@contextmanager
def frozen(server: ServeProcess) -> Iterator[None]:
    """Nothing runs in the server meanwhile."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        eventually(lambda: stopped(server), "it does not stop")
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def stopped(server: ServeProcess) -> bool:
    """Every thread of it: the signal takes a moment."""
    try:
        told = [task.joinpath("stat").read_text() for task in Path(f"/proc/{server.pid}/task").iterdir()]
    except FileNotFoundError:  # a thread that ends just now
        return False
    return all(text.rpartition(")")[2].split()[0] == "T" for text in told)


def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait for something that a connection's end brings about."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Watch:
    """What must be the same after an attack as before."""

    SLACK: ClassVar[int] = 3 * MIB

    def __init__(self, server: ServeProcess) -> None:
        self._server = server
        self._before = server.descriptors(), server.mappings()
        self._memory = server.own_memory()

    def check(self) -> None:
        """The guests are gone: so is all that was held for them."""
        eventually(
            lambda: (self._server.descriptors(), self._server.mappings()) == self._before, "something leaked"
        )
        assert self._server.alive
        eventually(lambda: self._server.own_memory() < self._memory + self.SLACK, "memory leaked")
