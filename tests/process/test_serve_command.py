"""`qemu-odx serve` as a program: its ready line, its end, and every bad input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guests import MIB, Blk

import qemu_odx
from qemu_odx.testing.serve import ServeProcess, run_serve
from qemu_odx.wire.virtio import blk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DISK = ("--disk", "id=d0,path=a.img,size=16M")
EXPORT = ("--export", "type=vhost-user-blk,socket=s.sock,disk=d0")
ROOT = Path(qemu_odx.__file__).parents[1]


def left_in(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


# -- life ------------------------------------------------------------------------------------------


def test_the_ready_line_for_people(tmp_path: Path) -> None:
    """One line, once the socket listens."""
    command = [sys.executable, "-m", "qemu_odx", "serve", *DISK, *EXPORT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready: QEMU may connect to s.sock\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s.sock"))
        process.terminate()
        assert process.stdout.read() == ""
        assert process.wait(60) == 0


def test_the_ready_line_for_programs(tmp_path: Path) -> None:
    """One JSON object with the sockets in the order of the exports, and the process id (checked inside)."""
    second = ("--export", "type=vhost-user-scsi,socket=t.sock,lun0=d0")
    with ServeProcess([*DISK, *EXPORT, *second], cwd=tmp_path) as server:
        assert server.sockets == ["s.sock", "t.sock"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_well(tmp_path: Path, number: int) -> None:
    """Exit code 0, no socket left, the image kept, not a word on stderr."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        assert server.terminate(number) == 0
        assert server.errors() == ""
    assert left_in(tmp_path) == ["a.img"]
    assert (tmp_path / "a.img").stat().st_size == 16 * MIB


def test_under_nohup_the_end_of_the_terminal_is_not_its_end(
    tmp_path: Path, guests: Callable[..., Blk]
) -> None:
    """A signal that was ignored at the start stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
            os.kill(server.pid, signal.SIGHUP)
            assert guests(str(tmp_path / "s.sock")).go().read(0, 512) == bytes(512)
            assert server.alive
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_drains_what_is_in_flight(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """Every write that was taken is completed, well, and in the image."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        guest = guests(str(tmp_path / "s.sock")).go()
        data = os.urandom(8 * MIB)
        headers = [blk.HEADER.pack(blk.RequestType.OUT, 0, 2048 * n) for n in range(8)]
        writes = [guest.queue.submit(head + data[n * MIB :][:MIB], 1) for n, head in enumerate(headers)]
        guest.queue.wait()
        assert server.terminate() == 0
    guest.queue.completions()
    done = [
        write for write in writes if write.written is not None
    ]  # a busy queue yields, and the signal may come in between
    assert done == writes[: len(done)] != []
    assert [write.data_in for write in done] == [b"\0"] * len(done)
    written = len(done) * MIB
    image = (tmp_path / "a.img").read_bytes()
    assert image[:written] == data[:written]
    assert not any(image[written:]), "a write reached the image and was not completed"


