#!/usr/bin/env python3
"""What a Linux guest sees of token copy: for every disk, which layer lets it through and which one does not.

    python3 odx_doctor.py [--serial SERIAL]

Reads only: the proof is a token that is made and thrown away, nothing is written. Standard library only. Prints one
JSON object; `qemu-odx doctor --guest` reads it. Uses `odx.py`, `sg.py` and `blk_mailbox.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from blk_mailbox import MailboxDisk
from disks import DiskError
from odx import THIRD_PARTY_COPY, OdxError, inquiry_page, limits, populate_token, serial_number
from sg import ScsiDisk, ScsiError

SYS_BLOCK = Path("/sys/block")
SCSI_DEVICES = Path("/sys/class/scsi_device")
DIRECT_ACCESS = "0"  # peripheral device type, SPC-4 table 142
KINDS = ("sd*", "vd*")
PROOF_BLOCKS = 8
LOOKS = 20
"""For disks that are to come, half a second apart."""
REFUSALS = (DiskError, OdxError, ScsiError, OSError)


def text_of(path: Path) -> str:
    """The content of a file of sysfs, empty if there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def driver_of(name: str) -> str:
    """The driver below a disk: virtio_scsi, virtio_blk, ahci."""
    device = (SYS_BLOCK / name / "device").resolve()
    if name.startswith("vd"):
        return (device / "driver").resolve().name
    host = device.name.split(":")[0]
    return text_of(Path(f"/sys/class/scsi_host/host{host}/proc_name"))


def mounts_of(name: str) -> list[dict[str, str]]:
    """Where the disk and its partitions are mounted, and by which file system."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [
        {"where": where, "type": kind} for node, where, kind, *_ in lines if node.startswith(f"/dev/{name}")
    ]


def proof(disk: Any) -> dict[str, Any]:
    """Make a token for the first blocks of the disk; how long that took, or what was refused."""
    started = time.monotonic()
    try:
        populate_token(disk, os.getpid() & 0x7FFFFFFF, 0, PROOF_BLOCKS)
    except REFUSALS as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "seconds": round(time.monotonic() - started, 6), "blocks": PROOF_BLOCKS}


def offer(disk: Any) -> dict[str, Any]:
    """The list of pages, page 8Fh in hexadecimal, and what is wrong with either."""
    pages = inquiry_page(disk, 0x00)
    found: dict[str, Any] = {"pages": list(pages), "page_8f": None, "refusal": ""}
    if THIRD_PARTY_COPY in pages:
        found["page_8f"] = inquiry_page(disk, THIRD_PARTY_COPY).hex()
    try:
        limits(disk)
    except OdxError as error:
        found["refusal"] = str(error)
    return found


def serial_of(name: str) -> str:
    """The serial number of a disk, empty if it does not tell."""
    if name.startswith("vd"):
        return text_of(SYS_BLOCK / name / "serial")
    try:
        disk = ScsiDisk(f"/dev/{name}")
        try:
            return serial_number(disk)
        finally:
            disk.close()
    except REFUSALS:
        return ""


def commands_on(name: str) -> dict[str, Any]:
    """What token commands meet: SG_IO takes them to a SCSI disk, a mailbox to a virtio-blk disk."""
    path, opener = ("SG_IO", ScsiDisk) if name.startswith("sd") else ("mailbox", MailboxDisk)
    try:
        disk = opener(f"/dev/{name}")
        try:
            return {"path": path, **offer(disk), "token": proof(disk)}
        finally:
            disk.close()
    except REFUSALS as error:
        return {"path": path, "error": str(error)}


def view(name: str) -> dict[str, Any]:
    """All about one disk."""
    return {
        "node": f"/dev/{name}",
        "serial": serial_of(name),
        "driver": driver_of(name),
        "holders": sorted(path.name for path in (SYS_BLOCK / name / "holders").glob("*")),
        "mounts": mounts_of(name),
        **commands_on(name),
    }


def settled(found: list[str]) -> bool:
    """Whether there is a SCSI disk, and every one that the kernel has found has its node."""
    units = [path for path in SCSI_DEVICES.glob("*/device") if text_of(path / "type") == DIRECT_ACCESS]
    return bool(units) and all(any(path.name in found for path in unit.glob("block/*")) for unit in units)


def names() -> list[str]:
    """The disks there are; just after the boot the kernel is still finding them."""
    found = [""]
    for _ in range(LOOKS):
        before, found = found, sorted(path.name for kind in KINDS for path in SYS_BLOCK.glob(kind))
        if before == found and settled(found):
            break
        time.sleep(0.5)
    return found


def main() -> int:
    """Look, and print."""
    parser = argparse.ArgumentParser(description="Which layer of this guest lets token copies through?")
    parser.add_argument("--serial", help="only the disks with this serial number")
    wanted = parser.parse_args().serial
    disks = [view(name) for name in names() if wanted is None or serial_of(name) == wanted]
    print(json.dumps({"system": "linux", "version": platform.release(), "disks": disks}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
