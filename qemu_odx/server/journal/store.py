"""The database of a journal: transactions, its version, and how it fails.

Imports nothing of ours. Nothing here waits for a disk: after SIGKILL the page cache still has what was written, in
the order in which it was; after a crash of the host the journal is not believed (`folder.py`). So `synchronous=OFF`.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

VERSION: Final = 2
"""Of the tables below; `PRAGMA user_version` has it."""
_SWAPS: Final = """
CREATE TABLE swaps(
    note INTEGER PRIMARY KEY, nexus TEXT, stamp BLOB, disk TEXT, place INT, length INT, data BLOB, stable INT,
    seen INT, written INT);
"""
_UPGRADES: Final = {1: _SWAPS}
"""Versions that are still read: what makes their tables those of today."""
SCHEMA: Final = f"""{_SWAPS}
CREATE TABLE facts(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE images(
    disk TEXT PRIMARY KEY, device INT, inode INT, born INT, mark BLOB, method TEXT,
    size INT, changed INT, seen INT, closed INT) WITHOUT ROWID;
CREATE TABLE held(disk TEXT, number INT, extents BLOB, places BLOB, PRIMARY KEY(disk, number)) WITHOUT ROWID;
CREATE TABLE saved(
    disk TEXT, place INT, start INT, end INT, number INT, PRIMARY KEY(disk, place)) WITHOUT ROWID;
CREATE TABLE tokens(
    identifier BLOB PRIMARY KEY, data BLOB, creator TEXT, number INT, owner TEXT, family TEXT,
    timeout REAL, remaining REAL, rest_of_life REAL, noted REAL) WITHOUT ROWID;
CREATE TABLE graves(
    identifier BLOB PRIMARY KEY, secret BLOB, whole BLOB, cause INT, owner TEXT, family TEXT,
    remaining REAL, noted REAL) WITHOUT ROWID;
CREATE TABLE copies(
    note INTEGER PRIMARY KEY, nexus TEXT, list_identifier INT, lun INT, service_action INT, status INT, units INT,
    count INT, segments INT, completion INT, sense BLOB, token BLOB, kept INT, lid1 INT, stamp BLOB, cdb BLOB,
    parameters BLOB, answer BLOB, aborted_by BLOB, stopping INT, uses BLOB, source TEXT, ended INT, hidden INT,
    noted REAL);
CREATE INDEX copies_by_nexus ON copies(nexus, list_identifier);
CREATE TABLE nexuses(nexus TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE slots(
    port TEXT, nexus TEXT, slot INT, user TEXT, sequence TEXT, stamp BLOB, response BLOB, leased REAL,
    PRIMARY KEY(port, slot)) WITHOUT ROWID;
"""


class JournalError(Exception):
    """The journal cannot be used: one sentence with the cure."""


class Store:
    """An open database. Methods may be called from any thread; writes never raise.

    Args:
        path: the file, made if missing.
        failed: called once, before the write that failed returns: no successor may believe the file.

    Raises:
        JournalError: a newer program wrote it, or it cannot be opened for good reason.
        sqlite3.Error: it is no sound database.
    """

    def __init__(self, path: Path, failed: Callable[[], None]) -> None:
        self._failed: Callable[[], None] | None = failed
        self._lock = threading.RLock()
        self._depth = 0
        self._open = False
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    @property
    def failed(self) -> bool:
        """True once it has failed: nothing is noted any more."""
        return self._failed is None

    def write(self, sql: str, *rows: tuple[Any, ...]) -> None:
        """One statement for each row: on disk, as far as a kill of this process goes, when it returns."""
        with self._lock:
            if self._failed is None or not rows:
                return
            try:
                if not self._open and (self._depth or len(rows) > 1):
                    self._db.execute("BEGIN IMMEDIATE")
                    self._open = True
                self._db.executemany(sql, rows)
                if self._open and not self._depth:
                    self._commit()
            except sqlite3.Error as error:
                self._fail(error)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside is there as a whole or not at all."""
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth and self._open and self._failed is not None:
                    try:
                        self._commit()
                    except sqlite3.Error as error:
                        self._fail(error)

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """What is there. Raises sqlite3.Error; to be used before anything is served."""
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """No more notes."""
        with self._lock:
            self._failed = None
            self._db.close()

    def _commit(self) -> None:
        self._open = False
        self._db.execute("COMMIT")

    def _fail(self, error: sqlite3.Error) -> None:
        told, self._failed = self._failed, None
        self._open = False
        log.error(
            "the journal cannot be written (%s): tokens made so far live on, but end with this server", error
        )
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if told:
            told()

    def _prepare(self, path: Path) -> None:
        for name, value in (("locking_mode", "EXCLUSIVE"), ("journal_mode", "WAL"), ("synchronous", "OFF")):
            self._db.execute(f"PRAGMA {name}={value}").fetchall()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise JournalError(
                f"{path} was written by a newer qemu-odx (version {version} of its tables, {VERSION} is known here): "
                "start that one, or remove the folder to give up its tokens"
            )
        if version not in {0, VERSION, *_UPGRADES}:
            raise sqlite3.DatabaseError(f"version {version} of the tables is no longer read")
        if version and (found := self._db.execute("PRAGMA quick_check(1)").fetchone()) != ("ok",):
            raise sqlite3.DatabaseError(f"it is damaged: {found}")
        if version != VERSION:
            more = _UPGRADES.get(version, SCHEMA)
            self._db.executescript(f"BEGIN;{more}PRAGMA user_version={VERSION};COMMIT;")


def marks(values: Iterable[object]) -> str:
    """As many question marks, for a list of values in SQL."""
    return ",".join("?" for _ in values)
