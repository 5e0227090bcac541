"""A disk around another disk: hands everything on, for layers that change or watch some of it.

May import `port.py`. Next: layers override what they care about; `table.py` stacks them.

A layer has no descriptor and declines whatever goes past its methods (`try_read`, `try_batch`), so nothing reaches
the disk below unseen. The write guard and the snapshots stay in the lowest disk; copies go to a layered disk by its
`write`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.disk.port import Around, Change, Disk, Extent, Io, Snapshot


class Layer:
    """Implements `port.Disk` by the disk below it, `inner`, which it owns."""

    def __init__(self, inner: Disk) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        """The `id=` the user gave it."""
        return self.inner.name

    @property
    def serial(self) -> str:
        """Unit serial number."""
        return self.inner.serial

    @property
    def size(self) -> int:
        """Capacity in bytes."""
        return self.inner.size

    @property
    def block_size(self) -> int:
        """Logical block size: 512 or 4096."""
        return self.inner.block_size

    @property
    def physical_block_size(self) -> int | None:
        """What guests are told to align their writes to."""
        return self.inner.physical_block_size

    @property
    def readonly(self) -> bool:
        """True if every write is to be refused by the devices above."""
        return self.inner.readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self.inner.readonly = value

    @property
    def stalled(self) -> bool:
        """True while writes may take long. A layer that waits says so always."""
        return self.inner.stalled

    @property
    def descriptor(self) -> int | None:
        """None: use the methods only."""
        return None

    def try_read(self, offset: int, into: Sequence[memoryview]) -> bool:
        """Never at once: `read` sees every read."""
        del offset, into
        return False

    def try_batch(self, batch: Sequence[Io]) -> Sequence[int]:
        """Nothing at once: `read` and `write` see every transfer."""
        return range(len(batch))

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the buffers from `offset` on. Raises OSError."""
        self.inner.read(offset, into)

    def write(self, offset: int, data: Sequence[memoryview | bytes]) -> None:
        """Write the buffers from `offset` on; token copies to this disk come here too. Raises OSError."""
        self.inner.write(offset, data)

    def update(self, offset: int, length: int, change: Change, around: Around = nullcontext) -> bool:
        """Read the range and write what `change` makes of it, no other write in between. Raises OSError."""
        return self.inner.update(offset, length, change, around)

    def resize(self, size: int) -> None:
        """Change the capacity. Raises ValueError, OSError."""
        self.inner.resize(size)

    def follow_growth(self) -> int:
        """Show the size of an image that was made larger; its size. Raises OSError."""
        return self.inner.follow_growth()

    def flush(self) -> None:
        """Put every completed write on stable storage. Raises OSError."""
        self.inner.flush()

    def discard(self, offset: int, length: int) -> None:
        """Give the range back; it reads as zeroes after. Raises OSError."""
        self.inner.discard(offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Zero the range. Raises OSError."""
        self.inner.write_zeroes(offset, length, unmap=unmap)

    def allocated(self, offset: int, length: int) -> list[tuple[Extent, bool]]:
        """The range cut into extents that are mapped (True) or holes (False)."""
        return self.inner.allocated(offset, length)

    def snapshot(self, extents: Sequence[Extent]) -> Snapshot:
        """Freeze the extents as they are now. Raises OSError."""
        return self.inner.snapshot(extents)

    def close(self) -> None:
        """Close the disk below."""
        self.inner.close()


def lowest(disk: Disk) -> Disk:
    """The disk below all layers."""
    while isinstance(disk, Layer):
        disk = disk.inner
    return disk


def layers_of(disk: Disk) -> list[Layer]:
    """The layers of a disk, the one that guests meet first."""
    found = []
    while isinstance(disk, Layer):
        found.append(disk)
        disk = disk.inner
    return found
