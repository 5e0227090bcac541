"""The oracle: disks and tokens as plain byte strings, slow and obvious, to compare a target with.

Imports nothing of ours. A token is a copy of the bytes taken when it was made; nothing can change it after.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class OracleToken:
    """What a token stands for, when it dies if nothing uses it, where it came from and whether that is gone."""

    data: bytes
    timeout: float
    deadline: float
    lun: int
    end: int
    gone: bool = False


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

    def compare_and_write(self, lun: int, lba: int, wanted: bytes, new: bytes) -> int | None:
        """Written if equal: None; else the offset of the first byte that is not."""
        found = self.read(lun, lba, len(wanted) // self.block_size[lun])
        if found == wanted:
            self.write(lun, lba, new)
            return None
        return next(at for at in range(len(wanted)) if wanted[at] != found[at])

    def orwrite(self, lun: int, lba: int, data: bytes) -> None:
        """Bits are added."""
        found = self.read(lun, lba, len(data) // self.block_size[lun])
        self.write(lun, lba, bytes(one | other for one, other in zip(found, data, strict=True)))

    def resize(self, lun: int, blocks: int) -> None:
        """Shorter, or longer by zeros; tokens of what is gone are gone."""
        content = self.content[lun]
        size = blocks * self.block_size[lun]
        content[:] = content[:size].ljust(size, b"\0")
        for token in self.tokens.values():
            if token.lun == lun and token.end > blocks and self.now < token.deadline:
                token.gone = True

    def populate(self, name: str, lun: int, ranges: list[tuple[int, int]], timeout: float) -> None:
        """POPULATE TOKEN."""
        data = b"".join(self.read(lun, lba, blocks) for lba, blocks in ranges)
        end = max(lba + blocks for lba, blocks in ranges)
        self.tokens[name] = OracleToken(data, timeout, self.now + timeout, lun, end)

    def alive(self, name: str) -> bool:
        """True if the token may still be used."""
        token = self.tokens.get(name)
        return token is not None and self.now < token.deadline and not token.gone

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
