"""In the guest: copies by one token over and over while the device under it is reset, unbound or unplugged.

Standard library, and the guest scripts in the folder that is the first argument; the second one is where it tells.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import odx
from disks import DirectDisk, DiskError, scsi_node
from sg import ScsiDisk, ScsiError

TOLD = Path(sys.argv[2])
MIB = 1 << 20
LENGTH = 4 * MIB
BLOCKS = LENGTH // 512
count = {"good": 0, "failed": 0, "wrong": 0, "gone": 0}


def tell(name: str, what: object) -> None:
    """A file that appears when it is complete."""
    unfinished = TOLD / f"{name}.unfinished"
    unfinished.write_text(json.dumps(what))
    unfinished.rename(TOLD / name)


def make_token() -> tuple[bytes, str]:
    """New data on the source, a token for them, other data in their place."""
    node = scsi_node("odx-source")
    plain, door = DirectDisk(node), ScsiDisk(node)
    buffer = mmap.mmap(-1, MIB)
    digest = hashlib.sha256()
    for at in range(0, LENGTH, MIB):
        buffer[:] = os.urandom(MIB)
        digest.update(buffer)
        plain.write(at, buffer)
    token = odx.populate_token(door, 1, 0, BLOCKS, inactivity_timeout=odx.PATIENT_SECONDS)
    buffer[:] = bytes(MIB)
    for at in range(0, LENGTH, MIB):
        plain.write(at, buffer)
    plain.close()
    door.close()
    return token, digest.hexdigest()


def copy(token: bytes, digest: str, number: int) -> None:
    """One copy to one of two places; the data that arrived if it says that it went well."""
    node = scsi_node("odx-destination")
    plain, door = DirectDisk(node), ScsiDisk(node)
    try:
        place = (number % 2) * LENGTH
        odx.write_using_token(door, number, token, offset=0, lba=place // 512, blocks=BLOCKS)
        count["wrong"] += plain.sha256(place, LENGTH, lambda _: None) != digest
        count["good"] += 1
    finally:
        plain.close()
        door.close()


token, digest = make_token()
tell("begun", count)
number = 1
while not (TOLD / "stop").exists():
    number += 1
    try:
        copy(token, digest, number)
    except (ScsiError, odx.OdxError):
        count["failed"] += 1
    except (OSError, DiskError):
        count["gone"] += 1
        time.sleep(0.1)
    tell("count", count)
tell("ended", count)
