"""Broken targets that say the wrong thing: discovery, populate, limits, errors, windows."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from mutation import Mutants, Mutation, assert_caught

from qemu_odx.target import execute
from qemu_odx.target.commands import inquiry as inquiry_command
from qemu_odx.target.commands import populate_token, report, token_checks, write_token
from qemu_odx.target.lun import LogicalUnit
from qemu_odx.target.plan import GOOD, Data
from qemu_odx.target.policy import Policy
from qemu_odx.target.port import Reply
from qemu_odx.tokens import registry
from qemu_odx.tokens.operations import Event, Operation, OperationStatus, OperationTable
from qemu_odx.tokens.registry import Fault, TokenRegistry
from qemu_odx.wire.scsi import inquiry, rod_token, sense, third_party_page
from qemu_odx.wire.scsi.fields import put16, put32, u16, u32
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


# Discovery


@MUTANTS.add("discovery.third_party_copy_bit")
def no_3pc(m: Mutation) -> None:
    """Standard INQUIRY data without 3PC."""
    standard = inquiry.standard
    m.replace(
        inquiry, "standard", lambda **options: standard(**options)[:5] + b"\0" + standard(**options)[6:]
    )


@MUTANTS.add("discovery.pages_ascend")
def unsorted_page_00(m: Mutation) -> None:
    """8Fh stands last in page 00h: Windows then ignores it."""
    _page(m, 0x00, lambda data: data[:4] + bytes(sorted(data[4:], key=lambda code: code == 0x8F)))


@MUTANTS.add("discovery.limits_come_first", "windows")
def limits_too_long(m: Mutation) -> None:
    """The block device limits descriptor is 4 bytes longer than 20h."""

    def longer(data: bytearray) -> bytes:
        put16(data, 6, 0x24)
        put16(data, 2, u16(data, 2) + 4)
        return bytes(data[:40]) + bytes(4) + bytes(data[40:])

    _page(m, 0x8F, longer)


@MUTANTS.add("discovery.descriptors_ascend", "windows")
def limits_last(m: Mutation) -> None:
    """The block device limits descriptor stands behind the others."""
    _page(m, 0x8F, lambda data: data[:4] + data[40:] + data[4:40])


@MUTANTS.add("discovery.commands_are_listed")
def service_actions_unsorted(m: Mutation) -> None:
    """FreeBSD CTL lists the service actions of 84h out of order."""

    def other(items: Any, **options: Any) -> list[Any]:
        return sorted(items, **options, reverse=not options)

    m.patch.setattr(third_party_page, "sorted", other, raising=False)


@MUTANTS.add("discovery.commands_are_listed")
def copy_status_not_listed(m: Mutation) -> None:
    """84h/05h is missing from the list."""
    listed = inquiry_command.copy_operations
    m.replace(
        inquiry_command,
        "copy_operations",
        lambda rows: tuple(row for row in listed(rows) if row.name != RCS4),
    )


@MUTANTS.add("discovery.listed_commands_are_there")
def listed_and_not_there(m: Mutation) -> None:
    """RECEIVE COPY OPERATING PARAMETERS is listed and refused as unknown."""
    m.before("RECEIVE COPY OPERATING PARAMETERS", lambda _: sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True))


@MUTANTS.add("discovery.limits_agree")
def two_limits_that_differ(m: Mutation) -> None:
    """MAXIMUM BYTES IN BLOCK ROD is worked out with another block length."""
    made = inquiry_command.third_party
    m.replace(inquiry_command, "third_party", lambda r: replace(made(r), block_size=8192))


@MUTANTS.add("discovery.timeouts_agree", "expiry")
def default_above_the_maximum(m: Mutation) -> None:
    """The default inactivity timeout told is above the maximum."""
    made = inquiry_command.third_party
    m.replace(inquiry_command, "third_party", lambda r: replace(made(r), default_inactivity=6000))


@MUTANTS.add("discovery.rod_types_make_sense", "populate")
def zero_type_to_populate(m: Mutation) -> None:
    """The zero type is offered for POPULATE TOKEN."""
    types = third_party_page._TYPES
    m.replace(third_party_page, "_TYPES", tuple((kind, flags | 1) for kind, flags in types))


@MUTANTS.add("discovery.page_length_is_the_full_one")
def page_length_cut(m: Mutation) -> None:
    """PAGE LENGTH is altered by the allocation length."""

    def other(request: Request, data: bytearray) -> None:
        if request.cdb[1] & 1 and request.cdb[2] == 0x8F:
            put16(data, 2, len(data) - 4)

    m.data("INQUIRY", other)


@MUTANTS.add("discovery.identification")
def designator_too_long(m: Mutation) -> None:
    """VPD 83h with a designator of 252 bytes: vioscsi never comes back from it."""
    made = inquiry.device_identification

    def longer(*given: Any) -> bytes:
        body = made(*given)[4:] + bytes((0x02, 0x00, 0x00, 252)) + b"Q" * 252
        return bytes((0, 0x83)) + len(body).to_bytes(2, "big") + body

    m.replace(inquiry, "device_identification", longer)


@MUTANTS.add("discovery.operation_codes")
def list_identifier_told_at_2(m: Mutation) -> None:
    """CDB usage data of 83h puts the list identifier where 84h has it."""
    one = report._one_command

    def other(row: Any, **options: Any) -> bytes:
        if row is not None and row.name == PT:
            row = replace(row, usage=row.usage[:2] + row.usage[6:10] + row.usage[2:6] + row.usage[10:])
        return one(row, **options)

    m.replace(report, "_one_command", other)


@MUTANTS.add("discovery.page_code_needs_evpd")
def page_code_ignored(m: Mutation) -> None:
    """INQUIRY without EVPD ignores the page code."""
    m.before("INQUIRY", lambda r: None if r.cdb[1] & 1 else Data(inquiry.standard()))


@MUTANTS.add("discovery.capacity_agrees")
def one_block_too_many(m: Mutation) -> None:
    """READ CAPACITY(10) tells the number of blocks, not the last one."""
    m.data("READ CAPACITY(10)", lambda _, data: put32(data, 0, u32(data, 0) + 1))


# Populate


@MUTANTS.add("populate.one_range", "limits", "errors", "windows")
def count_in_bytes(m: Mutation) -> None:
    """TRANSFER COUNT of POPULATE TOKEN in bytes."""
    _status(m, lambda told: replace(told, count=told.count * 512) if told.service_action == 0x10 else told)


@MUTANTS.add("populate.update_delay_when_done")
def delay_0_when_done(m: Mutation) -> None:
    """ESTIMATED STATUS UPDATE DELAY 0 once the copy is done."""
    _status(m, lambda told: replace(told, delay=0) if told.delay == 0xFFFFFFFE else told)


@MUTANTS.add("populate.information_twice")
def freed_on_first_read(m: Mutation) -> None:
    """FreeBSD CTL gives the token out once."""

    def other(request: Request, plan: Plan) -> Plan:
        found = request.manager.operations.find(request.nexus, u32(request.cdb, 2))
        if found and found.token and u32(request.cdb, 10) >= 550:
            request.manager.operations.drop(found)
        return plan

    m.after(RRTI, other)


@MUTANTS.add("populate.status_keeps_the_token")
def status_eats_the_token(m: Mutation) -> None:
    """FreeBSD CTL drops the result when RECEIVE COPY STATUS(LID4) has told it."""

    def other(request: Request, plan: Plan) -> Plan:
        found = request.manager.operations.find(request.nexus, u32(request.cdb, 2))
        if found:
            request.manager.operations.drop(found)
        return plan

    m.after(RCS4, other)


@MUTANTS.add("populate.asked_types")
def any_in_a_token(m: Mutation) -> None:
    """Asked for any point in time type, the token says "any"."""
    kinds = populate_token.real_type
    m.replace(populate_token, "real_type", lambda kind: kind if kind == 0x0080FFFF else kinds(kind))


@MUTANTS.add("populate.type_is_ignored_without_rtv")
def type_without_rtv(m: Mutation) -> None:
    """ROD TYPE is looked at even with RTV=0."""
    parse = PopulateToken.parse

    def other(data: bytes) -> PopulateToken:
        parsed = parse(data)
        return parsed if data[2] & 2 else replace(parsed, rod_type=u32(data, 8) or None)

    m.replace(PopulateToken, "parse", staticmethod(other))


@MUTANTS.add("populate.tokens_differ", "errors")
def secret_is_zeros(m: Mutation) -> None:
    """QNAP's tokens have no random part."""

    def other(reference: Any) -> None:
        reference.target.manager.tokens.random = bytes

    m.on_target = other


