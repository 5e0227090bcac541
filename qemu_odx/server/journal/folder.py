"""The state folder of a server: its lock, the database in it, and whether that may be believed.

Imports the rest of `server/journal`. Made by `server/app.py`. The database is believed if a file `good` stands beside
it, which a failing journal removes (that needs no space), and if the host has not been started anew since: what a
killed process wrote is in the page cache, what a crashed host wrote may be anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.server.journal.copies import CopyJournal
from qemu_odx.server.journal.disks import ImageJournal
from qemu_odx.server.journal.slots import SlotJournal
from qemu_odx.server.journal.store import JournalError, Store
from qemu_odx.tokens.token import Fault, tombstone

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_DISTRUSTED = ("images", "held", "saved", "tokens", "copies", "nexuses", "slots", "swaps")
_REMEMBERED = 3600.0
"""Seconds for which a cancelled token is told from an unknown one."""


class StateFolder:
    """An open, locked state folder.

    Args:
        path: the folder, made if missing.
        ruler: a clock that goes on while no server runs; None: the copy manager's clock is virtual.
        boot: the file that names this start of the host.

    Attributes:
        store: the database.
        journal: of the copy manager, once that has asked for it.

    Raises:
        JournalError: it cannot be used; the sentence says why.
    """

    def __init__(
        self, path: Path, *, ruler: Callable[[], float] | None = time.monotonic, boot: Path = _BOOT
    ) -> None:
        self.path = path
        self._ruler = ruler
        self._boot = boot
        self._good = path / "good"
        self._lock = _locked(path)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, self._lock)
            self.store = self._open()
            undo.callback(self.store.close)
            self._begin()
            undo.pop_all()
        self._images: dict[str, ImageJournal] = {}
        self.journal: CopyJournal

    def disk(self, name: str) -> ImageJournal:
        """The journal of a disk."""
        self._images[name] = journal = ImageJournal(self.store, name, self.path)
        return journal

    def forget_others(self) -> None:
        """Forget the disks that nobody has asked for: their tokens are cancelled."""
        for (name,) in self.store.rows("SELECT disk FROM images"):
            if name not in self._images:
                ImageJournal(self.store, name, self.path).forget()

    def copies(self, clock: Callable[[], float]) -> CopyJournal:
        """The journal of the copy manager, which goes by this clock."""
        self.journal = CopyJournal(self.store, clock, self._ruler)
        return self.journal

    def slots(self, port: str, ending: Callable[[], bool]) -> SlotJournal:
        """The journal of the mailbox of an initiator port."""
        return SlotJournal(self.store, port, ending)

    def beat(self) -> None:
        """Once a second: note that the images with snapshots have been changed by nobody else until now."""
        with self.store.together():
            self.journal.beat()
            for image in tuple(self._images.values()):
                image.beat()

    def host_crashed(self) -> None:
        """A crash of the host is modelled: a successor finds the journal of another start of the host."""
        self.store.write("INSERT OR REPLACE INTO facts VALUES('boot', ?)", ("modelled",))

    def close(self) -> None:
        """No more notes; another server may have the folder."""
        self.store.close()
        os.close(self._lock)

    def _open(self) -> Store:
        path = self.path / "journal.sqlite3"
        try:
            return Store(path, self._distrust)
        except sqlite3.Error as error:
            log.warning(
                "%s cannot be read (%s): a new one is begun, tokens noted there are unknown", path, error
            )
        self._good.unlink(missing_ok=True)
        for name in ("", "-wal", "-shm"):
            Path(f"{path}{name}").unlink(missing_ok=True)
        try:
            return Store(path, self._distrust)
        except sqlite3.Error as error:
            raise JournalError(
                f"{path} cannot be written ({error}): make room, or choose another folder"
            ) from error

    def _begin(self) -> None:
        """Whether what is there is believed; from here on, what is there is ours."""
        try:
            boot = self._boot.read_text().strip()
            before = dict(self.store.rows("SELECT name, value FROM facts")).get("boot")
            if before is not None and not (before == boot and self._good.exists()):
                self._cancel_all("the host was started anew" if before != boot else "the journal had failed")
            self.store.write("INSERT OR REPLACE INTO facts VALUES('boot', ?)", (boot,))
            self._good.touch()
        except (OSError, sqlite3.Error) as error:
            raise JournalError(
                f"{self.path} cannot be used ({error}): make room, or choose another folder"
            ) from error

    def _cancel_all(self, why: str) -> None:
        rows = self.store.rows("SELECT data, owner, family FROM tokens")
        if rows:
            log.warning("%s: %d tokens of before are cancelled", why, len(rows))
        with self.store.together():
            self.store.write("UPDATE graves SET remaining=?, noted=NULL", (_REMEMBERED,))
            for data, owner, family in rows:
                grave = tombstone(data, Fault.CANCELLED, owner, family, 0.0)
                self.store.write(
                    "INSERT OR REPLACE INTO graves VALUES(?,?,?,?,?,?,?,NULL)",
                    (
                        data[8:16],
                        grave.secret,
                        grave.whole,
                        grave.cause.value,
                        owner,
                        family,
                        _REMEMBERED,
                    ),
                )
            for table in _DISTRUSTED:
                self.store.write(f"DELETE FROM {table}", ())  # noqa: S608 - names from above

    def _distrust(self) -> None:
        with contextlib.suppress(OSError):
            self._good.unlink(missing_ok=True)


def _locked(path: Path) -> int:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(
            f"state folder {path} cannot be used ({error.strerror}): choose one that this user may write"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise JournalError(
            f"state folder {path} is in use by another server: stop that one, or give each its own folder"
        ) from error
    return fd
