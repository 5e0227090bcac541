"""The virtio-blk device: requests of a queue become I/O on a disk.

Imports `wire/virtio/blk`, `virtio/{queues,chain}` and `disk/dispatch`, which decides where the I/O runs and
calls back. Data go straight between guest memory and the disk; the header and the segment lists are copied once.
Clauses: VIRTIO 1.2, 5.2.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qemu_odx.disk.dispatch import DiskQueue
from qemu_odx.tap.exchange import Kind, Origin
from qemu_odx.tap.gate import Gate
from qemu_odx.virtio import blk_packet, blk_tapped
from qemu_odx.virtio.blk_express import BlkExpress
from qemu_odx.virtio.chain import fill
from qemu_odx.virtio.queues import Queues
from qemu_odx.virtio.window import Window
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qemu_odx.disk.port import Disk, Runner
    from qemu_odx.virtio.chain import Chain
    from qemu_odx.virtio.mailbox import Mailbox
    from qemu_odx.virtio.meter import Meter
    from qemu_odx.virtio.port import Begun, Load, Ring

SEG_MAX: Final = 254
"""Data segments we ask drivers to keep to; Windows' do not, and longer requests are taken too."""
MAX_SEGMENTS: Final = 16
"""Segments of one DISCARD or WRITE_ZEROES: what Windows' viostor sends at most."""
MAX_SEGMENT_SECTORS: Final = 1 << 22
"""2 GiB in one segment."""
_PHYSICAL_BLOCK: Final = 4096


class Request:
    """One request after its header: data views, and where the status byte goes.

    Attributes:
        intercept: if set, called in place of the end: somebody watches.
    """

    __slots__ = ("chain", "data_in", "data_in_length", "intercept", "sector", "status")

    def __init__(self, chain: Chain, sector: int) -> None:
        last = chain.writable[-1]
        self.chain = chain
        self.sector = sector
        self.status = last[-1:]
        self.data_in = [*chain.writable[:-1], last[:-1]] if len(last) > 1 else chain.writable[:-1]
        self.data_in_length = chain.writable_length - 1
        self.intercept: Callable[[int, int], None] | None = None

    def end(self, status: int, written: int = 0) -> None:
        """Store the status and complete, with `written` bytes of data at the start of the writable part."""
        if self.intercept is not None:
            self.intercept(status, written)
            return
        self.status[0] = status
        self.chain.complete(written + 1 if written == self.data_in_length else written)

    def ended(self, written: int, errno: int) -> None:
        """The I/O is done, with `errno` or 0."""
        if errno:
            self.end(Status.IOERR)
        else:
            self.end(Status.OK, written)


