"""Token copy over a stock virtio-blk driver: the mailbox in the sectors of a disk, from inside the guest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.guests import OdxGuest

MIB = 1 << 20
COPIED = 16
SOURCE, DESTINATION = 16, 48
"""Mebibytes: where `copy_check.py` puts them."""
WINDOW = 512 << 10
"""Byte at which the mailbox is by default."""

pytestmark = pytest.mark.odx_disk("disk", size="256M", mailbox=True)


def copy(guest: OdxGuest, disk: OdxDisk) -> dict[str, dict[str, object]]:
    """What `odx_copy.py --mailbox` found."""
    both = ("--source", disk.serial, "--destination", disk.serial)
    found: dict[str, dict[str, object]] = guest.script(
        "odx_copy.py", "--mailbox", *both, "--mebibytes", str(COPIED)
    )
    return found


def inside(guest: OdxGuest, program: str) -> str:
    """The output of a Python program in the folder of our scripts."""
    return guest.sh(f"cd {guest.scripts()} && python3 - <<'END'\n{program}\nEND").strip()


def stretch(disk: OdxDisk, offset: int, length: int) -> bytes:
    """Bytes of the image file itself."""
    with disk.path.open("rb") as image:
        image.seek(offset)
        return image.read(length)


def test_copy_by_token_through_the_mailbox(odx_guest: OdxGuest, odx_disk: OdxDisk) -> None:
    """The data as it was arrives, as the guest reads it, as SCSI reads it, and as the host finds it in the image."""
    under_the_window = stretch(odx_disk, WINDOW, WINDOW)
    found = copy(odx_guest, odx_disk)
    arrived = hashlib.sha256(stretch(odx_disk, DESTINATION * MIB, COPIED * MIB)).hexdigest()
    assert stretch(odx_disk, WINDOW, WINDOW) == under_the_window
    hashes = found["sha256"]
    assert hashes["source_before"] == hashes["destination"] == arrived
    assert hashes["source_after"] != hashes["source_before"]
    assert 0 < int(str(found["token_copy"]["ring_bytes"])) < 256 << 10
    node = odx_guest.node(odx_disk)
    by_scsi = odx_guest.sh(f"dd if={node} bs=1M iflag=direct skip={DESTINATION} count={COPIED} | sha256sum")
    assert by_scsi.split()[0] == arrived


def test_runs_one_after_the_other_find_slots(odx_guest: OdxGuest, odx_disk: OdxDisk) -> None:
    """Each is another user, within the lease of the one before."""
    node = odx_guest.node(odx_disk, blk=True)
    inquiry = (
        "from blk_mailbox import MailboxDisk; from odx import serial_number\n"
        f"print(serial_number(MailboxDisk('{node}')))"
    )
    for _ in range(3):
        assert inside(odx_guest, inquiry) == odx_disk.serial


def test_a_disk_without_a_mailbox(odx_guest: OdxGuest, odx_disk: OdxDisk) -> None:
    """One line with the cure: here the place is wrong."""
    node = odx_guest.node(odx_disk, blk=True)
    look = (
        "from blk_mailbox import MailboxDisk; from disks import DiskError\n"
        f"try: MailboxDisk('{node}', 0)\n"
        "except DiskError as error: print(error)"
    )
    assert "has no mailbox at byte 0: export it with mailbox=on" in inside(odx_guest, look)
