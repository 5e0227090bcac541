"""Every command in every state that three initiators with two keys can reach, against the model."""

from __future__ import annotations

import pickle
from itertools import product
from typing import TYPE_CHECKING

from qemu_odx.target.reservations import Access, Reservations
from qemu_odx.testing.reservation_model import PORTS, Model
from qemu_odx.wire.scsi.persistent import Kind
from qemu_odx.wire.scsi.sense import Sense

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from qemu_odx.target.reservations import Outcome
    from qemu_odx.testing.reservation_model import Verdict

    Command = tuple[str, Callable[[Reservations], Outcome], Callable[[Model], Verdict]]

KEYS = (0, 1, 2)
KINDS = (Kind.WRITE_EXCLUSIVE, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY, Kind.WRITE_EXCLUSIVE_ALL_REGISTRANTS)
"""One of each sort; that the two of a sort differ in reading alone, the tables of the other tests show."""


def commands() -> Iterator[Command]:
    """All of all three, by name, to the state machine and to the model."""
    for port in PORTS:
        for key, new, ignore in product(KEYS, KEYS, (False, True)):
            yield (
                f"{port} register {key} {new} {ignore}",
                lambda state, a=(port, key, new), i=ignore: state.register(*a, ignore=i),
                lambda model, a=(port, key, new), i=ignore: model.register(*a, ignore=i),
            )
        for key, kind in product(KEYS, KINDS):
            for name in ("reserve", "release"):
                yield _same(name, port, key, kind)
            for victim in KEYS:
                yield _same("preempt", port, key, victim, kind)
        for key in KEYS:
            yield _same("clear", port, key)
        yield (
            f"{port} RESERVE",
            lambda state, p=port: state.reserve_unit(p),
            lambda m, p=port: m.old_reserve(p),
        )
        yield (
            f"{port} RELEASE",
            lambda state, p=port: state.release_unit(p),
            lambda m, p=port: m.old_release(p),
        )


def _same(name: str, *values: object) -> Command:
    return (
        f"{name} {values}",
        lambda state: getattr(state, name)(*values),
        lambda model: getattr(model, name)(*values),
    )


def situation(model: Model) -> Hashable:
    """What tells one state from another."""
    return tuple(sorted(model.keys.items())), model.reservation, model.old


def compare(name: str, state: Reservations, model: Model, run: Command) -> None:
    """One command: the same answer, the same attentions, the same rights after it."""
    _, on_state, on_model = run
    model.heard = {port: [] for port in PORTS}
    before = model.generation
    persistent = not name.endswith(("RESERVE", "RELEASE"))
    if persistent and any(state.conflicts(port, Access.PERSISTENT) for port in PORTS):
        assert model.old is not None, name  # the target asks before it hands the command on
        return
    generation = state.generation
    outcome, verdict = on_state(state), on_model(model)
    answer = outcome.answer
    found = (answer.key, answer.asc, answer.ascq) if isinstance(answer, Sense) else answer or 0
    assert found == verdict, name
    told = {port: [(item.asc, item.ascq)] for port, item in outcome.told.items()}
    assert {port: told.get(port, []) for port in PORTS} == model.heard, name
    assert state.generation - generation == model.generation - before, name
    assert state.keys == model.keys, name
    assert {port for port in PORTS if state.holds(port)} == model.holders(), name
    for port in PORTS:
        assert state.conflicts(port, Access.READ) != model.may(port, write=False), name
        assert state.conflicts(port, Access.WRITE) != model.may(port, write=True), name


def test_every_command_in_every_state() -> None:
    """Breadth first from nothing registered; no state is left out, no command is skipped."""
    every = list(commands())
    known = {situation(Model())}
    todo = [(Reservations(), Model())]
    steps = 0
    while todo:
        state, model = todo.pop()
        both = pickle.dumps(
            (state, model)
        )  # copies from here are made several times faster than by `deepcopy`
        for command in every:
            next_state, next_model = pickle.loads(both)  # noqa: S301 - our own
            compare(f"{situation(model)}: {command[0]}", next_state, next_model, command)
            steps += 1
            if situation(next_model) not in known:
                known.add(situation(next_model))
                todo.append((next_state, next_model))
    assert len(known) > 100
    assert steps == len(known) * len(every)
