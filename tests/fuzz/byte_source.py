"""Decisions out of a byte string: what a fuzzer mutates becomes what a test does. Imports nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class ByteSource:
    """Takes from the front; zeros once there is nothing left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """True while something is left."""
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """The next bytes."""
        part = self._data[self._at : self._at + length]
        self._at += length
        return part.ljust(length, b"\0")

    def number(self, width: int = 1) -> int:
        """An unsigned number of `width` bytes."""
        return int.from_bytes(self.take(width), "big")

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1, at most 256."""
        return self.number() % bound

    def pick(self, choices: Sequence[T]) -> T:
        """One of them."""
        return choices[self.below(len(choices))]

    def chance(self, one_in: int) -> bool:
        """True now and then."""
        return self.below(one_in) == 1
