"""The guest itself: its disks as Linux sees them, and a guest that does not come up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from conftest import Rig

    from qemu_odx.lab.image import Image

AWAIT_DISKS = "for i in $(seq 100); do [ -b /dev/sdb ] && break; sleep 0.1; done; "


def run(rig: Rig, command: str) -> str:
    """The output of a command that must succeed."""
    done = rig.guest.shell.run(AWAIT_DISKS + command, seconds=60)
    assert done.status == 0, done.stderr
    return done.stdout


def test_linux_finds_both_units(rig: Rig) -> None:
    """Serial numbers arrive by VPD page 80h."""
    out = run(rig, "for d in /dev/sda /dev/sdb; do sg_vpd -p 0x80 $d; done")
    assert "odx-source" in out
    assert "odx-destination" in out


def test_linux_finds_the_blk_disk(rig: Rig) -> None:
    """The serial number arrives by GET_ID."""
    assert "odx-destination" in run(rig, "cat /sys/block/vd*/serial")


def test_sg_utils_decode_the_copy_limits(rig: Rig) -> None:
    """An independent decoder reads page 8Fh."""
    assert "Block Device ROD Token Limits" in run(rig, "sg_vpd -p 0x8f /dev/sda")


def test_kernel_complains_of_nothing(rig: Rig) -> None:
    """Linux accepted the disks without a word on their answers."""
    out = run(
        rig, "dmesg | grep -E '(sd |scsi|virtio|vd[a-z]).*(error|fail|unexpected|invalid|abort)' || true"
    )
    assert out == ""


def test_silent_guest_is_reported_with_its_last_words(image: Image) -> None:
    """Without the marker the lab gives up, and shows the serial port's last lines."""
    with RunFolder() as folder_of_run:
        spec = GuestSpec(image, "tcg", extra=("-append", "console=ttyS0"))  # not quiet: it soon has words
        with pytest.raises(LabError, match="ssh is not answering") as caught:
            Guest(spec, folder_of_run.path, marker="LAB:never", patience=6.0)
        assert "RIP=" in (folder_of_run.path / "state.log").read_text()
    assert "[    " in caught.value.details


def test_qemu_that_refuses_its_devices_is_quoted(image: Image) -> None:
    """QEMU's own words are the reason."""
    with RunFolder() as folder_of_run:
        spec = GuestSpec(image, "tcg", extra=("-device", "no-such-device"))
        with pytest.raises(LabError, match=r"QEMU ended .*no-such-device"):
            Guest(spec, folder_of_run.path)
