"""Values of options that several commands take: numbers of seconds, files that are written.

Imports nothing of ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    import os

_LONGEST = 1e9
"""No wait of the system takes more; 30 years."""


class Seconds(click.FloatRange):
    """Seconds, or hours, to wait: a number that there is, and that a wait can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number) or number > _LONGEST:
            self.fail(f"{value} is no time; take at most {_LONGEST:g}", param, ctx)
        return number


class NewFile(click.Path):
    """A file that will be written: that it cannot be is said before the work, not behind it."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        path: str | bytes | os.PathLike[str] = super().convert(value, param, ctx)
        folder = Path(str(path)).parent
        if not folder.is_dir():
            self.fail(f"there is no folder {folder}; make it first", param, ctx)
        return path
