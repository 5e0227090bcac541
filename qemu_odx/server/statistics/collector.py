"""What is counted and timed while a monitor or the metrics are there: by queue always, by operation on demand.

Imports `histogram.py` and the tap's seam. By queue costs two looks at the clock for each batch of requests. By
operation is a tap, and requests under a tap leave the express lane: it is asked for and ended. Next:
`server/monitor/commands/statistics.py` and `server/metrics.py` tell it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.server.statistics.histogram import Histogram

if TYPE_CHECKING:
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.tap.gate import Gate
    from qemu_odx.virtio.port import Device


class QueueMeter:
    """The requests of one queue. See `virtio/meter.Meter`.

    Attributes:
        batched: those that the express lane did.
        alone: all others.
    """

    __slots__ = ("alone", "batched", "express", "single")

    def __init__(self) -> None:
        self.batched, self.alone = Histogram(), Histogram()
        self.single = self.alone.add
        add = self.batched.add
        self.express = lambda requests, seconds: add(seconds, requests)


@dataclass(slots=True)
class OperationTimes:
    """One operation on one queue.

    Attributes:
        queued: from the request's arrival to its start.
        served: from there to its end.
        errors: how many did not end well.
        length: bytes that were transferred.
    """

    queued: Histogram = field(default_factory=Histogram)
    served: Histogram = field(default_factory=Histogram)
    errors: int = 0
    length: int = 0


class ExportStatistics:
    """One export. A tap while operations are timed: see `tap/gate.Tap`.

    Attributes:
        queues: by index.
        operations: by queue (-1: through a mailbox) and name.
    """

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.queues: defaultdict[int, QueueMeter] = defaultdict(QueueMeter)
        self.operations: defaultdict[tuple[int, str], OperationTimes] = defaultdict(OperationTimes)

    def taken(self, _exchange: Exchange) -> None:
        """It decides nothing."""

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Take the times."""
        queue = exchange.origin.queue if exchange.origin else -1
        times = self.operations[queue, exchange.operation]
        started = outcome.ended if exchange.started is None else exchange.started
        times.queued.add(started - exchange.taken)
        times.served.add(outcome.ended - started)
        times.errors += bool(outcome.status or outcome.aborted)
        times.length += outcome.data_in + outcome.data_out


class Statistics:
    """Of all exports, by name.

    Attributes:
        wanted: somebody may ask: measure exports that are made from now on.
        by_operation: operations are timed.
    """

    def __init__(self) -> None:
        self.wanted = False
        self.by_operation = False
        self.exports: dict[str, ExportStatistics] = {}

    def add(self, name: str, gate: Gate, device: Device) -> None:
        """Measure an export whose queues are not started yet."""
        if self.wanted:
            self.exports[name] = export = ExportStatistics(gate)
            device.measure(export.queues.__getitem__)
            if self.by_operation:
                gate.add(export, last=True)

    def remove(self, name: str) -> None:
        """The export goes: so do its numbers."""
        self.exports.pop(name, None)

    def time_operations(self, *, on: bool) -> None:
        """Time each operation by name from now on, or no more."""
        if on != self.by_operation:
            self.by_operation = on
            for export in self.exports.values():
                if on:
                    export.gate.add(export, last=True)
                else:
                    export.gate.remove(export)

    def reset(self) -> None:
        """Begin anew with all numbers."""
        for export in self.exports.values():
            export.operations.clear()
            for meter in export.queues.values():
                meter.batched.clear()
                meter.alone.clear()
