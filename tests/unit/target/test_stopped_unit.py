"""A unit that START STOP UNIT has stopped: its medium is out of reach for copies too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator

NOT_READY = (2, 0x04, 2)
STOP, START = "1b0000000000", "1b0000000100"


@pytest.fixture
def stopped(initiator: Initiator) -> Initiator:
    """Unit 1 is stopped."""
    assert initiator.command(1, STOP).good
    return initiator


def test_medium_commands_are_refused(stopped: Initiator) -> None:
    """NOT READY, START UNIT needed."""
    assert stopped.read(1, 0, 1).fault == NOT_READY
    assert stopped.unmap(1, [Range(0, 1)]).fault == NOT_READY
    assert stopped.command(1, "00").fault == NOT_READY


def test_no_token_is_made_of_it(stopped: Initiator) -> None:
    """And the list identifier is free again."""
    assert stopped.populate(1, [Range(0, 4)], identifier=7).fault == NOT_READY
    assert stopped.information(1, 7).fault == (5, 0x24, 0)


def test_no_token_is_written_to_it(stopped: Initiator, reference: ReferenceTarget) -> None:
    """Nothing moves; once started it does."""
    token = stopped.token(0, [Range(0, 4)])
    assert stopped.write_token(1, token, [Range(0, 4)]).fault == NOT_READY
    assert reference.read(1, 0, 1).startswith(b"L1B00000000")
    assert stopped.command(1, START).good
    assert stopped.write_token(1, token, [Range(0, 4)]).good
    assert reference.read(1, 0, 1).startswith(b"L0B00000000")
