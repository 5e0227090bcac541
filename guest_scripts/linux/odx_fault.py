#!/usr/bin/env python3
"""Arm and release fault rules of the disk server from inside the guest, at an exact moment.

    python3 odx_fault.py --disk SERIAL add "name=bad,op=WRITE USING TOKEN,sense=token-expired,armed=off"
    python3 odx_fault.py --disk SERIAL arm bad
    python3 odx_fault.py --disk SERIAL release bad
    python3 odx_fault.py --disk SERIAL remove bad
    python3 odx_fault.py --disk SERIAL list

The server must have been started with `--guest-control`. The disk is any of its SCSI disks, named by serial
number, or with --mailbox a virtio-blk disk with a mailbox. When the program ends, what was asked for is done.

Prints one JSON object, the rules as they are now; a failure is one line `error: ...` with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from blk_mailbox import MailboxDisk
from disks import DiskError, blk_node, scsi_node
from sg import ScsiDisk, ScsiError

if TYPE_CHECKING:
    Disk = ScsiDisk | MailboxDisk

WRITE_BUFFER, READ_BUFFER = 0x3B, 0x3C  # SPC-4 6.49, 6.20
VENDOR_SPECIFIC = 0x01  # MODE
CHUNK = 4096
ILLEGAL_REQUEST = 5


class FaultError(Exception):
    """The server refused; the text says why."""


def cdb(opcode: int, offset: int, length: int) -> bytes:
    """A WRITE BUFFER or READ BUFFER in vendor-specific mode, buffer 0."""
    return bytes((opcode, VENDOR_SPECIFIC, 0)) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"


def report(disk: Disk) -> dict:
    """What the server says about its rules."""
    text = b""
    while len(text) % CHUNK == 0:
        part = disk.read(cdb(READ_BUFFER, len(text), CHUNK), CHUNK)
        if not part:
            break
        text += part
    return json.loads(text)


def command(disk: Disk, line: str) -> None:
    """Have the server do what a line says: `add RULE`, `arm NAME`, `release NAME`, `remove NAME`."""
    data = line.encode()
    try:
        disk.write(cdb(WRITE_BUFFER, 0, len(data)), data)
    except ScsiError as error:
        if error.key != ILLEGAL_REQUEST:
            raise
        try:
            why = report(disk)["error"]
        except ScsiError:
            why = "the server lets guests steer nothing: start it with --guest-control"
        raise FaultError(why or str(error)) from error


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Arm and release fault rules of the disk server.")
    parser.add_argument("--disk", required=True, metavar="SERIAL")
    parser.add_argument("--mailbox", action="store_true", help="a virtio-blk disk with a mailbox")
    parser.add_argument("verb", choices=("list", "add", "arm", "release", "remove"))
    parser.add_argument("argument", nargs="?", default="", metavar="RULE or NAME")
    return parser.parse_args()


def main() -> int:
    """Do it; the exit status."""
    arguments = parse_arguments()
    try:
        if arguments.mailbox:
            disk: Disk = MailboxDisk(blk_node(arguments.disk))
        else:
            disk = ScsiDisk(scsi_node(arguments.disk))
        if arguments.verb != "list":
            command(disk, f"{arguments.verb} {arguments.argument}")
        print(json.dumps(report(disk)))
    except (DiskError, FaultError, ScsiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
