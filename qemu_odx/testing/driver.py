"""A fake guest driver: the driver side of one split virtqueue, in shared memory.

May import anything but `lab` and `cli`. It lays out descriptors as told (any split, indirect tables, any
order), posts requests and reads completions. It talks to a device in the same process (`ring` builds what the
device needs) or to one behind a vhost-user socket: then `kick` writes the kick eventfd and `wait` reads the
call eventfd.

    ram = GuestRam()
    queue = DriverQueue(ram, 128, kick=lambda: device.kick(0))
    device.start_queue(0, queue.ring(ram.memory(), call=lambda: None))
    done = queue.execute(header, in_length=513)
    done.written, done.data_in

`write_descriptor`, `offer` and `set_avail_index` bypass every rule, for tests of a hostile guest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from qemu_odx.virtio.port import Ring
from qemu_odx.virtio.queue import full_fence
from qemu_odx.wire.virtio import ring as wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.testing.ram import GuestRam
    from qemu_odx.virtio.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Piece:
    """One descriptor's buffer: guest physical address, bytes, and whether the device writes it."""

    gpa: int
    length: int
    writable: bool = False


@dataclass(slots=True)
class Request:
    """A posted request.

    Attributes:
        head: its head descriptor.
        pieces: its buffers, in order.
        written: the used length, None until it is completed.
        data_in: what the writable part held when the completion was read.
    """

    head: int
    pieces: Sequence[Piece]
    written: int | None = None
    data_in: bytes = b""
    slots: list[int] = field(default_factory=list)
    table: Piece | None = None


def _no_wait() -> None:
    raise TimeoutError(
        "the device has not completed the request, and the driver was given no way to wait for it"
    )


