"""What the server has to tell Prometheus: families of counters, gauges and histograms.

Imports `prometheus_client` and `server/backend.py`. Called on the event loop; `endpoint.py` turns it into text. Names
follow Prometheus' rules: base units (seconds, bytes), `_total` for counters.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)

from qemu_odx import __version__
from qemu_odx.server.statistics.histogram import BUCKETS, upper_bound
from qemu_odx.tokens.operations import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from qemu_odx.disk.port import Snapshot
    from qemu_odx.server.backend import Backend
    from qemu_odx.server.statistics.histogram import Histogram
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.tokens.token import Fault, Token

_OPERATION: Final = ("export", "queue", "operation")


class Tally:
    """Counts what comes and goes between two looks: tokens and copies. An observer of both tables."""

    def __init__(self, backend: Backend) -> None:
        self.created: Counter[str] = Counter()
        self.gone: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[str] = Counter()
        self.copied = 0
        backend.manager.tokens.observers.append(_Tokens(self))
        backend.manager.operations.observers.append(_Copies(self))


class _Tokens:
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def minted(self, token: Token[Snapshot]) -> None:
        """See `tokens/registry.Observer`."""
        self._tally.created[str(token.creator)] += 1

    def ended(self, token: Token[Snapshot], cause: Fault) -> None:
        """See `tokens/registry.Observer`."""
        self._tally.gone[str(token.creator), cause.name.lower()] += 1


class _Copies:
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def began(self, _operation: Operation) -> None:
        """See `tokens/operations.Observer`."""

    def ended(self, operation: Operation) -> None:
        """See `tokens/operations.Observer`."""
        self._tally.copies[OperationStatus(operation.status).name.lower()] += 1
        self._tally.copied += operation.done


def families(backend: Backend, tally: Tally) -> Iterator[Metric]:
    """All of them, as they are now."""
    yield InfoMetricFamily("qemu_odx", "This program.", {"version": __version__})
    yield from _disks(backend)
    yield from _exports(backend)
    yield from _requests(backend)
    yield from _operations(backend)
    yield from _tokens(backend, tally)
    yield from _copies(backend, tally)


def _disks(backend: Backend) -> Iterator[Metric]:
    size = GaugeMetricFamily("qemu_odx_disk_size_bytes", "Capacity of a disk.", labels=["disk"])
    for name, served in backend.disks.items():
        size.add_metric([name], served.disk.size)
    yield size


def _exports(backend: Backend) -> Iterator[Metric]:
    connected = GaugeMetricFamily("qemu_odx_export_connected", "1 with a front end.", labels=["export"])
    load = GaugeMetricFamily("qemu_odx_requests_in_flight", "Taken and not yet completed.", labels=["export"])
    for name, export in backend.exports.items():
        session = export.running.session
        connected.add_metric([name], session is not None)
        queues = range(len(session.vrings)) if session else ()
        load.add_metric([name], sum(export.device.queue_load(index).in_flight for index in queues))
    yield from (connected, load)


def _requests(backend: Backend) -> Iterator[Metric]:
    family = HistogramMetricFamily(
        "qemu_odx_request_seconds",
        "From when a request was taken to its completion; batched: plain reads and writes done without a wait.",
        labels=["export", "queue", "kind"],
    )
    for name, export in backend.statistics.exports.items():
        for index, meter in sorted(export.queues.items()):
            for kind, histogram in (("batched", meter.batched), ("alone", meter.alone)):
                _add(family, [name, str(index), kind], histogram)
    yield family


def _operations(backend: Backend) -> Iterator[Metric]:
    queued = HistogramMetricFamily(
        "qemu_odx_operation_queued_seconds",
        "From taken to begun, while operations are timed.",
        labels=_OPERATION,
    )
    served = HistogramMetricFamily(
        "qemu_odx_operation_served_seconds",
        "From begun to completed, while operations are timed.",
        labels=_OPERATION,
    )
    errors = CounterMetricFamily(
        "qemu_odx_operation_errors", "That did not end well, while operations are timed.", labels=_OPERATION
    )
    for name, export in backend.statistics.exports.items():
        for (queue, operation), times in sorted(export.operations.items()):
            labels = [name, str(queue) if queue >= 0 else "mailbox", operation]
            _add(queued, labels, times.queued)
            _add(served, labels, times.served)
            errors.add_metric(labels, times.errors)
    yield from (queued, served, errors)


def _tokens(backend: Backend, tally: Tally) -> Iterator[Metric]:
    alive = GaugeMetricFamily("qemu_odx_tokens", "Live tokens.", labels=["disk"])
    pinned = GaugeMetricFamily("qemu_odx_pinned_bytes", "Old data kept for tokens.", labels=["disk"])
    counts: Counter[str] = Counter(dict.fromkeys(backend.disks, 0))
    held: Counter[str] = Counter(dict.fromkeys(backend.disks, 0))
    for token in backend.manager.tokens:
        counts[str(token.creator)] += 1
        held[str(token.creator)] += token.payload.held_bytes()
    for name in counts:
        alive.add_metric([name], counts[name])
        pinned.add_metric([name], held[name])
    created = CounterMetricFamily("qemu_odx_tokens_created", "Made by POPULATE TOKEN.", labels=["disk"])
    for name, count in sorted(tally.created.items()):
        created.add_metric([name], count)
    gone = CounterMetricFamily("qemu_odx_tokens_ended", "Dead, by cause.", labels=["disk", "cause"])
    for (name, cause), count in sorted(tally.gone.items()):
        gone.add_metric([name, cause], count)
    yield from (alive, pinned, created, gone)


def _copies(backend: Backend, tally: Tally) -> Iterator[Metric]:
    running = backend.manager.operations.all_running()
    yield GaugeMetricFamily("qemu_odx_copies_running", "Copy operations under way.", len(running))
    ended = CounterMetricFamily("qemu_odx_copies", "Copy operations that are over.", labels=["status"])
    for status, count in sorted(tally.copies.items()):
        ended.add_metric([status], count)
    yield ended
    done = tally.copied + sum(operation.done for operation in running)
    yield CounterMetricFamily("qemu_odx_copied_bytes", "Written by copy operations.", done)


def _add(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """Counts as Prometheus has them: each bucket with all below it."""
    total, buckets = 0, []
    for bucket in range(BUCKETS - 1):
        total += histogram.counts[bucket]
        buckets.append((f"{upper_bound(bucket) / 1e6:g}", float(total)))
    buckets.append(("+Inf", float(histogram.count)))
    family.add_metric(labels, buckets, histogram.seconds)
