"""PERSISTENT RESERVE IN and OUT (SPC-4 6.13, 6.14), RESERVE and RELEASE (SPC-2 7.21, 7.16).

Next: `target/reservations.py` decides. SPEC_I_PT, ALL_TG_PT and APTPL are refused, and REPORT CAPABILITIES says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.target import shared_disk
from qemu_odx.target.commands.inquiry import TARGET_PORT
from qemu_odx.target.plan import GOOD, Deferred
from qemu_odx.target.port import initiator_port
from qemu_odx.target.request import cut
from qemu_odx.target.reservations import Reservations
from qemu_odx.wire.scsi import persistent, sense
from qemu_odx.wire.scsi.fields import u16, u32
from qemu_odx.wire.scsi.persistent import LIST_LENGTH, FullStatus, Kind, ReserveOut

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from qemu_odx.target.plan import Answer, Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.target.reservations import Outcome, Port

    Rule: TypeAlias = Callable[..., Outcome]
    Arguments: TypeAlias = Callable[[ReserveOut, Kind], tuple[int, ...]]
    """What of the command a rule is given, after the port."""

_KEY: Arguments = lambda said, _: (said.key,)  # noqa: E731 - the columns of the table below
_BOTH_KEYS: Arguments = lambda said, _: (said.key, said.action_key)  # noqa: E731
_KEY_AND_TYPE: Arguments = lambda said, kind: (said.key, kind)  # noqa: E731
_ALL: Arguments = lambda said, kind: (said.key, said.action_key, kind)  # noqa: E731
_ACTIONS: dict[str, tuple[Rule, Arguments]] = {
    "REGISTER": (Reservations.register, _BOTH_KEYS),
    "REGISTER AND IGNORE EXISTING KEY": (Reservations.register_and_ignore, _BOTH_KEYS),
    "RESERVE": (Reservations.reserve, _KEY_AND_TYPE),
    "RELEASE": (Reservations.release, _KEY_AND_TYPE),
    "CLEAR": (Reservations.clear, _KEY),
    "PREEMPT": (Reservations.preempt, _ALL),
    "PREEMPT AND ABORT": (Reservations.preempt, _ALL),
}
_WITH_TYPE = frozenset({"RESERVE", "RELEASE", "PREEMPT", "PREEMPT AND ABORT"})
"""Service actions that look at SCOPE and TYPE (SPC-4 6.14.2)."""
_REGISTERS = frozenset({"REGISTER", "REGISTER AND IGNORE EXISTING KEY"})
_OUT = "PERSISTENT RESERVE OUT "


def reserve_out(request: Request, name: str) -> Plan:
    """Any service action of PERSISTENT RESERVE OUT."""
    if u32(request.cdb, 5) != LIST_LENGTH:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    data = request.parameter_list(LIST_LENGTH)
    if len(data) < LIST_LENGTH:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    said, scope_and_kind = ReserveOut.parse(data), request.cdb[2]
    if name in _WITH_TYPE and scope_and_kind not in set(Kind):  # SCOPE is 0, the logical unit
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True)
    if name in _REGISTERS and said.unsupported_bit is not None:
        return sense.INVALID_FIELD_IN_LIST.at(20, bit=said.unsupported_bit)
    kind = Kind(scope_and_kind) if name in _WITH_TYPE else Kind.WRITE_EXCLUSIVE
    rule, arguments = _ACTIONS[name]
    outcome = rule(request.unit.reservations, initiator_port(request.nexus), *arguments(said, kind))
    shared_disk.tell(request.manager, request.unit.disk, outcome.told)
    if name == "PREEMPT AND ABORT" and outcome.preempted:
        return Deferred(partial(_abort_preempted, request, outcome.preempted))
    return outcome.answer or GOOD


def _abort_preempted(request: Request, ports: frozenset[Port], answer: Callable[[Answer], None]) -> None:
    """Answers once tasks and copies of the preempted ports have ended (SPC-4 5.13.11.5)."""
    shared_disk.end_work_of(request.manager, request.unit.disk, ports, request.task, lambda: answer(GOOD))


def read_keys(request: Request) -> Plan:
    """READ KEYS."""
    state = request.unit.reservations
    return _cut(request, persistent.read_keys(state.generation, state.keys.values()))


def read_reservation(request: Request) -> Plan:
    """READ RESERVATION."""
    state = request.unit.reservations
    shared = state.kind is None or state.kind.all_registrants
    key = 0 if shared or state.owner is None else state.keys[state.owner]
    return _cut(request, persistent.read_reservation(state.generation, key, state.kind))


def report_capabilities(request: Request) -> Plan:
    """REPORT CAPABILITIES."""
    return _cut(request, persistent.report_capabilities())


def read_full_status(request: Request) -> Plan:
    """READ FULL STATUS."""
    state = request.unit.reservations
    registrations = [
        FullStatus(key, state.kind if state.holds(port) else None, str(port))
        for port, key in state.keys.items()
    ]
    return _cut(request, persistent.read_full_status(state.generation, registrations, TARGET_PORT))


def _cut(request: Request, data: bytes) -> Plan:
    return cut(data, u16(request.cdb, 7))


def reserve(request: Request) -> Plan:
    """RESERVE(6), (10), of the whole unit for this initiator; extents and third parties are obsolete."""
    return _of_unit(request, request.unit.reservations.reserve_unit)


def release(request: Request) -> Plan:
    """RELEASE(6), (10)."""
    return _of_unit(request, request.unit.reservations.release_unit)


def _of_unit(request: Request, action: Callable[[Port], Outcome]) -> Plan:
    if request.cdb[1] & 0x11:  # 3RDPTY, EXTENT
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True)
    return action(initiator_port(request.nexus)).answer or GOOD


def _of(name: str, rule: Rule) -> Handler:
    """The handler of a service action, described as the rule that it follows."""

    def handler(request: Request) -> Plan:
        return reserve_out(request, name)

    handler.__doc__ = rule.__doc__
    return handler


HANDLERS: dict[str, Handler] = {
    **{_OUT + name: _of(name, rule) for name, (rule, _) in _ACTIONS.items()},
    "PERSISTENT RESERVE IN READ KEYS": read_keys,
    "PERSISTENT RESERVE IN READ RESERVATION": read_reservation,
    "PERSISTENT RESERVE IN REPORT CAPABILITIES": report_capabilities,
    "PERSISTENT RESERVE IN READ FULL STATUS": read_full_status,
    **{f"RESERVE({length})": reserve for length in (6, 10)},
    **{f"RELEASE({length})": release for length in (6, 10)},
}
