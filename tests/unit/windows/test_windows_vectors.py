"""The Windows vectors by name, those computed here, and a proof that each of them can fail."""

from __future__ import annotations

import copy
import json
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.windows.check.replay import replay
from qemu_odx.windows.check.vector_file import load, parse

if TYPE_CHECKING:
    from qemu_odx.windows.check.replay import Verdict

VECTORS = Path(__file__).parents[2] / "vectors"
GIVEN = load(VECTORS / "windows-odx-vectors.json")
OWN = load(VECTORS / "own-windows-vectors.json")
BY_NAME = {vector.name: vector for vector in GIVEN + OWN}


@pytest.mark.parametrize("vector", GIVEN, ids=lambda vector: vector.name)
def test_vector(vector: Any) -> None:
    """Commands, parameter lists, output buffer, NTSTATUS and Information are those of the class driver."""
    verdict = replay(vector)
    assert verdict.ok, verdict.why
    assert not verdict.why


def test_there_are_42_of_them() -> None:
    """None got lost."""
    assert len(GIVEN) == 42


@pytest.mark.parametrize("vector", OWN, ids=lambda vector: vector.name)
def test_own_vector(vector: Any) -> None:
    """The model does what the rules say, row by row."""
    verdict = replay(vector)
    assert verdict.ok, verdict.why
    assert not verdict.why


def test_the_file_is_what_its_maker_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody edited the JSON by hand."""
    monkeypatch.syspath_prepend(str(VECTORS))
    made = runpy.run_path(str(VECTORS / "make_own_windows_vectors.py"))["document"]()
    for name in ("windows_steps", "windows_commands", "windows_requests"):
        monkeypatch.delitem(sys.modules, name)
    assert made == json.loads((VECTORS / "own-windows-vectors.json").read_text())


def run(raw: dict[str, Any]) -> Verdict:
    """Replay one object."""
    return replay(parse({"vectors": [raw]})[0])


def spoilt(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The vector with one expectation made wrong, in every way that must be seen."""
    found: list[dict[str, Any]] = []

    def changed() -> dict[str, Any]:
        found.append(copy.deepcopy(raw))
        return found[-1]

    for key, value in raw["expected"].items():
        if key in {"notes", "why", "effect"}:
            continue
        new = changed()["expected"]
        if isinstance(value, bool):
            new[key] = not value
        elif isinstance(value, int):
            new[key] = value + 1
        elif isinstance(value, dict):
            first = next(iter(value))
            new[key][first] += 1
        else:
            new[key] = "STATUS_PENDING" if key == "ntstatus" else "0x00000103"
    for number, step in enumerate(raw["steps"]):
        cdb = bytearray.fromhex(step["cdb_hex"])
        cdb[2] ^= 1
        changed()["steps"][number]["cdb_hex"] = cdb.hex()
        if step["param_hex"]:
            data = bytearray.fromhex(step["param_hex"])
            data[-5] ^= 1
            changed()["steps"][number]["param_hex"] = data.hex()
    if raw.get("ioctl_out_hex"):
        data = bytearray.fromhex(raw["ioctl_out_hex"])
        data[-1] ^= 1
        changed()["ioctl_out_hex"] = data.hex()
    return found


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_expectation_can_fail(name: str) -> None:
    """Each expected value, each command and each byte of the answer, made wrong, fails the vector with a reason."""
    wrong = spoilt(BY_NAME[name].raw)
    assert wrong or BY_NAME[name].raw["expected"].get("effect")
    for raw in wrong:
        verdict = run(raw)
        assert not verdict.ok, raw["expected"]
        assert verdict.why


@pytest.mark.parametrize("name", [n for n, v in BY_NAME.items() if len(v.steps) > 1 and v.code is not None])
def test_steps_missing_at_the_end_are_seen(name: str) -> None:
    """Windows would send more than the vector has: that is no pass."""
    raw = copy.deepcopy(BY_NAME[name].raw)
    del raw["steps"][-1]
    assert not run(raw).ok


