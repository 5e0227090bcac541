"""Exports of one disk and its reservations: virtio-blk is kept out, a SCSI guest that restarts is known again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.memory import memory_disk
from qemu_odx.server.config import BlkExport, ScsiExport
from qemu_odx.server.devices import DeviceMaker
from qemu_odx.target.port import LoginNexus, initiator_port
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.scsi.persistent import Kind
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

SEGMENT = wire.SEGMENT.pack(0, 8, 0)
REQUESTS = {
    "read": (RequestType.IN, b"", 512, "r"),
    "write": (RequestType.OUT, b"x" * 512, 0, "w"),
    "discard": (RequestType.DISCARD, SEGMENT, 0, "w"),
    "write zeroes": (RequestType.WRITE_ZEROES, SEGMENT, 0, "w"),
    "flush": (RequestType.FLUSH, b"", 0, ""),
}


class Bench:
    """A virtio-blk export of a disk, as the server makes it."""

    def __init__(self, ram: GuestRam) -> None:
        self.disk = memory_disk("d0", 1 << 20)
        self.maker = DeviceMaker(InlineRunner())
        self.maker.disks["d0"] = self.disk
        self.device = self.maker.blk(BlkExport("blk.sock", "d0", 1))
        self.device.set_features(wire.F_FLUSH | wire.F_CONFIG_WCE)
        self.queue = DriverQueue(ram, 64, kick=lambda: self.device.kick(0))
        self.device.start_queue(0, self.queue.ring(ram.memory()))
        assert (
            self.status("read") == Status.OK
        )  # from the second request on, the express lane does all it can

    def status(self, name: str, *, plain: bool = False) -> int:
        """The status of a request; a plain one has three parts, in a table, as the express lane takes it."""
        kind, data, length, _ = REQUESTS[name]
        head = wire.HEADER.pack(kind, 0, 0)
        if not plain:
            return self.queue.execute(head + data, length + 1).data_in[-1]
        cuts_out, cuts_in = [wire.HEADER_SIZE] if data else [], [length] if length else []
        request = self.queue.submit(head + data, length + 1, cuts_out=cuts_out, cuts_in=cuts_in, indirect=0)
        assert self.queue.completions() == [request]
        return request.data_in[-1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """An export in memory."""
    ram = GuestRam(4 << 20)
    made = Bench(ram)
    yield made
    made.disk.close()
    ram.close()


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("request_name", list(REQUESTS))
@pytest.mark.parametrize(
    ("kind", "allowed"),
    [(None, "rw"), (Kind.WRITE_EXCLUSIVE, "r"), (Kind.EXCLUSIVE_ACCESS, ""), ("RESERVE", "")],
)
def test_virtio_blk_is_to_a_reservation_what_a_stranger_is(
    bench: Bench, kind: Kind | str | None, allowed: str, request_name: str, plain: bool
) -> None:
    """IOERR, and the disk stays as it was; a flush hurts nobody."""
    state = bench.maker.manager.reservations(bench.disk)
    if kind == "RESERVE":
        state.reserve_unit("other")
    elif kind is not None:
        state.register("other", 0, 1)
        state.reserve("other", 1, Kind(kind))  # type: ignore[call-overload]
    needs = REQUESTS[request_name][3]
    expected = Status.OK if needs in allowed else Status.IOERR
    bench.disk.write(0, [b"o" * 512])
    assert bench.status(request_name, plain=plain) == expected
    content = bytearray(512)
    bench.disk.read(0, [memoryview(content)])
    assert (content == b"o" * 512) == (needs != "w" or expected == Status.IOERR)


def test_virtio_blk_is_let_in_again(bench: Bench) -> None:
    """Once the reservation is released."""
    state = bench.maker.manager.reservations(bench.disk)
    state.register("other", 0, 1)
    state.reserve("other", 1, Kind.WRITE_EXCLUSIVE)
    assert bench.status("write") == Status.IOERR
    state.release("other", 1, Kind.WRITE_EXCLUSIVE)
    assert bench.status("write") == Status.OK


def test_a_scsi_guest_that_restarts_has_another_nexus_of_the_same_port(bench: Bench) -> None:
    """The socket names the port."""
    device = bench.maker.scsi(ScsiExport("scsi.sock", ((0, "d0"),), 1))
    assert isinstance(device, ScsiDevice)
    before = device._nexus
    device.reset()
    assert before != device._nexus
    assert initiator_port(before) == initiator_port(device._nexus) == "scsi.sock"
    assert isinstance(before, LoginNexus)
