"""vhost-user-blk-pci of a real QEMU whose machine changes: migrated, with more memory, with a larger disk."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.driver import DriverQueue, Piece
from qemu_odx.testing.qtest import QtestMachine, poll
from qemu_odx.testing.virtio_pci import VirtioPci
from qemu_odx.wire.virtio import blk
from qemu_odx.wire.virtio.ring import avail_size, desc_size, used_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qemu_odx.testing.ram import GuestRam
    from qemu_odx.testing.serve import ServeProcess

pytestmark = pytest.mark.qtest

BLK = "vhost-user-blk-pci,num-queues=2"
MIB = 1 << 20
PAGE = 4096
BUFFERS = 64
HELD = 8 * MIB
"""Bytes after which a migration waits for the test: more than all that goes before the random data."""


@pytest.fixture
def server(serve: Callable[[], ServeProcess]) -> ServeProcess:
    """The server, running."""
    return serve()


# -- migration -------------------------------------------------------------------------------------


class Reader:
    """Reads the disk page by page into fixed buffers, over and over, each time from another place."""

    def __init__(self, ram: GuestRam, queue: DriverQueue) -> None:
        self.ram = ram
        self.queue = queue
        self.buffers = [ram.allocate(PAGE, PAGE) for _ in range(BUFFERS)]
        self.statuses = [ram.allocate(1, 1) for _ in range(BUFFERS)]
        self.header = ram.allocate(16)
        self.at = 0

    def once(self) -> None:
        """Read into the next buffer."""
        place = self.at % BUFFERS
        self.ram.write(self.header, blk.HEADER.pack(blk.RequestType.IN, 0, 8 * (self.at % 1000)))
        self.ram.write(self.statuses[place], b"\xff")
        pieces = [
            Piece(self.header, 16),
            Piece(self.buffers[place], PAGE, writable=True),
            Piece(self.statuses[place], 1, writable=True),
        ]
        request = self.queue.post(pieces)
        self.queue.publish()
        while not self.queue.used_pending():
            self.queue.wait()
        assert self.queue.take_used() == (request.head, PAGE + 1)
        self.queue.free.extend(request.slots)
        self.queue._posted.clear()
        self.at += 1


class Held:
    """A migration to a file that cannot end before the test says so: what takes it in stops after `HELD` bytes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._go = file.with_suffix(".go")
        wait = (
            f"while kill -0 $PPID && ! test -e {self._go}; do sleep 0.05; done"  # for ever only beside QEMU
        )
        self.uri = f"exec:(head -c {HELD}; {wait}; cat) > {file}"

    def begin(self, machine: QtestMachine) -> None:
        """With data for more than those bytes."""
        machine.ram.write(32 * MIB, os.urandom(2 * HELD))
        machine.qmp("migrate", uri=self.uri)

    @property
    def waits(self) -> bool:
        """So far it has come: pages before the random data have been sent."""
        return self.file.exists() and self.file.stat().st_size == HELD

    def go_on(self) -> None:
        """It may end."""
        self._go.touch()


def status(machine: QtestMachine) -> str:
    """How far the migration is."""
    answer = machine.qmp("query-migrate")
    assert isinstance(answer, dict)
    return str(answer.get("status"))


def touch(machine: QtestMachine, gpa: int, length: int) -> None:
    """Write the same bytes as the processor would: QEMU does not see what we store in its memory directly."""
    machine.command(f"write {gpa:#x} {length:#x} 0x{machine.ram.read(gpa, length).hex()}")


def migrate(machine: QtestMachine, file: Path, reader: Reader) -> None:
    """Migrate to a file, reading all the while, and on into pages that have been sent."""
    migration = Held(file)
    migration.begin(machine)
    while not migration.waits:
        reader.once()
    for _ in range(2 * BUFFERS):
        reader.once()
    assert status(machine) == "active", "it ended before anything was written twice"
    queue = reader.queue
    touch(machine, queue.desc_gpa, desc_size(queue.size))
    touch(machine, queue.avail_gpa, avail_size(queue.size))
    migration.go_on()
    poll(lambda: status(machine) in {"completed", "failed"}, "end of the migration")
    assert status(machine) == "completed"


