"""The bench that checks run on: a device under test, what it says of itself, and a record of all that was said.

Standard library and `wire/scsi`, `testing/initiator` only: this file is part of the kit that is copied into guests.
Implementations of `Device`: `local.py` (a target in this process), `sg.py` (SG_IO). Checks are in `checks/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

from qemu_odx.testing.conformance import pages
from qemu_odx.testing.initiator import Initiator
from qemu_odx.wire.scsi.fields import u16, u32, u64
from qemu_odx.wire.scsi.sense import Key, Sense, Status
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qemu_odx.testing.initiator import Answer

SECOND = "a second logical unit"
TWO_SIZES = "logical units with different block sizes"
SECOND_NEXUS = "a second I_T nexus"
HELD = "copies that can be held in the background"
RESET = "a way to reset the logical unit"
NEXUS_LOSS = "a way to lose the I_T nexus"
PROTECT = "a switch for write protection"

LAST_WAIT = 60.0
"""Seconds after which a copy in the background is taken to have got stuck."""
_MAX_ATTENTIONS = 8
_IN_PROGRESS = frozenset({0x10, 0x11, 0x12})

Fault = tuple[int, int, int]
"""Sense key, ASC, ASCQ."""


class CheckFailedError(Exception):
    """The device did not do what the standard says."""


class CheckSkippedError(Exception):
    """The check cannot be done here; the text says why."""


class Device(Protocol):
    """What is under test."""

    @property
    def luns(self) -> Sequence[int]:
        """Numbers of its logical units; the first one is tested, the others help."""

    @property
    def features(self) -> frozenset[str]:
        """What it can do for a check, of the constants above."""

    @property
    def patience(self) -> float:
        """Longest time in seconds that a check may wait for."""

    def carry(self, nexus: int, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send a command over a nexus and wait for its end."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""

    def idle(self) -> None:
        """Let copies in the background go on."""

    def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET."""

    def lose_nexus(self, nexus: int) -> None:
        """I_T nexus loss."""

    def protect(self, lun: int, *, on: bool) -> None:
        """Set or lift write protection."""


@dataclass(slots=True)
class Step:
    """One command of a check, its answer and what was expected of it."""

    nexus: int
    lun: int
    cdb: bytes
    data_out: bytes
    answer: Answer
    expected: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unit:
    """A logical unit by what it says of itself (READ CAPACITY(16), VPD 8Fh); limits of 0 are not told."""

    lun: int
    blocks: int
    block_size: int
    max_ranges: int
    max_inactivity: int
    default_inactivity: int
    max_token_blocks: int
    optimal_blocks: int


