"""The book of fault rules: armed, released and removed by name; decides which of them hit a request.

Imports the other modules of `faults`. Used on the event loop's thread, and by disks on workers too: hence a lock,
which is handed in, as time is. Next: the hooks carry out what `hits` returns.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.match import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.faults.actions import Action
    from qemu_odx.faults.event import Event, Level
    from qemu_odx.faults.rule import Rule


class UnknownRuleError(FaultRuleError):
    """There is no rule of that name."""


@dataclass(slots=True, eq=False)
class Entry:
    """A rule and what became of it.

    Attributes:
        rule: as it was given, with its name.
        armed: it is in force.
        turns: counts since it was armed.
        fired: how often it has hit in all.
        last: when it hit last, in seconds of the clock; None if never.
        last_event: the operation and the disk that it hit last.
        held: requests that it holds just now.
    """

    rule: Rule
    armed: bool
    turns: Turns
    fired: int = 0
    last: float | None = None
    last_event: str = ""
    held: int = 0

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name

    @property
    def state(self) -> str:
        """`armed`, `spent` (its count is used up) or `off`."""
        if self.armed:
            return "armed"
        return "spent" if self.turns.spent else "off"


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule has hit a request: what is to happen to it.

    Attributes:
        entry: the rule.
        action: what it does.
        place: for actions that choose (a bit): a number from 0 to 2**32 - 1, by the rule's seed.
    """

    entry: Entry
    action: Action
    place: int


@dataclass(slots=True)
class FaultBook:
    """All rules of a server, in the order in which they were added.

    Args:
        clock: seconds.
        lock: a re-entrant lock, if several threads use the book.

    Attributes:
        changed: called after rules came, went, or were armed or not; on whatever thread that was.
        fired: called for each hit, with what was hit; on whatever thread that was.
    """

    clock: Callable[[], float]
    lock: AbstractContextManager[object] = field(default_factory=nullcontext)
    changed: list[Callable[[], None]] = field(default_factory=list)
    fired: list[Callable[[Hit, Event], None]] = field(default_factory=list)
    _entries: dict[str, Entry] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Entry]:
        with self.lock:
            return iter(tuple(self._entries.values()))

    def armed_at(self, *levels: Level) -> bool:
        """True if a rule is in force for any of the levels."""
        return any(entry.armed and entry.rule.action.levels.intersection(levels) for entry in self)

    def find(self, name: str) -> Entry:
        """The entry of a rule.

        Raises:
            UnknownRuleError: there is none; the text has those that there are.
        """
        found = self._entries.get(name)
        if found is None:
            names = ", ".join(self._entries) or "none"
            raise UnknownRuleError(f"there is no fault rule '{name}'; there are: {names}")
        return found

    def add(self, rule: Rule) -> Entry:
        """Take in a rule; one without a name gets one.

        Raises:
            FaultRuleError: the name is taken.
        """
        with self.lock:
            if rule.name in self._entries:
                raise FaultRuleError(f"there is a fault rule '{rule.name}' already: choose another name")
            named = rule if rule.name else replace(rule, name=self._free_name(rule.action.name))
            entry = self._entries[named.name] = Entry(named, named.armed, Turns(named.when))
        self._tell()
        return entry

    def arm(self, name: str) -> Entry:
        """Put a rule in force; its counting begins anew, its chances too."""
        with self.lock:
            entry = self.find(name)
            entry.armed, entry.turns = True, Turns(entry.rule.when)
        self._tell()
        return entry

    def disarm(self, name: str) -> Entry:
        """Put a rule out of force."""
        with self.lock:
            entry = self.find(name)
            entry.armed = False
        self._tell()
        return entry

    def remove(self, name: str) -> Entry:
        """Forget a rule."""
        with self.lock:
            entry = self.disarm(name)
            del self._entries[name]
        self._tell()
        return entry

    def hits(self, event: Event) -> list[Hit]:
        """The rules that hit a request, in their order; they count it."""
        found: list[Hit] = []
        spent = False
        with self.lock:
            for entry in self._entries.values():
                if not entry.armed or not entry.rule.match.hits(event, entry.rule.action.levels):
                    continue
                if entry.turns.next():
                    found.append(self._hit(entry, event))
                if entry.turns.spent:
                    entry.armed, spent = False, True
        if spent:
            self._tell()
        for listener in self.fired if found else ():
            for hit in found:
                listener(hit, event)
        return found

    def _hit(self, entry: Entry, event: Event) -> Hit:
        entry.fired += 1
        entry.last = self.clock()
        entry.last_event = f"{event.operation} on {event.disk}" if event.disk else event.operation
        return Hit(entry, entry.rule.action, entry.turns.pick(1 << 32))

    def _free_name(self, base: str) -> str:
        number = 1
        while f"{base}-{number}" in self._entries:
            number += 1
        return f"{base}-{number}"

    def _tell(self) -> None:
        for callback in self.changed:
            callback()
