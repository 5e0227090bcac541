"""A snapshot of a verified disk: what it shows must be what its blocks were when it was taken.

May import `disk/port.py`, `disk/copying.py`. Made by `verify.py`; token copies read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.disk.copying import BUFFER
from qemu_odx.disk.port import CopyMethod, Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.disk.layers.verify import VerifyLayer
    from qemu_odx.disk.port import Disk, Snapshot


class VerifySnapshot:
    """Implements `port.Snapshot` on the snapshot of the disk below.

    Args:
        layer: the verified disk.
        inner: its snapshot, made by the disk below.
        number: of the snapshot in the layer's history.
    """

    def __init__(self, layer: VerifyLayer, inner: Snapshot, number: int) -> None:
        self.inner = inner
        self._layer = layer
        self._number = number

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The source extents."""
        return self.inner.extents

    @property
    def length(self) -> int:
        """Sum of the extents' lengths."""
        return self.inner.length

    @property
    def lost(self) -> bool:
        """True once any byte of it could not be kept."""
        return self.inner.lost

    @property
    def loss(self) -> str:
        """Why not."""
        return self.inner.loss

    @property
    def method(self) -> str:
        """How it is held."""
        return self.inner.method

    def held_bytes(self) -> int:
        """Bytes of old data stored for this snapshot alone."""
        return self.inner.held_bytes()

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from `offset` of the joined data, and compare. Raises SnapshotLostError, OSError."""
        for done in range(0, len(into), BUFFER):
            piece = into[done : done + BUFFER]
            parts = list(self._parts(offset + done, len(piece)))
            with self._layer.looking([(part.offset, part.end) for part in parts]):
                self.inner.read(offset + done, piece)
                self._compare(parts, piece)

    def copy_to(self, offset: int, destination: Disk, destination_offset: int, length: int) -> CopyMethod:
        """Copy `length` bytes to `destination`, through memory, compared. Raises SnapshotLostError, OSError."""
        if not 0 <= offset <= offset + length <= self.length:
            raise ValueError(f"{length} bytes from {offset} are outside of a snapshot of {self.length}")
        for done in range(0, length, BUFFER):
            data = memoryview(bytearray(min(BUFFER, length - done)))
            self.read(offset + done, data)
            destination.write(destination_offset + done, [data])
        return CopyMethod.READ_WRITE

    def outlive(self) -> int | None:
        """As the disk below, which is where a successor finds it: what is known of its blocks ends here."""
        return self.inner.outlive()

    def release(self) -> None:
        """Give back whatever the snapshot holds. Idempotent."""
        self._layer.history.release(self._number)
        self.inner.release()

    def _parts(self, offset: int, length: int) -> Iterator[Extent]:
        """Where on the source some of the joined data is from."""
        for extent in self.extents:
            if offset < extent.length and length > 0:
                part = Extent(extent.offset + offset, min(length, extent.length - offset))
                yield part
                length -= part.length
                offset = 0
            else:
                offset -= extent.length

    def _compare(self, parts: list[Extent], data: memoryview) -> None:
        for part in parts:
            known = self._layer.history.entries(self._number, *self._layer.whole(part.offset, part.length))
            who = f"a token's copy from disk {self._layer.name}"
            self._layer.compare(part.offset, data[: part.length], who, known)
            data = data[part.length :]
