"""Broken targets whose copies go wrong: write, expiry, isolation, abort."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from mutation import Mutants, Mutation, assert_caught, failures

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.port import CopyMethod, Extent
from qemu_odx.target import copying
from qemu_odx.target.commands import write_token
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.plan import GOOD
from qemu_odx.target.policy import Policy
from qemu_odx.tokens import registry
from qemu_odx.tokens.registry import TokenRegistry
from qemu_odx.tokens.token import Fault, Token
from qemu_odx.wire.scsi import rod_token, sense
from qemu_odx.wire.scsi.fields import u32
from qemu_odx.wire.scsi.token_lists import CopyStatus, PopulateToken, WriteUsingToken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Request

MUTANTS = Mutants()
STANDARD = Policy.standard()
PT, WUT, RRTI = "POPULATE TOKEN", "WRITE USING TOKEN", "RECEIVE ROD TOKEN INFORMATION"


def _parse_write(m: Mutation, **changes: Any) -> None:
    """WRITE USING TOKEN lists are read with some fields as they are not; functions get the parsed list."""
    parse = WriteUsingToken.parse

    def other(data: bytes) -> WriteUsingToken:
        parsed = parse(data)
        return replace(parsed, **{k: v(parsed) if callable(v) else v for k, v in changes.items()})

    m.replace(WriteUsingToken, "parse", staticmethod(other))


@MUTANTS.add("write.offset_counts_destination_blocks")
def offset_in_source_blocks(m: Mutation) -> None:
    """FreeBSD CTL scales OFFSET INTO ROD by the source's block length."""
    copy = copying.copy_rod

    def scaled(source: Any, offset: int, destination: Any, *rest: Any, **options: Any) -> Any:
        return copy(source, offset // destination.block_size * 512, destination, *rest, **options)

    m.replace(write_token, "copy_rod", scaled)


@MUTANTS.add("write.rest_of_the_last_block_is_zeros")
def tail_not_zero_filled(m: Mutation) -> None:
    """What the ROD does not fill of its last block stays as it was."""
    step = copying._step

    def careless(source: Any, at: int, destination: Any, place: int, length: int) -> CopyMethod:
        available = length if source is None else max(0, min(length, source.length - at))
        return step(source, at, destination, place, available)

    m.replace(copying, "_step", careless)


@MUTANTS.add("write.zero_token_writes_zeros", "isolation", "windows")
def zero_token_refused(m: Mutation) -> None:
    """QUADStor knows no zero token."""
    m.replace(rod_token, "is_zero_token", lambda _: False)


@MUTANTS.add("write.delete_token")
def delete_ignored(m: Mutation) -> None:
    """DEL_TKN has no effect."""
    _parse_write(m, delete_token=False)


def _resolve_unless(m: Mutation, unfit: Any) -> None:
    resolve = write_token._resolve

    def other(request: Request, data: bytes) -> Any:
        found = resolve(request, data)
        return Fault.UNKNOWN if isinstance(found, Token) and unfit(request, found) else found

    m.replace(write_token, "_resolve", other)


@MUTANTS.add("write.across_units")
def bound_to_its_unit(m: Mutation) -> None:
    """A token is taken only by the logical unit it was made from."""
    _resolve_unless(m, lambda request, token: token.creator != request.unit.disk.name)


@MUTANTS.add("write.across_nexuses")
def bound_to_its_nexus(m: Mutation) -> None:
    """A token is taken only over the nexus it was made over."""
    _resolve_unless(m, lambda request, token: token.owner != request.nexus)


@MUTANTS.add("write.used_many_times", "expiry", "isolation", "abort")
def good_for_one_use(m: Mutation) -> None:
    """The first write uses the token up."""
    _parse_write(m, delete_token=True)


@MUTANTS.add("write.ranges_keep_their_order")
def destinations_sorted(m: Mutation) -> None:
    """Destination ranges are written in ascending order."""
    _parse_write(m, ranges=lambda parsed: tuple(sorted(parsed.ranges, key=lambda item: item.lba)))


def _live(disk: FileDisk, extents: Sequence[Extent]) -> Any:
    return LiveSnapshot(disk, extents)


class LiveSnapshot:
    """Access upon reference: nothing but addresses, read when they are used."""

    lost = False
    method = "none"

    def __init__(self, disk: FileDisk, extents: Sequence[Extent]) -> None:
        self.disk, self.extents = disk, tuple(extents)
        self.length = sum(extent.length for extent in extents)

    def copy_to(self, offset: int, destination: Any, place: int, length: int) -> CopyMethod:
        """Copy what is there now."""
        whole = bytearray()
        for extent in self.extents:
            part = bytearray(extent.length)
            self.disk.read(extent.offset, [memoryview(part)])
            whole += part
        destination.write(place, [bytes(whole[offset : offset + length])])
        return CopyMethod.READ_WRITE

    def outlive(self) -> None:
        """Nothing to be found by a successor."""

    def release(self) -> None:
        """Nothing is held."""


@MUTANTS.add("isolation.source_overwritten")
def access_upon_reference(m: Mutation) -> None:
    """FreeBSD CTL and QNAP read the source when the token is used."""
    m.replace(FileDisk, "snapshot", _live)


@MUTANTS.add("isolation.source_unmapped")
def unmap_unguarded(m: Mutation) -> None:
    """UNMAP forgets that a token needs the old data."""
    m.replace(FileDisk, "discard", lambda disk, offset, length: disk._file.punch(offset, length))


@MUTANTS.add("isolation.source_overwritten")
def write_unguarded(m: Mutation) -> None:
    """WRITE forgets that a token needs the old data."""

    def careless(disk: FileDisk, offset: int, data: Any) -> None:
        disk._file.write(offset, data, sum(len(view) for view in data))

    m.replace(FileDisk, "write", careless)


@MUTANTS.add("write.asking_for_too_much_in_the_background")
def partial_write_at_the_end(m: Mutation) -> None:
    """A write that is cut short fills the last blocks, not the first."""

    def last(ranges: Sequence[Any], blocks: int, size: int) -> list[Extent]:
        extents: list[Extent] = []
        for item in reversed(ranges):
            count = min(item.blocks, blocks)
            extents.insert(0, Extent((item.end - count) * size, count * size))
            blocks -= count
        return extents

    m.replace(write_token, "first_extents", last)


@MUTANTS.add("write.asking_for_too_much", "windows", policy=STANDARD)
def no_count_with_the_underrun(m: Mutation) -> None:
    """COPY ABORTED without INFORMATION."""
    told = sense.Sense.told
    m.replace(sense.Sense, "told", lambda self, count: self if self.ascq == 4 else told(self, count))


@MUTANTS.add("write.result_of_a_write", "populate", "windows")
def no_descriptors_length(m: Mutation) -> None:
    """RECEIVE ROD TOKEN INFORMATION without a token leaves out the length field too: 32 bytes."""
    whole = CopyStatus.with_token
    m.replace(CopyStatus, "with_token", lambda self, token: whole(self, token) if token else self.packed())


@MUTANTS.add("write.background_write_is_not_done_at_once", "abort")
def write_ignores_immed(m: Mutation) -> None:
    """WRITE USING TOKEN with IMMED=1 runs in the foreground."""
    _parse_write(m, immediate=False)


@MUTANTS.add("write.empty_write_list", "populate")
def empty_list_refused(m: Mutation) -> None:
    """FreeBSD CTL refuses PARAMETER LIST LENGTH 0."""
    for name in (PT, WUT):
        m.before(name, lambda r: None if u32(r.cdb, 10) else sense.INVALID_FIELD_IN_CDB)


@MUTANTS.add("expiry.use_starts_the_timer_anew")
def timer_not_restarted(m: Mutation) -> None:
    """The inactivity timer runs from POPULATE TOKEN on."""
    let_go = TokenRegistry.let_go

    def other(self: TokenRegistry[Any], token: Token[Any]) -> None:
        deadline = token.deadline
        let_go(self, token)
        token.deadline = deadline

    m.replace(TokenRegistry, "let_go", other)
    m.on_target = lambda reference: _deadlines_as_they_are(m, reference)


def _deadlines_as_they_are(m: Mutation, reference: Any) -> None:
    """Expire by each token's own deadline, whatever is scheduled."""
    tokens = reference.target.manager.tokens

    def expire(self: TokenRegistry[Any]) -> None:
        for token in self:
            if not token.users and token.deadline <= self.clock():
                self._bury(token, Fault.EXPIRED)

    m.replace(type(tokens), "expire", expire)


@MUTANTS.add("expiry.unused_token_expires")
def expired_is_unknown(m: Mutation) -> None:
    """FreeBSD CTL keeps no memory of dead tokens."""
    bury = TokenRegistry._bury

    def other(self: TokenRegistry[Any], token: Token[Any], cause: Fault) -> None:
        bury(self, token, cause)
        if cause is Fault.EXPIRED:
            del self._dead[token.identifier]

    m.replace(TokenRegistry, "_bury", other)


@MUTANTS.add("expiry.unused_token_expires")
def tokens_live_for_ever(m: Mutation) -> None:
    """Nothing ever expires."""
    m.replace(TokenRegistry, "expire", lambda _: None)


@MUTANTS.add("expiry.zero_asks_for_the_default")
def no_default_timeout(m: Mutation) -> None:
    """INACTIVITY TIMEOUT 0 is taken as for ever."""
    mint = TokenRegistry.mint

    def other(self: Any, *given: Any, **options: Any) -> Any:
        if options["inactivity_timeout"] == 60:
            options["inactivity_timeout"] = 10_000
        return mint(self, *given, **options)

    m.replace(TokenRegistry, "mint", other)


@MUTANTS.add("expiry.not_too_early")
def half_the_time(m: Mutation) -> None:
    """A token dies after half its timeout."""
    mint = TokenRegistry.mint

    def other(self: Any, *given: Any, **options: Any) -> Any:
        options["inactivity_timeout"] /= 2
        return mint(self, *given, **options)

    m.replace(TokenRegistry, "mint", other)


@MUTANTS.add("expiry.each_token_has_its_own_time")
def all_die_together(m: Mutation) -> None:
    """The first token to expire takes all others with it."""
    bury = TokenRegistry._bury

    def other(self: TokenRegistry[Any], token: Token[Any], cause: Fault) -> None:
        for item in (token, *(self if cause is Fault.EXPIRED else ())):
            if item.identifier in self._live:
                bury(self, item, cause)

    m.replace(TokenRegistry, "_bury", other)


@MUTANTS.add("expiry.death_is_remembered")
def short_memory(m: Mutation) -> None:
    """The cause of death is forgotten after two seconds."""
    m.patch.setattr(registry, "max", lambda *_: 2.0, raising=False)


@MUTANTS.add("abort.background_write")
def abort_without_effect(m: Mutation) -> None:
    """COPY OPERATION ABORT answers GOOD and lets the copy run."""

    def act(request: Request) -> Plan | None:
        running = request.manager.operations.active(request.nexus, u32(request.cdb, 2))
        return GOOD if running else None

    m.before("COPY OPERATION ABORT", act)


@MUTANTS.add("abort.finished_copy")
def abort_of_what_is_over(m: Mutation) -> None:
    """COPY OPERATION ABORT of a finished copy drops its result and answers GOOD."""

    def act(request: Request) -> Plan | None:
        found = request.manager.operations.find(request.nexus, u32(request.cdb, 2))
        if found is None or found.running:
            return None
        request.manager.operations.drop(found)
        return GOOD

    m.before("COPY OPERATION ABORT", act)


@MUTANTS.add("abort.aborted_write_leaves_the_token")
def abort_kills_the_token(m: Mutation) -> None:
    """The token of an aborted write is gone."""
    settle = write_token._settle

    def other(write: Any, result: Any) -> Any:
        if getattr(result, "aborted", False) and write.token is not None:
            write.request.manager.tokens.kill(write.token, Fault.DELETED)
        return settle(write, result)

    m.replace(write_token, "_settle", other)


@MUTANTS.add("abort.nexus_loss_drops_results")
def results_outlive_the_nexus(m: Mutation) -> None:
    """Results are kept across I_T nexus loss."""
    m.replace(CopyManager, "forget", lambda *_: None)


@MUTANTS.add("abort.nexus_loss_leaves_tokens")
def tokens_go_with_the_nexus(m: Mutation) -> None:
    """I_T nexus loss cancels tokens."""

    def other(self: CopyManager, nexus: Any) -> None:
        self.operations.drop_results(nexus)
        for token in self.tokens:
            if token.owner == nexus:
                self.tokens.kill(token, Fault.CANCELLED)

    m.replace(CopyManager, "forget", other)


@MUTANTS.add("abort.copies_go_on_without_their_nexus")
def copies_end_with_the_nexus(m: Mutation) -> None:
    """I_T nexus loss stops copies in the background."""
    forget = CopyManager.forget

    def other(self: CopyManager, nexus: Any) -> None:
        for operation in self.operations.running(nexus):
            operation.abort = True
        forget(self, nexus)

    m.replace(CopyManager, "forget", other)


@MUTANTS.add("abort.reset_drops_results")
def reset_without_effect(m: Mutation) -> None:
    """LOGICAL UNIT RESET leaves copies and results alone."""
    m.replace(CopyManager, "end_copies", lambda *_: None)


@MUTANTS.add("populate.progress_is_told", "errors", "abort")
def populate_ignores_immed(m: Mutation) -> None:
    """POPULATE TOKEN with IMMED=1 runs in the foreground."""
    parse = PopulateToken.parse
    m.replace(PopulateToken, "parse", staticmethod(lambda data: replace(parse(data), immediate=False)))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check that should catch the broken target does, and only the families that may see it fail."""
    assert_caught(mutant, monkeypatch)


@pytest.mark.parametrize("policy", [Policy(), STANDARD], ids=["default", "standard"])
def test_the_unbroken_target_passes(policy: Policy) -> None:
    """Without a mutation every check passes."""
    assert failures(policy) == {}
