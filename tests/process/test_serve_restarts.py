"""A server with a state folder, killed at random moments under verified load: guests notice nothing.

`ODX_KILLS` says how often (docs/restart.md); 15 by each way of snapshots if it does not.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from restart_load import SIZE, Load, images

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("ODX_KILLS", "15"))
SEED = int(os.environ.get("ODX_SEED", "7"))
ARGUMENTS = (
    *("--disk", f"id=d0,path=a.img,size={SIZE}"),
    *("--disk", f"id=d1,path=b.img,size={SIZE}"),
    *("--export", "type=vhost-user-scsi,socket=s,lun0=d0,lun1=d1"),
    *("--state", "state"),
)


@pytest.fixture(params=["copy-before-write", "reflink"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder whose file system holds snapshots one way or the other."""
    if request.param == "copy-before-write":
        return tmp_path
    place: Path = request.getfixturevalue("xfs") / "restarts"
    place.mkdir()
    return place


def test_kills_under_load(folder: Path) -> None:
    """Tokens, copies, writes and results: nothing is lost, doubled, mixed up or answered with an error."""
    with ExitStack() as stack:
        server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=folder))
        guest = ScsiGuest(folder / "s")
        stack.callback(guest.front.close)
        guest.go()
        load = Load(guest, SEED)
        load.start()
        load.run(1.5)  # once a second it is noted that the guest need not be told of a restart
        for _ in range(KILLS):
            load.run(load.chance.uniform(0.0, 0.4))
            server.kill()
            assert server.errors() == ""
            server.close()
            server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=folder))
            guest.front.resume()
        load.drain()
        guest.front.stop()
        assert server.errors() == ""
        assert server.terminate() == 0
    for name, wanted in zip(("a.img", "b.img"), images(load.disks), strict=True):
        assert (folder / name).read_bytes() == wanted
    assert (
        min(load.counts.get(what, 0) for what in ("tokens", "token writes", "background", "deleted"))
        >= KILLS // 3
    )
