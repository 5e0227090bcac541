"""Who may use a disk: persistent reservations (SPC-4 5.13) and RESERVE/RELEASE (SPC-2 5.5), as a state machine.

Imports `wire/scsi`. Sans-IO. One for each disk, shared by every logical unit on it; registrants are initiator ports,
which outlive the I_T nexuses of a guest that restarts. Commands come from `target/commands/reservation.py`; whether
a command conflicts is asked by `target/target.py`. Nothing survives the end of the process (no APTPL).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Sense, Status

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from qemu_odx.wire.scsi.persistent import Kind

    Port: TypeAlias = Hashable
    """An initiator port, as seen through one target port."""

REGISTRATIONS = 256
"""Registrations of one disk; more are refused with INSUFFICIENT REGISTRATION RESOURCES."""


class Access(Enum):
    """What a command wants, as far as reservations care: the columns of the conflict tables, folded."""

    ALWAYS = auto()
    """Never conflicts here; RESERVE and RELEASE are among these and have rules of their own."""
    FREE = auto()
    """Conflicts with nobody's persistent reservation."""
    READ = auto()
    """Conflicts with exclusive access."""
    WRITE = auto()
    """Conflicts with any reservation of somebody else."""
    PERSISTENT = auto()
    """PERSISTENT RESERVE IN and OUT: conflict with RESERVE alone, even one's own (SPC-2 5.5.1)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command.

    Attributes:
        answer: status or sense; None is GOOD.
        told: unit attentions for other ports.
        preempted: ports that lost their registration to PREEMPT: PREEMPT AND ABORT ends their tasks.
    """

    answer: Sense | Status | None = None
    told: dict[Port, Sense] = field(default_factory=dict)
    preempted: frozenset[Port] = frozenset()


_GOOD = Outcome()
_CONFLICT = Outcome(Status.RESERVATION_CONFLICT)


