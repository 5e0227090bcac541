"""Abort: copies that are stopped, resets, and what is left of results and tokens afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import HELD, NEXUS_LOSS, RESET, ranges
from qemu_odx.testing.conformance.checks.family import Family
from qemu_odx.testing.conformance.checks.faults import INVALID_CDB, TOKEN_CANCELLED
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.bench import Bench

FAMILY = Family("abort")
COA, LID = "SPC-4 6.3, 6.24", "SPC-4 5.17.4"
TERMINATED = 0x60
TO = 400


@FAMILY.add(COA, HELD, destructive=True)
def background_write(b: Bench) -> None:
    """COPY OPERATION ABORT stops a write in the background: 60h, TASK ABORTED, and no block moves later."""
    unit = b.first
    old = b.fill(unit, TO, 8, "old")
    token, identifier = b.token(unit, (16, 8)), next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 8), immediate=True, identifier=identifier))
    b.good(b.near.abort_copy(unit.lun, identifier))
    told = b.information(unit, identifier).status
    b.equal("COPY OPERATION STATUS", f"{told.status:02X}h", f"{TERMINATED:02X}h")
    b.equal("EXTENDED COPY COMPLETION STATUS", told.completion, Status.TASK_ABORTED)
    b.equal("SENSE DATA LENGTH", len(told.sense), 0)
    b.device.idle()
    b.holds(unit, TO, old, "what was there")


@FAMILY.add(COA, HELD)
def background_populate(b: Bench) -> None:
    """An aborted POPULATE TOKEN makes no token."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier, immediate=True))
    b.good(b.near.abort_copy(b.first.lun, identifier))
    told = b.information(b.first, identifier)
    b.equal("COPY OPERATION STATUS", f"{told.status.status:02X}h", f"{TERMINATED:02X}h")
    b.expect("no token", ok=told.token is None)


@FAMILY.add(COA, HELD, destructive=True)
def aborted_write_leaves_the_token(b: Bench) -> None:
    """The token of an aborted write can still be used."""
    unit = b.first
    data = b.fill(unit, 16, 8, "source")
    token, identifier = b.token(unit, (16, 8)), next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 8), immediate=True, identifier=identifier))
    b.good(b.near.abort_copy(unit.lun, identifier))
    b.good(b.write(unit, token, (TO, 8)))
    b.holds(unit, TO, data, "the source")


@FAMILY.add(COA)
def finished_copy(b: Bench) -> None:
    """A finished copy cannot be aborted; its result is kept."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 8)]), identifier=identifier))
    b.refused(b.near.abort_copy(b.first.lun, identifier), INVALID_CDB)
    b.expect("a token", ok=b.information(b.first, identifier).token is not None)


@FAMILY.add(LID, RESET, destructive=True)
def reset_drops_results(b: Bench) -> None:
    """LOGICAL UNIT RESET drops results; tokens stay, or are cancelled, but never bring anything else."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    token, identifier = b.token(unit, (16, 4)), next(b.near.identifiers)
    b.good(b.near.populate(unit.lun, ranges([(16, 4)]), identifier=identifier))
    b.device.reset(unit.lun)
    b.refused(b.near.information(unit.lun, identifier), INVALID_CDB)
    answer = b.write(unit, token, (TO, 4))
    if answer.fault != TOKEN_CANCELLED:
        b.good(answer)
        b.holds(unit, TO, data, "the source")


@FAMILY.add(LID, HELD, RESET, destructive=True)
def reset_stops_copies(b: Bench) -> None:
    """A reset stops a copy in the background."""
    unit = b.first
    old = b.fill(unit, TO, 8, "old")
    token, identifier = b.token(unit, (16, 8)), next(b.near.identifiers)
    b.good(b.write(unit, token, (TO, 8), immediate=True, identifier=identifier))
    b.device.reset(unit.lun)
    b.device.idle()
    b.holds(unit, TO, old, "what was there")


@FAMILY.add(LID, NEXUS_LOSS)
def nexus_loss_drops_results(b: Bench) -> None:
    """I_T nexus loss drops the results of that nexus."""
    identifier = next(b.near.identifiers)
    b.good(b.near.populate(b.first.lun, ranges([(16, 4)]), identifier=identifier))
    b.device.lose_nexus(0)
    b.refused(b.near.information(b.first.lun, identifier), INVALID_CDB)


@FAMILY.add(LID, NEXUS_LOSS, destructive=True)
def nexus_loss_leaves_tokens(b: Bench) -> None:
    """Tokens outlive the nexus they were made over."""
    data = b.fill(b.first, 16, 4, "source")
    token = b.token(b.first, (16, 4))
    b.device.lose_nexus(0)
    b.good(b.write(b.first, token, (TO, 4)))
    b.holds(b.first, TO, data, "the source")


@FAMILY.add(LID, HELD, NEXUS_LOSS, destructive=True)
def copies_go_on_without_their_nexus(b: Bench) -> None:
    """A copy in the background goes on after I_T nexus loss."""
    unit = b.first
    data = b.fill(unit, 16, 4, "source")
    b.fill(unit, TO, 4, "old")
    token = b.token(unit, (16, 4))
    b.good(b.write(unit, token, (TO, 4), immediate=True))
    b.device.lose_nexus(0)
    b.device.idle()
    b.holds(unit, TO, data, "the source")
