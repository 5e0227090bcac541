"""A real `qemu-odx serve` and our own front end, over a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from guests import SIZE, Blk

from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """Two disks; d0 behind two blk exports, d1 behind one."""
    arguments = [
        *(
            "--disk",
            f"id=d0,path=a.img,size={SIZE},serial=SERIAL0",
            "--disk",
            f"id=d1,path=b.img,size={SIZE}",
        ),
        *("--export", "type=vhost-user-blk,socket=b0.sock,disk=d0,num-queues=8"),
        *("--export", "type=vhost-user-blk,socket=b1.sock,disk=d0"),
        *("--export", "type=vhost-user-blk,socket=b2.sock,disk=d1,num-queues=2"),
    ]
    with ServeProcess(arguments, cwd=tmp_path) as process:
        process.sockets = [str(tmp_path / name) for name in process.sockets]
        yield process


@pytest.fixture
def guests() -> Iterator[Callable[..., Blk]]:
    """Makes guests that are gone at the end."""
    made: list[Blk] = []

    def make(path: str, **options: object) -> Blk:
        made.append(Blk(path, **options))
        return made[-1]

    yield make
    for guest in made:
        guest.front.close()


@pytest.fixture
def guest(server: ServeProcess, guests: Callable[..., Blk]) -> Blk:
    """A guest on the first export, started."""
    return guests(server.sockets[0]).go()
