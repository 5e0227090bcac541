"""The oracle: disks and tokens as plain byte strings, slow and obvious, to compare a target with.

Imports nothing of ours. A token is a copy of the bytes taken when it was made; nothing can change it after.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class OracleToken:
    """What a token stands for, and when it dies if nothing uses it."""

    data: bytes
    timeout: float
    deadline: float


@dataclass(slots=True)
class Oracle:
    """Some disks, by logical unit number: block size and content."""

    block_size: dict[int, int]
    content: dict[int, bytearray]
    now: float = 0.0
    tokens: dict[str, OracleToken] = field(default_factory=dict)

    def _place(self, lun: int, lba: int, blocks: int) -> slice:
        size = self.block_size[lun]
        return slice(lba * size, (lba + blocks) * size)

    def read(self, lun: int, lba: int, blocks: int) -> bytes:
        """What a read returns."""
        return bytes(self.content[lun][self._place(lun, lba, blocks)])

    def write(self, lun: int, lba: int, data: bytes) -> None:
        """A write, by whatever path."""
        self.content[lun][self._place(lun, lba, len(data) // self.block_size[lun])] = data

    def zero(self, lun: int, lba: int, blocks: int) -> None:
        """A discard or a write of zeros."""
        self.write(lun, lba, bytes(blocks * self.block_size[lun]))

    def populate(self, name: str, lun: int, ranges: list[tuple[int, int]], timeout: float) -> None:
        """POPULATE TOKEN."""
        data = b"".join(self.read(lun, lba, blocks) for lba, blocks in ranges)
        self.tokens[name] = OracleToken(data, timeout, self.now + timeout)

    def alive(self, name: str) -> bool:
        """True if the token may still be used."""
        return name in self.tokens and self.now < self.tokens[name].deadline

    def write_token(self, name: str, lun: int, offset: int, ranges: list[tuple[int, int]]) -> int:
        """WRITE USING TOKEN; how many blocks it writes: all there are, the last filled up with zeros."""
        token, size = self.tokens[name], self.block_size[lun]
        rest = token.data[offset * size :]
        rest += bytes(-len(rest) % size)
        written = 0
        for lba, blocks in ranges:
            part, rest = rest[: blocks * size], rest[blocks * size :]
            self.write(lun, lba, part)
            written += len(part) // size
        token.deadline = self.now + token.timeout
        return written
