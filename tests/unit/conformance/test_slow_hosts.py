"""A host that stands still for 20 s, wherever that is in a check, makes no good device fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.conformance.checks import all_checks, expiry, windows
from qemu_odx.testing.conformance.local import LocalDevice
from qemu_odx.testing.conformance.run import Verdict, run_checks

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.checks.family import Check
    from qemu_odx.testing.conformance.run import Result
    from qemu_odx.testing.initiator import Answer

STANDSTILL = 20.0
TIMED = [check for check in all_checks() if check.id.startswith("expiry.") or check.id == "windows.in_time"]


class Halting(LocalDevice):
    """Stands still before one of its commands.

    Args:
        moment: the number of the command.
    """

    def __init__(self, moment: int, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.left = moment
        for module in (expiry, windows):
            patch.setattr(module, "time", self)

    def monotonic(self) -> float:
        """The time that the check sees."""
        return float(self.reference.clock())

    def carry(self, nexus: int, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send a command."""
        if self.left == 0:
            self.sleep(STANDSTILL)
        self.left -= 1
        return super().carry(nexus, lun, cdb, data_out)


def halted(check: Check, moment: int, patch: pytest.MonkeyPatch) -> tuple[Result, bool]:
    """How the check ends, and whether it came that far."""
    device = Halting(moment, patch)
    (result,) = run_checks([check], lambda: device, destroy=True)
    return result, device.left < 0


@pytest.mark.parametrize("check", TIMED, ids=lambda check: check.id)
def test_no_standstill_is_held_against_the_device(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """One before each of the commands in turn, and at last none."""
    moment, came_that_far = 0, True
    while came_that_far:
        result, came_that_far = halted(check, moment, monkeypatch)
        assert (result.verdict, result.why) == (Verdict.PASS, ""), f"standstill before command {moment}"
        moment += 1
    assert moment > 2
