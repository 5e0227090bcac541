"""The storage port: what the rest of the program may ask of a disk.

Imports nothing of ours. Implemented by `disk/file.py`; used by `virtio/blk.py` and `target/`.
Every method may be called from any thread. Offsets and lengths are in bytes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

T = TypeVar("T")

Io: TypeAlias = "tuple[bool, int, int, Sequence[memoryview | bytes]]"
"""One transfer: whether it is a write, offset, length, and the buffers, `length` bytes in all."""

Change: TypeAlias = "Callable[[bytes], bytes | None]"
"""What becomes of the bytes of a range: as many others, or None for no write."""

Around: TypeAlias = "Callable[[], AbstractContextManager[object]]"
"""Makes what a write happens inside of."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes on a disk: `offset` and `length` in bytes, `length` may be 0."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """First byte after the extent."""
        return self.offset + self.length


class CopyMethod(Enum):
    """How the bytes of one copy step travelled, cheapest first."""

    REFLINK = "reflink"
    COPY_FILE_RANGE = "copy_file_range"
    READ_WRITE = "read_write"
    ZERO = "zero"


class SnapshotLostError(Exception):
    """The old data of a snapshot could not be kept (for lack of space): its token is to be cancelled."""


class Snapshot(Protocol):
    """The bytes of some extents as they were when the snapshot was taken, joined in the order given."""

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The source extents, in the order of the data."""

    @property
    def length(self) -> int:
        """Sum of the extents' lengths."""

    @property
    def lost(self) -> bool:
        """True once any byte of it could not be kept."""

    @property
    def loss(self) -> str:
        """Why not, in the host's words; "" while all is kept."""

    @property
    def method(self) -> str:
        """How it is held: "reflink" or "copy-before-write"."""

    def held_bytes(self) -> int:
        """Bytes of old data stored for this snapshot alone; shared blocks of a reflink count 0."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `offset` of the joined data.

        Raises:
            SnapshotLostError: the old data is gone.
            OSError: the host failed to read.
        """

    def copy_to(self, offset: int, destination: Disk, destination_offset: int, length: int) -> CopyMethod:
        """Copy `length` bytes from `offset` of the joined data to `destination`: one bounded step.

        The destination's own snapshots are preserved first. Only old data ever reaches the destination,
        also when the source is written meanwhile and when source and destination overlap.

        Raises:
            SnapshotLostError: the old data is gone; nothing wrong was written.
            OSError: the host failed.
        """

    def outlive(self) -> int | None:
        """Note it for a successor of this process; the number by which the same disk there knows it. Idempotent.

        None: it ends with the process.
        """

    def release(self) -> None:
        """Give back whatever the snapshot holds. Idempotent."""


class Disk(Protocol):
    """A random access store of `size` bytes in logical blocks of `block_size` bytes."""

    @property
    def name(self) -> str:
        """The `id=` the user gave it."""

    @property
    def serial(self) -> str:
        """Unit serial number, at most 20 ASCII characters."""

    @property
    def size(self) -> int:
        """Capacity in bytes, a multiple of `block_size`."""

    @property
    def block_size(self) -> int:
        """Logical block size: 512 or 4096."""

    @property
    def physical_block_size(self) -> int | None:
        """What guests are told to align their writes to: `block_size` times a power of two. None: unknown."""

    @property
    def readonly(self) -> bool:
        """True if every write is to be refused by the devices above."""

    @readonly.setter
    def readonly(self, value: bool) -> None: ...

    @property
    def stalled(self) -> bool:
        """True while writes may take long: do not make others wait for one."""

    @property
    def descriptor(self) -> int | None:
        """A file descriptor whose bytes are those of the disk, to read from; None: use the methods only."""

    def try_read(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Read without waiting for the disk; False if that is not possible (call `read` on a worker)."""

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """Do each transfer in turn that needs not wait; all of them must lie inside the disk.

        Returns:
            The places in `batch` of those not done, ascending: call `read` or `write` for them. What became of
            their bytes is not known.
        """

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers from `offset` on. Raises OSError."""

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write the buffers from `offset` on, preserving what snapshots protect. Raises OSError."""

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Read the range and write what `change` makes of its bytes.

        No other write to the range comes in between, by whatever path. False if `change` gave None. Keep the
        range small: writes to it wait meanwhile. The write happens inside of what `around` makes, and so does
        nothing else; that is left while other writes still wait. Raises OSError.
        """

    def resize(self, size: int) -> None:
        """Change the capacity to `size` bytes; snapshots keep what they protect. Call it on a worker.

        Raises:
            ValueError: not a positive multiple of the block size.
            OSError: the image cannot change its size.
        """

    def follow_growth(self) -> int:
        """Show the size of the image if somebody has made that larger; the image's size. Raises OSError."""

    def flush(self) -> None:
        """Put every completed write on stable storage. Raises OSError."""

    def discard(self, offset: int, length: int) -> None:
        """Give the range back to the file system; reads as zeros after. Preserves snapshots. OSError."""

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero the range; `unmap` allows freeing the space. Preserves snapshots. Raises OSError."""

    def allocated(self, offset: int, length: int) -> list[tuple[Extent, bool]]:
        """The range cut into extents that are mapped (True) or holes (False)."""

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents as they are now: every write completed before is in, none begun after is.

        Raises:
            OSError: the snapshot cannot be made.
        """

    def close(self) -> None:
        """Flush, release the lock and every file."""


class Runner(Protocol):
    """Runs slow work off the event loop. Implemented by `server/workers.py`; tests have an inline one."""

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Read from a file beside the event loop; then call `done` on it with the bytes read or a negative errno.

        `apart`: the bytes are to be copied by another thread than the loop's, even those that the page cache has.
        False: that is not possible now, nothing was done: run a job that reads.
        """

    def run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Run `job` on a worker; then call `done` on the event loop with its result or its exception."""
