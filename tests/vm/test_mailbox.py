"""Token copy over a stock virtio-blk driver: the mailbox in the sectors of a disk, from inside the guest."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.paths import data_folder

if TYPE_CHECKING:
    from conftest import Rig

MIB = 1 << 20
COPIED = 16
SOURCE, DESTINATION = 16, 48
"""Mebibytes: where `copy_check.py` puts them."""
SCRIPTS = "/tmp/mailbox"  # noqa: S108 - in the guest
COPY = (
    f"python3 {SCRIPTS}/odx_copy.py --mailbox --source odx-destination --destination odx-destination"
    f" --mebibytes {COPIED}"
)


@pytest.fixture(scope="module")
def guest(rig: Rig) -> Rig:
    """The guest, with the scripts in it."""
    rig.guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
    return rig


def run(rig: Rig, command: str) -> str:
    """The output of a command that must succeed."""
    done = rig.guest.shell.run(command, seconds=120)
    rig.backend.check()
    assert done.status == 0, done.stderr
    return done.stdout


def test_copy_by_token_through_the_mailbox(guest: Rig) -> None:
    """The data as it was arrives, as the guest reads it, as SCSI reads it, and as the host finds it in the image."""
    with (guest.folder / "d1.img").open("rb") as image:
        image.seek(512 << 10)
        under_the_window = image.read(512 << 10)
        found = json.loads(run(guest, COPY))
        image.seek(DESTINATION * MIB)
        arrived = hashlib.sha256(image.read(COPIED * MIB)).hexdigest()
        image.seek(512 << 10)
        assert image.read(512 << 10) == under_the_window
    hashes = found["sha256"]
    assert hashes["source_before"] == hashes["destination"] == arrived
    assert hashes["source_after"] != hashes["source_before"]
    assert 0 < found["token_copy"]["ring_bytes"] < 256 << 10
    node = "$(grep -l odx-destination /sys/block/sd*/device/vpd_pg80 | cut -d/ -f4)"
    by_scsi = run(
        guest, f"dd if=/dev/{node} bs=1M iflag=direct skip={DESTINATION} count={COPIED} | sha256sum"
    )
    assert by_scsi.split()[0] == arrived


def test_runs_one_after_the_other_find_slots(guest: Rig) -> None:
    """Each is another user, within the lease of the one before."""
    inquiry = (
        f"import sys; sys.path.insert(0, '{SCRIPTS}')\n"
        "from blk_mailbox import MailboxDisk; from disks import blk_node; from odx import serial_number\n"
        "print(serial_number(MailboxDisk(blk_node('odx-destination'))))\n"
    )
    for _ in range(3):
        assert run(guest, f'python3 -c "{inquiry}"').strip() == "odx-destination"


def test_a_disk_without_a_mailbox(guest: Rig) -> None:
    """One line with the cure: here the place is wrong."""
    look = (
        f"import sys; sys.path.insert(0, '{SCRIPTS}')\n"
        "from blk_mailbox import MailboxDisk; from disks import DiskError, blk_node\n"
        "try: MailboxDisk(blk_node('odx-destination'), 0)\n"
        "except DiskError as error: print(error)\n"
    )
    assert "has no mailbox at byte 0: export it with mailbox=on" in run(guest, f'python3 -c "{look}"')
