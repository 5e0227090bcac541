"""libiscsi's tests of a SCSI disk, run in the guest on sg nodes, compared with the list of what is to pass.

`iscsi-test-cu.json` lists every test: "passed", or "skipped: " with the tool's own reason, each of which names
something that a disk need not have (they are explained there). A loss is seen; so is a gain, to be put in the list.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.recipe import this_host

if TYPE_CHECKING:
    from client_guest import ClientGuest

pytestmark = pytest.mark.timeout(900)

LIST = json.loads((Path(__file__).parent / "iscsi-test-cu.json").read_text())
OPTIONS = "-d -v -f"
"""Data may be lost; name each test; an exit status that tells."""
DIES = "Sanitize.OverwriteReserved"
"""With -S it reads what only an iSCSI connection has, and the whole program dies; without, it is skipped."""

Results = dict[str, str]


def parse(output: str) -> Results:
    """What became of each test, by suite and name, from the output of a run with -v."""
    results = {}
    for suite in re.split(r"^Suite: ", output, flags=re.MULTILINE)[1:]:
        title, _, tests = suite.partition("\n")
        for test in re.split(r"^  Test: ", tests, flags=re.MULTILINE)[1:]:
            name, _, words = test.partition(" ...")
            results[f"{title.strip()}.{name}"] = _verdict(words)
    return results


def _verdict(words: str) -> str:
    ended = re.search(r"(passed|FAILED)$", words, flags=re.MULTILINE)
    if ended is None:
        return "died"
    reason = re.search(r"\[SKIPPED\] (.*)", words)
    if ended[1] == "FAILED":
        return "failed: " + " ".join(re.findall(r"\[FAILED\] (.*)", words) or [words])
    return f"skipped: {reason[1].strip()}" if reason else "passed"


def run(clients: ClientGuest, tests: list[str], nodes: str, options: str = "") -> Results:
    """Run some tests or suites of the SCSI family."""
    names = ",".join(f"SCSI.{name}" for name in tests)
    done = clients.complete(f"iscsi-test-cu {OPTIONS} {options} -t {names} {nodes} 2>&1", seconds=600)
    return parse(done.stdout)


@pytest.fixture(scope="module")
def results(clients: ClientGuest) -> Results:
    """All tests of the SCSI family, each on the disk that has what it needs."""
    listed = re.findall(r"^SCSI\.(\w+)\.(\S+)$", clients.run("iscsi-test-cu -l"), flags=re.MULTILINE)
    suites = list(dict.fromkeys(suite for suite, _ in listed))
    apart = {"ReceiveCopyResults", "MultipathIO", "GetLBAStatus", "ReadOnly", "Sanitize"}
    sanitize = [f"Sanitize.{name}" for suite, name in listed if suite == "Sanitize"]
    disk = clients.scratch.node
    clients.complete(f"sg_turs -n 8 {disk}; sg_turs -n 8 {clients.second_path}")  # takes unit attentions
    return {
        **{f"{suite}.{name}": "did not run" for suite, name in listed},
        # These two on a fresh disk: list identifier 1 must not be in use, and the test of COMPARE AND WRITE by
        # two paths compares one block more than it has set to zeros before.
        **run(clients, ["ReceiveCopyResults"], disk),
        **run(clients, ["MultipathIO"], f"{disk} {clients.second_path}"),
        **run(clients, [suite for suite in suites if suite not in apart], disk),
        # Its test mixes up logical and physical blocks, so it needs a disk on which they are the same.
        **run(clients, ["GetLBAStatus"], clients.kit[0].node),
        **run(clients, ["ReadOnly"], clients.protected.node),
        **run(clients, [name for name in sanitize if name != DIES], disk, "-S"),
        **run(clients, [DIES], disk),
    }


def test_nothing_fails(results: Results) -> None:
    """Every test passes or is skipped, whatever the version of the tool."""
    bad = {name: words for name, words in results.items() if not words.startswith(("passed", "skipped"))}
    assert bad == {}
    assert len(results) > 200


@pytest.mark.parametrize("suite", sorted({name.split(".")[0] for name in LIST["tests"]}))
def test_suite_is_as_listed(results: Results, suite: str) -> None:
    """No test lost; a gain is to be put in the list."""
    host = this_host()
    if f"{host.distribution} {host.codename}" != LIST["made_on"]:
        pytest.skip(f"the list was made with the iscsi-test-cu of {LIST['made_on']}")

    def of_suite(tests: Results) -> Results:
        return {name: words for name, words in tests.items() if name.startswith(f"{suite}.")}

    assert of_suite(results) == of_suite(LIST["tests"]), "put what is better into tests/vm/iscsi-test-cu.json"


def test_every_skip_is_explained() -> None:
    """By something that a disk need not have; and no explanation is left over."""
    reasons = {words.partition("skipped: ")[2] for words in LIST["tests"].values()} - {""}
    assert reasons == set(LIST["reasons"])
    assert {words.partition(":")[0] for words in LIST["tests"].values()} == {"passed", "skipped"}
