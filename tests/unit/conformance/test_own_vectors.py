"""The vectors worked out by hand, and a proof that every vector of both files can fail."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from qemu_odx.testing.conformance.replay import replay

VECTORS = Path(__file__).parents[2] / "vectors"
SHARED: dict[str, Any] = json.loads((VECTORS / "scsi-odx-vectors.json").read_text())
OWN: dict[str, Any] = json.loads((VECTORS / "own-scsi-vectors.json").read_text())
WITH_EXPECTATION = [
    vector
    for vector in SHARED["vectors"] + OWN["vectors"]
    if any("status" in step or "check_data" in step for step in vector["steps"])
]


@pytest.mark.parametrize("vector", OWN["vectors"], ids=lambda vector: vector["id"])
def test_own_vector(vector: dict[str, Any]) -> None:
    """The target answers as worked out from the standards."""
    verdict = replay(vector)
    assert verdict.ok, verdict.why


def test_the_file_is_what_its_maker_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody edited the JSON by hand."""
    monkeypatch.syspath_prepend(str(VECTORS))
    made = runpy.run_path(str(VECTORS / "make_own_vectors.py"))["document"]()
    assert made == OWN


def _spoilt(step: dict[str, Any]) -> list[dict[str, Any]]:
    """The step with one expectation made wrong, in every way it can be."""
    found = []
    if "sense" in step:
        for key in ("key", "asc", "ascq"):
            found.append(copy.deepcopy(step))
            found[-1]["sense"][key] ^= 1
            found[-1]["sense"].pop("fixed", None)
    if step.get("status") == "GOOD":
        found.append({**step, "status": "CHECK CONDITION"})
    if "data_in" in step:
        found.append({**step, "data_in": f"{int(step['data_in'][:2], 16) ^ 1:02x}{step['data_in'][2:]}"})
        found.append({**step, "data_in_len": step["data_in_len"] + 1})
    if "check_data" in step:
        wrong = {**step["check_data"], "sha256": "0" * 64}
        found.append({**step, "check_data": wrong})
    return found


@pytest.mark.parametrize("vector", WITH_EXPECTATION, ids=lambda vector: vector["id"])
def test_every_expectation_can_fail(vector: dict[str, Any]) -> None:
    """Each expectation of each step, made wrong, is seen at that step."""
    spoilt = 0
    for number, step in enumerate(vector["steps"]):
        for wrong in _spoilt(step):
            steps = [*vector["steps"][:number], wrong, *vector["steps"][number + 1 :]]
            verdict = replay({**vector, "steps": steps}, SHARED["reference_target"])
            assert not verdict.ok
            assert verdict.why.startswith(f"step {number} ")
            spoilt += 1
    assert spoilt
