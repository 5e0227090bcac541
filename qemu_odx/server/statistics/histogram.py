"""Counts of durations in buckets that double.

Pure. Bucket 0 is below 1 µs, bucket n from 2**(n-1) up to 2**n µs.
"""

from __future__ import annotations

BUCKETS = 32
"""The last one holds all from 18 minutes on."""
_MICROSECONDS = 1_000_000


class Histogram:
    """Durations.

    Attributes:
        counts: by bucket.
        seconds: their sum.
    """

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        self.counts = [0] * BUCKETS
        self.seconds = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration, or several of the same length."""
        bucket = int(seconds * _MICROSECONDS).bit_length()
        self.counts[bucket if bucket < BUCKETS else -1] += times
        self.seconds += seconds * times

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.counts)


def upper_bound(bucket: int) -> int:
    """The end of a bucket in µs, exclusive."""
    return 1 << bucket
