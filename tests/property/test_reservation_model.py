"""Any sequence of reservation commands against a slow, obvious model of SPC-4 5.13 and its tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qemu_odx.target.port import LoginNexus
from qemu_odx.testing.conformance.reference import ReferenceTarget, TargetDescription
from qemu_odx.testing.reserving import (
    CLEAR,
    CONFLICT,
    FULL_STATUS,
    IGNORE,
    KEYS,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    RELEASE,
    RESERVATION,
    RESERVE,
    attentions,
    out,
    told,
)

DESCRIPTION: TargetDescription = {
    "lus": [{"lun": 0, "blocks": 64, "block_size": 512, "naa": "60" * 16}],
    "limits": {
        "max_ranges": 8,
        "max_ito_s": 600,
        "default_ito_s": 60,
        "max_token_transfer_blocks": 64,
        "max_tokens": 8,
    },
}
PORTS = ("A", "B", "C")
WRITE_EXCLUSIVE, REGISTRANTS, ALL = {1, 5, 7}, {5, 6, 7, 8}, {7, 8}
GOOD, BAD_LIST, BAD_RELEASE = 0, (5, 0x26, 0), (5, 0x26, 4)
PREEMPTED, RELEASED, UNREGISTERED = (0x2A, 3), (0x2A, 4), (0x2A, 5)
Verdict = int | tuple[int, int, int]


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


ports = st.sampled_from(PORTS)
keys = st.sampled_from([0, 1, 2, 3])
kinds = st.sampled_from([1, 3, 5, 6, 7, 8])


class ReservationsAgainstModel(RuleBasedStateMachine):
    """The same commands to the target and to the model; mostly with the right key, or nothing would happen."""

    @initialize()
    def start(self) -> None:
        """Three initiators, known to the target."""
        self.reference = ReferenceTarget(DESCRIPTION)
        self.model = Model()
        self.lives = dict.fromkeys(PORTS, 0)
        self.who = {port: self.initiator(port) for port in PORTS}
        for initiator in self.who.values():
            assert initiator.command(0, "00").good

    def initiator(self, port: str):  # type: ignore[no-untyped-def] # noqa: ANN201
        """The present life of an initiator port."""
        return self.reference.initiator(LoginNexus(port, self.lives[port]))  # type: ignore[arg-type]

    def teardown(self) -> None:
        """Give everything back."""
        if hasattr(self, "reference"):
            self.reference.__exit__(None, None, None)

    def send(self, port: str, action: int, key: int = 0, new: int = 0, kind: int = 0) -> Verdict:
        """PERSISTENT RESERVE OUT."""
        answer = out(self.who[port], action, key, new, kind)
        return answer.fault or answer.status

    def right(self, port: str, key: int, *, wrong: bool) -> int:
        """The key of the port, or another."""
        return key if wrong else self.model.keys.get(port, 0)

    @rule(port=ports, key=keys, new=keys, wrong=st.booleans(), ignore=st.booleans())
    def register(self, port: str, key: int, new: int, wrong: bool, ignore: bool) -> None:
        """REGISTER, REGISTER AND IGNORE EXISTING KEY."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, IGNORE if ignore else REGISTER, key, new) == self.model.register(
            port, key, new, ignore=ignore
        )

    @rule(port=ports, key=keys, kind=kinds, wrong=st.just(False) | st.booleans())
    def reserve(self, port: str, key: int, kind: int, wrong: bool) -> None:
        """RESERVE."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, RESERVE, key, 0, kind) == self.model.reserve(port, key, kind)

    @rule(port=ports, key=keys, kind=kinds, wrong=st.booleans(), same=st.booleans())
    def release(self, port: str, key: int, kind: int, wrong: bool, same: bool) -> None:
        """RELEASE, often of the type that there is."""
        key = self.right(port, key, wrong=wrong)
        if same and self.model.reservation:
            kind = self.model.reservation[1]
        assert self.send(port, RELEASE, key, 0, kind) == self.model.release(port, key, kind)

    @rule(port=ports, key=keys, wrong=st.booleans())
    def clear(self, port: str, key: int, wrong: bool) -> None:
        """CLEAR."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, CLEAR, key) == self.model.clear(port, key)

    @rule(
        port=ports,
        key=keys,
        victim=keys,
        kind=kinds,
        wrong=st.just(False) | st.booleans(),
        action=st.sampled_from([PREEMPT, PREEMPT_AND_ABORT]),
    )
    def preempt(self, port: str, key: int, victim: int, kind: int, wrong: bool, action: int) -> None:  # noqa: PLR0917
        """PREEMPT, PREEMPT AND ABORT."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, action, key, victim, kind) == self.model.preempt(port, key, victim, kind)

    @rule(port=ports, release=st.booleans())
    def reserve_the_old_way(self, port: str, release: bool) -> None:
        """RESERVE(6), RELEASE(6)."""
        expected = self.model.old_release(port) if release else self.model.old_reserve(port)
        assert self.who[port].command(0, "17" if release else "16").status == expected

    @rule(port=ports)
    def restart(self, port: str) -> None:
        """The guest restarts: another nexus of the same port, which hears nothing of what was."""
        self.reference.target.nexus_loss(LoginNexus(port, self.lives[port]), lambda: None)
        self.lives[port] += 1
        self.who[port] = self.initiator(port)
        self.model.heard[port] = []
        if self.model.old == port:
            self.model.old = None
        self.who[port].command(0, "120000002400")

    @rule()
    def reset(self) -> None:
        """A reset of the unit: persistent stays, RESERVE(6) goes."""
        self.reference.target.reset_lun(0, lambda _: None)
        self.model.old = None
        for port in PORTS:
            self.model.say({port}, (0x29, 0))

    @invariant()
    def everybody_hears_and_may_what_the_model_says(self) -> None:
        """Unit attentions first, then reads and writes of all three, then what READ KEYS and others tell."""
        for port, initiator in self.who.items():
            assert attentions(initiator) == self.model.heard[port]
            self.model.heard[port] = []
            assert (initiator.read(0, 0, 1).status != CONFLICT) == self.model.may(port, write=False)
            assert (initiator.write(0, 0, 1, bytes(512)).status != CONFLICT) == self.model.may(
                port, write=True
            )
        if self.model.old is None:
            self.reports_agree()

    def reports_agree(self) -> None:
        """READ KEYS, READ RESERVATION, READ FULL STATUS."""
        who, model = self.who["A"], self.model
        data = told(who, KEYS)
        assert int.from_bytes(data[:4], "big") == model.generation
        listed = [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]
        assert sorted(listed) == sorted(model.keys.values())
        data = told(who, RESERVATION)
        if model.reservation is None:
            assert len(data) == 8
        else:
            port, kind = model.reservation
            key = 0 if kind in ALL else model.keys[port]
            assert (int.from_bytes(data[8:16], "big"), data[21]) == (key, kind)
        data = told(who, FULL_STATUS)
        assert sum(data[at + 12] & 1 for at in range(8, len(data), 48)) == len(model.holders())


TestReservationsAgainstModel = ReservationsAgainstModel.TestCase
TestReservationsAgainstModel.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
