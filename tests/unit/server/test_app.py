"""The whole server in this process."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.file import FileDisk
from qemu_odx.server.app import Server, ServerError
from qemu_odx.server.config import parse_config
from qemu_odx.testing.frontend import FrontEnd
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


PATIENCE = 100.0


@pytest.fixture
def threaded() -> Iterator[Callable[[Server], None]]:
    """Ends the workers of a server that gave up on them, as the end of its process would."""
    servers: list[Server] = []
    yield servers.append
    for server in servers:
        workers = server._workers
        if workers._ring:
            workers._ring.close()
            workers._ring = None
        workers.close()
    gc.unfreeze()


def test_a_second_signal_gives_up_on_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threaded: Callable[[Server], None]
) -> None:
    """A disk that hangs for ever must not keep the server for ever; the sockets are gone all the same."""
    begun, over, ended = threading.Event(), threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        begun.set()
        over.wait(PATIENCE)

    monkeypatch.setattr(FileDisk, "discard", hang)
    path = tmp_path / "b.sock"
    disk, export = f"id=d0,path={tmp_path}/a.img,size=16M", f"type=vhost-user-blk,socket={path},disk=d0"

    def guest() -> None:
        with FrontEnd(path) as front:
            front.connect()
            front.start()
            header = blk.HEADER.pack(blk.RequestType.DISCARD, 0, 0)
            front.queues[0].submit(header + blk.SEGMENT.pack(0, 8, 0), 1)
            assert begun.wait(PATIENCE)
            os.kill(os.getpid(), signal.SIGTERM)
            while path.exists():  # two signals at once would be one
                time.sleep(0.005)
            time.sleep(0.1)
            assert not ended.is_set(), "it did not wait"
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=guest)
    try:
        with Server(parse_config([disk], [export])) as server:
            threaded(server)
            thread.start()
            with pytest.raises(ServerError, match="stopped by a second signal"):
                server.run()
            ended.set()
            thread.join()
    finally:
        over.set()
    assert begun.is_set()
    assert not path.exists()
