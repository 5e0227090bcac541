"""How a command of the monitor fails: a class for programs, a sentence for people.

Pure. The classes are those of QAPI (QEMU, `qapi/error.json`, QapiErrorClass).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

ErrorClass: TypeAlias = Literal["GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound"]


class MonitorError(Exception):
    """A command cannot be done; nothing was changed.

    Args:
        description: one sentence that names the cure.
        error_class: for programs.
    """

    def __init__(self, description: str, error_class: ErrorClass = "GenericError") -> None:
        super().__init__(description)
        self.error_class = error_class


def not_found(kind: str, name: str, known: list[str]) -> MonitorError:
    """There is no disk, export, token or copy of that name."""
    there = f"there are {', '.join(known[:16])}" if known else "there is none"
    return MonitorError(f"no {kind} is named '{name}': {there}", "DeviceNotFound")
