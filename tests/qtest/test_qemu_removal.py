"""A real QEMU resets its machine, or takes the SCSI host away, while token copies run on it."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from qemu.qmp import QMPError
from test_qemu_scsi import Initiator

from qemu_odx.testing.qtest import QtestMachine, poll
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.testing.virtio_pci import VirtioPci
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation, WriteUsingToken

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.testing.driver import Request

pytestmark = pytest.mark.qtest

MIB = 1 << 20
LENGTH = 24 * MIB
BLOCKS = LENGTH // 512
HOST = "vhost-user-scsi-pci,num_queues=1,addr=04.0,disable-legacy=on"
LUN0, LUN1 = (bytes([1, 0, 0x40, lun, 0, 0, 0, 0]) for lun in (0, 1))
EJECT = 0xAE08
"""ACPI PCI hot-plug of the PC: write a slot's bit to eject it (QEMU docs/specs/acpi_pci_hotplug.rst)."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """A source with data, and a verified destination: copies to it go through memory, and take their time."""
    (tmp_path / "a.img").write_bytes(os.urandom(LENGTH) + bytes(8 * MIB))
    arguments = [
        *("--disk", "id=d0,path=a.img", "--disk", "id=d1,path=b.img,size=32M,layers=verify"),
        *("--export", "type=vhost-user-scsi,socket=s.sock,lun0=d0,lun1=d1"),
    ]
    with ServeProcess(arguments, cwd=tmp_path) as process:
        yield process


@pytest.fixture
def machine(server: ServeProcess, tmp_path: Path) -> Iterator[QtestMachine]:
    """An old PC, for its devices can be unplugged without a guest's help."""
    chardev = ("-chardev", f"socket,id=c,path={tmp_path}/s.sock")
    with QtestMachine([*chardev, "-device", f"{HOST},id=host,chardev=c", "-machine", "pc"]) as running:
        yield running


class Guest:
    """The driver in a machine."""

    def __init__(self, machine: QtestMachine) -> None:
        self.queue = VirtioPci(machine, 4).start(queues=3)[2]
        self.source, self.target = Initiator(self.queue, LUN0), Initiator(self.queue, LUN1)
        for unit in (self.source, self.target):
            unit.good(bytes(6))

    def token(self) -> bytes:
        """For all the data."""
        ranges = Range(0, BLOCKS).packed()
        populate = struct.pack(">HBxIIHH", 14 + len(ranges), 0, 0, 0, 0, len(ranges))[:16] + ranges
        self.source.good(struct.pack(">BB4xIIBB", 0x83, 0x10, 1, len(populate), 0, 0), populate)
        answer = self.source.good(struct.pack(">BBI4xIBB", 0x84, 0x07, 1, 1024, 0, 0), room=1024)
        token = TokenInformation.parse(answer).token
        assert token is not None
        return token

    def begin(self, token: bytes, lba: int, *, immediate: bool) -> Request:
        """WRITE USING TOKEN of all the data, not waited for."""
        ranges = (Range(lba, BLOCKS),)
        parameters = WriteUsingToken(534 + 16, False, immediate, 0, token, 16, ranges).packed()
        cdb = struct.pack(">BB4xIIBB", 0x83, 0x11, 2, len(parameters), 0, 0).ljust(32, b"\0")
        return self.queue.submit(LUN1 + bytes(11) + cdb + parameters, 108)


def arrives(folder: Path) -> None:
    """All the data, in time: a copy goes on when its nexus is lost."""
    data = (folder / "a.img").read_bytes()[:LENGTH]

    def there() -> bool:
        with (folder / "b.img").open("rb") as image:
            return image.read(LENGTH) == data

    poll(there, "the end of the copy")


@pytest.mark.parametrize("immediate", [False, True], ids=["foreground", "background"])
def test_system_reset_during_a_copy(
    server: ServeProcess, machine: QtestMachine, tmp_path: Path, *, immediate: bool
) -> None:
    """The rings stop once the request is over; the token is good for the next driver."""
    guest = Guest(machine)
    token = guest.token()
    guest.begin(token, 0, immediate=immediate)
    machine.qmp("system_reset")
    again = Guest(machine)
    arrives(tmp_path)
    assert again.source.good(bytes(6)) == b""
    done = again.begin(token, 8 * MIB // 512, immediate=False)
    poll(lambda: bool(again.queue.completions()) or done.written is not None, "the second copy")
    assert done.data_in[10:12] == b"\0\0"  # GOOD, and the response says so
    assert "wrong" not in server.errors()


@pytest.mark.parametrize("immediate", [False, True], ids=["foreground", "background"])
def test_the_host_is_unplugged_during_a_copy(
    server: ServeProcess, machine: QtestMachine, tmp_path: Path, *, immediate: bool
) -> None:
    """The device goes, the copy ends, another device comes, and the token is good."""
    guest = Guest(machine)
    token = guest.token()
    guest.begin(token, 0, immediate=immediate)
    machine.qmp("device_del", id="host")
    machine.command(f"outl {EJECT:#x} {1 << 4:#x}")
    poll(lambda: "host" not in devices(machine), "the end of the device")
    poll(lambda: chardev_removed(machine), "the end of its connection")
    arrives(tmp_path)
    address = {"type": "unix", "data": {"path": str(tmp_path / "s.sock")}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    machine.qmp("chardev-add", id="c", backend=backend)
    machine.qmp(
        "device_add", driver="vhost-user-scsi-pci", id="host", chardev="c", addr="04.0", num_queues=1,
        **{"disable-legacy": "on"},
    )  # fmt: skip
    again = Guest(machine)
    done = again.begin(token, 8 * MIB // 512, immediate=False)
    poll(lambda: bool(again.queue.completions()) or done.written is not None, "the second copy")
    assert done.data_in[10:12] == b"\0\0"
    assert "wrong" not in server.errors()


def chardev_removed(machine: QtestMachine) -> bool:
    """Try it: the device gives its connection back a little later than it goes."""
    try:
        machine.qmp("chardev-remove", id="c")
    except QMPError:
        return False
    return True


def devices(machine: QtestMachine) -> list[str]:
    """The named devices that are plugged in."""
    listed = machine.qmp("qom-list", path="/machine/peripheral")
    assert isinstance(listed, list)
    return [row["name"] for row in listed]
