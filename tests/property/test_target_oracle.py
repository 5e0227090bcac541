"""Any sequence of commands that write, by any path, with disks that change their size, gives what the oracle says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from qemu_odx.testing.conformance.reference import ReferenceTarget, TargetDescription
from qemu_odx.testing.oracle import Oracle
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from qemu_odx.testing.initiator import Initiator

DESCRIPTION: TargetDescription = {
    "lus": [
        {"lun": 0, "blocks": 256, "block_size": 512, "naa": "60" * 16},
        {"lun": 1, "blocks": 256, "block_size": 512, "naa": "61" * 16},
        {"lun": 2, "blocks": 32, "block_size": 4096, "naa": "62" * 16},
    ],
    "limits": {
        "max_ranges": 8,
        "max_ito_s": 600,
        "default_ito_s": 60,
        "max_token_transfer_blocks": 8192,
        "max_tokens": 64,
    },
}
BLOCKS = {item["lun"]: item["blocks"] for item in DESCRIPTION["lus"]}
SIZES = {item["lun"]: item["block_size"] for item in DESCRIPTION["lus"]}
luns = st.sampled_from(sorted(BLOCKS))
nexuses = st.sampled_from(["I0", "I1"])


@st.composite
def places(draw: st.DrawFn, capacity: int, most: int = 40) -> tuple[int, int]:
    """An LBA and a count that fit on a logical unit of so many blocks."""
    lba = draw(st.integers(0, capacity - 1))
    return lba, draw(st.integers(0, min(most, capacity - lba)))


@st.composite
def disjoint(draw: st.DrawFn, capacity: int) -> list[tuple[int, int]]:
    """One to four ranges without overlap, in any order."""
    cuts = sorted(draw(st.sets(st.integers(0, capacity), min_size=2, max_size=8)))
    ranges = [(low, high - low) for low, high in zip(cuts[::2], cuts[1::2], strict=False)]
    return draw(st.permutations(ranges))


class TargetAgainstOracle(RuleBasedStateMachine):
    """The same commands to the target and to the oracle."""

    tokens = Bundle("tokens")

    @initialize()
    def start(self) -> None:
        """A fresh target, its content copied to the oracle."""
        self.reference = ReferenceTarget(DESCRIPTION)
        self.initiators: dict[str, Initiator] = {key: self.reference.initiator(key) for key in ("I0", "I1")}
        content = {lun: bytearray(self.reference.read(lun, 0, count)) for lun, count in BLOCKS.items()}
        self.oracle = Oracle(SIZES, content)
        self.bytes: dict[str, bytes] = {}
        self.capacity = dict(BLOCKS)

    def teardown(self) -> None:
        """Give everything back."""
        if hasattr(self, "reference"):
            self.reference.__exit__(None, None, None)

    @rule(data=st.data(), lun=luns, nexus=nexuses, seed=st.integers(0, 255))
    def write(self, data: st.DataObject, lun: int, nexus: str, seed: int) -> None:
        """WRITE(16) through SCSI."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        content = bytes((seed + number) % 256 for number in range(blocks)) * SIZES[lun]
        assert self.initiators[nexus].write(lun, lba, blocks, content).good
        self.oracle.write(lun, lba, content)

    @rule(data=st.data(), lun=luns, seed=st.integers(0, 255))
    def write_by_the_block_device(self, data: st.DataObject, lun: int, seed: int) -> None:
        """A write that comes by another export of the same disk."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        content = bytes((seed,)) * blocks * SIZES[lun]
        self.reference.disks[lun].write(lba * SIZES[lun], [content])
        self.oracle.write(lun, lba, content)

    @rule(data=st.data(), lun=luns, nexus=nexuses)
    def unmap(self, data: st.DataObject, lun: int, nexus: str) -> None:
        """UNMAP of several ranges."""
        ranges = data.draw(disjoint(self.capacity[lun]))
        assert self.initiators[nexus].unmap(lun, [Range(*item) for item in ranges]).good
        for lba, blocks in ranges:
            self.oracle.zero(lun, lba, blocks)

    @rule(data=st.data(), lun=luns, seed=st.integers(0, 3), unmap=st.booleans())
    def write_same(self, data: st.DataObject, lun: int, seed: int, unmap: bool) -> None:
        """WRITE SAME(16), with and without UNMAP."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        block = bytes((seed,)) * SIZES[lun]
        answer = self.initiators["I0"].write_same(lun, lba, blocks, block, unmap=unmap)
        assert answer.fault == (None if blocks else (5, 0x24, 0))  # a count of 0 is refused: WSNZ in page B0h
        self.oracle.write(lun, lba, block * blocks)

    @rule(data=st.data(), lun=luns, seed=st.integers(0, 255), orwrite=st.booleans())
    def write_and_verify_or_orwrite(self, data: st.DataObject, lun: int, seed: int, orwrite: bool) -> None:
        """WRITE AND VERIFY(16), ORWRITE(16)."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        content = bytes((seed + number) % 256 for number in range(blocks)) * SIZES[lun]
        if orwrite:
            assert self.initiators["I1"].orwrite(lun, lba, blocks, content).good
            self.oracle.orwrite(lun, lba, content)
        else:
            assert self.initiators["I1"].write_and_verify(lun, lba, blocks, content).good
            self.oracle.write(lun, lba, content)

    @rule(data=st.data(), lun=luns, seed=st.integers(0, 255))
    def compare_and_write(self, data: st.DataObject, lun: int, seed: int) -> None:
        """COMPARE AND WRITE with what is there, or with one byte wrong."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        wanted = bytearray(self.oracle.read(lun, lba, blocks))
        if wanted and data.draw(st.booleans()):
            wanted[data.draw(st.integers(0, len(wanted) - 1))] ^= 0x01
        new = bytes((seed,)) * len(wanted)
        answer = self.initiators["I0"].compare_and_write(lun, lba, blocks, bytes(wanted), new)
        differs = self.oracle.compare_and_write(lun, lba, bytes(wanted), new)
        assert answer.fault == (None if differs is None else (0xE, 0x1D, 0))
        assert (answer.full_sense.information if answer.full_sense else None) == differs

    @rule(lun=luns, blocks=st.integers(16, 300))
    def resize(self, lun: int, blocks: int) -> None:
        """A disk gets smaller, or larger by zeros."""
        blocks = min(blocks, BLOCKS[lun])
        disk = self.reference.disks[lun]
        disk.resize(blocks * SIZES[lun])
        self.reference.target.resized(disk)
        self.oracle.resize(lun, blocks)
        self.capacity[lun] = blocks
        for initiator in self.initiators.values():
            initiator.command(lun, "00")  # takes the unit attention

    @precondition(lambda self: len(self.bytes) < 50)
    @rule(target=tokens, data=st.data(), lun=luns, nexus=nexuses, timeout=st.sampled_from([0, 5, 600]))
    def populate(self, data: st.DataObject, lun: int, nexus: str, timeout: int) -> str:
        """POPULATE TOKEN."""
        ranges = data.draw(disjoint(self.capacity[lun]))
        name = f"T{len(self.bytes)}"
        self.bytes[name] = self.initiators[nexus].token(
            lun, [Range(*item) for item in ranges], timeout=timeout
        )
        self.oracle.populate(name, lun, ranges, timeout or 60)
        return name

    @rule(data=st.data(), token=tokens, lun=luns, nexus=nexuses, offset=st.integers(0, 20))
    def write_token(self, data: st.DataObject, token: str, lun: int, nexus: str, offset: int) -> None:
        """WRITE USING TOKEN at any offset, also past the end and with dead tokens."""
        ranges = data.draw(disjoint(self.capacity[lun]))
        answer = self.initiators[nexus].write_token(
            lun, self.bytes[token], [Range(*item) for item in ranges], offset=offset
        )
        asked = sum(blocks for _, blocks in ranges)
        if not self.oracle.alive(token):
            assert answer.fault == (5, 0x23, 8 if self.oracle.tokens[token].gone else 7)
        elif offset * SIZES[lun] >= len(self.oracle.tokens[token].data):
            assert answer.fault == (5, 0x26, 0)
        elif (written := self.oracle.write_token(token, lun, offset, ranges)) < asked:
            assert answer.fault == (0xA, 0x0D, 4)
            assert answer.full_sense is not None
            assert answer.full_sense.information == written
        else:
            assert answer.good

    @rule(data=st.data(), token=tokens, lun=luns)
    def write_token_in_the_background(self, data: st.DataObject, token: str, lun: int) -> None:
        """The copy runs after a write to its own source."""
        lba, blocks = data.draw(places(self.capacity[lun]))
        room = len(self.oracle.tokens[token].data) // SIZES[lun]
        blocks = min(blocks, room)
        identifier = next(self.initiators["I0"].identifiers)
        answer = self.initiators["I0"].write_token(
            lun, self.bytes[token], [Range(lba, blocks)], immediate=True, identifier=identifier
        )
        if not self.oracle.alive(token) or not self.oracle.tokens[token].data:
            return
        assert answer.good
        for source, count in self.capacity.items():
            self.reference.disks[source].write(0, [bytes((7,)) * SIZES[source] * count])
            self.oracle.write(source, 0, bytes((7,)) * SIZES[source] * count)
        self.reference.background.run_all()
        self.oracle.write_token(token, lun, 0, [(lba, blocks)])
        information = TokenInformation.parse(self.initiators["I0"].information(lun, identifier).data)
        assert (information.status.status, information.status.count) == (1, blocks)

    @rule(token=tokens, at=st.integers(256, 511), lun=luns)
    def forged_token_moves_nothing(self, token: str, at: int, lun: int) -> None:
        """One bit of the secret wrong: unknown, and nothing moves."""
        forged = bytearray(self.bytes[token])
        forged[at] ^= 0x40
        assert self.initiators["I0"].write_token(lun, bytes(forged), [Range(0, 1)]).fault == (5, 0x23, 4)

    @rule(seconds=st.sampled_from([1, 4, 30]))
    def wait(self, seconds: int) -> None:
        """Time passes; tokens expire."""
        self.reference.clock.advance(seconds)
        self.oracle.now += seconds

    @rule(lun=luns, target=tokens)
    def reset_unit(self, lun: int) -> object:
        """Results go, tokens stay."""
        over: list[bool] = []
        self.reference.target.reset_lun(lun, over.append)
        assert over == [True]
        for initiator in self.initiators.values():
            initiator.command(lun, "00")  # takes the unit attention
        return multiple()

    @invariant()
    def disks_agree(self) -> None:
        """Every byte is as the oracle says, after every step."""
        for lun, count in self.capacity.items():
            assert self.reference.read(lun, 0, count) == bytes(self.oracle.content[lun])


TestTargetAgainstOracle = TargetAgainstOracle.TestCase
TestTargetAgainstOracle.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
