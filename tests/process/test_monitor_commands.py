"""The monitor's commands on a server that guests use: what they tell, and what they change."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from guests import MIB, Blk, eventually

from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure
from qemu_odx.testing.qapi import Schema
from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio import blk, scsi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ARGUMENTS = (
    *("--disk", "id=d0,path=d0.img,size=16M", "--disk", "id=d1,path=d1.img,size=64M"),
    *("--export", "type=vhost-user-scsi,id=scsi,socket=s.sock,lun0=d0,lun1=d1"),
    *("--export", "type=vhost-user-blk,id=blk,socket=b.sock,disk=d1,num-queues=2"),
    *("--monitor", "m.sock", "--clock", "virtual"),
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServeProcess]:
    """Two disks behind a SCSI export, one of them behind a blk export too."""
    with ServeProcess(ARGUMENTS, cwd=tmp_path) as process:
        yield process


class Checked(MonitorClient):
    """A client that believes nothing that is not as the schema says.

    Attributes:
        events: all that came before the answer of the last command.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.schema = Schema(super().execute("query-qmp-schema"))

    def execute(self, command: str, arguments: Any = None) -> Any:
        """Arguments and result are checked."""
        self.schema.check_arguments(command, arguments or {})
        result = super().execute(command, arguments)
        self.schema.check_return(command, result)
        return result

    def wait_for(self, name: str) -> dict[str, Any]:
        """The next event of that name; its data."""
        deadline = time.monotonic() + 60
        while (left := deadline - time.monotonic()) > 0:
            event = self.next_event(left)
            if event is not None:
                self.schema.check_event(event)
                if event["event"] == name:
                    data: dict[str, Any] = event["data"]
                    return data
        raise AssertionError(f"{name} never came")


@pytest.fixture
def monitor(server: ServeProcess) -> Iterator[Checked]:
    """A client of its monitor."""
    with Checked(str(server.cwd / "m.sock")) as client:
        yield client


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServeProcess, Checked]]:
    """A server that refuses everything, and a client."""
    with (
        ServeProcess(ARGUMENTS, cwd=tmp_path_factory.mktemp("steady")) as process,
        Checked(str(process.cwd / "m.sock")) as client,
    ):
        yield process, client


@pytest.fixture
def guest(server: ServeProcess) -> Iterator[ScsiGuest]:
    """A SCSI guest."""
    with ScsiGuest(server.cwd / "s.sock") as made:
        yield made


