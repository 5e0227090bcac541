"""The guest itself: its disks as Linux sees them, and a guest that does not come up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from qemu_odx.lab.image import Image
    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.guests import OdxGuest

KERNEL_WORDS = re.compile(r"^\[ *\d+\.\d+\] ", re.MULTILINE)
COMPLAINTS = "dmesg | grep -E '(sd |scsi|virtio|vd[a-z]).*(error|fail|unexpected|invalid|abort)' || true"


@pytest.mark.odx_disk("source")
@pytest.mark.odx_disk("destination", blk=True)
@pytest.mark.odx_guest(fresh=True)
def test_linux_takes_the_disks_as_they_are(odx_guest: OdxGuest, odx_disks: tuple[OdxDisk, ...]) -> None:
    """Serial numbers arrive by VPD page 80h and by GET_ID, and the kernel has no word on our answers."""
    for disk in odx_disks:
        assert disk.serial in odx_guest.sh(f"sg_vpd -p 0x80 {odx_guest.node(disk)}")
    assert odx_guest.node(odx_disks[1], blk=True).startswith("/dev/vd")
    assert odx_guest.sh(COMPLAINTS) == ""


def test_sg_utils_decode_the_copy_limits(odx_guest: OdxGuest, odx_disk: OdxDisk) -> None:
    """An independent decoder reads page 8Fh."""
    assert "Block Device ROD Token Limits" in odx_guest.sh(f"sg_vpd -p 0x8f {odx_guest.node(odx_disk)}")


def test_silent_guest_is_reported_with_its_last_words(image: Image) -> None:
    """Without the marker the lab gives up, and shows the serial port's last lines."""
    spec = GuestSpec(image, "tcg", extra=("-append", "console=ttyS0"))  # not quiet: it soon has words
    words = ""
    for patience in (4.0, 16.0, 64.0):
        if KERNEL_WORDS.search(words):
            break
        with RunFolder() as folder_of_run:
            with pytest.raises(LabError, match="ssh is not answering") as caught:
                Guest(spec, folder_of_run.path, marker="LAB:never", patience=patience)
            assert "RIP=" in (folder_of_run.path / "state.log").read_text()
        words = caught.value.details
    assert KERNEL_WORDS.search(words), words


def test_qemu_that_refuses_its_devices_is_quoted(image: Image) -> None:
    """QEMU's own words are the reason."""
    with RunFolder() as folder_of_run:
        spec = GuestSpec(image, "tcg", extra=("-device", "no-such-device"))
        with pytest.raises(LabError, match=r"QEMU ended .*no-such-device"):
            Guest(spec, folder_of_run.path)
