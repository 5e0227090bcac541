"""The proof: a token copy gives the data as it was, although the source was overwritten before the copy.

Standard library only. Uses `odx.py` for the token commands and `disks.py` for all that is read and written.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import odx
from disks import CHUNK, DirectDisk, DiskError
from sg import ScsiDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from odx import Disk

    Opener = Callable[[str], Disk]
    Progress = Callable[[str, int, int], None]

MEBIBYTE = 1 << 20
SOURCE_OFFSET = 16 * MEBIBYTE
TOKEN_DESTINATION_OFFSET = 48 * MEBIBYTE  # not the source's: a copy to the same place would prove less


@dataclass(frozen=True)
class Nodes:
    """Device nodes: the source, the destination, and the destination again by another device."""

    source: str
    destination: str
    destination_blk: str


@dataclass(frozen=True)
class CopyCost:
    """What one way of copying took: bytes copied, seconds, data bytes that crossed the ring."""

    bytes: int
    seconds: float
    ring_bytes: int


class Stopwatch:
    """The time of each request: `samples` has operation, bytes and seconds of every one."""

    def __init__(self) -> None:
        self.samples: list[tuple[str, int, float]] = []

    @contextmanager
    def timed(self, operation: str, length: int) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.samples.append((operation, length, time.perf_counter() - began))


class TokenCopy:
    """Tokens for a stretch of the source, and later their use on the destination, with the cost of both."""

    def __init__(self, source: DirectDisk, destination: DirectDisk, length: int, opener: Opener) -> None:
        """Take the tokens: several if one may not stand for so much. `length` is in bytes."""
        self._source = opener(source.node)
        self._destination = opener(destination.node)
        self._source_block, self._destination_block = source.block_size, destination.block_size
        self._length = length
        self._limits = odx.limits(self._source)
        self._write_limits = odx.limits(self._destination)
        self._source.ring_bytes = self._destination.ring_bytes = 0
        self._list_identifier = 0
        self.watch = Stopwatch()
        started = time.perf_counter()
        self._tokens = self._populate(SOURCE_OFFSET // self._source_block, length // self._source_block)
        self._seconds = time.perf_counter() - started

    def _next_identifier(self) -> int:
        self._list_identifier += 1
        return self._list_identifier

    def _populate(self, lba: int, blocks: int) -> list[odx.Token]:
        tokens = []
        while blocks:
            share = self._limits.populate_blocks(blocks)
            with self.watch.timed("POPULATE TOKEN", share * self._source_block):
                data = odx.populate_token(
                    self._source,
                    self._next_identifier(),
                    lba,
                    share,
                    inactivity_timeout=self._limits.inactivity_timeout,
                )
            tokens.append(odx.Token(data, share * self._source_block))
            lba, blocks = lba + share, blocks - share
        return tokens

    def write(self, offset: int, on_progress: Callable[[int], None]) -> None:
        """Write all the tokens' data to the destination from `offset` bytes on."""
        block = self._destination_block
        lba = start = offset // block
        began = time.perf_counter()
        for token in self._tokens:
            done, blocks = 0, token.length // block
            while done < blocks:
                share = self._write_limits.write_blocks(blocks - done, block)
                identifier = self._next_identifier()
                with self.watch.timed("WRITE USING TOKEN", share * block):
                    odx.write_using_token(
                        self._destination, identifier, token.data, offset=done, lba=lba, blocks=share
                    )
                lba, done = lba + share, done + share
                on_progress((lba - start) * block)
        self._seconds += time.perf_counter() - began

    def cost(self) -> CopyCost:
        """The cost so far; what happened between the tokens and their use is not in it."""
        return CopyCost(self._length, self._seconds, self._source.ring_bytes + self._destination.ring_bytes)


def fill(disk: DirectDisk, offset: int, length: int, progress: Callable[[int], None]) -> str:
    """Fill a stretch with random bytes, new at every call; their SHA-256 as they were given to the disk."""
    digest = hashlib.sha256()
    buffer = mmap.mmap(-1, CHUNK)
    with ThreadPoolExecutor(1) as pool:  # the next bytes are made while these are written and hashed
        coming = pool.submit(os.urandom, CHUNK)
        for position in range(0, length, CHUNK):
            buffer[:] = coming.result()
            coming = pool.submit(os.urandom, CHUNK)
            disk.write(offset + position, buffer)
            digest.update(buffer)
            progress(position + CHUNK)
    return digest.hexdigest()


def overwrite(disk: DirectDisk, offset: int, length: int, progress: Callable[[int], None]) -> None:
    """Overwrite every byte of a stretch with other data."""
    buffer = mmap.mmap(-1, CHUNK)
    buffer[:] = os.urandom(CHUNK)
    for position in range(0, length, CHUNK):
        disk.write(offset + position, buffer)
        progress(position + CHUNK)


def plain_copy(
    source: DirectDisk, destination: DirectDisk, offset: int, length: int, watch: Stopwatch
) -> CopyCost:
    """Copy the source stretch to `offset` of the destination by reading and writing."""
    before = source.ring_bytes + destination.ring_bytes
    buffer = mmap.mmap(-1, CHUNK)
    started = time.perf_counter()
    for position in range(0, length, CHUNK):
        with watch.timed("read", CHUNK):
            source.read(SOURCE_OFFSET + position, buffer)
        with watch.timed("write", CHUNK):
            destination.write(offset + position, buffer)
    seconds = time.perf_counter() - started
    return CopyCost(length, seconds, source.ring_bytes + destination.ring_bytes - before)


def check_copy(nodes: Nodes, length: int, progress: Progress, opener: Opener = ScsiDisk) -> dict[str, object]:
    """Run the whole proof on `length` bytes, a multiple of 1 MiB; the result is ready for JSON.

    `opener` opens a node for token commands. The order is the point: tokens first, then the overwrite, then the
    writes by token.
    """
    source, destination, blk = (
        DirectDisk(node) for node in (nodes.source, nodes.destination, nodes.destination_blk)
    )

    def step(name: str) -> Callable[[int], None]:
        return lambda done: progress(name, done, length)

    before = fill(source, SOURCE_OFFSET, length, step("filling the source"))
    copy = TokenCopy(source, destination, length, opener)
    overwrite(source, SOURCE_OFFSET, length, step("overwriting the source"))
    after = source.sha256(SOURCE_OFFSET, length, step("reading the source again"))
    copy.write(TOKEN_DESTINATION_OFFSET, step("writing by token"))
    plain_offset = TOKEN_DESTINATION_OFFSET + length
    watch = Stopwatch()
    plain = plain_copy(source, destination, plain_offset, length, watch)
    with ThreadPoolExecutor(2) as pool:  # two at a time: hashing is what takes long
        arrived = pool.submit(
            destination.sha256, TOKEN_DESTINATION_OFFSET, length, step("reading the destination")
        )
        through_blk = pool.submit(blk.sha256, TOKEN_DESTINATION_OFFSET, length, step("reading by virtio-blk"))
        plain_arrived = pool.submit(destination.sha256, plain_offset, length, step("checking the plain copy"))
    if plain_arrived.result() != after:
        raise DiskError("the copy by plain read and write is not like its source")
    hashes = {
        "source_before": before,
        "source_after": after,
        "destination": arrived.result(),
        "destination_through_blk": through_blk.result(),
    }
    samples = {"token_copy": copy.watch.samples, "plain_copy": watch.samples}
    return {
        "sha256": hashes,
        "token_copy": vars(copy.cost()),
        "plain_copy": vars(plain),
        "samples": samples,
    }