@pytest.mark.parametrize("name", ["write-1mib-at-8mib-512", "read-1mib-at-4mib-4096", "reject-beyond-end"])
def test_steps_too_many_are_seen(name: str) -> None:
    """Windows is done before the vector is."""
    raw = copy.deepcopy(BY_NAME[name].raw)
    raw["steps"].append({"cdb_hex": "00" * 16})
    assert "Windows is done after" in run(raw).why


EFFECTS = {
    "ODX disabled: list not ascending": ("000000050080b08f00", False),
    "8Fh is never read": ("000000040080b0b2", False),
    "STATUS_DEVICE_FEATURE_NOT_SUPPORTED cached until the device is restarted": ("000000030080b0", False),
    "ODX is on": ("00000003008fb0", True),
    "class driver goes on to read B0h and then 8Fh": ("00000003008fb0", True),
}


@pytest.mark.parametrize("effect", list(EFFECTS))
def test_prose_effects_are_judged(effect: str) -> None:
    """The words of a vector of device start decide, and the wrong page fails them."""
    page, on = EFFECTS[effect]
    other = next(data for data, result in EFFECTS.values() if result != on)
    raw = {"name": "x", "ioctl_code": "", "expected": {"effect": effect}}
    assert run({**raw, "steps": [{"cdb_hex": "12010000ff00", "response_hex": page}]}).ok
    assert not run({**raw, "steps": [{"cdb_hex": "12010000ff00", "response_hex": other}]}).ok


def test_the_order_of_pages_is_judged() -> None:
    """B2h is read before B0h, and a vector that says otherwise fails."""
    step = {"cdb_hex": "12010000ff00", "response_hex": "00000004008fb0b2"}
    effect = "class driver goes on to read B0h, B2h and then 8Fh"
    verdict = run({"name": "x", "expected": {"effect": effect}, "steps": [step]})
    assert "pages b2 b0 8f are read" in verdict.why


def test_words_that_cannot_be_judged_are_told() -> None:
    """Such a vector passes by its steps, and says so."""
    step = {"cdb_hex": "12010000ff00", "response_hex": "00000003008fb0"}
    verdict = run({"name": "x", "expected": {"effect": "all is well", "color": "blue"}, "steps": [step]})
    assert verdict.ok
    assert verdict.why == 'the words "all is well" were not judged; not judged: color'


def test_a_target_that_sends_windows_astray_fails_its_vector() -> None:
    """INFORMATION above what was asked: what Windows does then cannot be said."""
    raw = copy.deepcopy(BY_NAME["write-truncated-information-field"].raw)
    raw["steps"][0]["sense_hex"] = "f0000a000fff000a000000000d0400000000"
    assert "stray memory" in run(raw).why


def test_fields_that_the_model_does_not_keep_are_told() -> None:
    """Among `cached`, next to those it keeps."""
    step = {"cdb_hex": "12018f00ff00", "response_hex": "008f002400000020" + "00" * 32}
    cached = {"MaximumRangeDescriptors": 0, "CommandStatus": "STATUS_SUCCESS"}
    verdict = run({"name": "x", "expected": {"cached": cached}, "steps": [step]})
    assert verdict.ok
    assert verdict.why == "not judged: cached CommandStatus"


def test_a_step_without_a_scsi_status_is_read_from_its_note() -> None:
    """Such a command timed out or was aborted."""
    raw = copy.deepcopy(BY_NAME["own-sense-srb-timeout"].raw)
    for step in raw["steps"]:
        del step["srb_status"]
        step |= {"scsi_status": None, "note": "SRB timeout"}
    assert run(raw).ok


@pytest.mark.parametrize("told", [{"note": "takes 4.2 s"}, {"elapsed_s": 5}, {}])
def test_the_four_seconds_are_found_where_a_file_tells_of_them(told: dict[str, Any]) -> None:
    """In a step, or only in the notes: then the last step is the late one."""
    raw = copy.deepcopy(BY_NAME["own-write-four-seconds-are-over"].raw)
    raw["notes"] = "" if told else "truncated by the 4 s rule"
    raw["name"] = "x"
    del raw["steps"][0]["seconds"]
    raw["steps"][0] |= told
    assert run(raw).ok
    raw["notes"] = ""
    raw["steps"][0] = {key: value for key, value in raw["steps"][0].items() if key not in told}
    assert not run(raw).ok
