"""A family of checks, and what a check is.

Imports `bench` only. Each module beside this one makes one `Family` and adds functions to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.testing.conformance.bench import Bench

    Run = Callable[[Bench], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One behaviour of a device.

    Attributes:
        family: name of its family.
        name: of the behaviour.
        clause: where it is demanded.
        title: what it proves, one sentence.
        needs: what a device must be able to do for it.
        destructive: it writes to the disk.
        run: does it; raises `CheckFailedError` or `CheckSkippedError`.
    """

    family: str
    name: str
    clause: str
    title: str
    needs: tuple[str, ...]
    destructive: bool
    run: Run

    @property
    def id(self) -> str:
        """Family and name."""
        return f"{self.family}.{self.name}"


@dataclass(slots=True)
class Family:
    """Checks that belong together."""

    name: str
    checks: list[Check] = field(default_factory=list)

    def add(self, clause: str, *needs: str, destructive: bool = False) -> Callable[[Run], Run]:
        """Make a check of a function; its docstring is what it proves."""

        def adding(run: Run) -> Run:
            title = (run.__doc__ or "").strip().splitlines()[0]
            self.checks.append(Check(self.name, run.__name__, clause, title, needs, destructive, run))
            return run

        return adding