class DriverQueue:
    """The driver side of a split virtqueue of `size` entries.

    Args:
        ram: where rings and buffers are put.
        size: entries, a power of 2.
        kick: notifies the device.
        wait: blocks until the device may have completed something; raises TimeoutError.
        event_idx: VIRTIO_F_EVENT_IDX is negotiated.

    Attributes:
        free: free descriptor slots, taken from the end; tests may shuffle it.
        kicks: notifications sent.
        last_used: index of the next used element to read.
    """

    def __init__(
        self,
        ram: GuestRam,
        size: int,
        *,
        kick: Callable[[], None] = lambda: None,
        wait: Callable[[], None] = _no_wait,
        event_idx: bool = False,
    ) -> None:
        self.ram = ram
        self.size = size
        self.kick = kick
        self.wait = wait
        self.event_idx = event_idx
        self.kicks = 0
        self.last_used = 0
        self.free = list(reversed(range(size)))
        self.desc_gpa = ram.allocate(wire.desc_size(size))
        self.avail_gpa = ram.allocate(wire.avail_size(size))
        self.used_gpa = ram.allocate(wire.used_size(size))
        self._desc = ram.view(self.desc_gpa, wire.desc_size(size))
        self._avail = ram.view(self.avail_gpa, wire.avail_size(size)).cast("H")
        self._used = ram.view(self.used_gpa, wire.used_size(size)).cast("H")
        self._elements = ram.view(self.used_gpa, wire.used_size(size) - 2).cast("I")
        self._next = 0
        self._published = 0
        self._posted: dict[int, Request] = {}

    def ring(
        self,
        memory: GuestMemory,
        *,
        call: Callable[[], None] = lambda: None,
        error: Callable[[str], None] = lambda _reason: None,
        inflight: memoryview | None = None,
        next_avail: int = 0,
    ) -> Ring:
        """The same queue as a device in this process sees it."""
        uva_view = memory.uva_view
        return Ring(
            size=self.size,
            desc=uva_view(self.ram.uva(self.desc_gpa), wire.desc_size(self.size)),
            avail=uva_view(self.ram.uva(self.avail_gpa), wire.avail_size(self.size)),
            used=uva_view(self.ram.uva(self.used_gpa), wire.used_size(self.size)),
            next_avail=next_avail,
            event_idx=self.event_idx,
            memory=memory,
            call=call,
            error=error,
            inflight=inflight,
        )

    def start_at(self, index: int) -> None:
        """Begin with both ring indices at `index`, before anything was posted (tests of wrapping)."""
        self._next = self._published = self.last_used = index
        self._avail[wire.INDEX_WORD] = self._used[wire.INDEX_WORD] = index

    # -- requests ----------------------------------------------------------------------------------

    def execute(self, data_out: bytes = b"", in_length: int = 0) -> Request:
        """Post a request, kick, and wait for its completion."""
        request = self.submit(data_out, in_length)
        while request.written is None:
            if not self.completions():
                self.wait()
        return request

    def submit(
        self,
        data_out: bytes = b"",
        in_length: int = 0,
        *,
        cuts_out: Iterable[int] = (),
        cuts_in: Iterable[int] = (),
        indirect: int | None = None,
    ) -> Request:
        """Post a request and kick if the device wants it.

        Args:
            data_out: the readable part.
            in_length: bytes of the writable part.
            cuts_out: where the readable part is cut into descriptors; equal values make empty descriptors.
            cuts_in: the same for the writable part.
            indirect: how many descriptors stand before the indirect table with the others; None: no table.
        """
        request = self.post(self._out(data_out, cuts_out) + self._in(in_length, cuts_in), indirect=indirect)
        self.publish()
        return request

    def _out(self, data: bytes, cuts: Iterable[int]) -> list[Piece]:
        pieces = []
        for start, end in _runs(len(data), cuts):
            gpa = self.ram.allocate(end - start, 1)
            self.ram.write(gpa, data[start:end])
            pieces.append(Piece(gpa, end - start))
        return pieces

    def _in(self, length: int, cuts: Iterable[int]) -> list[Piece]:
        runs = _runs(length, cuts)
        return [Piece(self.ram.allocate(end - start, 1), end - start, writable=True) for start, end in runs]

    def post(self, pieces: Sequence[Piece], *, indirect: int | None = None) -> Request:
        """Lay out descriptors for `pieces` and offer them, not yet published."""
        direct = pieces if indirect is None else pieces[:indirect]
        slots = [self.free.pop() for _ in range(len(direct) + (indirect is not None))]
        request = Request(slots[0], pieces, slots=slots)
        for place, piece in enumerate(direct):
            following = slots[place + 1] if place + 1 < len(slots) else None
            self.write_descriptor(
                slots[place], piece.gpa, piece.length, _flags(piece, following), following or 0
            )
        if indirect is not None:
            request.table = self._table(pieces[indirect:])
            self.write_descriptor(slots[-1], request.table.gpa, request.table.length, wire.F_INDIRECT)
        self._posted[request.head] = request
        self.offer(request.head)
        return request

    def _table(self, pieces: Sequence[Piece]) -> Piece:
        table = Piece(self.ram.allocate(wire.desc_size(len(pieces))), wire.desc_size(len(pieces)))
        for place, piece in enumerate(pieces):
            following = place + 1 if place + 1 < len(pieces) else None
            entry = wire.DESCRIPTOR.pack(piece.gpa, piece.length, _flags(piece, following), following or 0)
            self.ram.write(table.gpa + place * wire.DESCRIPTOR_SIZE, entry)
        return table

    def publish(self) -> None:
        """Let the device see what was offered; kick it if it asked for that."""
        old, self._published = self._published, self._next
        self._avail[wire.INDEX_WORD] = self._next
        full_fence()
        if self._wants_kick(old):
            self.kicks += 1
            self.kick()

    def _wants_kick(self, old: int) -> bool:
        if self.event_idx:
            return wire.needs_event(self._used[wire.avail_event_word(self.size)], self._next, old)
        return not self._used[wire.FLAGS_WORD] & wire.USED_F_NO_NOTIFY

    def completions(self) -> list[Request]:
        """Read new used elements; the requests they complete, and their buffers' slots free again.

        Raises:
            AssertionError: the device completed something that was not posted.
        """
        done = []
        while self.last_used != self._used[wire.INDEX_WORD]:
            head, written = self.take_used()
            request = self._posted.pop(head, None)
            if request is None:
                raise AssertionError(f"the device completed {head}, which is not in flight")
            request.written = written
            self._collect(request)
            done.append(request)
        return done

    def take_used(self) -> tuple[int, int]:
        """The next used element, raw: (head, length)."""
        slot = wire.USED_RING_LONG + 2 * (self.last_used % self.size)
        self.last_used = (self.last_used + 1) & wire.INDEX_MASK
        return self._elements[slot], self._elements[slot + 1]

    def used_pending(self) -> int:
        """Used elements not yet read."""
        return (self._used[wire.INDEX_WORD] - self.last_used) & wire.INDEX_MASK

    def _collect(self, request: Request) -> None:
        request.data_in = b"".join(self.ram.read(p.gpa, p.length) for p in request.pieces if p.writable)
        for piece in [*request.pieces, *([request.table] if request.table else [])]:
            self.ram.free(piece.gpa, piece.length)
        self.free.extend(request.slots)

    # -- interrupts --------------------------------------------------------------------------------

    def suppress_interrupts(self) -> None:
        """Ask for none (with event index: for one that is far away)."""
        if self.event_idx:
            self._avail[wire.used_event_word(self.size)] = (self.last_used - 1) & wire.INDEX_MASK
        else:
            self._avail[wire.FLAGS_WORD] = wire.AVAIL_F_NO_INTERRUPT

    def arm_interrupt(self) -> bool:
        """Ask for an interrupt with the next completion; True if completions came meanwhile."""
        if self.event_idx:
            self._avail[wire.used_event_word(self.size)] = self.last_used
        else:
            self._avail[wire.FLAGS_WORD] = 0
        full_fence()
        return self._used[wire.INDEX_WORD] != self.last_used

    # -- rule breaking -----------------------------------------------------------------------------

    def write_descriptor(self, slot: int, gpa: int, length: int, flags: int = 0, following: int = 0) -> None:
        """Write one descriptor of the table as told."""
        wire.DESCRIPTOR.pack_into(self._desc, slot * wire.DESCRIPTOR_SIZE, gpa, length, flags, following)

    def offer(self, head: int) -> None:
        """Put `head` into the next entry of the available ring, not yet published."""
        self._avail[wire.AVAIL_RING_WORD + self._next % self.size] = head
        self._next = (self._next + 1) & wire.INDEX_MASK

    def set_avail_index(self, index: int) -> None:
        """Store any index."""
        self._avail[wire.INDEX_WORD] = index


def _flags(piece: Piece, following: int | None) -> int:
    return (wire.F_WRITE if piece.writable else 0) | (wire.F_NEXT if following is not None else 0)


def _runs(length: int, cuts: Iterable[int]) -> list[tuple[int, int]]:
    borders = [0, *sorted(cuts), length]
    if length == 0 and len(borders) == 2:
        return []
    return list(pairwise(borders))
