"""A server whose guests steer its faults, with every front door, for the tests of faults."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from guests import Blk

from qemu_odx.testing.faults import GuestFaults
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.virtio import scsi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.testing.driver import DriverQueue, Request

BLOCK = 512


def fault_arguments(folder: Path, *more: str, layers: str = ",layers=faults") -> list[str]:
    """d0 and d1 behind `s.sock`; d0 as `b.sock`; d1 as `m.sock`, with a mailbox."""
    words = []
    for name in ("d0", "d1"):
        words += ["--disk", f"id={name},path={folder}/{name}.img,size=64M{layers}"]
    words += ["--export", f"type=vhost-user-scsi,socket={folder}/s.sock,lun0=d0,lun1=d1"]
    words += ["--export", f"type=vhost-user-blk,socket={folder}/b.sock,disk=d0"]
    words += ["--export", f"type=vhost-user-blk,socket={folder}/m.sock,disk=d1,mailbox=on"]
    return [*words, *more]


class FaultRig:
    """A running server, a SCSI guest and a virtio-blk guest, and the faults."""

    def __init__(self, server: ServeProcess, scsi_guest: ScsiGuest, blk: Blk) -> None:
        self.server = server
        self.scsi = scsi_guest
        self.blk = blk
        self.faults = GuestFaults(scsi_guest.initiator)

    @contextmanager
    def fault(self, rule: str) -> Iterator[str]:
        """A rule for a while; it must have fired by then."""
        name = self.faults.add(rule)
        yield name
        assert self.faults.find(name)["fired"], f"{rule} never fired"
        self.faults.remove(name)

    def wait_for(self, queue: DriverQueue, request: Request) -> Request:
        """Wait for a completion."""
        while request.written is None:
            if not queue.completions():
                queue.wait()
        return request


@contextmanager
def fault_rig(folder: Path) -> Iterator[FaultRig]:
    """Everything, started."""
    with ExitStack() as stack:
        server = stack.enter_context(ServeProcess(fault_arguments(folder, "--guest-control"), cwd=folder))
        guest = stack.enter_context(ScsiGuest(folder / "s.sock"))
        blk = Blk(str(folder / "b.sock")).go()
        stack.enter_context(blk.front)
        yield FaultRig(server, guest, blk)


def scsi_end(request: Request) -> tuple[int, int, bytes]:
    """Response code, status and sense of a completed virtio-scsi request."""
    sense_length, _, _, status, response, sense = scsi.RESPONSE.unpack_from(request.data_in)
    return response, status, sense[:sense_length]


def held(rig: FaultRig, name: str, count: int = 1) -> None:
    """Wait until a rule holds so many requests."""
    deadline = time.monotonic() + 60
    while (found := rig.faults.find(name))["held"] != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@contextmanager
def lasting(seconds: float) -> Iterator[None]:
    """What is done here takes at least so long; how much longer is the machine's business."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun >= seconds


def stays_open(queue: DriverQueue, request: Request, seconds: float = 0.2) -> None:
    """Nothing completes the request in that time: a test of nothing happening has to wait for some."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        queue.completions()
        assert request.written is None
        time.sleep(0.02)
