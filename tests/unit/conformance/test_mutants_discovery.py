"""Broken targets that say the wrong thing: discovery and populate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from mutation import Mutants, Mutation, assert_caught

from qemu_odx.target.commands import inquiry as inquiry_command
from qemu_odx.target.commands import populate_token, report, token_checks, write_token
from qemu_odx.target.plan import Data
from qemu_odx.target.policy import Policy
from qemu_odx.tokens.operations import Operation
from qemu_odx.tokens.registry import TokenRegistry
from qemu_odx.wire.scsi import inquiry, rod_token, sense, third_party_page
from qemu_odx.wire.scsi.fields import put16, put32, u16, u32
from qemu_odx.wire.scsi.token_lists import CopyStatus, PopulateToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Request
    from qemu_odx.wire.scsi.sense import Sense

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

    def whole(self: TokenRegistry[Any], _group: str) -> list[bytes]:
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


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that should catch the broken target does, and only the families that may see it fail."""
    assert_caught(mutant, monkeypatch)