def test_a_guest_is_migrated_while_it_reads(
    server: ServeProcess, boot: Callable[..., QtestMachine], tmp_path: Path
) -> None:
    """Every byte that we wrote arrives, used ring and status bytes included, and the ring goes on over there."""
    (tmp_path / "a.img").write_bytes(os.urandom(8 * MIB) + bytes(56 * MIB))
    large = f"{BLK},queue-size=1024"  # so that the used ring has pages of its own
    machine = boot(large, "b.sock")
    (queue,) = VirtioPci(machine, 4).start(size=1024)
    reader = Reader(machine.ram, queue)
    reader.once()
    migrate(machine, tmp_path / "state", reader)
    source = machine.ram.read(0, machine.ram.size)
    machine.close()

    target = boot(large, "b.sock", "-incoming", "defer")
    target.qmp("migrate-incoming", uri=f"exec:cat {tmp_path / 'state'}")
    poll(lambda: status(target) in {"completed", "failed"}, "arrival")
    assert status(target) == "completed"
    ranges = [(gpa, PAGE) for gpa in reader.buffers] + [(gpa, 1) for gpa in reader.statuses]
    ranges.append((queue.used_gpa, used_size(queue.size)))
    lost = [hex(gpa) for gpa, length in ranges if target.ram.read(gpa, length) != source[gpa : gpa + length]]
    assert lost == []
    assert target.ram.read(reader.buffers[0], PAGE) != bytes(PAGE)

    there = VirtioPci(target, 4)
    moved = DriverQueue(target.ram, 1024, kick=lambda: there.notify(0), event_idx=queue.event_idx)
    assert (moved.desc_gpa, moved.used_gpa) == (queue.desc_gpa, queue.used_gpa)
    moved.wait = lambda: poll(lambda: moved.used_pending() > 0, "completion over there")
    moved._next = moved._published = moved.last_used = queue.last_used
    again = Reader(target.ram, moved)
    for _ in range(3):
        again.once()
    assert target.ram.read(again.buffers[2], PAGE) == (tmp_path / "a.img").read_bytes()[2 * PAGE : 3 * PAGE]


def test_a_migration_that_is_cancelled_leaves_the_guest_running(
    server: ServeProcess, boot: Callable[..., QtestMachine], tmp_path: Path
) -> None:
    """Logging is switched off again; a second attempt works."""
    machine = boot(BLK, "b.sock")
    (queue,) = VirtioPci(machine, 4).start()
    reader = Reader(machine.ram, queue)
    machine.ram.write(32 * MIB, os.urandom(HELD))
    with socket.socket(socket.AF_UNIX) as deaf:  # so that it cannot end by itself
        deaf.bind(str(tmp_path / "deaf"))
        deaf.listen()
        machine.qmp("migrate", uri=f"unix:{tmp_path}/deaf")
        poll(lambda: status(machine) == "active", "begin of the migration")
        reader.once()
        machine.qmp("migrate_cancel")
        poll(lambda: status(machine) == "cancelled", "its end")
    reader.once()
    machine.qmp("migrate", uri=f"exec:cat > {tmp_path / 'state'}")
    poll(lambda: status(machine) == "completed", "the second migration")
    assert "dropped" not in server.errors()


# -- a larger disk ---------------------------------------------------------------------------------


def capacity(disk: VirtioPci) -> int:
    """In MiB, as the guest sees it."""
    return int.from_bytes(disk.config(8), "little") // 2048


def enlarge(server: ServeProcess, mebibytes: int) -> None:
    """Make the image larger and let the server look."""
    os.truncate(server.cwd / "a.img", mebibytes * MIB)
    os.kill(server.pid, signal.SIGUSR1)


def test_a_larger_disk_is_announced_by_an_interrupt(
    server: ServeProcess, boot: Callable[..., QtestMachine]
) -> None:
    """The guest reads the new capacity and writes there."""
    disk = VirtioPci(boot(BLK, "b.sock"), 4)
    (queue,) = disk.start()
    disk.watch_config(2)
    assert not disk.interrupted(2)
    enlarge(server, 80)
    poll(lambda: disk.interrupted(2), "the configuration interrupt")
    assert capacity(disk) == 80
    header = blk.HEADER.pack(blk.RequestType.OUT, 0, 79 * 2048)
    assert queue.execute(header + b"n" * 512, 1).data_in == b"\0"


def test_a_disk_that_grew_while_the_guest_was_stopped(
    server: ServeProcess, boot: Callable[..., QtestMachine]
) -> None:
    """QEMU 7.2 does not listen then: it is told again at the next start."""
    machine = boot(BLK, "b.sock")
    disk = VirtioPci(machine, 4)
    disk.start()
    machine.qmp("stop")
    enlarge(server, 80)
    poll(lambda: "now 83886080 bytes" in server.errors(), "the server to look")
    machine.qmp("cont")
    poll(lambda: capacity(disk) == 80, "the new capacity")


# -- memory ----------------------------------------------------------------------------------------


def test_a_buffer_in_memory_that_is_not_shared_is_an_io_error(
    server: ServeProcess, boot: Callable[..., QtestMachine]
) -> None:
    """QEMU plugs such a DIMM without a word to us; requests that miss it go on."""
    machine = boot(BLK, "b.sock", "-m", "64M,slots=2,maxmem=1G")
    (queue,) = VirtioPci(machine, 4).start()
    machine.qmp("object-add", **{"qom-type": "memory-backend-ram", "id": "own", "size": 128 * MIB})
    machine.qmp("device_add", driver="pc-dimm", id="dimm", memdev="own")
    ram = machine.ram
    header, last = ram.allocate(16), ram.allocate(1, 1)
    ram.write(header, blk.HEADER.pack(blk.RequestType.IN, 0, 0))
    for gpa, expected in ((1 << 32, blk.Status.IOERR), (ram.allocate(PAGE, PAGE), blk.Status.OK)):
        ram.write(last, b"\xff")
        request = queue.post(
            [Piece(header, 16), Piece(gpa, PAGE, writable=True), Piece(last, 1, writable=True)]
        )
        queue.publish()
        queue.wait()
        assert queue.take_used()[0] == request.head
        assert ram.read(last, 1) == bytes([expected])
    assert server.alive