@dataclass(slots=True)
class Reservations:
    """The registrations and the reservation of one disk.

    Attributes:
        generation: PRGENERATION.
        keys: reservation key of each registered port, oldest first.
        kind: type of the persistent reservation, None if there is none.
        owner: the port that reserved; with all registrants types every registered port holds it.
        reserved_by: the port that holds the disk by RESERVE.
    """

    generation: int = 0
    keys: dict[Port, int] = field(default_factory=dict)
    kind: Kind | None = None
    owner: Port | None = None
    reserved_by: Port | None = None

    @property
    def any(self) -> bool:
        """True if anybody holds the disk in any way."""
        return self.kind is not None or self.reserved_by is not None

    def conflicts(self, port: Port, access: Access) -> bool:
        """True if a command is to be ended with RESERVATION CONFLICT (SPC-4 5.13.1 and SBC-3 4.17, tables)."""
        if access is Access.ALWAYS:
            return False
        if self.reserved_by is not None:
            return access is Access.PERSISTENT or port != self.reserved_by
        if self.kind is None or self._may_all(port):
            return False
        return access is Access.WRITE or (access is Access.READ and self.kind.exclusive_access)

    def keeps_out(self, port: Port, *, writing: bool) -> bool:
        """True if virtio-blk may not read or write now, `port` being what it is to the commands of its mailbox.

        Only through a mailbox can it register; else it is to a reservation what an unregistered initiator is. A
        cluster that reserves a disk relies on nobody else writing there, whatever bus the other guest sees it on.
        """
        return self.conflicts(port, Access.WRITE if writing else Access.READ)

    def holds(self, port: Port) -> bool:
        """True for a persistent reservation holder."""
        if self.kind is None:
            return False
        return port in self.keys if self.kind.all_registrants else port == self.owner

    def _may_all(self, port: Port) -> bool:
        assert self.kind is not None  # noqa: S101 - asked only then
        return self.holds(port) or (self.kind.for_registrants and port in self.keys)

    # PERSISTENT RESERVE OUT (SPC-4 5.13.6 to 5.13.11, 6.14.2)

    def register(self, port: Port, key: int, new: int, *, ignore: bool = False) -> Outcome:
        """REGISTER: wants the present key, 0 from the unregistered; a new key of 0 unregisters."""
        if not ignore and self.keys.get(port, 0) != key:
            return _CONFLICT
        if port not in self.keys:
            if not new:
                return _GOOD
            if len(self.keys) >= REGISTRATIONS:
                return Outcome(sense.NO_REGISTRATION_RESOURCES)
        self._count()
        if new:
            self.keys[port] = new
            return _GOOD
        return self._unregister(port)

    def register_and_ignore(self, port: Port, key: int, new: int) -> Outcome:
        """REGISTER AND IGNORE EXISTING KEY: as REGISTER, whatever key was given."""
        return self.register(port, key, new, ignore=True)

    def reserve(self, port: Port, key: int, kind: Kind) -> Outcome:
        """RESERVE: the holder may repeat it, nobody may change it."""
        if self._wrong(port, key):
            return _CONFLICT
        if self.kind is not None:
            return _GOOD if self.holds(port) and self.kind == kind else _CONFLICT
        self.kind, self.owner = kind, port
        return _GOOD

    def release(self, port: Port, key: int, kind: Kind) -> Outcome:
        """RELEASE: nothing happens if the port holds nothing."""
        if self._wrong(port, key):
            return _CONFLICT
        if not self.holds(port):
            return _GOOD
        if self.kind != kind:
            return Outcome(sense.INVALID_RELEASE)
        return self._end_reservation(port)

    def clear(self, port: Port, key: int) -> Outcome:
        """CLEAR: no registration and no reservation remain."""
        if self._wrong(port, key):
            return _CONFLICT
        self._count()
        told = self._others(port, sense.RESERVATIONS_PREEMPTED)
        self.keys.clear()
        self.kind = self.owner = None
        return Outcome(told=told)

    def preempt(self, port: Port, key: int, victim_key: int, kind: Kind) -> Outcome:
        """PREEMPT: takes over the reservation if the key names it, else removes registrations."""
        if self._wrong(port, key):
            return _CONFLICT
        if self._names_reservation(victim_key):
            return self._take_over(port, victim_key, kind)
        if not victim_key:
            return Outcome(sense.INVALID_FIELD_IN_LIST.at(8))
        victims = [item for item, known in self.keys.items() if known == victim_key]
        if not victims:
            return _CONFLICT
        self._count()
        told = self._remove(port, victims)
        if self.kind is not None and not self.keys:
            self.kind = self.owner = None
        return Outcome(told=told, preempted=frozenset(victims))

    # RESERVE and RELEASE of SPC-2, with compatible reservation handling (SPC-4 5.13.3)

    def reserve_unit(self, port: Port) -> Outcome:
        """RESERVE(6), (10)."""
        if self.kind is not None and self._may_all(port):
            return _GOOD  # compatible handling: done already, by the persistent reservation
        if self.keys or self.reserved_by not in {None, port}:
            return _CONFLICT
        self.reserved_by = port
        return _GOOD

    def release_unit(self, port: Port) -> Outcome:
        """RELEASE(6), (10): never an error but where registrations rule (SPC-2 5.5.1)."""
        if self.keys and not (self.kind is not None and self._may_all(port)):
            return _CONFLICT
        if self.reserved_by == port:
            self.reserved_by = None
        return _GOOD

    def drop_reserve(self, port: Port | None = None) -> None:
        """What RESERVE made ends with a reset, or with the nexus that made it; registrations stay."""
        if port is None or self.reserved_by == port:
            self.reserved_by = None

    def _count(self) -> None:
        self.generation = (self.generation + 1) & 0xFFFFFFFF

    def _wrong(self, port: Port, key: int) -> bool:
        """True unless the port is registered with this key."""
        return self.keys.get(port) != key

    def _others(self, port: Port, attention: Sense) -> dict[Port, Sense]:
        return {item: attention for item in self.keys if item != port}

    def _unregister(self, port: Port) -> Outcome:
        held = self.holds(port)
        del self.keys[port]
        if held and self.kind is not None and not (self.kind.all_registrants and self.keys):
            return self._end_reservation(port)
        return _GOOD

    def _end_reservation(self, port: Port) -> Outcome:
        """Other registrants are told, if they could use the disk by it."""
        told = (
            self._others(port, sense.RESERVATIONS_RELEASED) if self.kind and self.kind.for_registrants else {}
        )
        self.kind = self.owner = None
        return Outcome(told=told)

    def _names_reservation(self, key: int) -> bool:
        """True if a SERVICE ACTION RESERVATION KEY means the reservation: 0 does, for all registrants."""
        if self.kind is None:
            return False
        return not key if self.kind.all_registrants else key == self.keys[self.owner]

    def _take_over(self, port: Port, victim_key: int, kind: Kind) -> Outcome:
        self._count()
        victims = [
            item for item, key in self.keys.items() if item != port and (not victim_key or key == victim_key)
        ]
        changed = self.kind != kind
        told = self._remove(port, victims)
        if changed:
            told |= self._others(port, sense.RESERVATIONS_RELEASED)
        self.kind, self.owner = kind, port
        return Outcome(told=told, preempted=frozenset(victims))

    def _remove(self, port: Port, victims: Iterable[Port]) -> dict[Port, Sense]:
        told = {item: sense.REGISTRATIONS_PREEMPTED for item in victims if item != port}
        for item in victims:
            del self.keys[item]
        return told
