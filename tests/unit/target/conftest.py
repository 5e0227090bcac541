"""A target of three logical units in memory, and an initiator on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.conformance.reference import ReferenceTarget, TargetDescription

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.testing.initiator import Initiator

DESCRIPTION: TargetDescription = {
    "lus": [
        {"lun": 0, "blocks": 16384, "block_size": 512, "naa": "6525400000000000000000000000000a"},
        {"lun": 1, "blocks": 16384, "block_size": 512, "naa": "6525400000000000000000000000000b"},
        {"lun": 2, "blocks": 2048, "block_size": 4096, "naa": "6525400000000000000000000000000c"},
    ],
    "limits": {
        "max_ranges": 8,
        "max_ito_s": 600,
        "default_ito_s": 60,
        "max_token_transfer_blocks": 8192,
        "max_tokens": 64,
    },
}


@pytest.fixture
def reference() -> Iterator[ReferenceTarget]:
    """A fresh target, clock at 0, no unit attention pending."""
    with ReferenceTarget(DESCRIPTION) as fresh:
        yield fresh


@pytest.fixture
def initiator(reference: ReferenceTarget) -> Initiator:
    """An initiator on nexus I0."""
    return reference.initiator()
