"""Checks on disk nodes: the SG_IO ioctl answered by a target in this process instead of the kernel."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.testing.conformance import kit_main, sg
from qemu_odx.testing.conformance.bench import HELD, NEXUS_LOSS, PROTECT, SECOND_NEXUS
from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.local import LocalDevice
from qemu_odx.testing.conformance.run import Verdict
from qemu_odx.testing.conformance.sg import SgDevice, SgError, data_in_length

if TYPE_CHECKING:
    from collections.abc import Iterator

FROM_DEVICE, TO_DEVICE = -3, -2
_NOT_IN_A_GUEST = {HELD, SECOND_NEXUS, NEXUS_LOSS, PROTECT}


class Kernel:
    """Stands in for the sg driver: nodes are files, node N is logical unit N of one target."""

    def __init__(self, folder: Path) -> None:
        self.target = LocalDevice()
        self.nodes = [folder / f"node{lun}" for lun in self.target.luns]
        self.host_status = 0
        self.resets = 0
        for node in self.nodes:
            node.touch()

    def ioctl(self, fd: int, code: int, request: Any) -> int:
        """SG_IO and SG_SCSI_RESET."""
        lun = self.nodes.index(Path(f"/proc/self/fd/{fd}").readlink())
        self.target.idle()
        if code == sg.SG_SCSI_RESET:
            self.resets += 1
            self.target.reset(lun)
            return 0
        assert code == sg.SG_IO
        self._command(lun, request)
        return 0

    def _command(self, lun: int, request: Any) -> None:
        cdb = ctypes.string_at(request.cmdp, request.cmd_len)
        out = request.dxfer_direction == TO_DEVICE
        sent = ctypes.string_at(request.dxferp, request.dxfer_len) if out else b""
        answer = self.target.carry(0, lun, cdb, sent)
        if request.dxfer_direction == FROM_DEVICE:
            came = answer.data[: request.dxfer_len]
            ctypes.memmove(request.dxferp, came, len(came))
            request.resid = request.dxfer_len - len(came)
        request.status, request.host_status = answer.status, self.host_status
        request.sb_len_wr = len(answer.sense)
        request.driver_status = 0x08 if answer.sense else 0
        ctypes.memmove(request.sbp, answer.sense, len(answer.sense))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Nodes that work without a kernel driver, and time that passes at once."""
    made = Kernel(tmp_path)
    # The names in that module only: the disks of the target call the real ioctl.
    monkeypatch.setattr(sg, "fcntl", SimpleNamespace(ioctl=made.ioctl))
    monkeypatch.setattr(sg, "time", SimpleNamespace(sleep=made.target.sleep))
    with made.target:
        yield made


def test_all_checks_over_sg(kernel: Kernel) -> None:
    """Every check passes over nodes, but for those that need what a guest cannot do."""
    paths = [str(node) for node in kernel.nodes]
    results = kit_main.run_on_nodes(paths, all_checks(), destroy=True, patience=90)
    assert [(r.check.id, r.why) for r in results if r.verdict is Verdict.FAIL] == []
    for result in results:
        expected = Verdict.SKIP if _NOT_IN_A_GUEST & set(result.check.needs) else Verdict.PASS
        assert result.verdict is expected, (result.check.id, result.why)
    assert kernel.resets


