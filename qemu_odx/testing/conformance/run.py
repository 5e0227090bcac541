"""Runs checks on a device and keeps what came of each.

Imports `bench` and `checks` only: part of the kit that is copied into guests. Next: `report.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.bench import Bench, CheckFailedError, CheckSkippedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from qemu_odx.testing.conformance.bench import Device, Step
    from qemu_odx.testing.conformance.checks.family import Check

_A_RUN = 10
"""Bits of list identifiers for each second: no result of an earlier run is met again."""
_HALF_OF_ALL = 0x7FFFFFFF


class Verdict(Enum):
    """What became of a check."""

    PASS = "pass"  # noqa: S105 - not a password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was run, or not.

    Attributes:
        why: what was expected and found, or the reason for a skip.
        steps: all commands with their answers and what was expected of them.
        seconds: how long it took.
    """

    check: Check
    verdict: Verdict
    why: str
    steps: tuple[Step, ...]
    seconds: float


def run_checks(
    checks: Iterable[Check], device: Callable[[], AbstractContextManager[Device]], *, destroy: bool
) -> Iterator[Result]:
    """Run checks one by one, each on what `device` gives: a fresh target, or the same disk again."""
    identifiers = count(1 + (int(time.time()) << _A_RUN & _HALF_OF_ALL))  # 0 is for the checks that mean it
    for check in checks:
        with device() as given:
            yield run_check(check, Bench(given, identifiers), destroy=destroy)


def run_check(check: Check, bench: Bench, *, destroy: bool) -> Result:
    """Run one check; an answer that makes it stumble counts as failed."""
    device, start = bench.device, time.monotonic()

    def ended(verdict: Verdict, why: str = "") -> Result:
        return Result(check, verdict, why, tuple(bench.steps), time.monotonic() - start)

    missing = [need for need in check.needs if need not in device.features]
    if missing:
        return ended(Verdict.SKIP, f"needs {missing[0]}")
    if check.destructive and not destroy:
        return ended(Verdict.SKIP, "writes to the disk: allow it with --destroy-data")
    try:
        check.run(bench)
    except CheckFailedError as error:
        return ended(Verdict.FAIL, str(error))
    except CheckSkippedError as error:
        return ended(Verdict.SKIP, str(error))
    except (IndexError, ValueError, ArithmeticError) as error:
        return ended(Verdict.FAIL, f"the answer cannot be read: {error!r}")
    except Exception as error:  # noqa: BLE001 - whatever a broken device causes is a failed check, not the end
        return ended(Verdict.FAIL, f"the device broke: {error!r}")
    return ended(Verdict.PASS)