def by_id(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The one of that name."""
    (found,) = (row for row in rows if row["id"] == name)
    return found


# -- tokens and time -------------------------------------------------------------------------------


def test_a_token_from_birth_to_death(monitor: Checked, guest: ScsiGuest) -> None:
    """What it stands for, what it pins, when it ends: to the millisecond, in no time."""
    initiator = guest.initiator
    assert initiator.write(0, 0, 2048, b"old!" * (MIB // 4)).good
    token = initiator.token(0, [Range(0, 1024), Range(4096, 512)])
    born = monitor.wait_for("ODX_TOKEN_CREATED")
    assert (born["disk"], born["length"]) == ("d0", 1536 * 512)
    (told,) = monitor.execute("query-odx-tokens")
    assert told["token"] == born["token"]
    assert told["extents"] == [{"offset": 0, "length": 1024 * 512}, {"offset": 2 << 20, "length": 512 * 512}]
    assert (told["age"], told["users"], told["owner"].partition("#")[0], told["type"]) == (
        0,
        0,
        "s.sock",
        "point-in-time-default",
    )
    assert initiator.write(0, 0, 128, bytes(65536)).good
    (after,) = monitor.execute("query-odx-tokens", {"disk": "d0"})
    if after["snapshot"] == "copy-before-write":
        assert after["pinned-bytes"] == 65536
        assert by_id(monitor.execute("query-odx-disks"), "d0")["pinned-bytes"] == 65536
    monitor.execute("odx-clock-advance", {"seconds": int(told["expires-in"]) - 1, "milliseconds": 999})
    assert initiator.write_token(1, token, [Range(0, 128)]).good, "not yet"
    assert initiator.read(1, 0, 1).data == b"old!" * 128
    ends = monitor.execute("query-odx-tokens")[0]["expires-in"]
    assert ends == told["expires-in"], "its use has wound it up again"
    monitor.execute("odx-clock-advance", {"seconds": int(ends)})
    assert monitor.wait_for("ODX_TOKEN_ENDED") == {**_name(born), "cause": "expired"}
    assert initiator.write_token(1, token, [Range(0, 128)]).fault == (5, 0x23, 0x07)
    assert monitor.execute("query-odx-tokens") == []


def test_a_revoked_token_is_refused_in_its_own_words(monitor: Checked, guest: ScsiGuest) -> None:
    """23/06; who does not know it cannot revoke it."""
    token = guest.initiator.token(0, [Range(0, 8)])
    other = guest.initiator.token(0, [Range(0, 8)])
    first, second = monitor.execute("query-odx-tokens")
    monitor.execute("odx-token-revoke", {"token": first["token"]})
    assert monitor.wait_for("ODX_TOKEN_ENDED")["cause"] == "revoked"
    assert guest.initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 0x06)
    assert guest.initiator.write_token(1, other, [Range(0, 8)]).good
    for name, said in ((first["token"], f"there are {second['token']}"), ("xyz", "hexadecimal")):
        with pytest.raises(MonitorFailure, match=said):
            monitor.execute("odx-token-revoke", {"token": name})


def test_tokens_come_in_pages(monitor: Checked, guest: ScsiGuest) -> None:
    """In the order of their birth; the secret bytes are in none."""
    minted = [guest.initiator.token(at % 2, [Range(at, 1)]) for at in range(7)]
    first = monitor.execute("query-odx-tokens", {"limit": 3})
    rest = monitor.execute("query-odx-tokens", {"after": first[-1]["token"]})
    assert [row["extents"][0]["offset"] // 512 for row in first + rest] == list(range(7))
    assert [row["token"] for row in first + rest] == [data[8:16].hex() for data in minted]
    assert len(monitor.execute("query-odx-tokens", {"disk": "d1"})) == 3
    with pytest.raises(MonitorFailure, match="from 1 to 1000"):
        monitor.execute("query-odx-tokens", {"limit": 0})


def _name(born: dict[str, Any]) -> dict[str, Any]:
    return {key: born[key] for key in ("token", "disk")}


# -- copies ----------------------------------------------------------------------------------------


def test_a_copy_is_seen_and_aborted(monitor: Checked, guest: ScsiGuest) -> None:
    """Its progress counts up; what was written stays; the initiator is told that it was ended."""
    initiator = guest.initiator
    for at in range(0, 32, 4):
        assert initiator.write(1, at * 2048, 4 * 2048, os.urandom(4 * MIB)).good
    token = initiator.token(1, [Range(0, 32 * 2048)])
    met: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def aborted() -> bool:
        assert initiator.write_token(1, token, [Range(65536, 32 * 2048)], immediate=True, identifier=77).good
        rows = [row for row in monitor.execute("query-odx-copies") if row["command"] == "WRITE USING TOKEN"]
        met.extend((row, ended) for row in rows if (ended := _aborted(monitor, row["copy"])))
        _until_ended(guest, 77)
        return bool(met)

    eventually(aborted, "no copy was ever met")
    ((copy, ended),) = met
    assert (copy["mode"], copy["list-identifier"], copy["total"]) == ("background", 77, 32 * MIB)
    assert 0 <= copy["done"] <= copy["total"]
    assert ended["count"] * 512 < copy["total"]
    assert initiator.information(1, 77).data[5] == 0x60, "COPY OPERATION STATUS says terminated"


def _aborted(monitor: Checked, copy: int) -> dict[str, Any] | None:
    """Abort it; how it ended, or None if that came too late."""
    with contextlib.suppress(MonitorFailure):
        monitor.execute("odx-copy-abort", {"copy": copy})
    while (event := monitor.wait_for("ODX_COPY_ENDED"))["copy"] != copy:
        pass
    return event if event["status"] == "terminated" else None


def _until_ended(guest: ScsiGuest, identifier: int) -> None:
    while guest.initiator.information(1, identifier).data[5] in {0x11, 0x12}:
        time.sleep(0.005)


# -- disks and exports, while guests use others ----------------------------------------------------


@contextlib.contextmanager
def under_load(path: str) -> Iterator[Callable[[], int]]:
    """A virtio-blk guest that writes and reads without a pause, and insists; how often it did."""
    guest, stop, rounds, failed = Blk(path).go(), threading.Event(), [0], []

    def work() -> None:
        try:
            while not stop.is_set():
                data = os.urandom(4096)
                guest.write(8 * (rounds[0] % 512), data)
                assert guest.read(8 * (rounds[0] % 512), 4096) == data
                rounds[0] += 1
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: rounds[0]
    finally:
        stop.set()
        thread.join()
        guest.front.close()
    assert not failed, failed


def test_disks_and_exports_come_and_go_under_load(server: ServeProcess, monitor: Checked) -> None:
    """Fifty times, with guests of their own and tokens across; the other guest never notices; nothing leaks."""
    folder = server.cwd
    with under_load(str(folder / "b.sock")) as rounds:
        eventually(lambda: rounds() > 10, "the guest did not get going")
        for turn in range(50):
            _come_and_go(folder, monitor)
            if turn == 9:
                descriptors = server.descriptors()
        eventually(lambda: server.descriptors() <= descriptors, "descriptors leaked")
        before = rounds()
        eventually(lambda: rounds() > before + 10, "the guest stands still")
    assert monitor.execute("query-odx-tokens") == []
    assert [row["id"] for row in monitor.execute("query-odx-disks")] == ["d0", "d1"]
    assert "Traceback" not in server.errors()


def _come_and_go(folder: Path, monitor: Checked) -> None:
    disk = {"id": "x", "path": str(folder / "x.img"), "size": MIB}
    units = [{"lun": 0, "disk": "x"}, {"lun": 1, "disk": "d1"}]
    export = {"type": "vhost-user-scsi", "id": "e", "socket": str(folder / "x.sock"), "units": units}
    monitor.execute("odx-disk-add", disk)
    assert monitor.execute("odx-export-add", export)["units"] == units
    with ScsiGuest(folder / "x.sock") as guest:
        assert guest.initiator.write(0, 0, 1, b"new!" * 128).good
        token = guest.initiator.token(0, [Range(0, 1)])
        assert guest.initiator.write_token(1, token, [Range(16384, 1)]).good
        assert guest.initiator.read(1, 16384, 1).data == b"new!" * 128
        with pytest.raises(MonitorFailure, match="is shown by e: remove"):
            monitor.execute("odx-disk-remove", {"id": "x"})
        monitor.execute("odx-export-remove", {"id": "e"})
    monitor.execute("odx-disk-remove", {"id": "x"})
    assert not (folder / "x.sock").exists()
    assert (folder / "x.img").read_bytes()[:512] == b"new!" * 128
    (folder / "x.img").unlink()


def test_an_export_drains_before_it_goes(server: ServeProcess, monitor: Checked) -> None:
    """What was taken is completed before the command is answered."""
    guest = Blk(str(server.cwd / "b.sock")).go()
    with guest.front:
        data = os.urandom(8 * MIB)
        heads = [blk.HEADER.pack(blk.RequestType.OUT, 0, 2048 * at) for at in range(8)]
        writes = [guest.queue.submit(head + data[at * MIB :][:MIB], 1) for at, head in enumerate(heads)]
        guest.queue.wait()
        monitor.execute("odx-export-remove", {"id": "blk"})
        guest.queue.completions()
        finished = [at for at, write in enumerate(writes) if write.data_in == b"\0"]
        assert finished
    image = (server.cwd / "d1.img").read_bytes()
    assert all(image[at * MIB : (at + 1) * MIB] == data[at * MIB : (at + 1) * MIB] for at in finished)


def test_a_unit_comes_and_goes(monitor: Checked, guest: ScsiGuest) -> None:
    """An event tells a driver that takes them; others meet 3F/0E; what is gone answers 25/00 and its tokens 23/08."""
    events = guest.front.queues[scsi.EVENT_QUEUE]
    buffers = [events.submit(b"", scsi.EVENT_SIZE) for _ in range(2)]
    monitor.execute("odx-disk-add", {"id": "x", "path": "x.img", "size": MIB})
    monitor.execute("odx-unit-add", {"export": "scsi", "lun": 5, "disk": "x"})
    assert guest.initiator.command(0, "00").fault == (6, 0x3F, 0x0E)
    assert guest.luns() == [0, 1, 5]
    assert guest.initiator.command(5, "00").fault == (6, 0x29, 0x00)
    token = guest.initiator.token(5, [Range(0, 8)])
    assert guest.initiator.write_token(1, token, [Range(0, 8)]).fault == (6, 0x3F, 0x0E)
    assert guest.initiator.write_token(1, token, [Range(0, 8)]).good
    monitor.execute("odx-unit-remove", {"export": "scsi", "lun": 5})
    assert monitor.wait_for("ODX_TOKEN_ENDED")["cause"] == "cancelled"
    assert guest.initiator.command(5, "00").fault == (5, 0x25, 0x00)
    assert guest.initiator.command(1, "00").fault == (6, 0x3F, 0x0E)
    assert guest.initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 0x08)
    monitor.execute("odx-disk-remove", {"id": "x"})
    while len(events.completions()) < 2 and not all(item.data_in for item in buffers):
        events.wait()
    told = [scsi.EVENT.unpack(item.data_in) for item in buffers]
    assert [(kind, scsi.decode_lun(lun)[1], reason) for kind, lun, reason in told] == [
        (scsi.Event.TRANSPORT_RESET, 5, scsi.ResetReason.RESCAN),
        (scsi.Event.TRANSPORT_RESET, 5, scsi.ResetReason.REMOVED),
    ]


def test_a_disk_grows_and_shrinks(server: ServeProcess, monitor: Checked, guest: ScsiGuest) -> None:
    """Both kinds of guests are told; tokens of what is gone are cancelled, others go on."""
    other = Blk(str(server.cwd / "b.sock")).go()
    with other.front:
        low, high = (guest.initiator.token(1, [Range(at, 8)]) for at in (0, 100_000))
        assert monitor.execute("odx-disk-resize", {"id": "d1", "size": 32 * MIB})["size"] == 32 * MIB
        assert monitor.wait_for("ODX_DISK_RESIZED") == {"disk": "d1", "size": 32 * MIB}
        assert guest.initiator.command(1, "00").fault == (6, 0x2A, 0x09)
        assert guest.initiator.write_token(0, high, [Range(0, 8)]).fault == (5, 0x23, 0x08)
        assert guest.initiator.write_token(0, low, [Range(0, 8)]).good
        assert other.front.config_change_pending()
        assert 512 * int.from_bytes(other.front.get_config(0, 57)[:8], "little") == 32 * MIB
        monitor.execute("odx-disk-resize", {"id": "d1", "size": 48 * MIB})
        assert other.request(blk.RequestType.IN, 40 * 2048, room=512)[0] == blk.Status.OK
        os.truncate(server.cwd / "d1.img", 50 * MIB)
        assert monitor.execute("odx-disk-resize", {"id": "d1"})["size"] == 50 * MIB
        with pytest.raises(MonitorFailure, match="multiple of the block size"):
            monitor.execute("odx-disk-resize", {"id": "d1", "size": 1000})


def test_connections_are_told_by_name(server: ServeProcess, monitor: Checked) -> None:
    """Features, rings and what they carry; gone with the guest, and both are events."""
    assert "connection" not in by_id(monitor.execute("query-odx-exports"), "blk")
    guest = Blk(str(server.cwd / "b.sock")).go()
    with guest.front:
        assert monitor.wait_for("ODX_FRONT_END_CONNECTED") == {"export": "blk"}
        guest.write(0, bytes(512))
        export = by_id(monitor.execute("query-odx-exports"), "blk")
        connection = export["connection"]
        assert {"VERSION_1", "FLUSH"} <= set(connection["features"])
        assert {"MQ", "CONFIG"} <= set(connection["protocol-features"])
        queue = connection["queues"][0]
        assert (queue["index"], queue["state"], queue["enabled"], queue["in-flight"]) == (
            0,
            "running",
            True,
            0,
        )
        assert queue["taken"] == queue["completed"] == 1
    assert monitor.wait_for("ODX_FRONT_END_GONE") == {"export": "blk"}
    assert "connection" not in by_id(monitor.execute("query-odx-exports"), "blk")


@pytest.mark.parametrize(
    "case",
    [
        ("odx-disk-add", {"id": "d0", "path": "y.img"}, "GenericError", "choose another id"),
        ("odx-disk-add", {"id": "y", "path": "d0.img"}, "GenericError", "is disk d0 already"),
        ("odx-disk-add", {"id": "y", "path": "y.img"}, "GenericError", "size"),
        ("odx-disk-add", {"id": "y", "path": "y.img", "size": 1000}, "GenericError", "multiple"),
        ("odx-disk-add", {"id": "y z", "path": "y.img", "size": 512}, "GenericError", "letters, digits"),
        ("odx-disk-add", {"id": "y", "path": "no/y.img", "size": 512}, "GenericError", "make the folder"),
        ("odx-disk-remove", {"id": "d7"}, "DeviceNotFound", "there are d0, d1"),
        ("odx-disk-resize", {"id": "d7", "size": 512}, "DeviceNotFound", "there are d0, d1"),
        ("odx-export-remove", {"id": "e7"}, "DeviceNotFound", "there are scsi, blk"),
        (
            "odx-export-add",
            {"type": "vhost-user-blk", "socket": "y.sock", "disk": "d7"},
            "DeviceNotFound",
            "d0",
        ),
        (
            "odx-export-add",
            {"type": "vhost-user-blk", "socket": "b.sock", "disk": "d0"},
            "GenericError",
            "another program listens here",
        ),
        (
            "odx-export-add",
            {"type": "vhost-user-blk", "socket": "y.sock", "disk": "d0", "id": "blk"},
            "GenericError",
            "choose another id",
        ),
        (
            "odx-export-add",
            {"type": "vhost-user-scsi", "socket": "y.sock", "units": []},
            "GenericError",
            "lun0",
        ),
        ("odx-unit-add", {"export": "blk", "lun": 1, "disk": "d0"}, "GenericError", "no vhost-user-scsi"),
        ("odx-unit-add", {"export": "scsi", "lun": 1, "disk": "d0"}, "GenericError", "another number"),
        ("odx-unit-add", {"export": "scsi", "lun": 999, "disk": "d0"}, "GenericError", "from 0 to 255"),
        ("odx-unit-remove", {"export": "scsi", "lun": 9}, "DeviceNotFound", "there are 0, 1"),
        ("odx-copy-abort", {"copy": 4711}, "DeviceNotFound", "there is none"),
        ("odx-token-revoke", {"token": "00000000"}, "DeviceNotFound", "there is none"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    steady: tuple[ServeProcess, Checked], case: tuple[str, dict[str, Any], str, str]
) -> None:
    """With the cure; no file, no socket, no name is left behind."""
    server, monitor = steady
    command, arguments, error_class, said = case
    before = sorted(path.name for path in server.cwd.iterdir()), server.descriptors()
    with pytest.raises(MonitorFailure, match=said) as refused:
        monitor.execute(command, arguments)
    assert refused.value.error_class == error_class
    assert [row["id"] for row in monitor.execute("query-odx-disks")] == ["d0", "d1"]
    assert [row["id"] for row in monitor.execute("query-odx-exports")] == ["scsi", "blk"]
    eventually(  # whether somebody listens is found out by connecting, which may be to itself
        lambda: (sorted(path.name for path in server.cwd.iterdir()), server.descriptors()) == before,
        "something is left",
    )
    assert "Traceback" not in server.errors()


def test_what_was_added_is_drained_at_the_end_too(server: ServeProcess, monitor: Checked) -> None:
    """Disks and exports that came later are closed as the first ones."""
    monitor.execute("odx-disk-add", {"id": "x", "path": "x.img", "size": MIB})
    monitor.execute("odx-export-add", {"type": "vhost-user-blk", "socket": "x.sock", "disk": "x"})
    guest = Blk(str(server.cwd / "x.sock")).go()
    with guest.front:
        guest.write(0, b"kept" * 128)
        assert server.terminate() == 0
    assert (server.cwd / "x.img").read_bytes()[:4] == b"kept"
    assert not list(server.cwd.glob("*.sock"))


# -- statistics ------------------------------------------------------------------------------------


def test_requests_are_counted_and_timed(server: ServeProcess, monitor: Checked) -> None:
    """By queue always; by operation while that is asked for; what happened before it is not."""
    guest = Blk(str(server.cwd / "b.sock")).go()
    with guest.front:
        for _ in range(5):
            guest.write(0, bytes(512))
        monitor.execute("odx-statistics-start")
        for _ in range(3):
            guest.write(0, bytes(4096))
        guest.request(blk.RequestType.IN, 1 << 40, room=512)
        monitor.execute("odx-statistics-stop")
        guest.read(0, 512)
        told = monitor.execute("query-odx-statistics", {"export": "blk"})
        assert told["by-operation"] is False
        (numbers,) = told["exports"]
        (queue,) = numbers["queues"]
        assert queue["batched"]["count"] + queue["alone"]["count"] == 10
        found = {row["operation"]: row for row in numbers["operations"]}
        assert (found["OUT"]["served"]["count"], found["OUT"]["errors"]) == (3, 0)
        assert (found["IN"]["served"]["count"], found["IN"]["errors"]) == (1, 1)
        assert found["OUT"]["bytes"] >= 3 * 4096
        assert sum(bucket["count"] for bucket in found["OUT"]["served"]["buckets"]) == 3
        monitor.execute("odx-statistics-reset")
        (numbers,) = monitor.execute("query-odx-statistics", {"export": "blk"})["exports"]
        assert numbers["operations"] == []


def test_a_delay_is_time_queued(server: ServeProcess, monitor: Checked) -> None:
    """By a fault, on the clock that stands still: exactly as long as it was told to."""
    guest = Blk(str(server.cwd / "b.sock")).go()
    with guest.front:
        monitor.execute("odx-statistics-start")
        monitor.execute("odx-fault-arm", {"rule": "op=FLUSH,action=delay,seconds=2"})
        request = guest.queue.submit(blk.HEADER.pack(blk.RequestType.FLUSH, 0, 0), 1)
        eventually(
            lambda: monitor.execute("query-odx-faults")[0]["fired"] == 1, "the fault never met the request"
        )
        monitor.execute("odx-clock-advance", {"seconds": 2})
        eventually(lambda: request in guest.queue.completions(), "it never ended")
        (numbers,) = monitor.execute("query-odx-statistics", {"export": "blk"})["exports"]
        (flush,) = (row for row in numbers["operations"] if row["operation"] == "FLUSH")
        assert flush["queued"] == {
            "count": 1,
            "microseconds": 2_000_000,
            "buckets": [{"below": 1 << 21, "count": 1}],
        }
        assert flush["served"]["microseconds"] == 0


# -- at bad moments --------------------------------------------------------------------------------


def test_who_reads_no_events_is_dropped(server: ServeProcess, monitor: Checked, guest: ScsiGuest) -> None:
    """The server keeps no more than some thousands for it; the others hear all."""
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(server.cwd / "m.sock"))
        deaf.sendall(b'{"execute": "qmp_capabilities"}')
        memory = server.own_memory()
        for at in range(4000):
            guest.initiator.token(0, [Range(at % 64, 1)])
            if at % 500 == 0:
                monitor.execute("query-odx-clock")  # who reads is not dropped
            if "dropped a client" in server.errors():
                break
        assert "the monitor dropped a client that left 4096 events unread" in server.errors()
        assert server.own_memory() < memory + (32 << 20)
    assert monitor.execute("query-odx-clock")["clock"] == "virtual"


def test_a_unit_is_removed_in_the_middle_of_its_copies(monitor: Checked, guest: ScsiGuest) -> None:
    """They end, the command is answered after that, and the disk can be closed at once."""
    initiator = guest.initiator
    for turn in range(5):
        monitor.execute("odx-disk-add", {"id": "x", "path": "x.img", "size": 16 * MIB})
        monitor.execute("odx-unit-add", {"export": "scsi", "lun": 9, "disk": "x"})
        for lun in (0, 1, 9):
            while initiator.command(lun, "00").fault is not None:
                pass
        assert initiator.write(9, 0, 2048, os.urandom(MIB)).good
        token = initiator.token(9, [Range(0, 16 * 2048)])
        assert initiator.write_token(1, token, [Range(0, 16 * 2048)], immediate=True, identifier=turn).good
        monitor.execute("odx-unit-remove", {"export": "scsi", "lun": 9})
        assert monitor.execute("query-odx-copies") == []
        assert monitor.execute("query-odx-tokens") == []
        monitor.execute("odx-disk-remove", {"id": "x"})
        while (fault := initiator.write_token(1, token, [Range(0, 8)]).fault) == (6, 0x3F, 0x0E):
            pass
        assert fault == (5, 0x23, 0x08)