@MUTANTS.add("populate.all_tokens")
def secrets_listed(m: Mutation) -> None:
    """REPORT ALL ROD TOKENS shows whole tokens."""

    def whole(self: TokenRegistry[Any]) -> list[bytes]:
        return [token.data for token in self]

    m.replace(TokenRegistry, "management_tokens", whole)


@MUTANTS.add("populate.allocation_length_cuts")
def available_data_cut(m: Mutation) -> None:
    """AVAILABLE DATA is altered by the allocation length."""
    m.data(RRTI, lambda _, data: put32(data, 0, len(data) - 4))


@MUTANTS.add("populate.incomplete_descriptor")
def incomplete_descriptor_refused(m: Mutation) -> None:
    """A descriptor list that is no multiple of 16 is refused."""

    def other(request: Request) -> Plan | None:
        length = u32(request.cdb, 10)
        return sense.INVALID_FIELD_IN_LIST if length > 16 and length % 16 else None

    m.before(PT, other)


@MUTANTS.add("populate.touching_ranges", "write")
def touching_is_overlapping(m: Mutation) -> None:
    """Ranges that touch are refused."""

    def overlap(ranges: Any) -> bool:
        ordered = sorted((item for item in ranges if item.blocks), key=lambda item: item.lba)
        return any(x.end >= y.lba for x, y in itertools.pairwise(ordered))

    m.replace(token_checks, "_overlap", overlap)


@MUTANTS.add("populate.only_an_empty_range", "write")
def empty_ranges_refused(m: Mutation) -> None:
    """A range of no blocks is refused."""
    fault = token_checks.range_fault

    def other(ranges: Any, *rest: Any) -> Sense | None:
        if any(item.blocks == 0 for item in ranges):
            return sense.INVALID_FIELD_IN_LIST
        return fault(ranges, *rest)

    for module in (populate_token, write_token):
        m.replace(module, "range_fault", other)


@MUTANTS.add("populate.token_layout")
def length_not_represented(m: Mutation) -> None:
    """NUMBER OF BYTES REPRESENTED counts blocks."""
    token = rod_token.TokenHeader.token
    m.replace(
        rod_token.TokenHeader,
        "token",
        lambda self, secret: token(replace(self, length=self.length // 512), secret),
    )


@MUTANTS.add("populate.list_identifier_is_free_afterwards", "windows")
def list_identifier_taken_for_ever(m: Mutation) -> None:
    """QUADStor refuses a list identifier while the old result is kept."""

    def used(request: Request, identifier: int) -> Sense | None:
        found = request.manager.operations.find(request.nexus, identifier)
        return sense.OPERATION_IN_PROGRESS if found else None

    for module in (populate_token, write_token):
        m.replace(module, "list_identifier_fault", used)


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

    def other(self: TokenRegistry[Any], data: bytes) -> Any:
        found = resolve(self, data)
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
