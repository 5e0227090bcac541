"""A booted guest for all tests of this folder: two logical units and a virtio-blk disk of ours."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from client_guest import ClientGuest, client_guest

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, serve_command
from qemu_odx.lab.demo import demo_disks
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import Image, ensure_image
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots a guest; under TCG on a busy machine that takes its time."""
    for item in items:
        if "tests/vm/" in item.path.as_posix():
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(300))


@dataclass(frozen=True)
class Rig:
    """A guest on our disks: units 0 (`odx-source`) and 1 (`odx-destination`); 1 by virtio-blk too, with a mailbox."""

    guest: Guest
    backend: Backend
    folder: Path


@pytest.fixture(scope="session")
def image() -> Image:
    """The cached Linux guest image."""
    return ensure_image()


@pytest.fixture(scope="session")
def rig(image: Image) -> Iterator[Rig]:
    """One guest for the session; leave its disks usable for the next test."""
    with RunFolder() as run, ExitStack() as stack:
        disks, scsi, plain_blk = demo_disks(run.path)
        blk = replace(plain_blk, mailbox=True)
        backend = Backend(serve_command(disks, [scsi, blk]), run.path / "serve.log")
        stack.callback(backend.stop)
        spec = GuestSpec(image, choose_accelerator(), (scsi.socket,), (blk.socket,))
        guest = Guest(spec, run.path)
        stack.callback(guest.kill)
        yield Rig(guest, backend, run.path)
        guest.power_off()
        assert backend.stop() == 0


@pytest.fixture(scope="session")
def clients() -> Iterator[ClientGuest]:
    """One guest with independent SCSI clients for the session."""
    with client_guest(ensure_image("linux-clients")) as booted:
        yield booted
