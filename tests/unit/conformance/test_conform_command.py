"""`qemu-odx conform`: what it prints, how it ends, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

from qemu_odx.cli.conform import conform
from qemu_odx.testing.conformance.checks import all_checks

VECTORS = Path(__file__).parents[2] / "vectors"
VECTOR = {"id": "ready", "steps": [{"cdb": "000000000000", "status": "GOOD"}]}


def _conform(*arguments: str) -> Result:
    return CliRunner().invoke(conform, arguments)


def _file(folder: Path, content: Any) -> str:
    path = folder / "vectors.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_one_object_for_vectors() -> None:
    """--vectors --json prints one object with a verdict for each vector and the sums."""
    done = _conform("--vectors", str(VECTORS / "scsi-odx-vectors.json"), "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert set(told) == {"vectors", "passed", "failed"}
    assert (told["passed"], told["failed"]) == (len(told["vectors"]), 0)
    assert all(set(item) == {"id", "ok", "why"} for item in told["vectors"])


def test_a_failed_vector_makes_exit_code_1(tmp_path: Path) -> None:
    """One wrong expectation: told with its reason; the others still run."""
    wrong = {"id": "wrong", "steps": [{"cdb": "00", "status": "RESERVATION CONFLICT"}]}
    done = _conform("--vectors", _file(tmp_path, {"vectors": [wrong, VECTOR]}), "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (told["passed"], told["failed"]) == (1, 1)
    assert told["vectors"][0]["why"] == "step 0 (data check): status GOOD, expected RESERVATION CONFLICT"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", 'the file holds a list: make it an object with a list "vectors"'),
        ("{}", '"vectors" is missing or null'),
        ({"vectors": [3]}, "vectors[0] is a number"),
        ({"vectors": [{"steps": []}]}, 'vectors[0]: "id" is missing or null'),
        ({"vectors": [{"id": "a"}]}, 'vectors[0] (a): "steps" is missing or null: make it a list of steps'),
        ({"vectors": [{"id": "a", "steps": [[]]}]}, "vectors[0] (a) steps[0] is a list: make it an object"),
        (
            {"vectors": [{"id": "a", "steps": [{"cdb": "0"}]}]},
            'vectors[0] (a) steps[0]: "cdb" is not hexadecimal text',
        ),
        ({"vectors": [{"id": "a", "steps": [{"cdb": ""}]}]}, '"cdb" is empty'),
        ({"vectors": [{"id": "a", "steps": [{"cdb": "00", "lun": "1"}]}]}, '"lun" is text: make it a number'),
        ({"vectors": [{"id": "a", "steps": [{"check_data": {"lun": 0}}]}]}, "give lun, lba and blocks"),
        ({"vectors": [], "reference_target": {}}, '"reference_target" has no list "lus"'),
        (
            {"vectors": [], "reference_target": {"lus": [{"lun": 0, "blocks": 8}]}},
            'reference_target.lus[0]: "block_size" is no number of 0 or more',
        ),
        (
            {"vectors": [], "reference_target": {"lus": [{"lun": 0, "blocks": 1 << 40, "block_size": 512}]}},
            "describe at most",
        ),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, content: Any, words: str) -> None:
    """Exit code 2, and one line with the file, the key and the cure."""
    path = _file(tmp_path, content)
    done = _conform("--vectors", path, "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"] in done.stderr
    assert path in done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_file(tmp_path: Path) -> None:
    """Exit code 2 and one line."""
    done = _conform("--vectors", str(tmp_path / "none.json"))
    assert done.exit_code == 2
    assert "No such file or directory: give the path of a vector file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "/dev/sg1"], "write sg: and a disk node, such as sg:/dev/sg1"),
        (["--destroy-data"], "belong to --target"),
        (["--vectors", "x", "--target", "sg:/dev/sg1"], "vectors run on our own target"),
        (["--only", "nonsense"], "there is no check 'nonsense'"),
        (["--target", "sg:/dev/no-such-node"], "No such file or directory"),
    ],
)
def test_options_that_do_not_fit(arguments: list[str], words: str) -> None:
    """Wrong usage ends with 2 and a cure."""
    done = _conform(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_our_own_target_by_itself(tmp_path: Path) -> None:
    """Without --target and --vectors every check runs on our own target and passes."""
    junit = tmp_path / "junit.xml"
    done = _conform("--json", "--junit", str(junit))
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (told["passed"], told["failed"], told["skipped"]) == (len(all_checks()), 0, 0)
    suites = ET.fromstring(junit.read_bytes())  # noqa: S314 - our own file
    assert sum(int(suite.get("tests", "0")) for suite in suites) == len(all_checks())


def test_each_check_shows_its_bytes() -> None:
    """A check names clause, bytes sent, answer, expected and verdict."""
    done = _conform("--json", "--only", "errors.forged_token")
    (check,) = json.loads(done.stdout)["checks"]
    assert check["verdict"] == "pass"
    assert check["clause"]
    sent = [step for step in check["steps"] if step["sent"].startswith("8311")]
    assert sent[0]["answer"].startswith("CHECK CONDITION, ILLEGAL REQUEST 23/04")
    assert "TOKEN UNKNOWN" in sent[0]["expected"][0]


def test_text_for_people() -> None:
    """Without --json there is a line for each check and the sums."""
    done = _conform("--only", "discovery", "-v")
    assert done.exit_code == 0
    assert "pass  discovery.pages_ascend" in done.stdout
    assert "sent 12 01 00" in done.stdout
    assert done.stdout.rstrip().endswith("0 failed, 0 skipped")


def test_the_kit_is_written(tmp_path: Path) -> None:
    """--write-kit makes the single file and says how to use it."""
    path = tmp_path / "odx-conform.pyz"
    done = _conform("--write-kit", str(path))
    assert done.exit_code == 0
    assert path.stat().st_size > 50_000
    assert "python3 odx-conform.pyz /dev/sg1" in done.stdout
    assert json.loads(_conform("--write-kit", str(path), "--json").stdout) == {"kit": str(path)}


def test_the_checks_are_listed() -> None:
    """For people and programs."""
    told = json.loads(_conform("--list", "--json").stdout)["checks"]
    assert [each["id"] for each in told] == [check.id for check in all_checks()]
    assert all(set(each) == {"id", "writes", "title"} for each in told)
    assert len(_conform("--list").stdout.splitlines()) == len(told)
