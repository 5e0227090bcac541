"""Any sequence of reservation commands against a slow, obvious model of SPC-4 5.13 and its tables."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qemu_odx.target.port import LoginNexus
from qemu_odx.testing.conformance.reference import ReferenceTarget, TargetDescription
from qemu_odx.testing.reservation_model import ALL, PORTS, Model, Verdict
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
ports = st.sampled_from(PORTS)
keys = st.sampled_from([0, 1, 2, 3])
kinds = st.sampled_from([1, 3, 5, 6, 7, 8])
orders = st.permutations(PORTS)
rarely = st.sampled_from([False] * 7 + [True])


class ReservationsAgainstModel(RuleBasedStateMachine):
    """The same commands to the target and to the model; mostly with the right key, or nothing would happen."""

    @initialize(kind=kinds, holder=ports)
    def start(self, kind: int, holder: str) -> None:
        """Three initiators, known to the target and registered; one of them has reserved."""
        self.reference = ReferenceTarget(DESCRIPTION)
        self.model = Model()
        self.lives = dict.fromkeys(PORTS, 0)
        self.who = {port: self.initiator(port) for port in PORTS}
        for key, (port, initiator) in enumerate(self.who.items(), 1):
            assert initiator.command(0, "00").good
            assert self.send(port, REGISTER, 0, key) == self.model.register(port, 0, key, ignore=False)
        key = self.model.keys[holder]
        assert self.send(holder, RESERVE, key, 0, kind) == self.model.reserve(holder, key, kind)

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
        """The key of the port, or another one: mostly right, or nothing would ever happen."""
        return key if wrong else self.model.keys.get(port, 0)

    def present(self, ports: list[str]) -> str:
        """The first of these that is registered; without any, the first."""
        return next((port for port in ports if port in self.model.keys), ports[0])

    @rule(
        port=ports, key=keys, new=st.sampled_from([0, 1, 1, 2, 2, 3, 3]), wrong=rarely, ignore=st.booleans()
    )
    def register(self, port: str, key: int, new: int, wrong: bool, ignore: bool) -> None:
        """REGISTER, REGISTER AND IGNORE EXISTING KEY."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, IGNORE if ignore else REGISTER, key, new) == self.model.register(
            port, key, new, ignore=ignore
        )

    @rule(order=orders, key=keys, kind=kinds, wrong=rarely)
    def reserve(self, order: list[str], key: int, kind: int, wrong: bool) -> None:
        """RESERVE."""
        port = self.present(order)
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, RESERVE, key, 0, kind) == self.model.reserve(port, key, kind)

    @rule(order=orders, key=keys, kind=kinds, wrong=rarely, same=st.booleans())
    def release(self, order: list[str], key: int, kind: int, wrong: bool, same: bool) -> None:
        """RELEASE, often of the type that there is."""
        port = self.present(order)
        key = self.right(port, key, wrong=wrong)
        if same and self.model.reservation:
            kind = self.model.reservation[1]
        assert self.send(port, RELEASE, key, 0, kind) == self.model.release(port, key, kind)

    @precondition(lambda self: len(self.model.keys) > 1)
    @rule(port=ports, key=keys, wrong=rarely)
    def clear(self, port: str, key: int, wrong: bool) -> None:
        """CLEAR."""
        key = self.right(port, key, wrong=wrong)
        assert self.send(port, CLEAR, key) == self.model.clear(port, key)

    @rule(
        order=orders,
        key=keys,
        victim=keys | st.sampled_from(["the holder's"] * 3),
        kind=kinds,
        wrong=rarely,
        action=st.sampled_from([PREEMPT, PREEMPT_AND_ABORT]),
    )
    def preempt(  # noqa: PLR0917 - hypothesis hands over each by its name
        self, order: list[str], key: int, victim: int | str, kind: int, wrong: bool, action: int
    ) -> None:
        """PREEMPT, PREEMPT AND ABORT; often of the reservation that there is."""
        port = self.present(order)
        key = self.right(port, key, wrong=wrong)
        if isinstance(victim, str):
            victim = self.model.reserved_key()
        assert self.send(port, action, key, victim, kind) == self.model.preempt(port, key, victim, kind)

    @precondition(lambda self: self.model.reservation is not None or not self.model.keys)
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
TestReservationsAgainstModel.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
