"""All faults of a server: the book of rules, the doors and disks that they are in force at, and what they hold.

Imports `faults/`, `tap/`, `disk/layers/` and the other modules here. On the event loop's thread, but for what disks
ask. Used by `server/app.py`, the monitor and guests (`guest.py`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from qemu_odx.disk.layers.faults import FaultLayer
from qemu_odx.disk.layers.layer import layers_of
from qemu_odx.faults.book import FaultBook
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.event import Level
from qemu_odx.faults.rule import parse_rule
from qemu_odx.server.faulting.decide import Deeds
from qemu_odx.server.faulting.disks import DiskFaults
from qemu_odx.server.faulting.guest import GuestControl
from qemu_odx.server.faulting.holds import Parking, kill_backend
from qemu_odx.server.faulting.options import layers_for
from qemu_odx.server.faulting.results import keep_refusal
from qemu_odx.server.faulting.tap import FaultTap
from qemu_odx.server.news import FaultFired
from qemu_odx.server.options import ConfigError, split_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qemu_odx.disk.port import Disk
    from qemu_odx.faults.book import Entry, Hit
    from qemu_odx.faults.event import Event
    from qemu_odx.faults.rule import Rule
    from qemu_odx.server.config import DiskConfig
    from qemu_odx.server.events import Events
    from qemu_odx.server.faulting.door import Door
    from qemu_odx.tap.gate import Gate
    from qemu_odx.target.manager import CopyManager

State: TypeAlias = Literal["armed", "off", "spent"]
_FRONT = (Level.SCSI, Level.BLK, Level.CONTROL)


@dataclass(frozen=True, slots=True)
class FaultInfo:
    """A rule and what became of it, for who asks.

    Attributes:
        name: what it is called by.
        rule: as it was written.
        action: what it does.
        state: `armed`, `off`, or `spent`: its count is used up.
        seen: requests that matched since it was armed.
        fired: requests that it has hit in all.
        held: requests that wait for its release just now.
        last: when it hit last, in seconds of the server's clock.
        last_event: the operation and the disk that it hit last.
    """

    name: str
    rule: str
    action: str
    state: State
    seen: int
    fired: int
    held: int
    last: float | None = None
    last_event: str | None = None


def read_rule(text: str) -> Rule:
    """A rule as a user writes it.

    Raises:
        FaultRuleError: one sentence with the cure.
    """
    try:
        return parse_rule(split_options(text))
    except ConfigError as error:
        raise FaultRuleError(str(error)) from error


class Faults:
    """The faults of one server.

    Args:
        clock: seconds.
        soon: runs a callback on the event loop, from any thread.
        manager: keeps the results of token commands that a rule refuses.
        events: told of every rule that hits.
        kill: ends the process.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        soon: Callable[[Callable[[], None]], None],
        manager: CopyManager,
        events: Events,
        kill: Callable[[], None] = kill_backend,
    ) -> None:
        self._events = events
        self._soon = soon
        self._manager = manager
        self._kill = kill
        self._loop_thread = threading.get_ident()
        self._doors: dict[str, tuple[Gate, FaultTap]] = {}
        self._layers: dict[str, FaultLayer] = {}
        self._parkings: dict[Entry, Parking] = {}
        self.book = FaultBook(clock, threading.RLock())
        self.book.changed.append(self._changed)
        self.book.fired.append(self._fired)
        self._disk_faults = DiskFaults(self.book)

    # -- where faults are in force -----------------------------------------------------------------

    def add_door(self, name: str, gate: Gate, door: Door, drop: Callable[[], None]) -> None:
        """An export is served; `drop` closes its connection."""
        deeds = Deeds(self._parking, partial(self._soon, drop), self._kill, self._soon)
        tap = FaultTap(self.book, door, deeds, partial(keep_refusal, self._manager))
        self._doors[name] = gate, tap
        self._changed()

    def remove_door(self, name: str) -> None:
        """An export is served no longer."""
        gate, tap = self._doors.pop(name)
        if tap in gate.taps:
            gate.remove(tap)

    def with_layer(self, config: DiskConfig) -> DiskConfig:
        """A disk that is about to be opened, with a layer to fail in if a rule may break it."""
        rules = (entry.rule for entry in self.book)
        return replace(config, layers=layers_for(config.id, config.layers, rules))

    def add_disk(self, disk: Disk) -> None:
        """A disk is served; it can be made to fail if it has a layer for that."""
        for layer in layers_of(disk):
            if isinstance(layer, FaultLayer):
                layer.decide = self._disk_faults.of(layer)
                self._layers[layer.name] = layer

    def remove_disk(self, name: str) -> None:
        """A disk is gone."""
        self._layers.pop(name, None)

    def begin(self, rules: Iterable[Rule], *, guest_control: bool) -> None:
        """Take in the rules of the command line; let guests arm and release them, if they may."""
        for rule in rules:
            self.enter(rule)
        if guest_control:
            self._manager.guest_control = GuestControl(self)

    # -- rules -------------------------------------------------------------------------------------

    def add(self, text: str) -> FaultInfo:
        """Take in a rule; it is in force at once, unless it says `armed=off`.

        Raises:
            FaultRuleError: it cannot be understood, its name is taken, or the disk has no layer to fail in.
        """
        return self.enter(read_rule(text))

    def enter(self, rule: Rule) -> FaultInfo:
        """Take in a rule that was read already. Raises FaultRuleError."""
        disk = rule.match.disk
        if Level.DISK in rule.action.levels and not (disk in self._layers if disk else self._layers):
            which = f"disk {disk} has" if disk else "no disk has"
            raise FaultRuleError(
                f"action={rule.action.name} breaks the disk itself, and {which} {'no' if disk else 'a'} layer for "
                "that: serve it with --disk ...,layers=faults, or give the rule to serve --fault"
            )
        return self.info(self.book.add(rule))

    def arm(self, name: str) -> FaultInfo:
        """Put a rule in force; its counting begins anew. Raises FaultRuleError."""
        return self.info(self.book.arm(name))

    def release(self, name: str) -> FaultInfo:
        """Put a rule out of force, and let everything go on that it holds. Raises FaultRuleError."""
        entry = self.book.disarm(name)
        self._let_go(entry)
        return self.info(entry)

    def remove(self, name: str) -> FaultInfo:
        """Release a rule and forget it. Raises FaultRuleError."""
        entry = self.book.remove(name)
        self._let_go(entry)
        return self.info(entry)

    def list(self) -> list[FaultInfo]:
        """Every rule."""
        return [self.info(entry) for entry in self.book]

    def info(self, entry: Entry) -> FaultInfo:
        """What is known of a rule."""
        return FaultInfo(
            entry.name,
            entry.rule.text,
            entry.rule.action.name,
            cast("State", entry.state),
            entry.turns.seen,
            entry.fired,
            entry.held,
            entry.last,
            entry.last_event or None,
        )

    def _let_go(self, entry: Entry) -> None:
        parking = self._parkings.pop(entry, None)
        if parking is not None:
            parking.release()

    def _parking(self, entry: Entry) -> Parking:
        return self._parkings.setdefault(entry, Parking(entry))

    def _fired(self, hit: Hit, _event: Event) -> None:
        entry = hit.entry
        if self._events:
            told = FaultFired(entry.name, entry.last_event, entry.fired, entry.state)
            self._soon(partial(self._events.tell, told))

    def _changed(self) -> None:
        """Watch at the doors exactly while a rule for them is armed: unwatched, they cost nothing."""
        if threading.get_ident() != self._loop_thread:
            self._soon(self._changed)
            return
        wanted = self.book.armed_at(*_FRONT)
        for gate, tap in self._doors.values():
            if wanted != (tap in gate.taps):
                (gate.add if wanted else gate.remove)(tap)
