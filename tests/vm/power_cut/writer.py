"""In the guest: makes, confirms, renames and removes files on mounted file systems; says what `fsync` has confirmed.

Standard library only. Arguments: folders. One line for each confirmed file: the folder's number, the file's number.
"""

from __future__ import annotations

import os
import random
import sys
import threading

KEPT = 300
"""Files that stay; older ones are removed."""
_saying = threading.Lock()


def content(number: int) -> bytes:
    """What file `number` holds."""
    chance = random.Random(number)
    return chance.randbytes(chance.choice((10, 3000, 5000, 40_000)))


def write(folder: str, number: int) -> None:
    """Under another name first, as editors do; confirmed with the folder."""
    unfinished, finished = f"{folder}/unfinished", f"{folder}/{number}"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, content(number))
    os.fsync(fd)
    os.close(fd)
    os.rename(unfinished, finished)  # noqa: PTH104 - plain strings
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def load(place: int, folder: str) -> None:
    """For ever."""
    number = 0
    while True:
        write(folder, number)
        with _saying:
            sys.stdout.write(f"{place} {number}\n")
            sys.stdout.flush()
        with open(f"{folder}/log", "a") as log:  # noqa: PTH123 - never confirmed: it may be lost
            log.write("x" * (number % 900))
        if number >= KEPT:
            os.unlink(f"{folder}/{number - KEPT}")  # noqa: PTH108 - neither
        number += 1


for place, folder in enumerate(sys.argv[1:]):
    threading.Thread(target=load, args=(place, folder)).start()
