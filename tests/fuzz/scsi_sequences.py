"""Sequences of SCSI commands over two nexuses, made of a fuzzer's bytes, with an oracle for the tokens.

The promise that is watched: what a token writes is what its ranges held when it was made, whatever was written,
aborted, reset or lost since; a token with a byte changed writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from byte_source import ByteSource
from scsi_bench import BLOCKS, NEXUSES, SIZES, Bench, Content, Sent

from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.opcodes import OPERATIONS
from qemu_odx.wire.scsi.sense import Key
from qemu_odx.wire.scsi.token_lists import PopulateToken, Range, TokenInformation, WriteUsingToken

ABSENT = 3
ROD_TYPES = (None, None, 0x00800000, 0x00800001, 0x00800002, 0x0080FFFF, 0x00010000, 0xFFFF0001)
TIMEOUTS = (0, 0, 5, 60, 600, 601, 0xFFFFFFFF)
TIMES = (0.5, 10.0, 61.0, 601.0, 4000.0)
LENGTHS = (0, 8, 16, 24, 36, 512, 552, 1024)
MOST_STEPS = 60
LID_AT = {0x83: 6, 0x84: 2}


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token and what its ranges held when it was made."""

    data: bytes
    promised: bytes


class Sequence:
    """One run: a target, the tokens that came out of it, and the bytes that say what happens next."""

    def __init__(self, bench: Bench, source: ByteSource) -> None:
        self.bench = bench
        self.source = source
        self.tokens: list[KnownToken] = []
        self.steps = (
            self.raw,
            self.populate,
            self.populate,
            self.write_token,
            self.write_token,
            self.write_token_in_the_background,
            self.write,
            self.give_back,
            self.monitor,
            self.extended_copy,
            self.reserve,
            self.manage,
            self.happen,
        )

    def run(self) -> None:
        """Do what the bytes say, until they are used up."""
        for _ in range(MOST_STEPS):
            if not self.source:
                break
            self.source.pick(self.steps)()

    # --- what is drawn

    def nexus(self) -> str:
        """One of two initiators."""
        return self.source.pick(NEXUSES)

    def lun(self) -> int:
        """A logical unit, now and then one that is not there."""
        return ABSENT if self.source.chance(32) else self.source.below(3)

    def ranges(self, lun: int) -> tuple[Range, ...]:
        """A few ranges, mostly on the disk and without overlap."""
        blocks = BLOCKS.get(lun, 8)
        if self.source.chance(8):
            return tuple(self._range(blocks) for _ in range(self.source.below(10)))
        found, lba = [], self.source.below(blocks // 2)
        for _ in range(1 + self.source.below(3)):
            count = self.source.below(2 + blocks // 8)
            found.append(Range(lba, count))
            lba += count + self.source.below(3)
        return tuple(reversed(found)) if self.source.chance(2) else tuple(found)

    def _range(self, blocks: int) -> Range:
        if self.source.chance(16):
            return Range(self.source.number(8), self.source.number(4))
        return Range(self.source.below(blocks), self.source.below(blocks // 4))

    def damaged(self, data: bytes) -> bytes:
        """The same, or now and then with a byte changed or the end cut off."""
        kind = self.source.below(16)
        if kind == 1 and data:
            at = self.source.number(2) % len(data)
            return data[:at] + bytes((data[at] ^ (self.source.number() or 1),)) + data[at + 1 :]
        return data[: self.source.number(2)] if kind == 2 else data

    # --- steps

    def raw(self) -> None:
        """Any bytes for a CDB, most with an operation code that exists, and any data."""
        row = self.source.pick(OPERATIONS)
        cdb = bytearray(self.source.take(row.length))
        if not self.source.chance(16):
            cdb[0] = row.opcode
            if row.service_action is not None:
                cdb[1] = cdb[1] & 0xE0 | row.service_action
            cdb[-1] = 0
        data = self.source.take(min(self.source.pick(LENGTHS), 64)).ljust(self.source.pick(LENGTHS), b"\x5a")
        self.bench.command(self.nexus(), self.lun(), bytes(cdb), data, self.source.pick(LENGTHS))

    def populate(self) -> None:
        """POPULATE TOKEN, its token and what it promises."""
        nexus, lun, lid = self.nexus(), self.lun(), self.source.below(4)
        ranges, flags = self.ranges(lun), self.source.number()
        length = 16 * len(ranges)
        data = PopulateToken(
            14 + length,
            bool(flags & 1),
            self.source.pick(ROD_TYPES),
            self.source.pick(TIMEOUTS),
            length,
            ranges,
        ).packed()
        sent_data = self.damaged(data)
        self.bench.settle()  # copies under way may write to the ranges: before the command or after it
        promised = b"".join(self._read(lun, item) for item in ranges)
        if not self.bench.command(nexus, lun, _originate(0x10, lid, len(sent_data)), sent_data).good:
            return
        self.bench.settle()
        told = self._information(nexus, lun, lid)
        if sent_data == data and told is not None and told.token is not None:
            assert told.status.count == len(promised) // SIZES[lun]
            self.tokens.append(KnownToken(told.token, promised))

    def write_token(self) -> None:
        """WRITE USING TOKEN in the foreground, with a good or a damaged token."""
        nexus, lun, ranges, token, data = self._token_write(immediate=False)
        self.bench.settle()
        before = self.bench.content()
        sent = self.bench.command(nexus, lun, data[0], data[1])
        if token is None:
            return
        if data[1][16:528] != token.data:
            assert not sent.good, "a forged token was taken"
            assert self.bench.content() == before
            return
        count = _written(sent, sum(item.blocks for item in ranges))
        if count is not None:
            expected = _applied(before, lun, ranges, token.promised[_offset(data[1]) * SIZES[lun] :], count)
            assert self.bench.content() == expected, "a token wrote what it did not promise"

    def write_token_in_the_background(self) -> None:
        """IMMED; the source of every token is overwritten before the copy gets anywhere."""
        nexus, lun, ranges, token, data = self._token_write(immediate=True)
        self.bench.settle()
        sent = self.bench.command(nexus, lun, data[0], data[1])
        for other in BLOCKS:
            if other != lun:
                self._overwrite(other, 0, BLOCKS[other])
        before = self.bench.content()
        self.bench.settle()
        if token is None or data[1][16:528] != token.data or not sent.good:
            return
        told = self._information(nexus, lun, int.from_bytes(data[0][6:10], "big"))
        if told is not None and told.status.status in {0x01, 0x03}:
            rest = token.promised[_offset(data[1]) * SIZES[lun] :]
            assert self.bench.content() == _applied(before, lun, ranges, rest, told.status.count)

    def write(self) -> None:
        """A write by SCSI, or by another door to the same disk."""
        lun, item = self.source.below(3), self._range(8)
        if self.source.chance(2):
            self._overwrite(lun, item.lba % BLOCKS[lun], 1)
            return
        data = bytes((self.source.number(),)) * (item.blocks % 64 * SIZES[lun])
        cdb = bytes((0x8A, 0)) + item.lba.to_bytes(8, "big") + (item.blocks % 64).to_bytes(4, "big")
        self.bench.command(self.nexus(), lun, cdb + bytes(2), self.damaged(data))

    def give_back(self) -> None:
        """UNMAP, WRITE SAME."""
        lun = self.lun()
        if self.source.chance(2):
            item = self._range(BLOCKS.get(lun, 8))
            cdb = bytes((0x93, self.source.number())) + item.packed()[:12] + bytes(2)
            self.bench.command(self.nexus(), lun, cdb, self.damaged(bytes(SIZES.get(lun, 512))))
            return
        described = b"".join(item.packed() for item in self.ranges(lun))
        head = (len(described) + 6).to_bytes(2, "big") + len(described).to_bytes(2, "big") + bytes(4)
        data = self.damaged(head + described)
        cdb = bytes((0x42, 0, 0, 0, 0, 0, 0)) + len(data).to_bytes(2, "big") + bytes(1)
        self.bench.command(self.nexus(), lun, cdb, data)

    def monitor(self) -> None:
        """The RECEIVE commands, COPY OPERATION ABORT, REPORT ALL ROD TOKENS."""
        opcode, action = self.source.pick(((0x83, 0x1C), *((0x84, number) for number in range(9))))
        cdb = bytes((opcode, action, 0, 0, 0, self.source.below(4))) + bytes(4)
        allocation = self.source.pick((0, 4, 32, 36, 500, 550, 2000))
        self.bench.command(self.nexus(), self.lun(), cdb + allocation.to_bytes(4, "big") + bytes(2))

    def extended_copy(self) -> None:
        """EXTENDED COPY of one segment, by either form of the list."""
        source, target, lid4 = self.source.below(3), self.source.below(3), self.source.chance(2)
        first, second = self._range(BLOCKS[source]), self._range(BLOCKS[target])
        cscds = b"".join(self._cscd(lun) for lun in (source, target))
        segment = bytes((0x02, self.source.below(4), 0, 0x18, 0, 0, 0, 1, 0, 0))
        segment += (first.blocks & 0xFFFF).to_bytes(2, "big")
        segment += first.lba.to_bytes(8, "big") + second.lba.to_bytes(8, "big")
        head = _lid4_header(self.source.number()) if lid4 else _lid1_header(self.source.number())
        data = self.damaged(head + cscds + segment)
        cdb = bytes((0x83, lid4)) + bytes(8) + len(data).to_bytes(4, "big") + bytes(2)
        self.bench.command(self.nexus(), source, cdb, data)

    def reserve(self) -> None:
        """PERSISTENT RESERVE IN and OUT."""
        if self.source.chance(4):
            cdb = bytes((0x5E, self.source.below(5))) + bytes(5) + b"\x01\x00\x00"
            self.bench.command(self.nexus(), self.lun(), cdb)
            return
        data = bytes(7) + bytes((self.source.below(3),)) + bytes(7) + bytes((self.source.below(3),))
        data += bytes(4) + bytes((self.source.below(16), 0, 0, 0))
        cdb = bytes((0x5F, self.source.below(8), self.source.below(9))) + bytes(5) + bytes((len(data), 0))
        self.bench.command(self.nexus(), self.lun(), cdb, self.damaged(data))

    def manage(self) -> None:
        """A copy is begun and, before it is over, hit by task management; then everything is over."""
        nexus, lun, _, _, data = self._token_write(immediate=self.source.chance(2))
        self.bench.send(nexus, lun, data[0], data[1])
        target, over = self.bench.reference.target, list[object]()
        tag = len(self.bench.sent)
        calls = (
            lambda: target.abort_task(nexus, lun, tag, over.append),
            lambda: target.abort_task_set(nexus, lun, lambda: over.append(None)),
            lambda: target.clear_task_set(lun, lambda: over.append(None)),
            lambda: target.reset_lun(lun, over.append),
            lambda: target.nexus_loss(nexus, lambda: over.append(None)),
        )
        self.source.pick(calls)()
        self.bench.settle()
        assert len(over) == 1
        self.bench.check_all_answered()

    def happen(self) -> None:
        """Time passes; a disk is write-protected or not any more; the background gets on."""
        kind = self.source.below(3)
        if kind == 0:
            self.bench.reference.clock.advance(self.source.pick(TIMES))
            self.bench.reference.target.manager.tick()
        elif kind == 1:
            self.bench.reference.protect(self.source.below(3), protected=self.source.chance(2))
        elif len(self.bench.reference.background):
            self.bench.reference.background.step()

    # --- helpers

    def _token_write(
        self, *, immediate: bool
    ) -> tuple[str, int, tuple[Range, ...], KnownToken | None, tuple[bytes, bytes]]:
        """Nexus, unit, ranges, the token if it is one of ours, and (CDB, parameter list) of WRITE USING TOKEN."""
        nexus, lun, lid = self.nexus(), self.source.below(3), self.source.below(4)
        ranges = self.ranges(lun)
        token = self.source.pick(self.tokens) if self.tokens else None
        data = token.data if token else bytes.fromhex("ffff0001000001f8") + bytes(504)
        offset = self.source.number(8) if self.source.chance(16) else self.source.below(6)
        length, delete = 16 * len(ranges), self.source.chance(16)
        whole = WriteUsingToken(534 + length, delete, immediate, offset, data, length, ranges).packed()
        sent = self.damaged(whole)
        if sent[:16] + sent[528:] != whole[:16] + whole[528:]:
            token = None  # other fields than the token were hit: what it does then is not foreseen here
        return nexus, lun, ranges, token, (_originate(0x11, lid, len(sent)), sent)

    def _information(self, nexus: str, lun: int, lid: int) -> TokenInformation | None:
        """RECEIVE ROD TOKEN INFORMATION, past unit attentions; None if the result is gone."""
        cdb = bytes((0x84, 0x07)) + lid.to_bytes(4, "big") + bytes(4) + b"\x00\x00\x04\x00\x00\x00"
        for _ in range(10):
            sent = self.bench.command(nexus, lun, cdb)
            found = sense.parse(sent.reply.sense)
            if found is None or found.key != Key.UNIT_ATTENTION:
                break
        return TokenInformation.parse(sent.data) if sent.good else None

    def _read(self, lun: int, item: Range) -> bytes:
        """A range of a disk; nothing if it is not there."""
        if lun not in BLOCKS or item.end > BLOCKS[lun]:
            return b""
        return self.bench.reference.read(lun, item.lba, item.blocks)

    def _overwrite(self, lun: int, lba: int, blocks: int) -> None:
        """By another door than SCSI."""
        disk = self.bench.reference.disks[lun]
        if not disk.readonly:
            disk.write(lba * SIZES[lun], [bytes((self.source.number(),)) * (blocks * SIZES[lun])])

    def _cscd(self, lun: int) -> bytes:
        naa = self.bench.reference.target.units[lun].naa
        head = bytes((0xE4, 0, 0, 0, 0x01, 0x03, 0x00, len(naa)))
        return (head + naa).ljust(29, b"\0") + SIZES[lun].to_bytes(3, "big")


def _offset(data: bytes) -> int:
    return int.from_bytes(data[8:16], "big")


def _written(sent: Sent, asked: int) -> int | None:
    """Blocks that a WRITE USING TOKEN wrote, None if it was refused."""
    if sent.good:
        return asked
    found = sense.parse(sent.reply.sense)
    if found is not None and (found.key, found.asc, found.ascq) == (Key.COPY_ABORTED, 0x0D, 0x04):
        return found.information
    return None


def _applied(before: Content, lun: int, ranges: tuple[Range, ...], data: bytes, count: int) -> Content:
    """The content of the disks after `count` blocks of `data`, padded with zeros, went into the ranges."""
    size, disk = SIZES[lun], bytearray(before[lun])
    for item in ranges:
        blocks = min(item.blocks, count)
        part, data = data[: blocks * size].ljust(blocks * size, b"\0"), data[blocks * size :]
        disk[item.lba * size : (item.lba + blocks) * size] = part
        count -= blocks
    return {**before, lun: bytes(disk)}


def _originate(action: int, lid: int, length: int) -> bytes:
    return bytes((0x83, action)) + bytes(4) + lid.to_bytes(4, "big") + length.to_bytes(4, "big") + bytes(2)


def _lid1_header(flags: int) -> bytes:
    head = bytes((flags & 3, flags & 0x18)) + (64).to_bytes(2, "big") + bytes(4)
    return head + (28).to_bytes(4, "big") + bytes(4)


def _lid4_header(flags: int) -> bytes:
    head = bytearray(48)
    head[0], head[1], head[3], head[15], head[16] = 0x01, flags & 0x18, 0x20, flags >> 7, 0xFF
    head[23], head[43], head[45] = flags & 3, 64, 28
    return bytes(head)


def play(data: bytes) -> None:
    """Run the sequence that these bytes stand for.

    Raises:
        AssertionError: something that must hold did not.
    """
    source = ByteSource(data)
    with Bench(standard=source.chance(2)) as bench:
        Sequence(bench, source).run()
