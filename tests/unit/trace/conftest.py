"""A bench with a recorder at both gates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.tap_bench import TapBench

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bench() -> Iterator[TapBench]:
    """Two devices on one disk."""
    made = TapBench()
    yield made
    made.close()
