"""virtio-blk requests while somebody watches: each passes the gate of its export, and what was decided there is done.

Imports `tap/`, `wire/virtio/blk` and `virtio/chain`. `virtio/blk.py` comes here only if the gate has taps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from qemu_odx.tap.exchange import Kind, Origin, Outcome
from qemu_odx.virtio.chain import split
from qemu_odx.wire.scsi.spans import Span
from qemu_odx.wire.virtio import blk as wire
from qemu_odx.wire.virtio.blk import RequestType, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.tap.decision import Answer
    from qemu_odx.tap.exchange import Exchange
    from qemu_odx.tap.gate import Gate
    from qemu_odx.virtio.blk import Request

    End = tuple[int, int]
    """Status byte, and bytes of data-in written from their start."""

_NAMES: Final = {int(kind): kind.name for kind in RequestType}
_BY_SEGMENTS: Final = frozenset({RequestType.DISCARD, RequestType.WRITE_ZEROES, RequestType.SECURE_ERASE})


def run(gate: Gate, request: Request, serve: Callable[[], None], *, kind: int, queue: int, disk: str) -> None:
    """Let a request through the gate; `serve` executes it, and ends it in its own time."""
    exchange = gate.exchange(Kind.BLK, _NAMES.get(kind, f"TYPE {kind}"))
    chain = request.chain
    exchange.origin = Origin(queue, chain.head, *chain.shape())
    exchange.disk, exchange.code = disk, kind
    exchange.data_out, exchange.data_in = chain.readable, request.data_in
    exchange.find_spans = partial(_spans, exchange, kind, request.sector)
    gate.run(exchange, BlkJob(request, kind, serve))


class BlkJob:
    """A request at the gate; see `tap/gate.Job`."""

    def __init__(self, request: Request, kind: int, serve: Callable[[], None]) -> None:
        self._request = request
        self._kind = kind
        self._serve = serve
        self._wanted = request.data_in_length
        self._out = request.chain.readable_length

    def execute(self, blocks: int | None, done: Callable[[End], None]) -> None:
        """Serve it, or its first sectors."""
        request, chain = self._request, self._request.chain
        if blocks is not None and self._kind == RequestType.IN:
            request.data_in = split(request.data_in, blocks * wire.SECTOR)[0]
            request.data_in_length = sum(map(len, request.data_in))
        elif blocks is not None and self._kind == RequestType.OUT:
            chain.readable = split(chain.readable, blocks * wire.SECTOR)[0]
            chain.readable_length = sum(map(len, chain.readable))
        request.intercept = lambda status, written: done((status, written))
        self._serve()

    def answered(self, answer: Answer | None, result: End | None) -> End:
        """The status replaced; what moved stays what it was. Answered OK unexecuted, data-in count as written."""
        status = answer.status if answer else int(Status.OK)
        if result is not None:
            return status, result[1]
        return status, 0 if status else self._wanted

    def given_up(self) -> End:
        """An I/O error: virtio-blk knows no aborted requests."""
        return Status.IOERR, 0

    def outcome(self, result: End, executed: bool, ended: float) -> Outcome:
        """The status byte, in a tap's words."""
        return Outcome(result[0], b"", result[1], self._out, False, executed, ended)

    def finish(self, result: End) -> None:
        """Store the status and complete."""
        request = self._request
        request.intercept, request.data_in_length = None, self._wanted
        request.end(result[0], result[1])


def _spans(exchange: Exchange, kind: int, sector: int) -> tuple[Span, ...]:
    if kind in {RequestType.IN, RequestType.OUT}:
        return (Span(sector, exchange.length // wire.SECTOR),)
    if kind not in _BY_SEGMENTS:
        return ()
    data = b"".join(exchange.data_out)
    whole = len(data) - len(data) % wire.SEGMENT_SIZE
    return tuple(Span(first, sectors) for first, sectors, _ in wire.SEGMENT.iter_unpack(data[:whole]))
