"""A snapshot as its users see it: joined extents that can be read and copied; how it is held is a `Vault`'s.

May import `copying.py`, `hostfile.py`, `port.py`. Next: `reflink.py` and `before_write.py` are the vaults;
`file.py` makes the snapshots and is where copies go.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from qemu_odx.disk.copying import BUFFER, dearest
from qemu_odx.disk.port import CopyMethod, Disk, Extent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from qemu_odx.disk.hostfile import HostFile
    from qemu_odx.disk.journal import Legacy


def in_words(error: OSError) -> str:
    """What the host said."""
    return error.strerror or str(error) or "the host failed"


def nobody() -> None:
    """Nobody wants to know that snapshots were lost."""


class RoomMaker:
    """Gives up snapshots for space, once for all writers that find none at the same time.

    Attributes:
        made: how often. A writer that found no space may hope for what was freed since it began.
    """

    def __init__(self) -> None:
        self.made = 0
        self._lock = threading.Lock()
        self._left = threading.Condition()
        self._readers: set[object] = set()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Data of a snapshot is read inside; whoever makes room waits for the end, and so for the space."""
        reader = object()
        with self._left:
            self._readers.add(reader)
        try:
            yield
        finally:
            with self._left:
                self._readers.remove(reader)
                self._left.notify_all()

    def make(self, give_up: Callable[[], bool]) -> None:
        """Run `give_up`, which says whether there was anything, and wait for the space."""
        with self._lock:
            if give_up():
                with self._left:
                    before = set(self._readers)
                    self._left.wait_for(lambda: not before & self._readers)
                self.made += 1


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of snapshot data in a host file."""

    file: HostFile
    offset: int
    length: int


class Vault(ABC):
    """Holds the data of one snapshot.

    Attributes:
        method: "reflink" or "copy-before-write".
        step: bytes that may be borrowed at once.
        loss: why the data could not be kept; "" while it is.
    """

    method: str
    step: int
    loss: str = ""

    @abstractmethod
    def borrow(self, extents: Sequence[Extent]) -> AbstractContextManager[Sequence[Fragment]]:
        """Where the data of these parts of the source is, in their order; it stays there inside the context.

        Inside, wait for nobody: a writer without space may be waiting for the end.

        Raises:
            SnapshotLostError: the data is gone.
        """

    @abstractmethod
    def held_bytes(self) -> int:
        """Bytes of old data stored for this snapshot alone."""

    @abstractmethod
    def outlive(self, extents: tuple[Extent, ...]) -> int | None:
        """Note the snapshot, of these extents, for a successor of this process; its number, None if it cannot be."""

    @abstractmethod
    def release(self) -> None:
        """Give everything back. Idempotent."""


class VaultKeeper(Protocol):
    """Makes the vaults of one disk.

    Attributes:
        method: "reflink" or "copy-before-write".
        room: tells how often snapshots were given up.
    """

    method: str
    room: RoomMaker

    @property
    def occupied(self) -> bool:
        """True while there is a snapshot."""

    def inherit(self, legacy: Legacy) -> Mapping[int, Vault]:
        """Go on from what a predecessor left; its vaults by number. Once, before all else."""

    def take(self, extents: Sequence[Extent]) -> Vault:
        """Freeze the extents as they are now. Raises OSError if it cannot."""

    def sacrifice(self, error: OSError) -> None:
        """Lose every snapshot for the space that it holds, and that this says is wanted."""


class CopyTarget(ABC):
    """A disk that lets data be copied into its file."""

    @abstractmethod
    def overwriting(
        self, offset: int, length: int
    ) -> AbstractContextManager[Callable[[Fragment, int], CopyMethod]]:
        """A write in flight of the range: inside, fragments may be copied to offsets in it."""


class FileSnapshot:
    """Implements `port.Snapshot` on a vault."""

    def __init__(self, extents: Sequence[Extent], vault: Vault) -> None:
        self.extents = tuple(extents)
        self.length = sum(extent.length for extent in extents)
        self._vault = vault

    @property
    def lost(self) -> bool:
        """True once any byte of it could not be kept."""
        return bool(self._vault.loss)

    @property
    def loss(self) -> str:
        """Why not; "" while all is kept."""
        return self._vault.loss

    @property
    def method(self) -> str:
        """How it is held: "reflink" or "copy-before-write"."""
        return self._vault.method

    def held_bytes(self) -> int:
        """Bytes of old data stored for this snapshot alone."""
        return self._vault.held_bytes()

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes from `offset` of the joined data. Raises SnapshotLostError, OSError."""
        for start, length in self._steps(offset, len(into)):
            at = start - offset
            with self._vault.borrow(self._locate(start, length)) as fragments:
                for fragment in fragments:
                    fragment.file.read(fragment.offset, [into[at : at + fragment.length]], fragment.length)
                    at += fragment.length

    def copy_to(self, offset: int, destination: Disk, destination_offset: int, length: int) -> CopyMethod:
        """Copy `length` bytes from `offset` on to `destination`. Raises SnapshotLostError, OSError."""
        methods: list[CopyMethod] = []
        for start, step in self._steps(offset, length):
            at = destination_offset + start - offset
            if isinstance(destination, CopyTarget):
                methods.append(self._copy_step(start, destination, at, step))
            else:
                self._write_step(start, destination, at, step)
                methods.append(CopyMethod.READ_WRITE)
        return dearest(methods)

    def outlive(self) -> int | None:
        """Note it for a successor of this process; the number by which that finds it, None if it cannot be."""
        return self._vault.outlive(self.extents)

    def release(self) -> None:
        """Give back whatever the snapshot holds. Idempotent."""
        self._vault.release()

    def _copy_step(self, offset: int, destination: CopyTarget, at: int, length: int) -> CopyMethod:
        # The destination first: its old data may be part of this very snapshot, and is kept on entry.
        # Whoever has borrowed fragments waits for nobody.
        methods: list[CopyMethod] = []
        with (
            destination.overwriting(at, length) as copy,
            self._vault.borrow(self._locate(offset, length)) as fragments,
        ):
            for fragment in fragments:
                methods.append(copy(fragment, at))
                at += fragment.length
        return dearest(methods)

    def _write_step(self, offset: int, destination: Disk, at: int, length: int) -> None:
        """To a disk that wants to see what is written: a layered one."""
        for done in range(0, length, BUFFER):
            data = memoryview(bytearray(min(BUFFER, length - done)))
            self.read(offset + done, data)
            destination.write(at + done, [data])

    def _steps(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """The range of the joined data in steps of bounded length."""
        if not 0 <= offset <= offset + length <= self.length:
            raise ValueError(f"{length} bytes from {offset} are outside of a snapshot of {self.length}")
        step = self._vault.step
        for start in range(offset, offset + length, step):
            yield start, min(step, offset + length - start)

    def _locate(self, offset: int, length: int) -> list[Extent]:
        """The parts of the source that the range of the joined data comes from."""
        parts: list[Extent] = []
        for extent in self.extents:
            if offset < extent.length and length > 0:
                part = Extent(extent.offset + offset, min(length, extent.length - offset))
                parts.append(part)
                length -= part.length
                offset = 0
            else:
                offset -= extent.length
        return parts
