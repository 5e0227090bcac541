"""Options of the command line as members of QMP arguments: both say the same, and the same code checks them.

Imports `schema.py`. Used by `disks.py` and `exports.py`, and by their clients on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.server.monitor.schema import Member
from qemu_odx.server.options import parse_size, parse_switch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qemu_odx.server.monitor.schema import Members
    from qemu_odx.server.options import Options

_SWITCH = {True: "on", False: "off"}


def members_for(keys: Iterable[str], kinds: Mapping[str, object], required: tuple[str, ...]) -> Members:
    """The members for some option keys: text, but for those in `kinds`."""
    return {key: Member(kinds.get(key, str), optional=key not in required) for key in keys}


def as_options(arguments: Mapping[str, object]) -> Options:
    """Arguments as if they had been given on the command line."""
    return {
        key: _SWITCH[value] if isinstance(value, bool) else str(value) for key, value in arguments.items()
    }


def as_arguments(options: Options, kinds: Mapping[str, object]) -> dict[str, object]:
    """What was given on the command line as arguments: `size=1G` becomes a number of bytes.

    Raises:
        ConfigError: a value is not of its kind.
    """
    parse = {int: parse_size, bool: parse_switch}
    return {key: parse.get(kinds.get(key), str)(value) for key, value in options.items()}  # type: ignore[call-overload]
