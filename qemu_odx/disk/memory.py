"""A disk in memory, for tests and trials: a file disk on a memfd, with everything that a file disk does.

May import `file.py` and what is below it.
"""

from __future__ import annotations

import os

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.hostfile import HostFile
from qemu_odx.disk.image import Image


def memory_disk(
    name: str, size: int, block_size: int = 512, physical_block_size: int | None = None
) -> FileDisk:
    """An empty disk of `size` bytes (a multiple of `block_size`); its memory is freed by `close`."""
    fd = os.memfd_create(f"odx-{name}", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return FileDisk(
        name,
        Image(HostFile(fd), size, None),
        block_size=block_size,
        physical_block_size=physical_block_size,
        snapshots="copy-before-write",  # memory shares no blocks with a file: nobody needs to try
    )
