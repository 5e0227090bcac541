"""A real `qemu-odx serve` and our own front end, over a real socket."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from guests import SIZE, Blk, Watch, eventually, three_exports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.testing.serve import ServeProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """Two disks; d0 behind two blk exports, d1 behind one."""
    with three_exports(tmp_path) as process:
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


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """One server for all of them: it has to survive them all anyway."""
    with three_exports(tmp_path_factory.mktemp("survivor")) as process:
        yield process


@pytest.fixture
def shared(survivor: ServeProcess) -> Iterator[ServeProcess]:
    """It, with empty disks and as if it had said nothing yet; in the end no front end may be left."""
    for name in ("a.img", "b.img"):
        os.truncate(survivor.cwd / name, 0)
        os.truncate(survivor.cwd / name, SIZE)
    survivor.forget_errors()
    idle = survivor.descriptors()
    yield survivor
    assert survivor.alive
    eventually(lambda: survivor.descriptors() == idle, "a front end is left")


@pytest.fixture
def watch(server: ServeProcess) -> Watch:
    """Begins with an idle server."""
    return Watch(server)
