"""One thing the doctor looked at: what was found, how bad that is, what helps.

Imports nothing of ours. The checks beside this file make findings, `checkup.py` collects them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class Level(Enum):
    """How bad it is, best first."""

    OK = "ok"
    NOTE = "note"  # something optional is not there
    WARNING = "warning"  # it works, but slower or not everywhere
    ERROR = "error"  # something that is asked for will fail


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        area: group of the report, such as "qemu".
        name: what was looked at, unique in its area.
        level: how bad it is.
        found: what is there, in a few words.
        cure: what the user can do, in the imperative; empty if all is well.
        feature: what only needs it ("libvirt", "windows", "wine", several in one text); empty if everything does.
    """

    area: str
    name: str
    level: Level
    found: str
    cure: str = ""
    feature: str = ""

    def needed_by(self, features: Collection[str]) -> Finding:
        """The same; an error if it is missing and one of these features needs it."""
        missing = self.level is Level.NOTE and not set(self.feature.split()).isdisjoint(features)
        return replace(self, level=Level.ERROR) if missing else self

    def as_json(self) -> dict[str, str]:
        """One object of `--json`."""
        return {
            "area": self.area,
            "name": self.name,
            "level": self.level.value,
            "found": self.found,
            "cure": self.cure,
            "feature": self.feature,
        }
