"""Broken targets that take or refuse the wrong thing: limits, errors, windows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from mutation import Mutants, Mutation, assert_caught

from qemu_odx.target import execute
from qemu_odx.target.commands import inquiry as inquiry_command
from qemu_odx.target.commands import populate_token, token_checks, write_token
from qemu_odx.target.lun import LogicalUnit
from qemu_odx.target.plan import GOOD
from qemu_odx.target.policy import Policy
from qemu_odx.target.port import Reply
from qemu_odx.testing.conformance import run
from qemu_odx.tokens import registry
from qemu_odx.tokens.operations import Event, Operation, OperationStatus, OperationTable
from qemu_odx.tokens.registry import TokenRegistry
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi import rod_token, sense
from qemu_odx.wire.scsi.fields import put32, u32
from qemu_odx.wire.scsi.sense import Sense, Status
from qemu_odx.wire.scsi.token_lists import CopyStatus, PopulateToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Request

MUTANTS = Mutants()
STANDARD = Policy.standard()
PT, WUT, RRTI = "POPULATE TOKEN", "WRITE USING TOKEN", "RECEIVE ROD TOKEN INFORMATION"
RCS4, COA, RART = "RECEIVE COPY STATUS(LID4)", "COPY OPERATION ABORT", "REPORT ALL ROD TOKENS"


def _page(m: Mutation, code: int, change: Callable[[bytearray], Any]) -> None:
    """Change a VPD page before it is cut to the allocation length."""
    build = inquiry_command._PAGES[code]

    def other(request: Request) -> bytes:
        data = bytearray(build(request))
        changed = change(data)
        return bytes(data if changed is None else changed)

    m.patch.setitem(inquiry_command._PAGES, code, other)


def _status(m: Mutation, change: Callable[[CopyStatus], CopyStatus]) -> None:
    told = Operation.report
    m.replace(Operation, "report", lambda self: change(told(self)))


# Limits


@MUTANTS.add("limits.too_long_timeout")
def timeout_clamped(m: Mutation) -> None:
    """A timeout above the maximum is made shorter instead of refused."""
    parse = PopulateToken.parse

    def clamped(data: bytes) -> PopulateToken:
        parsed = parse(data)
        return replace(parsed, inactivity_timeout=min(parsed.inactivity_timeout, 600))

    m.replace(PopulateToken, "parse", staticmethod(clamped))


def _limit(m: Mutation, **limits: int) -> None:
    def other(reference: Any) -> None:
        for unit in reference.target.units.values():
            unit.limits = replace(unit.limits, **limits)

    made = inquiry_command.third_party
    m.replace(
        inquiry_command,
        "third_party",
        lambda r: replace(made(r), max_ranges=64, max_token_blocks=1024, optimal_blocks=1024),
    )
    m.on_target = other


@MUTANTS.add("limits.too_many_ranges")
def long_lists_taken(m: Mutation) -> None:
    """More ranges than announced are taken."""
    _limit(m, max_ranges=10_000)


@MUTANTS.add("limits.as_many_ranges_as_told", "windows")
def fewer_ranges_than_told(m: Mutation) -> None:
    """Fewer ranges than announced are taken."""
    _limit(m, max_ranges=8)


@MUTANTS.add("limits.too_large_token")
def large_tokens_taken(m: Mutation) -> None:
    """More blocks than announced are taken."""
    _limit(m, max_token_blocks=1 << 40)


@MUTANTS.add("limits.largest_token", "windows")
def largest_token_refused(m: Mutation) -> None:
    """One block less than announced is the most."""
    _limit(m, max_token_blocks=1023)


@MUTANTS.add("limits.address_wraps")
def address_wraps_round(m: Mutation) -> None:
    """LBA plus count is worked out in 64 bits."""
    m.replace(LogicalUnit, "out_of_range", lambda self, lba, count: (lba + count) % (1 << 64) > self.blocks)


@MUTANTS.add("limits.last_block")
def last_block_refused(m: Mutation) -> None:
    """A range may not reach the last block."""
    fault = token_checks.range_fault

    def other(ranges: Any, header: int, unit: Any) -> Sense | None:
        if any(item.blocks and item.end >= unit.blocks for item in ranges):
            return sense.LBA_OUT_OF_RANGE
        return fault(ranges, header, unit)

    m.replace(populate_token, "range_fault", other)


# Errors


@MUTANTS.add("errors.overlapping_ranges")
def overlap_taken(m: Mutation) -> None:
    """Overlapping ranges are taken."""
    m.replace(token_checks, "_overlap", lambda _: False)


@MUTANTS.add("errors.list_identifier_in_use")
def duplicate_taken(m: Mutation) -> None:
    """A list identifier in use is given to a second copy."""
    for module in (populate_token, write_token):
        m.replace(module, "list_identifier_fault", lambda *_: None)


@MUTANTS.add("errors.list_identifier_in_use_on_another_unit")
def list_identifiers_of_units(m: Mutation) -> None:
    """FreeBSD CTL keeps list identifiers for each logical unit."""

    def other(request: Request, identifier: int) -> Sense | None:
        running = request.manager.operations.active(request.nexus, identifier)
        return sense.OPERATION_IN_PROGRESS if running and running.lun == request.unit.number else None

    m.replace(populate_token, "list_identifier_fault", other)


@MUTANTS.add("errors.results_belong_to_their_nexus")
def results_for_everyone(m: Mutation) -> None:
    """A result is found by its list identifier alone."""
    find = OperationTable.find

    def other(self: OperationTable, _: Any, identifier: int) -> Any:
        found = (find(self, nexus, identifier) for nexus in list(self._by_nexus))
        return next((item for item in found if item), None)

    m.replace(OperationTable, "find", other)


@MUTANTS.add("errors.forged_token")
def checked_by_identifier_only(m: Mutation) -> None:
    """QUADStor checks nothing of a token but its 8-byte identifier."""
    m.replace(registry.hmac, "compare_digest", lambda *_: True)


@MUTANTS.add("errors.token_length")
def token_length_ignored(m: Mutation) -> None:
    """ROD TOKEN LENGTH is not looked at."""
    m.replace(registry.rod_token, "length_field", lambda _: rod_token.ROD_TOKEN_LENGTH)


@MUTANTS.add("errors.token_type")
def token_type_ignored(m: Mutation) -> None:
    """A token of an unsupported type is merely unknown."""
    resolve = TokenRegistry.resolve

    def other(self: TokenRegistry[Any], data: bytes, group: str, *, begun: bool) -> Any:
        found = resolve(self, data, group, begun=begun)
        return Fault.UNKNOWN if found is Fault.UNSUPPORTED_TYPE else found

    m.replace(TokenRegistry, "resolve", other)


@MUTANTS.add("errors.write_protected")
def protection_ignored(m: Mutation) -> None:
    """A write-protected disk is written to."""
    m.replace(LogicalUnit, "write_protection", lambda _: None)


@MUTANTS.add("errors.unknown_list_identifier", "populate", "abort", "windows")
def unknown_is_no_error(m: Mutation) -> None:
    """RECEIVE ROD TOKEN INFORMATION of an unknown list identifier answers GOOD with nothing."""
    m.after(RRTI, lambda _, plan: GOOD if isinstance(plan, Sense) else plan)


@MUTANTS.add("errors.refused_populate_leaves_nothing")
def refused_populate_leaves_a_result(m: Mutation) -> None:
    """A POPULATE TOKEN that is refused leaves its list identifier behind."""

    def other(request: Request, plan: Plan) -> Plan:
        if isinstance(plan, Sense):
            identifier, status = u32(request.cdb, 6), OperationStatus.FOREGROUND
            operation = Operation(request.nexus, identifier, request.unit.number, 0x10, status)
            operation.end(Event.FAIL, plan, Status.CHECK_CONDITION)
            request.manager.operations.begin(operation)
            request.manager.operations.finished(operation)
        return plan

    m.after(PT, other)


@MUTANTS.add("errors.offset_past_the_end")
def offset_past_the_end_taken(m: Mutation) -> None:
    """OFFSET INTO ROD past the end writes nothing and answers GOOD."""

    def other(_: Request, plan: Plan) -> Plan:
        pointed = isinstance(plan, Sense) and plan.pointer is not None and plan.pointer.byte == 8
        return GOOD if pointed else plan

    m.after(WUT, other)


@MUTANTS.add("errors.types_that_are_no_point_in_time")
def access_upon_reference_given_out(m: Mutation) -> None:
    """POPULATE TOKEN with the type access upon reference is taken."""
    kinds = populate_token.real_type
    m.replace(
        populate_token,
        "real_type",
        lambda kind: rod_token.RodType.POINT_IN_TIME_DEFAULT if kind == 0x00010000 else kinds(kind),
    )


@MUTANTS.add("errors.service_actions_that_do_not_exist")
def service_actions_ignored(m: Mutation) -> None:
    """An unknown service action answers GOOD."""
    from qemu_odx.target.target import Target  # noqa: PLC0415 - patched here only

    unknown = Target._unknown
    m.replace(Target, "_unknown", lambda self, cdb: GOOD if cdb[1] == 0x1F else unknown(self, cdb))


# Windows


@MUTANTS.add("windows.truncation", "write", policy=STANDARD)
def status_04_for_partial(m: Mutation) -> None:
    """04h for a copy that was cut short, as SPC-4 has it too: Windows does not know it."""
    _status(m, lambda told: replace(told, status=4) if told.status == 3 else told)


@MUTANTS.add("windows.fixed_format_sense")
def descriptor_format_sense(m: Mutation) -> None:
    """Sense data in descriptor format."""
    reply = execute.reply_with

    def other(answer: Any, task: Any) -> Reply:
        if not isinstance(answer, Sense):
            return reply(answer, task)
        body = b""
        if answer.information is not None:
            body = bytes((0, 10, 0x80, 0)) + answer.information.to_bytes(8, "big")
        head = bytes((0x72, answer.key, answer.asc, answer.ascq, 0, 0, 0, len(body)))
        return Reply(Status.CHECK_CONDITION, head + body)

    m.replace(execute, "reply_with", other)


@MUTANTS.add("windows.done_when_answered", "populate", "abort")
def always_in_the_background(m: Mutation) -> None:
    """IMMED=0 is answered before the copy is done: 12h, and Windows never asks again."""
    parse = PopulateToken.parse
    m.replace(PopulateToken, "parse", staticmethod(lambda data: replace(parse(data), immediate=True)))


@MUTANTS.add("windows.error_recovery_page")
def qerr_set(m: Mutation) -> None:
    """The control mode page has QERR=1."""

    def other(_: Request, data: bytearray) -> None:
        at = data.find(b"\x0a\x0a", 4)
        if at >= 0:
            data[at + 3] |= 2

    m.data("MODE SENSE(6)", other)


@MUTANTS.add("windows.block_limits")
def short_transfers(m: Mutation) -> None:
    """MAXIMUM TRANSFER LENGTH of VPD B0h is smaller than one token command moves."""
    _page(m, 0xB0, lambda data: put32(data, 8, 64))


@MUTANTS.add("windows.offload_read")
def no_list_identifier_0(m: Mutation) -> None:
    """LIST IDENTIFIER 0 is refused, which is the first that Windows uses."""
    m.before(PT, lambda r: None if u32(r.cdb, 6) else sense.INVALID_FIELD_IN_CDB.at(6, in_cdb=True))


@MUTANTS.add("windows.offload_read", "populate", "write")
def padded_to_the_allocation_length(m: Mutation) -> None:
    """RECEIVE ROD TOKEN INFORMATION sends as many bytes as were allocated, zeros behind the data."""
    m.data(RRTI, lambda r, data: data.ljust(u32(r.cdb, 10), b"\0"))


@MUTANTS.add("windows.dead_token_is_told_as_such", "errors")
def dead_token_is_an_invalid_field(m: Mutation) -> None:
    """A token that is unknown is refused as an invalid field."""
    unknown = (5, 0x23, 0x04)

    def other(_: Request, plan: Plan) -> Plan:
        bad = isinstance(plan, Sense) and (plan.key, plan.asc, plan.ascq) == unknown
        return sense.INVALID_FIELD_IN_LIST if bad else plan

    m.after(WUT, other)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that should catch the broken target does, and only the families that may see it fail."""
    assert_caught(mutant, monkeypatch)


def test_the_time_of_day_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """List identifiers begin with it, and 0 is for the checks that mean it."""
    monkeypatch.setattr(run.time, "time", lambda: 0.0)
    (mutant,) = (item for item in MUTANTS if item.name == "no_list_identifier_0")
    assert_caught(mutant, monkeypatch)
