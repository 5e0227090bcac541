"""The shared SCSI vectors, each against a fresh reference target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qemu_odx.testing.conformance.replay import replay

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "scsi-odx-vectors.json").read_text()
)


@pytest.mark.parametrize("vector", DOCUMENT["vectors"], ids=lambda vector: vector["id"])
def test_vector(vector: dict[str, Any]) -> None:
    """The target answers as the standards say."""
    verdict = replay(vector, DOCUMENT["reference_target"])
    assert verdict.ok, verdict.why


def test_a_wrong_expectation_is_seen() -> None:
    """Replay can fail: one changed bit of the expected data is found."""
    vector = json.loads(json.dumps(next(v for v in DOCUMENT["vectors"] if v["id"] == "wut-same-lu")))
    data = vector["steps"][1]["data_in"]
    vector["steps"][1]["data_in"] = data[:11] + f"{int(data[11], 16) ^ 1:x}" + data[12:]
    verdict = replay(vector, DOCUMENT["reference_target"])
    assert not verdict.ok
    assert "data-in byte 5" in verdict.why
