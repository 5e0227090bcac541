"""A server that is killed in the middle of COMPARE AND WRITE, while another initiator waits to use the same blocks.

The other one comes back first: what it finds says whether the command was done, and so must its answer.
`ODX_KILLS` says how often the kills at random moments come (docs/restart.md).
"""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from guests import Blk, eventually
from restart_load import answer_to
from victim import Victim, await_notes, completed

from qemu_odx.cli.monitor_client import MonitorClient
from qemu_odx.testing.mailbox import MailboxClient
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.testing.initiator import Initiator

KILLS = max(8, int(os.environ.get("ODX_KILLS", "15")))
SEED = int(os.environ.get("ODX_SEED", "7"))
ARGUMENTS = (
    *("--disk", "id=d0,path=a.img,size=64M"),
    *("--export", "type=vhost-user-scsi,id=scsi,socket=s,lun0=d0"),
    *("--export", "type=vhost-user-scsi,socket=t,lun0=d0"),
    *("--export", "type=vhost-user-blk,id=box,socket=m,disk=d0,mailbox=on"),
    *("--state", "state", "--monitor", "q"),
)
LBA = 70_001
MOST = 255
"""NUMBER OF LOGICAL BLOCKS is one byte."""
MISCOMPARE = (0xE, 0x1D, 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed at the end, in the right order."""
    with ExitStack() as made:
        yield made


@pytest.fixture
def victim(tmp_path: Path, stack: ExitStack) -> Victim:
    """The server."""
    return Victim(tmp_path, ARGUMENTS, stack)


def scsi_guest(folder: Path, socket: str, stack: ExitStack) -> ScsiGuest:
    """An initiator that has nothing left to be told."""
    guest = ScsiGuest(folder / socket)
    stack.callback(guest.front.close)
    guest.go()
    return guest


def compare_and_write(blocks: int) -> bytes:
    """The CDB."""
    return bytes((0x89, 0)) + LBA.to_bytes(8, "big") + bytes((0, 0, 0, blocks, 0, 0))


def swap_first(other: ScsiGuest, old: bytes, new: bytes, theirs: bytes) -> bool:
    """The other initiator finds one of the two as a whole, and makes it its own; whether it was the new one."""
    blocks = len(old) // 512
    seen = other.initiator.read(0, LBA, blocks).data
    assert seen in {old, new}, "a part of the write is there"
    assert other.initiator.compare_and_write(0, LBA, blocks, seen, theirs).good
    return seen == new


@pytest.mark.parametrize("blocks", [1, MOST])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_either_side(
    victim: Victim, tmp_path: Path, stack: ExitStack, when: str, blocks: int
) -> None:
    """Before it was done: it comes after the other's and compares unequal. After: it is done, and was first."""
    guest, other = scsi_guest(tmp_path, "s", stack), scsi_guest(tmp_path, "t", stack)
    old, new, theirs = (os.urandom(512 * blocks) for _ in range(3))
    assert guest.initiator.write(0, LBA, blocks, old).good
    other.initiator.token(0, [Range(0, 1)], timeout=600)  # something to be noted every second
    await_notes(tmp_path)
    with MonitorClient(str(tmp_path / "q")) as monitor:
        rule = f"export=scsi,op=COMPARE AND WRITE,action=kill-backend,when={when}"
        monitor.execute("odx-fault-arm", {"rule": rule})
        request = guest.submit(0, compare_and_write(blocks), old + new)
        eventually(lambda: not victim.server.alive, "it was not killed")
    victim.start_again()
    other.front.resume()
    done = swap_first(other, old, new, theirs)
    assert done is (when == "after")
    guest.front.resume()
    completed(guest.front, scsi.FIRST_REQUEST_QUEUE, request)
    answer = answer_to(request)
    assert answer.good if done else answer.fault == MISCOMPARE
    assert scsi.RESPONSE.unpack_from(request.data_in)[1] == 0, "a residual: all of the data was taken"
    assert other.initiator.read(0, LBA, blocks).data == theirs


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_on_either_side_in_a_mailbox(
    victim: Victim, tmp_path: Path, stack: ExitStack, guests: Callable[..., Blk], when: str
) -> None:
    """The same by the write of a request page."""
    box, other = guests(str(tmp_path / "m")).go(), scsi_guest(tmp_path, "t", stack)
    old, new, theirs = (os.urandom(512) for _ in range(3))
    deadly, done = False, False

    def write(sector: int, page: bytes) -> None:
        nonlocal done
        request = box.queue.submit(blk.HEADER.pack(blk.RequestType.OUT, 0, sector) + page, 1)
        if deadly:
            eventually(lambda: not victim.server.alive, "it was not killed")
            victim.start_again()
            other.front.resume()
            done = swap_first(other, old, new, theirs)
            box.front.resume()
        completed(box.front, 0, request)
        assert request.data_in[-1] == blk.Status.OK

    initiator: Initiator = MailboxClient(write, box.read).initiator()
    initiator.command(0, "00")
    assert other.initiator.write(0, LBA, 1, old).good
    other.initiator.token(0, [Range(0, 1)], timeout=600)  # something to be noted every second
    await_notes(tmp_path)
    with MonitorClient(str(tmp_path / "q")) as monitor:
        rule = f"export=box,op=COMPARE AND WRITE,action=kill-backend,when={when}"
        monitor.execute("odx-fault-arm", {"rule": rule})
    deadly = True
    answer = initiator.compare_and_write(0, LBA, 1, old, new)
    assert done is (when == "after")
    assert answer.good if done else answer.fault == MISCOMPARE
    assert other.initiator.read(0, LBA, 1).data == theirs


def test_killed_at_random_moments(victim: Victim, tmp_path: Path, stack: ExitStack) -> None:
    """All of it or nothing, and the answer says which."""
    chance = random.Random(SEED)
    guest, other = scsi_guest(tmp_path, "s", stack), scsi_guest(tmp_path, "t", stack)
    guest.initiator.token(0, [Range(0, 1)], timeout=600)  # something to be noted every second
    await_notes(tmp_path)
    for number in range(KILLS):
        blocks = (1, MOST)[number % 2]
        old, new, theirs = (chance.randbytes(512 * blocks) for _ in range(3))
        assert guest.initiator.write(0, LBA, blocks, old).good
        request = guest.submit(0, compare_and_write(blocks), old + new)
        time.sleep(chance.uniform(0.0, 0.003))
        victim.server.kill()
        victim.start_again()
        other.front.resume()
        done = swap_first(other, old, new, theirs)
        guest.front.resume()
        completed(guest.front, scsi.FIRST_REQUEST_QUEUE, request)
        answer = answer_to(request)
        assert answer.good if done else answer.fault == MISCOMPARE, (number, done, answer)
        assert other.initiator.read(0, LBA, blocks).data == theirs
