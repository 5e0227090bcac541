"""Windows' class driver, as a model, on the real server over a real socket, residuals and all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.port import Completion
from qemu_odx.windows.request import Request
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import ControlCode
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import OffloadReadOutput, OffloadWriteOutput
from qemu_odx.wire.virtio import scsi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.windows.request import IoStatus

MIB = 1 << 20
ALLOCATION = {0x12: slice(3, 5), 0x1A: slice(4, 5), 0x84: slice(10, 14), 0x9E: slice(10, 14)}
"""Where each command that brings data has its allocation length."""


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[ScsiGuest]:
    """A guest on one disk."""
    arguments = ["--disk", f"id=d0,path={tmp_path}/d0.img,size=256M"]
    arguments += ["--export", f"type=vhost-user-scsi,socket={tmp_path}/s.sock,lun0=d0"]
    with ServeProcess(arguments), ScsiGuest(tmp_path / "s.sock") as guest:
        yield guest


def vioscsi(guest: ScsiGuest, *, all_taken: bool = True) -> Callable[[bytes, bytes], Completion]:
    """Commands as vioscsi sends them: buffers of exactly the length the CDB says, the residual handed on.

    `all_taken`: no parameter list may be left behind.
    """

    def send(cdb: bytes, data_out: bytes) -> Completion:
        room = int.from_bytes(cdb[ALLOCATION[cdb[0]]], "big") if cdb[0] in ALLOCATION else 0
        address = bytes((1, 0, 0x40, 0)) + bytes(4)
        request = scsi.COMMAND.pack(address, 0, 0, 0, 0, cdb.ljust(32, b"\0")) + data_out
        done = guest.queue.execute(request, scsi.RESPONSE_SIZE + room)
        sense_length, residual, _, status, response, sense = scsi.RESPONSE.unpack_from(done.data_in)
        assert response == scsi.Response.OK
        assert not (all_taken and data_out and residual), (
            f"{residual} bytes of the parameter list were not taken"
        )
        data = done.data_in[scsi.RESPONSE_SIZE :][: room - residual]
        return Completion(status, sense[:sense_length], data, residual)

    return send


def manage(driver: ClassDriver, data: bytes) -> IoStatus:
    """The offload IOCTL from kernel mode."""
    return driver.control(Request(ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES, data, 536))


def test_old_data_arrives_by_the_offload_ioctl(guest: ScsiGuest) -> None:
    """Offload read, overwrite, offload write in two pieces: no residual, no retry, the data of before."""
    clock = VirtualClock()
    driver = ClassDriver.start(vioscsi(guest), Environment(clock=clock, wait=clock.advance))
    assert driver.volume.known.on
    old = os.urandom(MIB)
    assert guest.initiator.write(0, 63 * MIB // 512, MIB // 512, old).good
    assert guest.initiator.write(0, 64 * MIB // 512, MIB // 512, old[::-1]).good
    end = manage(driver, build.offload_read([(0, 65 * MIB)], time_to_live=300))
    assert end.status is NtStatus.SUCCESS, end.status.label
    token = OffloadReadOutput.parse(end.output).token
    assert guest.initiator.write(0, 63 * MIB // 512, 2 * MIB // 512, bytes(2 * MIB)).good
    end = manage(driver, build.offload_write(token, [(128 * MIB, 65 * MIB)]))
    assert end.status is NtStatus.SUCCESS, end.status.label
    assert OffloadWriteOutput.parse(end.output) == OffloadWriteOutput(0, 0, 65 * MIB)
    assert guest.initiator.read(0, (128 + 63) * MIB // 512, MIB // 2 // 512).data == old[: MIB // 2]
    assert guest.initiator.read(0, (128 + 64) * MIB // 512, MIB // 2 // 512).data == old[::-1][: MIB // 2]
    assert not driver.packets.effects


def test_a_forged_token_is_told_as_such(guest: ScsiGuest) -> None:
    """The sense data survives the ring: STATUS_INVALID_TOKEN."""
    driver = ClassDriver.start(vioscsi(guest))
    end = manage(driver, build.offload_write(bytes.fromhex("00800000000001f8") + bytes(504), [(0, MIB)]))
    assert end.status is NtStatus.INVALID_TOKEN
    assert OffloadWriteOutput.parse(end.output).flags == 2
