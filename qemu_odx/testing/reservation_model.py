"""A slow, obvious model of reservations, to compare a target with: SPC-4 5.13 and its tables, SPC-2 RESERVE.

May import `testing/reserving`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qemu_odx.testing.reserving import CONFLICT

PORTS = ("A", "B", "C")
WRITE_EXCLUSIVE, REGISTRANTS, ALL = {1, 5, 7}, {5, 6, 7, 8}, {7, 8}
GOOD, BAD_LIST, BAD_RELEASE = 0, (5, 0x26, 0), (5, 0x26, 4)
PREEMPTED, RELEASED, UNREGISTERED = (0x2A, 3), (0x2A, 4), (0x2A, 5)
Verdict = int | tuple[int, int, int]
"""A status, or sense key, ASC and ASCQ."""


@dataclass
class Model:
    """Registrations as (port, key); at most one reservation as (port, type); who is to hear what."""

    keys: dict[str, int] = field(default_factory=dict)
    reservation: tuple[str, int] | None = None
    generation: int = 0
    old: str | None = None  # who sent RESERVE(6)
    heard: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {port: [] for port in PORTS})

    def say(self, ports: set[str], what: tuple[int, int]) -> None:
        """A unit attention, once however often it arises."""
        for port in ports:
            if what not in self.heard[port]:
                self.heard[port].append(what)

    def holders(self) -> set[str]:
        """Of the reservation."""
        if self.reservation is None:
            return set()
        port, kind = self.reservation
        return set(self.keys) if kind in ALL else {port}

    def may(self, port: str, *, write: bool) -> bool:
        """Read or write, by the tables."""
        if self.old is not None:
            return self.old == port
        if self.reservation is None or port in self.holders():
            return True
        kind = self.reservation[1]
        if kind in REGISTRANTS and port in self.keys:
            return True
        return not write and kind in WRITE_EXCLUSIVE

    def register(self, port: str, key: int, new: int, *, ignore: bool) -> Verdict:
        """REGISTER (AND IGNORE EXISTING KEY)."""
        if self.old is not None:
            return CONFLICT
        if port in self.keys:
            if not ignore and key != self.keys[port]:
                return CONFLICT
            self.generation += 1
            if new:
                self.keys[port] = new
            else:
                self.leave(port)
            return GOOD
        if not ignore and key:
            return CONFLICT
        if new:
            self.generation += 1
            self.keys[port] = new
        return GOOD

    def leave(self, port: str) -> None:
        """Unregister, and what that does to the reservation."""
        was_holder = port in self.holders()
        del self.keys[port]
        if self.reservation is None or not was_holder:
            return
        kind = self.reservation[1]
        if kind in ALL and self.keys:
            return
        self.reservation = None
        if kind in {5, 6}:
            self.say(set(self.keys), RELEASED)

    def known(self, port: str, key: int) -> bool:
        """Whether the command may be looked at at all."""
        return self.old is None and self.keys.get(port) == key

    def reserve(self, port: str, key: int, kind: int) -> Verdict:
        """RESERVE."""
        if not self.known(port, key):
            return CONFLICT
        if self.reservation is None:
            self.reservation = (port, kind)
            return GOOD
        return GOOD if port in self.holders() and self.reservation[1] == kind else CONFLICT

    def release(self, port: str, key: int, kind: int) -> Verdict:
        """RELEASE."""
        if not self.known(port, key):
            return CONFLICT
        if self.reservation is None or port not in self.holders():
            return GOOD
        if self.reservation[1] != kind:
            return BAD_RELEASE
        self.reservation = None
        if kind in REGISTRANTS:
            self.say(set(self.keys) - {port}, RELEASED)
        return GOOD

    def clear(self, port: str, key: int) -> Verdict:
        """CLEAR."""
        if not self.known(port, key):
            return CONFLICT
        self.say(set(self.keys) - {port}, PREEMPTED)
        self.keys, self.reservation = {}, None
        self.generation += 1
        return GOOD

    def preempt(self, port: str, key: int, victim: int, kind: int) -> Verdict:
        """PREEMPT (AND ABORT)."""
        if not self.known(port, key):
            return CONFLICT
        same_key = {other for other, his in self.keys.items() if his == victim}
        if self.reservation is not None:
            holder, before = self.reservation
            if before in ALL and victim == 0:
                return self.take(port, set(self.keys) - {port}, before, kind)
            if before not in ALL and victim == self.keys[holder]:
                return self.take(port, same_key - {port}, before, kind)
        if victim == 0:
            return BAD_LIST
        if not same_key:
            return CONFLICT
        self.generation += 1
        for other in same_key:
            del self.keys[other]
        self.say(same_key - {port}, UNREGISTERED)
        if self.reservation is not None and not self.keys:
            self.reservation = None
        return GOOD

    def reserved_key(self) -> int:
        """The key that names the reservation in PREEMPT; 0 without one."""
        if self.reservation is None or self.reservation[1] in ALL:
            return 0
        return self.keys[self.reservation[0]]

    def take(self, port: str, victims: set[str], before: int, kind: int) -> Verdict:
        """The reservation changes hands."""
        self.generation += 1
        for other in victims:
            del self.keys[other]
        self.say(victims, UNREGISTERED)
        if before != kind:
            self.say(set(self.keys) - {port}, RELEASED)
        self.reservation = (port, kind)
        return GOOD

    def old_reserve(self, port: str) -> Verdict:
        """RESERVE(6), with compatible handling."""
        if self.reservation is not None and self.may(port, write=True):
            return GOOD
        if self.keys or self.old not in {None, port}:
            return CONFLICT
        self.old = port
        return GOOD

    def old_release(self, port: str) -> Verdict:
        """RELEASE(6)."""
        if self.keys:
            return GOOD if self.reservation is not None and self.may(port, write=True) else CONFLICT
        if self.old == port:
            self.old = None
        return GOOD