class Bench:
    """What a check is given.

    List identifiers come from `identifiers`: one supply for all checks on a device that keeps its results.

    Attributes:
        steps: what the check under way has sent and got so far.
        near: the initiator on the first nexus.
        far: an initiator on a second nexus.
    """

    def __init__(self, device: Device, identifiers: Iterator[int] | None = None) -> None:
        self.device = device
        self.steps: list[Step] = []
        identifiers = identifiers or count(1)
        self.near = Initiator(lambda *sent: self._carry(0, *sent), identifiers)
        self.far = Initiator(lambda *sent: self._carry(1, *sent), identifiers)
        self._units: dict[int, Unit] = {}

    def _carry(self, nexus: int, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send, and again after each unit attention: the device tells its news first."""
        for _ in range(_MAX_ATTENTIONS):
            answer = self.device.carry(nexus, lun, cdb, data_out)
            if answer.fault is None or answer.fault[0] != Key.UNIT_ATTENTION:
                break
        self.steps.append(Step(nexus, lun, cdb, data_out, answer))
        return answer

    # Units

    @property
    def first(self) -> Unit:
        """The logical unit under test."""
        return self.unit(self.device.luns[0])

    @property
    def second(self) -> Unit:
        """Another logical unit of the same copy manager, with blocks of the same size if there is one."""
        others = [self.unit(lun) for lun in self.device.luns[1:]]
        if not others:
            raise CheckSkippedError(f"needs {SECOND}")
        return next((unit for unit in others if unit.block_size == self.first.block_size), others[0])

    @property
    def two_sizes(self) -> tuple[Unit, Unit]:
        """Two logical units, the first with smaller blocks."""
        units = sorted((self.unit(lun) for lun in self.device.luns), key=lambda unit: unit.block_size)
        if units[0].block_size == units[-1].block_size:
            raise CheckSkippedError(f"needs {TWO_SIZES}")
        return units[0], units[-1]

    def unit(self, lun: int) -> Unit:
        """What a logical unit says of itself, asked once."""
        if lun not in self._units:
            self._units[lun] = self._ask(lun)
        return self._units[lun]

    def _ask(self, lun: int) -> Unit:
        capacity = self.near.command(lun, bytes((0x9E, 0x10)) + bytes(8) + (32).to_bytes(4, "big"))
        if not capacity.good or len(capacity.data) < 12:
            raise CheckFailedError(f"READ CAPACITY(16) of logical unit {lun} ended with {said(capacity)}")
        page = self.near.command(lun, "12018f040000")
        limits = pages.find(page.data, 0x0000) if page.good else None
        if limits is None or len(limits) < 36:
            raise CheckFailedError(f"no token limits in VPD 8Fh of logical unit {lun}: {said(page)}")
        return Unit(
            lun,
            u64(capacity.data, 0) + 1,
            u32(capacity.data, 8),
            u16(limits, 10),
            u32(limits, 12),
            u32(limits, 16),
            u64(limits, 20),
            u64(limits, 28),
        )

    # Doing

    def fill(self, unit: Unit, lba: int, blocks: int, tag: str) -> bytes:
        """Write blocks that tell what and where they are; their content."""
        data = b"".join(
            f"{tag}:{unit.lun}:{lba + number:08d}".encode().ljust(unit.block_size, b".")
            for number in range(blocks)
        )
        self.good(self.near.write(unit.lun, lba, blocks, data))
        return data

    def read(self, unit: Unit, lba: int, blocks: int) -> bytes:
        """The content of some blocks."""
        answer = self.near.read(unit.lun, lba, blocks)
        self.good(answer)
        return answer.data

    def token(self, unit: Unit, *places: tuple[int, int], **options: int | bool | None) -> bytes:
        """POPULATE TOKEN of (LBA, blocks) places, and the token."""
        identifier = next(self.near.identifiers)
        sent = self.near.populate(unit.lun, ranges(places), identifier=identifier, **options)  # type: ignore[arg-type]
        self.good(sent)
        told = self.finished(unit, identifier)
        if told.token is None:
            raise CheckFailedError(f"no token came with status {told.status.status:02X}h")
        return told.token

    def write(
        self, unit: Unit, token: bytes, *places: tuple[int, int], **options: int | bool | None
    ) -> Answer:
        """WRITE USING TOKEN to (LBA, blocks) places."""
        return self.near.write_token(unit.lun, token, ranges(places), **options)  # type: ignore[arg-type]

    def information(self, unit: Unit, identifier: int, *, far: bool = False) -> TokenInformation:
        """RECEIVE ROD TOKEN INFORMATION that must end with GOOD."""
        answer = (self.far if far else self.near).information(unit.lun, identifier)
        self.good(answer)
        try:
            return TokenInformation.parse(answer.data)
        except ValueError as error:
            raise CheckFailedError(f"RECEIVE ROD TOKEN INFORMATION data cannot be read: {error}") from error

    def finished(self, unit: Unit, identifier: int) -> TokenInformation:
        """The same, once the copy has ended."""
        for _ in self._turns():
            told = self.information(unit, identifier)
            if told.status.status not in _IN_PROGRESS:
                return told
        raise CheckFailedError(f"the copy did not end within {LAST_WAIT:.0f} s")

    def _turns(self) -> Iterator[int]:
        pause = 0.05
        for turn in range(int(LAST_WAIT / pause)):
            yield turn
            self.device.idle()
            if turn:
                self.device.sleep(pause)

    # Expecting: each notes what was expected beside the last command.

    def expect(self, words: str, *, ok: bool, found: object = "") -> None:
        """Something must be so."""
        if self.steps and words not in self.steps[-1].expected:
            self.steps[-1].expected.append(words)
        if not ok:
            raise CheckFailedError(f"expected {words}" + (f", found {found}" if found != "" else ""))

    def good(self, answer: Answer) -> None:
        """Status GOOD."""
        self.expect("GOOD", ok=answer.good, found=said(answer))

    def refused(self, answer: Answer, *faults: Fault) -> None:
        """CHECK CONDITION with one of some sense codes."""
        words = " or ".join(Sense(*fault).name for fault in faults)
        wrong = answer.status != Status.CHECK_CONDITION or answer.fault not in faults
        self.expect(words, ok=not wrong, found=said(answer))

    def equal(self, what: str, found: object, wanted: object) -> None:
        """A value."""
        self.expect(f"{what} {_shown(wanted)}", ok=found == wanted, found=_shown(found))

    def holds(self, unit: Unit, lba: int, wanted: bytes, meaning: str) -> None:
        """The content of some blocks."""
        size = unit.block_size
        found = self.read(unit, lba, len(wanted) // size)
        wrong = next(
            (at for at in range(0, len(wanted), size) if found[at : at + size] != wanted[at:][:size]), None
        )
        where = "" if wrong is None else f"block {lba + wrong // size} starting {found[wrong:][:16]!r}"
        self.expect(f"{meaning} at block {lba}", ok=wrong is None, found=where)


def ranges(places: Sequence[tuple[int, int]]) -> list[Range]:
    """Range descriptors."""
    return [Range(lba, blocks) for lba, blocks in places]


def said(answer: Answer) -> str:
    """An answer in words."""
    if answer.good:
        return f"GOOD with {len(answer.data)} bytes" if answer.data else "GOOD"
    try:
        name = Status(answer.status).name.replace("_", " ")
    except ValueError:
        name = f"status {answer.status:02X}h"
    full = answer.full_sense
    return f"{name}, {full.name}" if full else name


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value[:32].hex() + ("..." if len(value) > 32 else "")
    return str(value)