def test_a_connected_front_end_does_not_delay_the_end(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """QEMU stays; the server need not."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        guest = guests(str(tmp_path / "s.sock")).go()
        guest.write(0, b"last" * 128)
        assert server.terminate() == 0
        assert guest.front.closed_by_back_end()
    assert (tmp_path / "a.img").read_bytes()[:512] == b"last" * 128


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """A killed server's."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        server.kill()
    assert (tmp_path / "s.sock").is_socket()
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        assert server.terminate() == 0


def test_somebody_elses_socket_at_our_path_survives_our_end(tmp_path: Path) -> None:
    """Only our own file is removed."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        (tmp_path / "s.sock").unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "s.sock"))
            assert server.terminate() == 0
    assert (tmp_path / "s.sock").is_socket()


def test_nobody_hears_that_it_is_ready(tmp_path: Path) -> None:
    """Its stdout is closed already: it ends, and leaves no socket."""
    command = [sys.executable, "-m", "qemu_odx", "serve", *DISK, *EXPORT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(command, stdout=write, cwd=tmp_path, env=environment, timeout=60, check=False)
    os.close(write)
    assert result.returncode == 1
    assert left_in(tmp_path) == ["a.img"]


def test_the_server_carries_no_foreign_load(tmp_path: Path) -> None:
    """No library of the lab is imported in it, and no drawing of tables."""
    code = (
        "import sys; import qemu_odx.cli.serve; "
        "print([n for n in ('paramiko', 'qemu.qmp', 'asyncio', 'rich.console', 'qemu_odx.lab') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert result.stdout.strip() == "[]"


# -- bad input -------------------------------------------------------------------------------------

BAD: dict[str, tuple[list[str], int, str]] = {
    "no disk": ([*EXPORT], 2, "nothing to serve"),
    "no export": ([*DISK], 2, "nothing to serve"),
    "unknown option": ([*DISK, *EXPORT, "--fast"], 2, "No such option"),
    "unknown key": (["--disk", "id=d0,path=a,colour=red", *EXPORT], 2, "unknown key 'colour'"),
    "unknown type": ([*DISK, "--export", "type=nbd,socket=s"], 2, "type: 'nbd' is not one of"),
    "unknown disk": ([*DISK, "--export", "type=vhost-user-blk,socket=s,disk=d7"], 2, "there is no disk 'd7'"),
    "missing image": (["--disk", "id=d0,path=none.img", *EXPORT], 1, "none.img"),
    "missing folder of the image": (["--disk", "id=d0,path=no/a.img,size=1M", *EXPORT], 1, "no/a.img"),
    "image is a folder": (["--disk", "id=d0,path=.", *EXPORT], 1, "qemu-odx serve: "),
    "size no multiple of the block": (
        ["--disk", "id=d0,path=a.img,size=1000", *EXPORT],
        1,
        "qemu-odx serve: ",
    ),
    "socket in a missing folder": (
        [*DISK, "--export", "type=vhost-user-blk,socket=no/s,disk=d0"],
        1,
        "socket no/s: there is no folder no; make it first",
    ),
    "socket path too long": (
        [*DISK, "--export", f"type=vhost-user-blk,socket={'s' * 108},disk=d0"],
        1,
        "the path has 108 bytes, a socket's may have 107",
    ),
    "second socket impossible": (
        [*DISK, *EXPORT, "--export", "type=vhost-user-blk,socket=no/s,disk=d0"],
        1,
        "there is no folder no",
    ),
}


@pytest.mark.parametrize(("arguments", "code", "text"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, text: str
) -> None:
    """On stderr, with an exit code; no image, no socket, nothing on stdout."""
    result = run_serve(arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, "")
    assert text in result.stderr
    assert "Traceback" not in result.stderr
    if code == 1:
        assert result.stderr.count("\n") == 1
    assert left_in(tmp_path) == []


def test_an_existing_image_of_another_size_is_refused_and_untouched(tmp_path: Path) -> None:
    """`size=` never changes an image."""
    (tmp_path / "a.img").write_bytes(b"x" * MIB)
    result = run_serve([*DISK, *EXPORT], cwd=tmp_path)
    assert result.returncode == 1
    assert "a.img" in result.stderr
    assert (tmp_path / "a.img").read_bytes() == b"x" * MIB


def test_an_image_that_was_there_survives_a_failed_start(tmp_path: Path) -> None:
    """Only what this start made is removed."""
    (tmp_path / "a.img").write_bytes(bytes(16 * MIB))
    bad = ("--export", "type=vhost-user-blk,socket=no/s,disk=d0")
    assert run_serve([*DISK, *bad], cwd=tmp_path).returncode == 1
    assert (tmp_path / "a.img").stat().st_size == 16 * MIB


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with an image that nobody, root included, may write."""
    folder = tmp_path / "ro"
    folder.mkdir()
    root = os.geteuid() == 0
    if root and subprocess.run(["mount", "-t", "tmpfs", "odx", folder], check=False).returncode != 0:
        pytest.skip("root may write anything here, and cannot mount a read-only file system")
    (folder / "a.img").write_bytes(bytes(MIB))
    (folder / "a.img").chmod(0o400)
    if root:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    yield folder
    if root:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_image_needs_readonly(tmp_path: Path, read_only: Path) -> None:
    """The cure is in the sentence, and it works."""
    result = run_serve(["--disk", "id=d0,path=ro/a.img", *EXPORT], cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "readonly=on" in result.stderr
    with ServeProcess(["--disk", "id=d0,path=ro/a.img,readonly=on", *EXPORT], cwd=tmp_path) as server:
        assert server.terminate() == 0


def test_two_servers_on_one_image_are_refused(tmp_path: Path) -> None:
    """By a lock; the first one goes on."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path) as server:
        other = ("--export", "type=vhost-user-blk,socket=t.sock,disk=d0")
        result = run_serve([*DISK, *other], cwd=tmp_path)
        assert result.returncode == 1
        assert "a.img" in result.stderr
        assert result.stderr.count("\n") == 1
        assert server.alive
        assert left_in(tmp_path) == ["a.img", "s.sock"]


def test_a_live_socket_is_refused(tmp_path: Path) -> None:
    """And stays with its owner."""
    with ServeProcess([*DISK, *EXPORT], cwd=tmp_path):
        result = run_serve(["--disk", "id=d0,path=b.img,size=1M", *EXPORT], cwd=tmp_path)
        assert result.returncode == 1
        assert "another program listens here" in result.stderr
        assert left_in(tmp_path) == ["a.img", "s.sock"]


def test_a_file_in_the_sockets_place_is_refused(tmp_path: Path) -> None:
    """It may be precious."""
    (tmp_path / "s.sock").write_text("precious")
    result = run_serve([*DISK, *EXPORT], cwd=tmp_path)
    assert result.returncode == 1
    assert "no socket is in the way" in result.stderr
    assert left_in(tmp_path) == ["s.sock"]


def test_a_read_only_disk_refuses_writes(tmp_path: Path, guests: Callable[..., Blk]) -> None:
    """The guest sees the feature, and an error if it tries."""
    (tmp_path / "a.img").write_bytes(b"r" * MIB)
    with ServeProcess(["--disk", "id=d0,path=a.img,readonly=on", *EXPORT], cwd=tmp_path):
        guest = guests(str(tmp_path / "s.sock")).go()
        assert guest.front.features & blk.F_RO
        assert guest.request(blk.RequestType.OUT, 0, bytes(512))[0] == blk.Status.IOERR
        assert guest.read(0, 512) == b"r" * 512


# -- the command line itself -----------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `qemu-odx`."""
    return subprocess.run(
        [sys.executable, "-m", "qemu_odx", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def test_version() -> None:
    """Name and number."""
    result = run("--version")
    assert (result.returncode, result.stdout.strip()) == (0, f"qemu-odx, version {qemu_odx.__version__}")


def test_help_of_all_and_of_serve() -> None:
    """The overview names every subcommand; serve's help has an example that can be copied."""
    overview, serve = run("--help"), run("serve", "--help")
    assert "serve" in overview.stdout
    assert "demo" in overview.stdout
    assert "--export type=vhost-user-blk,socket=b.sock,disk=d1" in serve.stdout


def test_an_unknown_subcommand() -> None:
    """Usage error."""
    result = run("sevre")
    assert result.returncode == 2
    assert "sevre" in result.stderr


def test_the_ready_object_is_one_line(tmp_path: Path) -> None:
    """So that a program can read a line and parse it."""
    command = [sys.executable, "-m", "qemu_odx", "serve", "--json", *DISK, *EXPORT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.terminate()
        process.wait(60)
        assert ready == {"ready": True, "sockets": ["s.sock"], "pid": process.pid}
        assert process.stdout.read() == ""
