"""Who may connect to a socket: its file's owner, group and mode, as asked for.

Imports `server/options.py`. `server/config.py` reads it, `server/listener.py` sets it before it listens.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.server.options import ConfigError, get

if TYPE_CHECKING:
    from qemu_odx.server.options import Options

ACCESS_KEYS = ("owner", "socket-group", "mode")


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """What is to be set on a socket's file; None leaves it as the system makes it.

    Attributes:
        owner: user id.
        group: group id.
        mode: permission bits.
    """

    owner: int | None = None
    group: int | None = None
    mode: int | None = None

    def apply(self, path: str) -> None:
        """Set it on a socket that does not listen yet, so that nobody gets in before. Raises OSError."""
        if self.owner is not None or self.group is not None:
            os.chown(path, -1 if self.owner is None else self.owner, -1 if self.group is None else self.group)
        if self.mode is not None:
            os.chmod(path, self.mode)  # noqa: PTH101 - beside chown


AS_MADE = SocketAccess()


def parse_access(options: Options) -> SocketAccess:
    """`owner=USER`, `socket-group=GROUP` (names or numbers) and `mode=0660`.

    Raises:
        ConfigError: there is no such user or group, or the mode is none.
    """
    return SocketAccess(
        get(options, "owner", _user, None),
        get(options, "socket-group", _group, None),
        get(options, "mode", _mode, None),
    )


def _user(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ConfigError(f"there is no user '{text}': see getent passwd") from None


def _group(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group '{text}': see getent group") from None


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ConfigError(f"'{text}' is no mode; write three octal digits, such as 0660")
    return int(text, 8)
