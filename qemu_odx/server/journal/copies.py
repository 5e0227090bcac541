"""The journal of a copy manager: implements the ports of `tokens/journal.py`, and reads back what was noted.

Imports `tokens`, `target`, `wire/scsi` and `store.py`. Times are noted as what is left of them, with the reading of
the system's monotonic clock: time goes on while no server runs. A virtual clock stands still then, and begins anew.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

from qemu_odx.server.journal.names import identifier_name, name_of, nexus_of, source_name, source_of
from qemu_odx.server.journal.swaps import SwapNotes
from qemu_odx.target.recovery import OldCopy
from qemu_odx.tokens.operations import RETENTION, Operation, OperationStatus
from qemu_odx.tokens.token import Fault, Token, Tombstone, tombstone
from qemu_odx.wire.scsi import rod_token, sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from qemu_odx.disk.port import Snapshot
    from qemu_odx.server.journal.store import Store

RECONNECT: Final = 60.0
"""Seconds for which a token lives at least that a copy was using: its front end comes back and the copy goes on."""
_COPY: Final = (
    "note, nexus, list_identifier, lun, service_action, status, units, count, segments, completion, sense, token,"
    " kept, lid1, stamp, cdb, parameters, answer, aborted_by, stopping, uses, source, ended, hidden, noted"
)


class CopyJournal:
    """Notes of one copy manager in the store.

    Args:
        store: the database.
        clock: the copy manager's.
        ruler: a clock that goes on while no server runs; None: the copy manager's is virtual.
    """

    def __init__(self, store: Store, clock: Callable[[], float], ruler: Callable[[], float] | None) -> None:
        self._store = store
        self._clock = clock
        self._ruler = ruler
        self._stopped_at = 0.0 if ruler else _last_reading(store)
        self._notes = itertools.count(time.time_ns())
        self.together = store.together
        self.swaps = SwapNotes(store)

    # -- tokens ------------------------------------------------------------------------------------

    def minted(self, token: Token[Snapshot]) -> None:
        """See `TokenJournal`."""
        now = self._clock()
        self._store.write(
            "INSERT OR REPLACE INTO tokens VALUES(?,?,?,?,?,?,?,?,?,?)",
            (
                identifier_name(token.identifier),
                token.data,
                str(token.creator),
                token.payload.outlive(),
                name_of(token.owner),
                token.group,
                token.inactivity_timeout,
                token.deadline - now,
                token.end_of_life - now,
                self._noted(),
            ),
        )

    def used(self, token: Token[Snapshot]) -> None:
        """See `TokenJournal`."""
        now = self._clock()
        self._store.write(
            "UPDATE tokens SET remaining=?, rest_of_life=?, noted=? WHERE identifier=?",
            (
                token.deadline - now,
                token.end_of_life - now,
                self._noted(),
                identifier_name(token.identifier),
            ),
        )

    def doomed(self, identifier: int, grave: Tombstone) -> None:
        """See `TokenJournal`: a grave beside the token."""
        self._store.write(
            "INSERT OR REPLACE INTO graves VALUES(?,?,?,?,?,?,?,?)",
            (
                identifier_name(identifier),
                grave.secret,
                grave.whole,
                grave.cause.value,
                name_of(grave.owner),
                grave.group,
                grave.forget_at - self._clock(),
                self._noted(),
            ),
        )

    def buried(self, identifier: int, grave: Tombstone) -> None:
        """See `TokenJournal`."""
        with self._store.together():
            self._store.write("DELETE FROM tokens WHERE identifier=?", (identifier_name(identifier),))
            self.doomed(identifier, grave)

    def forgotten(self, identifier: int) -> None:
        """See `TokenJournal`."""
        self._store.write("DELETE FROM graves WHERE identifier=?", (identifier_name(identifier),))

    def tokens(
        self, snapshot: Callable[[str, int], Snapshot | None]
    ) -> tuple[list[Token[Snapshot]], dict[int, Tombstone]]:
        """What a predecessor left: tokens whose snapshots are still there, and tombstones, also of all others.

        Args:
            snapshot: by name of the disk and number, each once.
        """
        graves = self._graves()
        tokens = []
        in_use = {uses for (uses,) in self._store.rows("SELECT uses FROM copies WHERE NOT ended")}
        for row in self._store.rows("SELECT * FROM tokens ORDER BY identifier"):
            identifier, data, creator, number, owner, group, timeout, remaining, rest, noted = row
            dug = graves.pop(rod_token.identifier(data), None)
            payload = None if number is None else snapshot(creator, number)
            now, passed = self._clock(), self._passed(noted)
            deadline = now + remaining - passed
            if identifier in in_use:
                deadline = now + max(timeout, RECONNECT)
            if payload is None:
                grave = dug or tombstone(data, Fault.CANCELLED, nexus_of(owner), group, now + 3600.0)
                graves[rod_token.identifier(data)] = grave
                self.buried(rod_token.identifier(data), grave)
                continue
            token = Token(
                data,
                rod_token.rod_type(data),
                rod_token.bytes_represented(data),
                creator,
                nexus_of(owner),
                payload,
                timeout,
                deadline,
                now + max(rest - passed, deadline - now if identifier in in_use else 0.0),
                doomed=dug.cause if dug else None,
                group=group,
                minted=now,
            )
            tokens.append(token)
        if self._ruler is None:
            self._note_anew(tokens, graves)
        return tokens, graves

    def _note_anew(self, tokens: Iterable[Token[Snapshot]], graves: dict[int, Tombstone]) -> None:
        """A virtual clock begins anew: readings of the one before would be mistaken for its."""
        with self._store.together():
            for token in tokens:
                self.used(token)
            self._store.write("UPDATE graves SET noted=?", (self._clock(),))  # also of doomed tokens
            for identifier, grave in graves.items():
                self.buried(identifier, grave)
            self._store.write("UPDATE copies SET noted=?-(?-noted)", (self._clock(), self._stopped_at))
            self.beat()
        self._stopped_at = self._clock()

    def _graves(self) -> dict[int, Tombstone]:
        graves = {}
        for row in self._store.rows("SELECT * FROM graves"):
            name, secret, whole, cause, owner, group, remaining, noted = row
            forget_at = self._clock() + remaining - self._passed(noted)
            graves[int.from_bytes(name, "big")] = Tombstone(
                secret, whole, Fault(cause), nexus_of(owner), group, forget_at
            )
        return graves

    # -- copy operations ---------------------------------------------------------------------------

    def begun(self, operation: Operation) -> None:
        """See `OperationJournal`."""
        operation.note = next(self._notes)
        name = name_of(operation.nexus)
        background = operation.status is OperationStatus.BACKGROUND
        cdb, parameters = operation.command if background else (b"", b"")
        with self._store.together():
            self._store.write(
                "DELETE FROM copies WHERE nexus=? AND list_identifier=? AND ended",
                (name, operation.list_identifier),
            )
            self._store.write(
                f"INSERT INTO copies({_COPY}) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    operation.note,
                    name,
                    operation.list_identifier,
                    operation.lun,
                    operation.service_action,
                    int(operation.status),
                    operation.units,
                    operation.count,
                    operation.segments,
                    0,
                    b"",
                    None,
                    operation.keep,
                    operation.lid1,
                    operation.stamp,
                    cdb,
                    parameters,
                    b"",
                    None,
                    0,
                    None if operation.uses is None else identifier_name(operation.uses),
                    None,
                    0,
                    0,
                    self._noted(),
                ),
            )

    def progressed(self, operation: Operation) -> None:
        """See `OperationJournal`."""
        self._store.write(
            "UPDATE copies SET count=?, segments=?, source=? WHERE note=?",
            (operation.count, operation.segments, source_name(operation.source), operation.note),
        )

    def stopping(self, operation: Operation) -> None:
        """See `OperationJournal`."""
        self._store.write(
            "UPDATE copies SET stopping=1, aborted_by=? WHERE note=?", (operation.aborted_by, operation.note)
        )

    def ended(self, operation: Operation) -> None:
        """See `OperationJournal`."""
        self._store.write(
            "UPDATE copies SET status=?, count=?, segments=?, completion=?, sense=?, token=?, answer=?, ended=1,"
            " parameters=x'', noted=? WHERE note=?",
            (
                int(operation.status),
                operation.count,
                operation.segments,
                operation.completion,
                operation.sense.fixed() if operation.sense else b"",
                operation.token,
                operation.answer,
                self._noted(),
                operation.note,
            ),
        )

    def dropped(self, operation: Operation) -> None:
        """See `OperationJournal`."""
        self._store.write("DELETE FROM copies WHERE note=?", (operation.note,))

    def results_dropped(self, nexus: Hashable, lun: int | None) -> None:
        """See `OperationJournal`."""
        values = (name_of(nexus), lun, lun)
        with self._store.together():
            where = "WHERE nexus=? AND (? IS NULL OR lun=?)"  # Python 3.12 takes numbered ones for names, and objects
            self._store.write(f"DELETE FROM copies {where} AND ended", values)  # noqa: S608 - a constant
            self._store.write(f"UPDATE copies SET hidden=1 {where}", values)  # noqa: S608 - a constant

    def operations(self) -> list[OldCopy]:
        """What a predecessor left, oldest first; what is too old to matter is dropped."""
        now = self._ruler() if self._ruler else self._stopped_at
        self._store.write("DELETE FROM copies WHERE noted < ?", (now - RETENTION,))
        rows = self._store.rows(f"SELECT {_COPY} FROM copies ORDER BY note")  # noqa: S608 - a constant
        return [self._old(dict(zip(_COPY.split(", "), row, strict=True))) for row in rows]

    def _old(self, row: dict[str, object]) -> OldCopy:
        get = _Row(row)
        operation = Operation(
            nexus_of(get.text("nexus")),
            get.number("list_identifier"),
            get.number("lun"),
            get.number("service_action"),
            OperationStatus(get.number("status")),
            units=get.number("units"),
            count=get.number("count"),
            segments=get.number("segments"),
            completion=get.number("completion"),
            sense=sense.parse(get.data("sense")) if get.data("sense") else None,
            token=get.data("token") or None,
            keep=bool(get.number("kept")),
            lid1=bool(get.number("lid1")),
            stamp=get.data("stamp") or None,
            command=(get.data("cdb"), get.data("parameters")),
            answer=get.data("answer"),
            aborted_by=get.data("aborted_by") or None,
            source=source_of(get.text("source")) if get.text("source") else None,
            forget_at=self._clock() + RETENTION,
            note=get.number("note"),
        )
        findable = operation.keep and not get.number("hidden")
        return OldCopy(operation, bool(get.number("ended")), bool(get.number("stopping")), findable)

    # -- nexuses -----------------------------------------------------------------------------------

    def settled(self, nexuses: Iterable[Hashable]) -> None:
        """These, and no others, have nothing to be told and have changed nothing that is not noted here."""
        with self._store.together():
            self._store.write("DELETE FROM nexuses", ())
            self._store.write("INSERT INTO nexuses VALUES(?)", *((name_of(item),) for item in nexuses))

    def known(self) -> set[Hashable]:
        """The nexuses that a predecessor left settled."""
        return {nexus_of(name) for (name,) in self._store.rows("SELECT nexus FROM nexuses")}

    # -- time --------------------------------------------------------------------------------------

    def beat(self) -> None:
        """To be called once a second, and when a virtual clock has been moved."""
        self.swaps.beat()
        if self._ruler is None:
            self._store.write("INSERT OR REPLACE INTO facts VALUES('clock', ?)", (self._clock(),))

    def _noted(self) -> float:
        return self._ruler() if self._ruler else self._clock()

    def _passed(self, noted: float | None) -> float:
        """Seconds since a predecessor's note."""
        if noted is None:
            return 0.0
        return (self._ruler() if self._ruler else self._stopped_at) - noted


def _last_reading(store: Store) -> float:
    """Where a predecessor's virtual clock stood."""
    rows = store.rows(
        "SELECT value FROM facts WHERE name='clock' UNION SELECT noted FROM tokens UNION SELECT noted FROM graves"
    )
    return max((value for (value,) in rows if value is not None), default=0.0)


class _Row:
    """A row of the database with its types."""

    def __init__(self, row: dict[str, object]) -> None:
        self._row = row

    def number(self, name: str) -> int:
        value = self._row[name]
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str:
        value = self._row[name]
        return value if isinstance(value, str) else ""

    def data(self, name: str) -> bytes:
        value = self._row[name]
        return value if isinstance(value, bytes) else b""
