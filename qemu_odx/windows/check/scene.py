"""The surroundings of a vector: its disk, its caller, the counter of list identifiers, the clock.

Imports the model and `vector_file`. What a file does not say is as usual: a kernel caller, a disk of the `device`
object, the list identifier that the first command shows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.windows.check.script import Script, seconds
from qemu_odx.windows.commands import ListIdentifiers
from qemu_odx.windows.discovery import Discovery
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.limits import ADAPTER_BYTES, BlockLimits, TokenLimits
from qemu_odx.windows.offload_write import TARGET_DURATION
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.port import Completion
from qemu_odx.windows.request import Request, Volume
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.inquiry import page, supported_pages
from qemu_odx.wire.scsi.sense import INVALID_FIELD_IN_CDB, Status

if TYPE_CHECKING:
    from qemu_odx.windows.check.vector_file import Vector

_USER = re.compile(r"user[ -]?mode", re.IGNORECASE)
_RAISED = re.compile(r"\birql\b|dispatch[ _-]level", re.IGNORECASE)
_NO_MEMORY = re.compile(r"\ballocation\b[^.;]*\bfail", re.IGNORECASE)
_LATE = re.compile(r"\b4[ -]?s(?:ec(?:ond)?s?)?\b|max(?:imum)?[ -]?(?:target )?duration", re.IGNORECASE)
_DISPATCH_LEVEL = 2
_USUAL_LIMITS = {
    "maximum_range_descriptors": 64,
    "maximum_inactivity_timer": 120,
    "default_inactivity_timer": 30,
    "maximum_token_transfer_size": 0,
    "optimal_transfer_count": 0,
}
_USUAL_PAGES = (0x00, 0x80, 0x83, 0x8F, 0xB0, 0xB1, 0xB2)


def request_of(vector: Vector) -> Request:
    """The control request."""
    mode = str(vector.raw.get("requestor_mode", vector.device.get("requestor_mode", "")))
    user = mode.lower().startswith("user") if mode else bool(_USER.search(vector.words))
    irql = vector.raw.get("irql", vector.device.get("irql"))
    raised = irql >= _DISPATCH_LEVEL if isinstance(irql, int) else bool(_RAISED.search(vector.words))
    room = vector.raw.get("output_buffer_length")
    return Request(vector.code or 0, vector.data, int(room or 0), kernel=not user, raised=raised)


def driver_of(vector: Vector) -> tuple[ClassDriver, Script]:
    """A started class driver on the vector's disk, and the script that answers it."""
    clock = VirtualClock()
    late = bool(_LATE.search(vector.words)) and all(seconds(step) is None for step in vector.steps)

    def pass_time(taken: float) -> None:
        # A file that tells of the limit of 4 s but not of the time that a step takes means its last step.
        last = late and script.at == len(vector.steps)
        clock.advance(TARGET_DURATION if last else taken)

    script = Script(vector.steps, pass_time)
    environment = Environment(
        identifiers=_identifiers(vector),
        clock=clock,
        wait=clock.advance,
        adapter_bytes=int(vector.device.get("adapter_max_transfer") or ADAPTER_BYTES),
        out_of_memory=bool(_NO_MEMORY.search(vector.words)),
    )
    packets = Packets(script, clock.advance)
    volume = Volume(
        Discovery(limits=limits_of(vector), block_limits=_block_limits(vector.device)),
        block_size=int(vector.device.get("sector_size", 512)),
        size=int(vector.device.get("disk_bytes", 1 << 40)),
        is_disk=bool(vector.device.get("is_disk", True)),
    )
    return ClassDriver(packets, volume, environment), script


def limits_of(vector: Vector) -> TokenLimits | None:
    """The limits of the `device` object; None if it says that there is no usable page 8Fh."""
    told = vector.device.get("vpd8f", _USUAL_LIMITS)
    if not told:
        return None
    values = {**_USUAL_LIMITS, **told}
    return TokenLimits(*(int(values[key]) for key in _USUAL_LIMITS))


def _block_limits(device: dict[str, Any]) -> BlockLimits | None:
    told: dict[str, Any] | None = next(
        (device[key] for key in ("vpdb0", "vpd_b0", "b0h") if key in device), {}
    )
    if told is None:
        return None
    keys = ("maximum_transfer_length", "optimal_transfer_length", "optimal_transfer_length_granularity")
    return BlockLimits(*(int(told.get(key, 0)) for key in keys))


def _identifiers(vector: Vector) -> ListIdentifiers:
    """The counter as the first command shows it; that it goes on from there is checked."""
    maximum = int(vector.device.get("maximum_list_identifier", 0xFFFFFFFF))
    first = next((u32(step.cdb, 6) for step in vector.steps if step.cdb[0] == 0x83), 0)
    return ListIdentifiers(first, ListIdentifiers.by_registry(maximum).maximum)


def ordinary_disk(vector: Vector) -> OrdinaryDisk:
    """The disk that answers what a vector of device start leaves out."""
    return OrdinaryDisk(limits_of(vector))


class OrdinaryDisk:
    """Answers device start as a disk with the given limits does."""

    def __init__(self, limits: TokenLimits | None) -> None:
        codes = _USUAL_PAGES if limits else tuple(code for code in _USUAL_PAGES if code != 0x8F)
        self._pages = {0x00: supported_pages(codes), 0xB0: page(0xB0, bytes(60)), 0xB2: page(0xB2, bytes(4))}
        if limits:
            self._pages[0x8F] = page(0x8F, _limits_descriptor(limits))

    def __call__(self, cdb: bytes) -> Completion:
        """A page, the control mode page with QERR 0, or 5/24/00."""
        if cdb[0] == 0x12 and cdb[2] in self._pages:
            return Completion(Status.GOOD, data=self._pages[cdb[2]])
        if cdb[0] == 0x1A:
            return Completion(Status.GOOD, data=bytes.fromhex("0f000000 0a0a 0210000000000000 0000"))
        if cdb[0] == 0x15:
            return Completion(Status.GOOD)
        return Completion(Status.CHECK_CONDITION, INVALID_FIELD_IN_CDB.fixed())


def _limits_descriptor(limits: TokenLimits) -> bytes:
    numbers = (
        (limits.max_ranges, 2),
        (limits.max_inactivity, 4),
        (limits.default_inactivity, 4),
        (limits.max_token_blocks, 8),
        (limits.optimal_blocks, 8),
    )
    packed = b"".join(value.to_bytes(width, "big") for value, width in numbers)
    return bytes.fromhex("0000 0020") + bytes(6) + packed


def count(steps: list[bytes], code: bytes) -> int:
    """How many of the CDBs begin with `code`."""
    return sum(cdb.startswith(code) for cdb in steps)
