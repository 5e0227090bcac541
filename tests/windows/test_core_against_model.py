"""The driver's core and the Python model of Windows' class driver: random requests, random answers, one behaviour."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.windows.commands import ListIdentifiers
from qemu_odx.windows.discovery import Discovery
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.limits import BlockLimits, TokenLimits
from qemu_odx.windows.offload_write import UndefinedError
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.port import Completion
from qemu_odx.windows.request import Request, Volume
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import COPY_OFFLOAD_PROPERTY, ControlCode
from qemu_odx.wire.dsm.structures import ZERO_TOKEN

if TYPE_CHECKING:
    from core import Core

    from qemu_odx.windows.request import IoStatus

DSM = ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES
PROPERTY = ControlCode.IOCTL_STORAGE_QUERY_PROPERTY
ASIDE = {0x1B, 0x25, 0x4D, 0x9E}  # what Windows' worker threads send besides
RECEIVE = 0x84
CHECK_CONDITION = 2
KEYS = (2, 3, 4, 5, 6, 7, 8, 0xA, 0xB, 0, 1)
CODES = (
    (0x0D, 4),
    (0x23, 7),
    (0x26, 0),
    (0x26, 8),
    (0x04, 1),
    (0x29, 0),
    (0x2A, 9),
    (0x55, 3),
    (0x24, 0),
    (0x27, 7),
)
SIZE = 1 << 33


@dataclass
class Disk:
    """Answers at random, the same ones for the same seed; remembers what it was sent."""

    seed: int
    clock: VirtualClock
    sent: list[tuple[bytes, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def __call__(self, cdb: bytes, data_out: bytes) -> Completion:
        """Take a command."""
        if cdb[0] in ASIDE:
            return Completion(0)
        self.sent.append((cdb, data_out))
        self.clock.advance(self._random.choice((0, 0, 0, 1, 5)))
        if self._random.random() < 0.3:
            status = self._random.choice((2, 2, 2, 2, 8, 0x18, 0x28))
            return Completion(status, self._sense() if status == CHECK_CONDITION else b"")
        return Completion(0, data=self._information() if cdb[0] == RECEIVE else b"")

    def _sense(self) -> bytes:
        key, (asc, ascq) = self._random.choice(KEYS), self._random.choice(CODES)
        if self._random.random() < 0.1:
            return bytes((0x72, key, asc, ascq, 0, 0, 0, 0))
        information = self._random.choice((0, 1, 7))
        return struct.pack(">BxBIB4xBB4x", 0x70, key, information, 10, asc, ascq)

    def _information(self) -> bytes:
        status = self._random.choice((1, 1, 3, 3, 2, 0x60, 4, 0x11))
        sense = self._sense() if self._random.random() < 0.4 else b""
        room = max(len(sense), self._random.choice((0, 18)))
        count = self._random.choice((0, 1, 8, 64, 1 << 40))
        head = (
            bytes((0, 0, 2, 0x22, 0x10, status))
            + bytes(6)
            + bytes((2 if sense else 0, room, len(sense), 0xF1))
        )
        token = struct.pack(">IH", self._random.choice((514, 514, 514, 512, 0)), 0) + self._random.randbytes(
            512
        )
        whole = head + count.to_bytes(8, "big") + bytes(8) + sense.ljust(room, b"\0") + token
        return whole[: self._random.choice((len(whole), len(whole), len(whole), 300, 36, 31, 8))]


def machine(seed: int) -> tuple[ClassDriver, Disk]:
    """A started driver on a disk of random limits."""
    pick = random.Random(seed)
    clock = VirtualClock()
    disk = Disk(seed, clock)
    limits = TokenLimits(
        max_ranges=pick.choice((0, 1, 3, 64, 200)),
        max_inactivity=pick.choice((0, 60)),
        default_inactivity=30,
        max_token_blocks=pick.choice((0, 0, 100, 5000)),
        optimal_blocks=pick.choice((0, 16, 128, 1 << 30)),
    )
    block_limits = pick.choice((None, BlockLimits(8, 16, 4)))
    known = Discovery(limits=limits if pick.random() > 0.05 else None, block_limits=block_limits)
    environment = Environment(ListIdentifiers(pick.randrange(1 << 32)), clock, clock.advance)
    volume = Volume(known, pick.choice((512, 4096)), SIZE)
    return ClassDriver(Packets(disk, clock.advance), volume, environment), disk


def any_request(seed: int) -> Request:
    """A request that is right, or almost; its parts lie inside its buffer (else the core refuses on purpose)."""
    pick = random.Random(-seed)
    if pick.random() < 0.05:
        query = struct.pack("<III", COPY_OFFLOAD_PROPERTY, pick.choice((0, 0, 1, 2)), 0)
        return Request(PROPERTY, query[: pick.choice((12, 12, 11))], pick.choice((48, 47, 8, 7, 0)))
    extents = []
    for _ in range(pick.choice((1, 1, 2, 5, 70))):
        offset, length = pick.choice((0, 1, 8, SIZE // 4096 - 1)) * 4096, pick.choice((1, 2, 50)) * 4096
        extents.append(
            (offset + pick.choice((0,) * 30 + (512, 1)), length * pick.choice((1,) * 30 + (0, 1 << 20)))
        )
    if pick.random() < 0.5:
        data, room = build.offload_read(extents, time_to_live=pick.choice((0, 30, 61))), 536
    else:
        offset = pick.choice((0, 4096, 12345, 1 << 63))
        data, room = build.offload_write(ZERO_TOKEN, extents, token_offset=offset), 16
    if pick.random() < 0.1:
        data = data[: pick.choice((27, 28, 59, len(data) - 16))]
    room += pick.choice((0,) * 20 + (-1, 100))
    return Request(DSM, data, room, kernel=pick.random() > 0.03, raised=pick.random() < 0.03)


def shown(end: IoStatus) -> tuple[object, ...]:
    """What can be compared: the structures' bytes, not the padding behind them."""
    return end.status, end.information, end.output[: min(end.information, 20 if end.status else 532)]


@pytest.mark.parametrize("start", range(0, 1_000_000, 100_000))
def test_both_do_the_same(core: Core, start: int) -> None:
    """Every CDB, every parameter list, status, length and output."""
    compared = 0
    for seed in range(start, start + 150):
        request = any_request(seed)
        model, disk = machine(seed)
        try:
            expected = model.control(request)
        except UndefinedError:  # there Windows works with stray memory, and the core does not
            continue
        other, other_disk = machine(seed)
        found = core.control(other, other_disk, request)
        assert shown(found) == shown(expected), (seed, request)
        assert other_disk.sent == disk.sent, (seed, request)
        compared += 1
    assert compared > 100
