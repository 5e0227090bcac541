"""The demonstration under Wine, as a user runs it: every IOCTL, every refusal, and the bytes on the host."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import Any

import pytest

from qemu_odx.lab import wine_cases
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.windows_programs import ensure_programs
from qemu_odx.trace import windows

DEMO = [sys.executable, "-m", "qemu_odx", "demo", "--guest", "wine", "--json"]
KEYS = {"ok", "guest", "ioctls", "verified_bytes", "point_in_time", "sha256"}
CALL_KEYS = {"action", "code", "unix_us", "in_hex", "out_hex", "ntstatus", "win32"}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What one run prints."""
    ensure_image("wine")
    ensure_programs()
    done = subprocess.run(DEMO, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def calls(found: dict[str, Any], action: str, ntstatus: int) -> list[dict[str, Any]]:
    """The IOCTLs of an action that ended so."""
    return [
        call for call in found["ioctls"] if call["action"] == action and int(call["ntstatus"], 16) == ntstatus
    ]


def test_the_copy_is_the_data_of_then(found: dict[str, Any]) -> None:
    """The hashes the guest took are those of patterns computed here, and the host's image agrees."""
    assert set(found) == KEYS
    assert found["ok"] is True
    assert found["guest"] == "wine"
    assert found["point_in_time"] is True
    old = wine_cases.pattern(wine_cases.OLD, wine_cases.SOURCE, wine_cases.LENGTH)
    new = wine_cases.pattern(wine_cases.NEW, wine_cases.SOURCE, wine_cases.LENGTH)
    hashes = found["sha256"]
    assert hashes["source_after"] == hashlib.sha256(new).hexdigest()
    for name in ("source_before", "destination", "destination_on_host"):
        assert hashes[name] == hashlib.sha256(old).hexdigest()
    assert found["verified_bytes"] > 2 * wine_cases.LENGTH


def test_structures_are_as_long_as_microsofts(found: dict[str, Any]) -> None:
    """One range: 64 bytes for a read, 576 for a write; outputs of 536 and 16, at the start of the buffer."""
    read = calls(found, "OffloadRead", 0)[0]
    write = calls(found, "OffloadWrite", 0)[0]
    assert {len(call) for call in (read["in_hex"], write["in_hex"])} == {2 * 64, 2 * 576}
    output = bytes.fromhex(read["out_hex"])
    assert len(output) == 536
    assert int.from_bytes(output[8:16], "little") == wine_cases.LENGTH
    token = output[20:532]
    assert token[6:8] == b"\x01\xf8"
    assert bytes.fromhex(write["in_hex"])[32 + 16 : 32 + 528] == token
    assert bytes.fromhex(write["out_hex"]) == bytes(8) + wine_cases.LENGTH.to_bytes(8, "little")
    assert all(set(call) == CALL_KEYS for call in found["ioctls"])


def test_its_calls_go_into_a_trace(found: dict[str, Any]) -> None:
    """By name and field, in the order in which the guest made them, not long ago."""
    printed = json.dumps({"command": "ioctl", "calls": found["ioctls"]})
    records = list(windows.records(printed))
    assert len(records) == len(found["ioctls"])
    good = [record for record in records if not record["win32"]]
    read = next(record for record in good if record["fields"].get("action") == "OFFLOAD_READ")
    assert read["fields"]["length_protected"] == wine_cases.LENGTH
    tokens = [record["fields"]["token"] for record in records if "token" in record["fields"]]
    assert read["fields"]["token"] in tokens
    times = [record["wall"] for record in records]
    assert times == sorted(times)
    assert abs(time.time() - times[-1]) < 3600


@pytest.mark.parametrize(
    ("ntstatus", "win32"),
    [
        (wine_cases.INVALID_TOKEN, 315),
        (wine_cases.INVALID_FIELD, 328),
        (wine_cases.INVALID_PARAMETER, 87),
        (wine_cases.NONEXISTENT_SECTOR, 27),
        (wine_cases.BUFFER_TOO_SMALL, 122),
        (wine_cases.FEATURE_NOT_SUPPORTED, 316),
        (wine_cases.ACCESS_DENIED, 5),
    ],
)
def test_refusals_carry_both_codes(found: dict[str, Any], ntstatus: int, win32: int) -> None:
    """What the driver said and what the program saw; nothing comes out of a refused call."""
    refused = [call for call in found["ioctls"] if int(call["ntstatus"], 16) == ntstatus]
    assert refused
    assert {call["win32"] for call in refused} == {win32}
    assert {call["out_hex"] for call in refused} == {""}