class BlkDevice:
    """A virtio-blk device behind one front-end connection.

    `wce` outlives resets and reconnects: QEMU goes on showing the guest the value written last, and a guest
    that reads "write-through" does not flush.

    Args:
        disk: where the data are.
        runner: runs what may wait for the host.
        num_queues: request queues, 1 to 256.
        kept_out: asked with True before a write, with False before a read: whether a SCSI initiator's reservation
            of the disk forbids it now. Such requests end with IOERR.
        mailbox: takes SCSI commands in a window of the disk, if there is to be one.
        gate: where requests pass while somebody watches; the mailbox's target should have the same.
    """

    def __init__(
        self,
        disk: Disk,
        runner: Runner,
        *,
        num_queues: int = 1,
        kept_out: Callable[[bool], bool] = lambda _writing: False,
        mailbox: Mailbox | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._disk = disk
        self._kept_out = kept_out
        self._mailbox = mailbox
        self.gate = gate or Gate(disk.name)
        queue = DiskQueue(disk, runner)
        self._window = Window(queue, mailbox) if mailbox else None
        self._io = self._window or queue
        self._num_queues = num_queues
        self._queues = Queues(f"virtio-blk {disk.name}")
        self._acked = 0
        self._wce = 1
        self._handlers: dict[int, Callable[[Request], None]] = {
            RequestType.IN: self._read,
            RequestType.OUT: self._write,
            RequestType.FLUSH: self._flush,
            RequestType.GET_ID: self._get_id,
            RequestType.DISCARD: partial(self._ranges, discard=True),
            RequestType.WRITE_ZEROES: partial(self._ranges, discard=False),
        }
        if mailbox:
            self._handlers[RequestType.SCSI_CMD] = partial(blk_packet.execute, mailbox)

    # -- virtio/port.Device ------------------------------------------------------------------------

    @property
    def queue_count(self) -> int:
        """All queues are request queues (5.2.2)."""
        return self._num_queues

    @property
    def features(self) -> int:
        """SIZE_MAX is left out: drivers read its value 0 as 4 KiB segments, or refuse every request."""
        always = (
            wire.F_SEG_MAX | wire.F_BLK_SIZE | wire.F_FLUSH | wire.F_TOPOLOGY | wire.F_CONFIG_WCE | wire.F_MQ
        )
        return always | (wire.F_RO if self._disk.readonly else wire.F_DISCARD | wire.F_WRITE_ZEROES)

    def config(self) -> bytes:
        """The configuration space (5.2.4)."""
        block = self._disk.block_size
        physical = self._disk.physical_block_size or max(block, _PHYSICAL_BLOCK)
        return wire.BlkConfig(
            capacity=self._disk.size // wire.SECTOR,
            seg_max=SEG_MAX,
            blk_size=block,
            physical_block_exp=(physical // block).bit_length() - 1,
            min_io_size=physical // block,
            opt_io_size=0,
            wce=self._wce,
            num_queues=self._num_queues,
            max_discard_sectors=MAX_SEGMENT_SECTORS,
            max_discard_seg=MAX_SEGMENTS,
            discard_sector_alignment=physical // wire.SECTOR,
            max_write_zeroes_sectors=MAX_SEGMENT_SECTORS,
            max_write_zeroes_seg=MAX_SEGMENTS,
            write_zeroes_may_unmap=1,
        ).pack()

    def write_config(self, offset: int, data: bytes) -> None:
        """Switch the write cache; nothing else is writable (5.2.5.2).

        Raises:
            ValueError: it is not `wce`, or neither 0 nor 1.
        """
        if offset != wire.CONFIG_WCE_OFFSET or data not in (b"\0", b"\1"):
            raise ValueError(
                f"configuration write of {data.hex()} at {offset}: only wce (32) may be set, to 0 or 1"
            )
        self._wce = data[0]

    def kept(self) -> bytes:
        """The write cache: QEMU goes on showing the driver what it wrote, and never tells a successor of ours.

        Behind it the mailbox's nexus, which is the same to the driver in another process.
        """
        return bytes([self._wce]) + (self._mailbox.kept() if self._mailbox else b"")

    def restore(self, kept: bytes | None) -> None:
        """Write through if nothing is known: the driver may have chosen that, and then it does not flush."""
        self._wce = kept[0] & 1 if kept else 0
        if kept and self._mailbox:
            self._mailbox.restore(kept[1:])

    def set_features(self, features: int) -> None:
        """Remember what the driver acknowledged: it decides on write-through."""
        self._acked = features

    def start_queue(self, index: int, ring: Ring) -> None:
        """Serve a ring."""
        express, gate = BlkExpress(self._io, ring, self._may_write), self.gate

        def lane(heads: Sequence[int], done: list[int], begun: Begun) -> Sequence[int]:
            return heads if gate.taps or self._kept_out(False) else express(heads, done, begun)

        self._queues.start(index, ring, partial(self._handle, index), lane)

    def kick(self, index: int) -> None:
        """Process what is available."""
        self._queues.kick(index)

    def stop_queue(self, index: int, stopped: Callable[[int], None]) -> None:
        """Stop serving a ring."""
        self._queues.stop(index, stopped)
        self.gate.stop()

    def measure(self, meters: Callable[[int], Meter]) -> None:
        """Measure every queue that is started from now on."""
        self._queues.meters = meters

    def queue_load(self, index: int) -> Load:
        """What a queue has to do now."""
        return self._queues.load(index)

    def resized(self, disk_name: str) -> None:
        """The capacity is in the configuration space."""

    def reset(self) -> None:
        """Write through until a driver has said that it flushes; commands come over a new nexus."""
        self._acked = 0
        if self._mailbox:
            self._mailbox.reset()

    def disconnected(self) -> None:
        """As a reset: nothing outlives a connection but `wce`."""
        self.reset()

    # -- requests ----------------------------------------------------------------------------------

    def _handle(self, queue: int, chain: Chain) -> None:
        if chain.fault is not None:
            self._refused(queue, chain, chain.fault)
            reached = chain.patch(-1, bytes([Status.IOERR]))
            chain.complete(1 if reached and chain.writable_length == 1 else 0)
            return
        if chain.readable_length < wire.HEADER_SIZE or not chain.writable_length:
            self._refused(queue, chain, "no header or no status byte")
            chain.complete(0)
            return
        kind, _, sector = wire.HEADER.unpack(chain.read_exact(wire.HEADER_SIZE))
        request = Request(chain, sector)
        if self.gate.taps:
            serve = partial(self._serve, kind, request)
            blk_tapped.run(self.gate, request, serve, kind=kind, queue=queue, disk=self._disk.name)
        else:
            self._serve(kind, request)

    def _serve(self, kind: int, request: Request) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            request.end(Status.UNSUPP)
        else:
            handler(request)

    def _refused(self, queue: int, chain: Chain, why: str) -> None:
        if self.gate.taps:
            exchange = self.gate.exchange(Kind.REFUSED, why)
            exchange.origin, exchange.disk = Origin(queue, chain.head, *chain.shape()), self._disk.name
            self.gate.refused(exchange)

    def _read(self, request: Request) -> None:
        length, wrong_way = request.data_in_length, request.chain.readable_length
        if (
            wrong_way
            or not self._in_range(request.sector, length)
            or (self._kept_out(False) and self._on_disk(request.sector, length))
        ):
            request.end(Status.IOERR)
            return
        self._io.read(request.sector * wire.SECTOR, request.data_in, partial(request.ended, length))

    def _write(self, request: Request) -> None:
        chain = request.chain
        length, wrong_way = chain.readable_length, request.data_in_length
        if (
            wrong_way
            or not self._in_range(request.sector, length)
            or (not self._writable() and self._on_disk(request.sector, length))
        ):
            request.end(Status.IOERR)
            return
        offset, done = request.sector * wire.SECTOR, self._stable(request)
        if self._window:
            self._window.write(offset, chain.readable, done, chain.stamp)
        else:
            self._io.write(offset, chain.readable, done)

    def _flush(self, request: Request) -> None:
        self._io.flush(partial(request.ended, 0))

    def _get_id(self, request: Request) -> None:
        serial = self._disk.serial.encode("ascii")[: wire.ID_SIZE].ljust(wire.ID_SIZE, b"\0")
        request.end(Status.OK, fill(request.data_in, serial))

    def _in_range(self, sector: int, length: int) -> bool:
        """True if the bytes are whole blocks inside the disk."""
        start = sector * wire.SECTOR
        return (start | length) % self._disk.block_size == 0 and start + length <= self._disk.size

    def _on_disk(self, sector: int, length: int) -> bool:
        """True if any of the bytes are the disk's: what the mailbox takes or refuses is not ours to say."""
        return self._window is None or not self._window.holds(sector * wire.SECTOR, length)

    def _stable(self, request: Request) -> Callable[[int], None]:
        """What ends a request that changed the disk: with write-through it is flushed first (5.2.5.2)."""
        done = partial(request.ended, 0)
        return done if self._write_back() else partial(self._then_flush, done)

    def _write_back(self) -> bool:
        """True if the driver knows that it has to flush (5.2.5.2)."""
        flushes, chooses = self._acked & wire.F_FLUSH, self._acked & wire.F_CONFIG_WCE
        return bool(self._wce if chooses else flushes)

    def _may_write(self) -> bool:
        return self._write_back() and self._writable()

    def _writable(self) -> bool:
        return not (self._disk.readonly or self._kept_out(True))

    def _then_flush(self, done: Callable[[int], None], errno: int) -> None:
        if errno:
            done(errno)
        else:
            self._io.flush(done)

    def _ranges(self, request: Request, *, discard: bool) -> None:
        """DISCARD and WRITE_ZEROES: every segment is checked before the first is run (5.2.6.2)."""
        length = request.chain.readable_length
        if not self._writable() or length == 0 or length % wire.SEGMENT_SIZE:
            request.end(Status.IOERR)
            return
        if length > MAX_SEGMENTS * wire.SEGMENT_SIZE:
            request.end(Status.UNSUPP)
            return
        segments = list(wire.SEGMENT.iter_unpack(request.chain.read_exact(length)))
        refusal = self._refusal(segments, allowed_flags=0 if discard else wire.SEGMENT_F_UNMAP)
        if refusal is None:
            self._next_range(iter(segments), self._stable(request), 0, discard=discard)
        else:
            request.end(refusal)

    def _refusal(self, segments: list[tuple[int, int, int]], *, allowed_flags: int) -> Status | None:
        if any(flags & ~allowed_flags for _, _, flags in segments):
            return Status.UNSUPP
        for sector, sectors, _ in segments:
            if sectors > MAX_SEGMENT_SECTORS or not self._in_range(sector, sectors * wire.SECTOR):
                return Status.IOERR
        return None

    def _next_range(
        self, rest: Iterator[tuple[int, int, int]], done: Callable[[int], None], errno: int, *, discard: bool
    ) -> None:
        """Run the next segment when the one before is done."""
        segment = next(rest, None)
        if errno or segment is None:
            done(errno)
            return
        offset, length = segment[0] * wire.SECTOR, segment[1] * wire.SECTOR
        go_on = partial(self._next_range, rest, done, discard=discard)
        if discard:
            self._io.discard(offset, length, go_on)
        else:
            self._io.write_zeroes(offset, length, go_on, unmap=bool(segment[2] & wire.SEGMENT_F_UNMAP))
