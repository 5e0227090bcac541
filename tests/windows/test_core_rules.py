"""What the driver's core must do beyond the class driver: its memory, short answers, disks that claim too much."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.windows.discovery import Discovery
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.limits import TokenLimits
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.port import Completion
from qemu_odx.windows.request import Request, Volume
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import ControlCode
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import ZERO_TOKEN

if TYPE_CHECKING:
    from core import Core

    from qemu_odx.windows.request import IoStatus

DSM = ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES
SIZE = 1 << 30
PARAMETER_OFFSET, PARAMETER_LENGTH, RANGES_OFFSET = 12, 16, 20
READ = build.offload_read([(0, 65536)])
WRITE = build.offload_write(ZERO_TOKEN, [(0, 65536)])
BLOCKS = 128
RECEIVE = 0x84


def run(
    core: Core,
    data: bytes,
    *answers: Completion,
    kernel: bool = True,
    room: int = 536,
    adapter_bytes: int = 8096,
) -> IoStatus:
    """A request on a disk that gives these answers and must not be asked for more."""
    clock = VirtualClock()
    left = list(answers)

    def carry(_cdb: bytes, _data_out: bytes) -> Completion:
        return left.pop(0)

    volume = Volume(Discovery(limits=TokenLimits(64, 60, 30, 0, 0)), 512, SIZE)
    driver = ClassDriver(
        Packets(carry, clock.advance),
        volume,
        Environment(clock=clock, wait=clock.advance, adapter_bytes=adapter_bytes),
    )
    end = core.control(driver, carry, Request(DSM, data, room, kernel=kernel))
    assert not left
    return end


def changed(data: bytes, offset: int, value: int) -> bytes:
    """With another 32-bit number in it."""
    return data[:offset] + struct.pack("<I", value) + data[offset + 4 :]


def information(count: int) -> bytes:
    """An answer of RECEIVE ROD TOKEN INFORMATION with a token."""
    head = bytes((0, 0, 2, 0x22, 0x10, 1)) + bytes(9) + b"\xf1" + count.to_bytes(8, "big") + bytes(8)
    return head + struct.pack(">IH", 514, 0) + b"t" * 512


@pytest.mark.parametrize("value", [49, 50, 63, 64, 65, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
@pytest.mark.parametrize("field", [PARAMETER_OFFSET, RANGES_OFFSET])
def test_parts_outside_the_input_are_refused(core: Core, field: int, value: int) -> None:
    """The class driver would read what lies there; nothing is sent to the disk."""
    assert run(core, changed(READ, field, value)).status is NtStatus.INVALID_PARAMETER


def test_a_range_whose_end_wraps_is_off_the_disk(core: Core) -> None:
    """2^64 - 512 + 1024 is not 512."""
    data = READ[:48] + struct.pack("<QQ", (1 << 64) - 512, 1024)
    assert run(core, data).status is NtStatus.NONEXISTENT_SECTOR


def test_lengths_are_added_in_64_bits(core: Core) -> None:
    """Row 2 catches a sum past 32 bits; else row 5 would be the first to object."""
    data = changed(READ, PARAMETER_LENGTH, 0xFFFFFFF0)
    assert run(core, data, kernel=False).status is NtStatus.INVALID_PARAMETER


@pytest.mark.parametrize("length", [550, 549, 300, 38])
def test_a_token_cut_short_is_filled_with_zeros(core: Core, length: int) -> None:
    """As the class driver does: never with what an earlier command left behind in the buffer."""
    whole, cut = information(BLOCKS), information(BLOCKS)[:length]
    end = run(core, READ, Completion(0), Completion(0, data=cut))
    assert end.status is NtStatus.SUCCESS
    assert end.output[20:532] == cut[38:].ljust(512, b"\0")
    assert len(whole) == 550


def test_an_answer_without_a_token_is_a_failure(core: Core) -> None:
    """The list of token descriptors did not come."""
    end = run(core, READ, Completion(0), Completion(0, data=information(BLOCKS)[:35]))
    assert end.status is NtStatus.UNSUCCESSFUL
    assert end.information == 536


def test_a_mailbox_too_small_for_a_token_brings_none(core: Core) -> None:
    """What lies behind the answer's room is not the answer."""
    answers = (Completion(0), Completion(0, data=information(BLOCKS)))
    assert run(core, READ, *answers, adapter_bytes=549).status is NtStatus.UNSUCCESSFUL
    assert run(core, READ, *answers, adapter_bytes=550).status is NtStatus.SUCCESS


def test_a_disk_that_wrote_more_than_asked_is_not_believed(core: Core) -> None:
    """INFORMATION beyond the request counts as all of it."""
    sense = struct.pack(">BBBIB4xBB4x", 0xF0, 0, 0xA, BLOCKS + 1000, 10, 0x0D, 4)
    end = run(core, WRITE, Completion(2, sense), room=16)
    assert end.status is NtStatus.SUCCESS
    assert int.from_bytes(end.output[8:16], "little") == 65536
