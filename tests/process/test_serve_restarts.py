"""A server with a state folder, killed at random moments under verified load, or aimed at: guests notice nothing.

`ODX_KILLS` says how often (docs/restart.md); 15 by each way of snapshots if it does not, a few where it is aimed.
"""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guests import frozen
from restart_load import SIZE, TERMINATED, Load, answer_to, images
from victim import Victim, await_notes, completed

from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guests import Blk

KILLS = int(os.environ.get("ODX_KILLS", "15"))
AIMED = max(4, KILLS // 4)
SEED = int(os.environ.get("ODX_SEED", "7"))
ARGUMENTS = (
    *("--disk", f"id=d0,path=a.img,size={SIZE}"),
    *("--disk", f"id=d1,path=b.img,size={SIZE}"),
    *("--export", "type=vhost-user-scsi,socket=s,lun0=d0,lun1=d1"),
    *("--state", "state"),
)


@pytest.fixture(params=["copy-before-write", "reflink"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder whose file system holds snapshots one way or the other."""
    if request.param == "copy-before-write":
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=request.getfixturevalue("xfs")) as place:
        yield Path(place)


def test_kills_under_load(folder: Path) -> None:
    """Tokens, copies, writes and results: nothing is lost, doubled, mixed up or answered with an error."""
    with ExitStack() as stack:
        server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=folder))
        guest = ScsiGuest(folder / "s")
        stack.callback(guest.front.close)
        guest.go()
        guest.initiator.token(0, [Range(0, 1)], timeout=600)
        await_notes(folder)
        load = Load(guest, SEED)
        load.start()
        for _ in range(KILLS):
            load.run(load.chance.uniform(0.0, 0.4))
            server.kill()
            assert server.errors() == ""
            server.close()
            server = stack.enter_context(ServeProcess(ARGUMENTS, cwd=folder))
            guest.front.resume()
        load.run_until({"tokens", "token writes", "background", "deleted"}, KILLS // 3)
        load.drain()
        guest.front.stop()
        assert server.errors() == ""
        assert server.terminate() == 0
    for name, wanted in zip(("a.img", "b.img"), images(load.disks), strict=True):
        assert (folder / name).read_bytes() == wanted


def test_kills_during_write_using_token_and_abort(folder: Path) -> None:
    """The copy is whole; or it was stopped, and as much of it is there as its result says.

    In every other round the abort stands behind the copy in the ring before the server sees either: it comes in time.
    """
    blocks, chance = SIZE // 512, random.Random(SEED)
    pattern = random.Random(1).randbytes(1 << 20) * (SIZE >> 20)
    stopped = 0
    with ExitStack() as stack:
        victim = Victim(folder, ARGUMENTS, stack)
        guest = ScsiGuest(folder / "s")
        stack.callback(guest.front.close)
        guest.go()
        load = Load(guest, SEED)  # for its commands
        for at in range(0, blocks, 512):
            guest.initiator.write(0, at, 512, pattern[at * 512 : (at + 512) * 512])
        token = guest.initiator.token(0, [Range(0, blocks)], timeout=600)
        guest.initiator.write(0, 0, 512, bytes(512 * 512))
        await_notes(folder)
        for number in itertools.count():
            if number >= AIMED and stopped:
                break
            assert number < 10 * AIMED, "every copy had ended before it could be stopped"
            write = load.command("write_token", 1, token, [Range(0, blocks)], identifier=1000 + number)
            request = guest.submit(*write)
            time.sleep(chance.uniform(0.0, 0.03))
            victim.kill(guest.front)
            completed(guest.front, 2, request)
            assert answer_to(request).good
            assert (folder / "b.img").read_bytes() == pattern
            for at in range(0, blocks, 512):
                guest.initiator.write(1, at, 512, bytes(512 * 512))
            background = load.command(
                "write_token", 1, token, [Range(0, blocks)], identifier=2000 + number, immediate=True
            )
            abort = load.command("abort_copy", 1, 2000 + number)
            with frozen(victim.server) if number % 2 else nullcontext():
                requests = [guest.submit(*background)]
                time.sleep(chance.uniform(0.0, 0.01))
                requests.append(guest.submit(*abort))
            time.sleep(chance.uniform(0.0, 0.003))
            victim.kill(guest.front)
            completed(guest.front, 2, *requests)
            assert answer_to(requests[0]).good
            assert answer_to(requests[1]).good or answer_to(requests[1]).fault == (5, 0x24, 0)
            status = 0x12
            while status == 0x12:
                found = TokenInformation.parse(guest.initiator.information(1, 2000 + number).data).status
                status = found.status
            stopped += status == TERMINATED
            assert status == TERMINATED or found.count == blocks
            arrived = (folder / "b.img").read_bytes()[: found.count * 512]
            assert arrived == pattern[: len(arrived)]
        assert victim.server.errors() == ""


def test_kills_during_mailbox_commands(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """Each write of a request page is cut off by a kill: executed once, its response is there."""
    chance = random.Random(SEED)
    arguments = (
        *("--disk", "id=d0,path=a.img,size=64M", "--state", "state"),
        *("--export", "type=vhost-user-blk,socket=s,disk=d0,mailbox=on"),
    )
    with ExitStack() as stack:
        victim = Victim(tmp_path, arguments, stack)
        guest = guests(str(tmp_path / "s")).go()
        place, blocks = 16384, 2048
        data = random.Random(2).randbytes(blocks * 512)
        guest.write(place, data)
        deadly = False

        def write(sector: int, page: bytes) -> None:
            request = guest.queue.submit(blk.HEADER.pack(blk.RequestType.OUT, 0, sector) + page, 1)
            if deadly:
                time.sleep(chance.uniform(0.0, 0.004))
                victim.kill(guest.front)
            completed(guest.front, 0, request)
            assert request.data_in[-1] == blk.Status.OK

        client = MailboxClient(write, guest.read)
        initiator = client.initiator()
        token = initiator.token(0, [Range(0, 1)], timeout=600)
        await_notes(tmp_path)
        assert initiator.write_token(0, token, [Range(0, 1)], delete=True).good
        deadly = True
        for number in range(AIMED):
            token = initiator.token(0, [Range(place, blocks)], timeout=600)
            guest.write(place, bytes(blocks * 512))
            target = place + blocks * (number % 4 + 1)
            assert initiator.write_token(0, token, [Range(target, blocks)], delete=True).good
            assert guest.read(target, blocks * 512) == data
            guest.write(place, data)
        tokens = initiator.command(0, "8408" + "00" * 8 + "00001000").data
        assert int.from_bytes(tokens[:4], "big") == 4, "a token was made twice"
        assert victim.server.errors() == ""
