"""Commands on statistics.

Imports `server/statistics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.server.monitor.errors import not_found
from qemu_odx.server.statistics.histogram import upper_bound

if TYPE_CHECKING:
    from qemu_odx.server.backend import Backend
    from qemu_odx.server.statistics.collector import ExportStatistics
    from qemu_odx.server.statistics.histogram import Histogram


@dataclass(frozen=True, slots=True)
class Bucket:
    """Durations of about the same length.

    Attributes:
        below: microseconds; the bucket begins at half of it.
        count: how many durations are in it.
    """

    below: int
    count: int


@dataclass(frozen=True, slots=True)
class HistogramInfo:
    """How long something took.

    Attributes:
        count: how many durations.
        microseconds: their sum.
        buckets: those with something in them, ascending; each is twice as wide as the one before.
    """

    count: int
    microseconds: int
    buckets: list[Bucket]


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The requests of one queue, from when they were taken to their completion.

    Attributes:
        queue: its index in the device.
        batched: plain reads and writes, done in batches without a wait; each takes as long as its batch.
        alone: all others.
    """

    queue: int
    batched: HistogramInfo
    alone: HistogramInfo


@dataclass(frozen=True, slots=True)
class OperationStatistics:
    """One kind of request on one queue.

    Attributes:
        queue: its index in the device; missing for commands through a mailbox.
        operation: the SCSI command, virtio-blk request or task management function.
        errors: how many did not end well.
        bytes: transferred, both ways.
        queued: from when they were taken to when they were begun: what faults or the order of things held them.
        served: from there to completion.
    """

    operation: str
    errors: int
    bytes: int
    queued: HistogramInfo
    served: HistogramInfo
    queue: int | None = None


@dataclass(frozen=True, slots=True)
class ExportNumbers:
    """One export.

    Attributes:
        export: its name.
        queues: by queue.
        operations: by operation, of the time in which they were timed.
    """

    export: str
    queues: list[QueueStatistics]
    operations: list[OperationStatistics]


@dataclass(frozen=True, slots=True)
class StatisticsInfo:
    """All numbers.

    Attributes:
        by_operation: operations are timed now.
        exports: by export.
    """

    by_operation: bool
    exports: list[ExportNumbers]


def query(backend: Backend, export: str | None = None) -> StatisticsInfo:
    """How many requests there were and how long they took, since the export was made or the last reset.

    By queue it is always known. By operation, only while `odx-statistics-start` is in force.

    Args:
        export: only this one.

    Example:
        -> {"execute": "query-odx-statistics"}
        <- {"return": {"by-operation": true, "exports": [
              {"export": "export0",
               "queues": [{"queue": 0,
                           "batched": {"count": 300, "microseconds": 5400,
                                       "buckets": [{"below": 16, "count": 200}, {"below": 32, "count": 100}]},
                           "alone": {"count": 1, "microseconds": 90, "buckets": [{"below": 128, "count": 1}]}}],
               "operations": [{"queue": 0, "operation": "FLUSH", "errors": 0, "bytes": 0,
                               "queued": {"count": 1, "microseconds": 2,
                                          "buckets": [{"below": 4, "count": 1}]},
                               "served": {"count": 1, "microseconds": 700,
                                          "buckets": [{"below": 1024, "count": 1}]}}]}]}}
    """
    statistics = backend.statistics
    if export is not None and export not in statistics.exports:
        raise not_found("export", export, list(statistics.exports))
    return StatisticsInfo(
        statistics.by_operation,
        [_export(name, item) for name, item in statistics.exports.items() if export in {None, name}],
    )


def start(backend: Backend) -> None:
    """Times every operation by its name from now on. Requests are looked at one by one meanwhile, which costs speed.

    The times are those of the server's clock: with `--clock virtual` only delays last.

    Example:
        -> {"execute": "odx-statistics-start"}
        <- {"return": {}}
    """
    backend.statistics.time_operations(on=True)


def stop(backend: Backend) -> None:
    """Times no operations any more; the numbers stay.

    Example:
        -> {"execute": "odx-statistics-stop"}
        <- {"return": {}}
    """
    backend.statistics.time_operations(on=False)


def reset(backend: Backend) -> None:
    """Begins anew with all numbers.

    Example:
        -> {"execute": "odx-statistics-reset"}
        <- {"return": {}}
    """
    backend.statistics.reset()


def _export(name: str, export: ExportStatistics) -> ExportNumbers:
    return ExportNumbers(
        export=name,
        queues=[
            QueueStatistics(index, _histogram(meter.batched), _histogram(meter.alone))
            for index, meter in sorted(export.queues.items())
        ],
        operations=[
            OperationStatistics(
                operation=operation,
                errors=times.errors,
                bytes=times.length,
                queued=_histogram(times.queued),
                served=_histogram(times.served),
                queue=queue if queue >= 0 else None,
            )
            for (queue, operation), times in sorted(export.operations.items())
        ],
    )


def _histogram(histogram: Histogram) -> HistogramInfo:
    return HistogramInfo(
        count=histogram.count,
        microseconds=round(histogram.seconds * 1e6),
        buckets=[
            Bucket(upper_bound(bucket), count) for bucket, count in enumerate(histogram.counts) if count
        ],
    )
