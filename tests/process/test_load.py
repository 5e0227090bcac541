"""The native load generator: it checks what it reads, and the benchmark runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qemu_odx.testing.serve import ServeProcess

BENCH = Path(__file__).resolve().parents[2] / "bench"
SPAN = 4 << 20

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load generator, with the compiler's own checks of memory and arithmetic."""
    program = tmp_path_factory.mktemp("load") / "load"
    sources = sorted((BENCH / "load").glob("*.c"))
    flags = [
        "-O1",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsanitize=undefined",
        "-fno-sanitize-recover",
    ]
    subprocess.run(["cc", *flags, "-o", program, *sources], check=True)
    return program


def load(program: Path, socket: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    command = [program, "--socket", socket, "--span", str(SPAN), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--depth", "32", "--block", "4096"],
        ["--depth", "16", "--block", "512", "--queue-size", "64", "--direct-layout"],
        ["--depth", "8", "--block", "65536", "--segment", "4096"],
        ["--depth", "4", "--block", "1048576"],
    ],
    ids=["small", "in the ring", "in pieces", "long"],
)
def test_verified_traffic(server: ServeProcess, program: Path, arguments: list[str]) -> None:
    """Reads and writes mixed, every byte compared, by every way through the server."""
    done = load(
        program, server.sockets[0], "--verify", "--write-percent", "50", "--count", "3000", *arguments
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["requests"], result["wrong"]) == (3000, 0)


def test_verified_traffic_on_many_queues(server: ServeProcess, program: Path) -> None:
    """All queues of one device in use."""
    more = ("--verify", "--write-percent", "50", "--count", "5000", "--depth", "64", "--queues", "8")
    done = load(program, server.sockets[0], *more)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", ["4096", "1048576"])
def test_verified_traffic_over_scsi(tmp_path: Path, program: Path, block: str) -> None:
    """READ(10) and WRITE(10) on two queues."""
    export = "type=vhost-user-scsi,socket=s.sock,lun0=d0,num-queues=2"
    with ServeProcess(
        ["--disk", f"id=d0,path=d.img,size={2 * SPAN}", "--export", export], cwd=tmp_path
    ) as server:
        more = ("--device", "scsi", "--verify", "--write-percent", "50", "--count", "3000", "--queues", "2")
        done = load(program, str(tmp_path / server.sockets[0]), *more, "--depth", "4", "--block", block)
    assert done.returncode == 0, done.stderr


def test_wrong_data_are_found(tmp_path: Path, program: Path) -> None:
    """One bit of one block turned over on its way to the guest."""
    arguments = [
        *("--disk", f"id=d0,path=d.img,size={SPAN}", "--export", "type=vhost-user-blk,socket=b.sock,disk=d0"),
        *("--fault", f"op=IN,lba={SPAN // 2 // 512},action=bit-flip,byte=100,bit=0"),
    ]
    with ServeProcess(arguments, cwd=tmp_path) as server:
        more = ("--verify", "--count", "100", "--depth", "4")
        found = load(program, str(tmp_path / server.sockets[0]), *more)
    assert found.returncode == 2
    assert f"wrong data at byte {SPAN // 2}" in found.stderr
    assert json.loads(found.stdout)["wrong"] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--depth", "0"],
        ["--depth", "x"],
        ["--block", "1000"],
        ["--queue-size", "100"],
        ["--device", "net"],
        ["more"],
    ],
)
def test_bad_arguments_are_refused(program: Path, arguments: list[str]) -> None:
    """With a sentence, before anything is connected to."""
    done = load(program, "/nowhere", "--count", "1", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("load: --") or "must be" in done.stderr


@pytest.mark.skipif(shutil.which("qemu-storage-daemon") is None, reason="needs qemu-storage-daemon")
def test_the_benchmark_runs(tmp_path: Path) -> None:
    """One short round of two rows; the figures are nobody's business here."""
    command = [
        sys.executable,
        BENCH / "blk.py",
        "--rounds",
        "1",
        "--seconds",
        "0.1",
        "--mebibytes",
        "16",
        "--folder",
        tmp_path,
        "--json",
    ]
    done = subprocess.run(
        [*command, "--rows", "random read, depth 1$"],
        env={**os.environ, "PYTHONPATH": str(BENCH.parent)},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    )
    names = [row["name"] for row in json.loads(done.stdout)["rows"]]
    assert names == ["4 KiB random read, depth 1", "scsi: 4 KiB random read, depth 1"]
