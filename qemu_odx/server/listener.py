"""A listening unix socket that replaces a stale one, refuses a live one, and removes only itself.

Imports `server/options.py` for its error, and `server/access.py`. Used by `server/export.py` and the monitor.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from qemu_odx.server.access import AS_MADE, SocketAccess
from qemu_odx.server.options import ConfigError

_PATH_MAX = 107
"""sun_path has 108 bytes, the last one for the NUL (unix(7))."""
_BACKLOG = 8


class Listener:
    """A unix stream socket at `path`, listening from the start, with owner, group and mode as `access` says.

    Raises:
        ConfigError: it cannot be; the sentence says why.
    """

    def __init__(self, path: str, access: SocketAccess = AS_MADE) -> None:
        self.path = path
        self._access = access
        _check_place(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    def accept(self) -> socket.socket | None:
        """The next front end, or None if it left before we looked."""
        try:
            return self._socket.accept()[0]
        except OSError:
            return None

    def close(self) -> None:
        """Stop listening; remove the socket file if it is still the one made here."""
        self._socket.close()
        try:
            if _identity(self.path) == self._own:
                Path(self.path).unlink()
        except OSError:
            return

    def _bind(self) -> None:
        try:
            self._socket.bind(self.path)
            self._own = _identity(self.path)
            self._give_access()
            self._socket.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(f"socket {self.path}: cannot listen here: {error.strerror}") from error
        self._socket.setblocking(False)

    def _give_access(self) -> None:
        """Between bind and listen, when nobody can connect yet."""
        try:
            self._access.apply(self.path)
        except OSError as error:
            Path(self.path).unlink()
            raise ConfigError(
                f"socket {self.path}: owner, group or mode cannot be set ({error.strerror}): "
                "give sockets to yourself and your groups, or run as root"
            ) from error


def _check_place(path: str) -> None:
    length = len(os.fsencode(path))
    if length > _PATH_MAX:
        raise ConfigError(
            f"socket {path}: the path has {length} bytes, a socket's may have {_PATH_MAX}; use a shorter one"
        )
    folder = Path(path).parent
    if not folder.is_dir():
        raise ConfigError(f"socket {path}: there is no folder {folder}; make it first")
    _clear_stale(path)


def _clear_stale(path: str) -> None:
    """Remove what a dead server left behind; anything else stays and is refused."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"socket {path}: a file that is no socket is in the way; remove it or choose another path"
        )
    if _is_live(path):
        raise ConfigError(f"socket {path}: another program listens here; stop it or choose another path")
    Path(path).unlink()


def _is_live(path: str) -> bool:
    """True if anybody accepts connections there; a full queue counts as somebody."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def _identity(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
