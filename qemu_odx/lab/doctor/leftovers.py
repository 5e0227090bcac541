"""What earlier runs left: folders of killed ones, a lock that another holds.

May import: paths, run_folder, session/record, doctor/{finding,host}.
"""

from __future__ import annotations

import fcntl
from contextlib import suppress
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.paths import images_folder
from qemu_odx.lab.run_folder import abandoned, socket_parent
from qemu_odx.lab.session.record import records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.lab.doctor.host import Host


def check_leftovers(_: Host) -> Iterator[Finding]:
    """Folders without an owner, labs without a supervisor, and the lock of image builds."""
    yield old_folders(socket_parent())
    yield dead_labs()
    yield build_lock(images_folder() / "lock")


def old_folders(parent: Path) -> Finding:
    """Run folders whose owner was killed."""
    found = [str(folder) for folder in abandoned(parent)]
    if found:
        cure = "nothing has to be done: the next run removes them"
        return Finding(
            "leftovers", "run folders", Level.NOTE, f"left by killed runs: {', '.join(found)}", cure
        )
    return Finding("leftovers", "run folders", Level.OK, f"none in {parent}")


def dead_labs() -> Finding:
    """Labs whose own process was killed."""
    dead = [record.name for record in records() if not record.supervisor.alive]
    if dead:
        cure = f"qemu-odx down {' '.join(dead)}"
        return Finding("leftovers", "labs", Level.NOTE, f"killed: {', '.join(dead)}", cure)
    return Finding("leftovers", "labs", Level.OK, "none was killed")


def build_lock(path: Path) -> Finding:
    """Whether somebody builds an image just now."""
    with suppress(FileNotFoundError), path.open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            cure = "wait for it: a run that needs the image does so by itself"
            return Finding("leftovers", "image build", Level.NOTE, f"another run holds {path}", cure)
    return Finding("leftovers", "image build", Level.OK, "no build under way")
