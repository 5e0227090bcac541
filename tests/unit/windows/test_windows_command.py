"""`qemu-odx windows`: exit codes, JSON shapes, and one sentence for each thing that can be wrong with the input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qemu_odx.cli.main import main

VECTORS = Path(__file__).parents[2] / "vectors" / "windows-odx-vectors.json"
REJECT = {
    "name": "short",
    "ioctl_code": "0x002D9404",
    "ioctl_in_hex": "1c000000",
    "output_buffer_length": 536,
    "expected": {"ntstatus": "STATUS_INVALID_PARAMETER"},
}


def call(*words: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["windows", *map(str, words)])


def write(folder: Path, content: object) -> Path:
    """A vector file."""
    path = folder / "vectors.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_check_passes_the_42() -> None:
    """Exit code 0, a line for each, and a sum."""
    done = call("check", "--vectors", VECTORS)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("42 passed, 0 failed\n")


def test_check_as_json_has_the_shape_of_conform() -> None:
    """The names in file order, verdicts, and two numbers."""
    told = json.loads(call("check", "--vectors", VECTORS, "--json").output)
    assert (told["passed"], told["failed"]) == (42, 0)
    assert set(told["vectors"][0]) == {"name", "ok", "why"}
    assert told["vectors"][0]["name"] == "inquiry-vpd-00-lists-8f"


def test_check_fails_with_1(tmp_path: Path) -> None:
    """A wrong expectation: its reason is there, the other vector passes."""
    wrong = {**REJECT, "name": "wrong", "expected": {"ntstatus": "STATUS_SUCCESS"}}
    done = call("check", "--vectors", write(tmp_path, {"vectors": [REJECT, wrong]}), "--json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert (told["passed"], told["failed"]) == (1, 1)
    assert told["vectors"][1]["why"] == "ntstatus is STATUS_INVALID_PARAMETER, expected STATUS_SUCCESS"


@pytest.mark.parametrize(
    "loose",
    [
        {**REJECT, "expected": {"ntstatus_value": 0xC000000D, "win32": "ERROR_INVALID_PARAMETER"}},
        {**REJECT, "ioctl_code": 0x002D9404, "steps": []},
        {**REJECT, "device": None, "expected": {"ntstatus": "0xC000000D", "win32": 87}},
        {"id": "by-id", **{key: value for key, value in REJECT.items() if key != "name"}},
    ],
)
def test_check_takes_files_of_other_makers(tmp_path: Path, loose: dict[str, object]) -> None:
    """Numbers or names, missing keys, `id` for `name`."""
    done = call("check", "--vectors", write(tmp_path, {"vectors": [loose]}))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ({"vector": []}, 'there is no list "vectors"'),
        ({"vectors": [3]}, "vectors[0] is no object"),
        ({"vectors": [{}]}, '"name" is missing'),
        ({"vectors": [REJECT, REJECT]}, 'two vectors are named "short"'),
        ({"vectors": [{**REJECT, "ioctl_in_hex": "xy"}]}, "is not hexadecimal text"),
        ({"vectors": [{**REJECT, "ioctl_code": "zz"}]}, "ioctl_code is no hexadecimal number"),
        ({"vectors": [{**REJECT, "steps": 3}]}, '"steps" is no list'),
        ({"vectors": [{**REJECT, "steps": [3]}]}, "steps[0] is no object"),
        ({"vectors": [{**REJECT, "steps": [{}]}]}, "cdb_hex is empty"),
        ({"vectors": [{**REJECT, "expected": 3}]}, "expected is no object"),
    ],
)
def test_check_names_what_is_wrong_with_a_file(tmp_path: Path, content: object, words: str) -> None:
    """Exit code 2, one sentence with the place."""
    done = call("check", "--vectors", write(tmp_path, content))
    assert done.exit_code == 2
    assert words in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    "broken",
    [
        {**REJECT, "expected": {}},
        {**REJECT, "ioctl_in_hex": "1c00000009000000" + "00" * 20},
        {**REJECT, "ioctl_code": "0x00070000"},
        {**REJECT, "device": {"sector_size": "many"}},
        {"name": "empty", "expected": {}},
    ],
)
def test_a_vector_that_makes_no_sense_fails_alone(tmp_path: Path, broken: dict[str, object]) -> None:
    """With a reason, and the one behind it passes."""
    after = {**REJECT, "name": "after"}
    done = call("check", "--vectors", write(tmp_path, {"vectors": [broken, after]}), "--json")
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert [item["ok"] for item in told["vectors"]] == [False, True]
    assert told["vectors"][0]["why"]


def test_explain_says_on(tmp_path: Path) -> None:
    """An image: exit code 0, words for people, an object for programs; the image stays as it is."""
    image = tmp_path / "a,b.img"
    image.write_bytes(bytes(1 << 20))
    before = image.stat().st_mtime_ns
    told = json.loads(call("explain", "--disk", f"{tmp_path}/a,,b.img,block-size=4096", "--json").output)
    assert told["odx"] is True
    assert (told["block_size"], told["disk_bytes"]) == (4096, 1 << 20)
    done = call("explain", "--disk", f"{tmp_path}/a,,b.img")
    assert done.exit_code == 0
    assert "ODX: on." in done.output
    assert "POPULATE TOKEN 160 x 64 MiB" in done.output
    assert image.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ((), "name one disk"),
        (("--disk", "a", "--target", "sg:/dev/sg0"), "name one disk"),
        (("--disk", "/nowhere/x.img"), "correct the path"),
        (("--disk", "/dev/null,size=1G"), "leave the size out"),
        (("--disk", "/dev/null,color=blue"), "unknown key 'color'"),
        (("--target", "/dev/sg1"), "write sg: and a disk node"),
        (("--target", "sg:/nowhere"), "give a node such as /dev/sg1"),
        (("--target", "sg:/dev/null"), "is it a SCSI disk"),
    ],
)
def test_explain_names_the_cure(words: tuple[str, ...], cure: str) -> None:
    """Exit code 2 and one sentence."""
    done = call("explain", *words)
    assert done.exit_code == 2
    assert cure in done.output
    assert done.output.count("\n") == 1


def test_explain_says_off_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk whose page 8Fh is broken: the byte is named."""
    from qemu_odx.wire.scsi.third_party_page import ThirdPartyCopy  # noqa: PLC0415 - only to break it

    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 20))
    whole = ThirdPartyCopy.packed

    def packed(self: ThirdPartyCopy) -> bytes:
        page = bytearray(whole(self))
        page[7] = 0x24
        return bytes(page)

    monkeypatch.setattr(ThirdPartyCopy, "packed", packed)
    done = call("explain", "--disk", image)
    assert done.exit_code == 1
    assert "VPD 8Fh, byte 7 is 0024h; Windows wants 0020h" in done.output