def test_nothing_is_written_without_leave(kernel: Kernel) -> None:
    """Without --destroy-data no check changes a block."""
    disks = kernel.target.reference.disks
    for disk in disks.values():
        disk.write(0, [b"precious" * (disk.size // 8)])
    kit_main.run_on_nodes([str(node) for node in kernel.nodes], all_checks(), destroy=False, patience=0)
    for lun, disk in disks.items():
        whole = kernel.target.reference.read(lun, 0, disk.size // disk.block_size)
        assert whole == b"precious" * (disk.size // 8)


def test_one_node_is_enough(kernel: Kernel) -> None:
    """Checks that need a second logical unit are skipped and say so."""
    checks = kit_main.selected(["write"])
    results = kit_main.run_on_nodes([str(kernel.nodes[0])], checks, destroy=True, patience=0)
    skipped = {result.check.name: result.why for result in results if result.verdict is Verdict.SKIP}
    assert skipped["across_units"] == "needs a second logical unit"
    assert any(result.verdict is Verdict.PASS for result in results)


def test_impatience_skips_waits(kernel: Kernel) -> None:
    """An expiry check that would wait too long is skipped with the time it wanted."""
    checks = kit_main.selected(["expiry.zero_asks_for_the_default"])
    (result,) = kit_main.run_on_nodes([str(kernel.nodes[0])], checks, destroy=True, patience=10)
    assert (result.verdict, result.why) == (Verdict.SKIP, "would wait for 45 s")


def test_a_lost_command_is_a_failure(kernel: Kernel) -> None:
    """A command that does not reach the device fails its check and names the node."""
    with SgDevice([str(kernel.nodes[0])]) as device:
        kernel.host_status = 1
        with pytest.raises(SgError, match=r"node0 did not reach the device \(host status 0x1"):
            device.carry(0, 0, bytes(16), b"")
        device.close()


def test_the_program_of_the_kit(kernel: Kernel, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The kit's main program prints one object, writes JUnit XML and ends with 0."""
    junit = tmp_path / "junit.xml"
    arguments = [str(kernel.nodes[0]), "--second", str(kernel.nodes[1]), "--destroy-data", "--json"]
    assert kit_main.main([*arguments, "--only", "isolation", "--junit", str(junit)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == 0
    assert told["passed"] == len(kit_main.selected(["isolation"]))
    assert b'<testsuite name="isolation"' in junit.read_bytes()


def test_a_broken_disk_ends_the_program_with_1(kernel: Kernel, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed check makes exit code 1, and its commands are shown."""
    kernel.target.reference.target.manager.tokens.random = bytes
    assert kit_main.main([str(kernel.nodes[0]), "--only", "populate.tokens_differ"]) == 1
    shown = capsys.readouterr().out
    assert "fail  populate.tokens_differ" in shown
    assert "sent 83 10" in shown


def test_nodes_of_which_one_cannot_be_asked_are_closed(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else may want to open them."""
    closed: list[int] = []
    watched = {"close": lambda fd: closed.append(fd) or os.close(fd)}
    monkeypatch.setattr(sg, "os", SimpleNamespace(**vars(os) | watched))
    with pytest.raises(SgError, match="give a node such as"):
        SgDevice([str(kernel.nodes[0]), "/dev/no-such-node"])
    assert len(closed) == 1


def test_a_disk_in_use_is_not_written_to(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mounted disk is refused before anything is sent."""
    monkeypatch.setattr(sg, "_taken", lambda _: True)
    assert kit_main.main([str(kernel.nodes[0]), "--destroy-data"]) == 2
    assert "is in use (mounted?): unmount it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a disk node"),
        (["/dev/no-such-node"], "run as root and give a node such as /dev/sg1"),
        (["/dev/null", "--only", "nonsense"], "there is no check 'nonsense'"),
    ],
)
def test_what_cannot_be_done(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with 2 and one sentence."""
    assert kit_main.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cdb", "length"),
    [
        ("12018f00ff00", 255),
        ("25000000000000000000", 8),
        ("1a000a00c000", 192),
        ("88000000000000000010000000080000", 4096),
        ("84070000000100000000000003250000", 805),
        ("a30c02830010000000400000", 64),
        ("9e100000000000000000000000200000", 32),
        ("841f0000000000000000000000000000", 0),
        ("8a000000000000000010000000080000", 0),
        ("000000000000", 0),
    ],
)
def test_room_for_data_in(cdb: str, length: int) -> None:
    """As much room is offered as the command's own fields ask for."""
    assert data_in_length(bytes.fromhex(cdb).ljust(16, b"\0"), 512) == length
