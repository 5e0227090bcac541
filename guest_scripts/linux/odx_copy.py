#!/usr/bin/env python3
"""Copy data by token inside a Linux guest, and prove that it is the data as it was.

    python3 odx_copy.py --source SERIAL --destination SERIAL [--mebibytes 64] [--mailbox]

Disks are named by serial number. The destination must be there twice: as a SCSI disk and as a
virtio-blk disk. With --mailbox both are virtio-blk disks with a mailbox, which takes the token
commands; they may be the same disk for up to 32 MiB. OVERWRITES both disks.

Prints one JSON object; progress goes to standard error as `progress: <done> <total> <step>`
(bytes), a failure as one line `error: ...` with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import sys

from blk_mailbox import MailboxDisk
from copy_check import MEBIBYTE, Nodes, check_copy
from disks import DiskError, blk_node, scsi_node
from odx import OdxError
from sg import ScsiDisk, ScsiError

PROGRESS_STEP = 8 * MEBIBYTE


def print_progress(step: str, done: int, total: int) -> None:
    """One line for every few mebibytes: the ssh connection that carries it costs the guest time too."""
    if done % PROGRESS_STEP == 0 or done == total:
        print(f"progress: {done} {total} {step}", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Copy by token and prove it. Overwrites both disks.")
    parser.add_argument("--source", required=True, metavar="SERIAL")
    parser.add_argument("--destination", required=True, metavar="SERIAL")
    parser.add_argument("--mebibytes", type=int, default=64, metavar="N")
    parser.add_argument("--mailbox", action="store_true", help="token commands over virtio-blk disks")
    return parser.parse_args()


def main() -> int:
    """Run the proof; the exit status."""
    arguments = parse_arguments()
    try:
        find = blk_node if arguments.mailbox else scsi_node
        nodes = Nodes(
            source=find(arguments.source),
            destination=find(arguments.destination),
            destination_blk=blk_node(arguments.destination),
        )
        opener = MailboxDisk if arguments.mailbox else ScsiDisk
        result = check_copy(nodes, arguments.mebibytes * MEBIBYTE, print_progress, opener)
    except (DiskError, OdxError, ScsiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
