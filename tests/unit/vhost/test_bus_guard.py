"""SIGBUS in memory of a front end is survived; anywhere else it ends the process as ever.

Each test runs in a process of its own: the handler is one for the whole process, and some must die.
"""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from qemu_odx.vhost.bus_guard import LISTING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the handler is x86-64 machine code")

PREPARE = """
import mmap, os, select, threading
from qemu_odx.vhost.bus_guard import bus_guard

guard = bus_guard()
lost = []

def guarded(pages, size=4096, name="x"):
    fd = os.memfd_create("ram", os.MFD_HUGETLB if size > 4096 else 0)
    os.ftruncate(fd, pages * size)
    shared = mmap.mmap(fd, pages * size)
    guard.protect(shared, size, lambda: lost.append(name))
    return fd, shared

def readable():
    return bool(select.select([guard], [], [], 0)[0])
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run it after PREPARE."""
    return subprocess.run(
        [sys.executable, "-c", PREPARE + script], capture_output=True, text=True, timeout=60, check=False
    )


def survives(script: str) -> None:
    """It ends well."""
    ended = run(script)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_loads_and_stores_beyond_a_shrunk_file() -> None:
    """Zeros are read, stores go nowhere, what is left of the file stays as it was; told once."""
    survives("""
fd, shared = guarded(64)
shared[:] = b"x" * len(shared)
os.ftruncate(fd, 3 * 4096)
assert not readable()
assert shared[3 * 4096] == 0 and shared[5 * 4096 :] == bytes(59 * 4096)
shared[9000:70000] = b"y" * 61000
assert shared[60000] == ord("y")
assert os.pread(fd, 1 << 20, 0) == b"x" * 9000 + b"y" * (3 * 4096 - 9000)
assert readable()
guard.report()
guard.report()
assert lost == ["x"] and not readable()
""")


def test_only_the_mapping_that_lost_pages_is_told() -> None:
    """Others live on, also when slots are used again."""
    survives("""
(a, first), (b, second), (c, third) = (guarded(4, name=name) for name in "abc")
del second
d, fourth = guarded(4, name="d")
os.ftruncate(d, 0)
assert fourth[0] == 0 and third[0] == 0
guard.report()
assert lost == ["d"], lost
os.ftruncate(c, 0)
assert third[0] == 0
guard.report()
assert lost == ["d", "c"], lost
""")


def test_system_calls_fail_by_themselves() -> None:
    """EFAULT: nothing to survive there."""
    survives("""
fd, shared = guarded(4)
os.ftruncate(fd, 4096)
zero = os.open("/dev/zero", os.O_RDONLY)
try:
    os.readv(zero, [memoryview(shared)[8192:]])
except OSError as error:
    assert error.strerror == "Bad address"
else:
    raise AssertionError
assert not readable()
""")


def test_many_threads_at_once() -> None:
    """Workers copy out of guest memory too."""
    survives("""
fd, shared = guarded(4096)
shared[:] = b"x" * len(shared)
def touch(start):
    for page in range(start, 4096, 4):
        assert shared[page * 4096] in (0, ord("x"))
threads = [threading.Thread(target=touch, args=(start,)) for start in range(4)]
for thread in threads:
    thread.start()
os.ftruncate(fd, 0)
for thread in threads:
    thread.join()
touch(0)
guard.report()
assert lost == ["x"]
""")


def test_huge_pages(huge_pages: None) -> None:
    """A whole one is replaced."""
    survives("""
fd, shared = guarded(2, size=2 << 20)
os.ftruncate(fd, 2 << 20)
shared[(4 << 20) - 1] = 7
assert shared[2 << 20] == 0 and shared[(4 << 20) - 1] == 7
guard.report()
assert lost == ["x"]
""")


@pytest.mark.parametrize(
    "unguarded",
    [
        "shared = mmap.mmap(fd, 4096)",
        "fd, shared = guarded(1); shared = mmap.mmap(fd, 4096)",
        "guard.protect(shared, 4096, print); old, shared = shared, mmap.mmap(fd, 4096); del old",
    ],
    ids=["never", "another", "no longer"],
)
def test_any_other_sigbus_ends_the_process(unguarded: str) -> None:
    """Zeros in place of our own data would be a lie."""
    ended = run(f"""
fd = os.memfd_create("own")
os.ftruncate(fd, 4096)
shared = mmap.mmap(fd, 4096)
{unguarded}
os.ftruncate(fd, 0)
shared[0]
""")
    assert ended.returncode == -signal.SIGBUS


def test_the_listing_says_what_the_bytes_are(tmp_path: Path) -> None:
    """The assembler has the last word."""
    if not (shutil.which("as") and shutil.which("objcopy")):
        pytest.skip("no assembler is installed (package binutils)")
    source, made, code = (tmp_path / name for name in ("handler.s", "handler.o", "handler.bin"))
    text = "\n".join(line[16:] for line in LISTING.splitlines())
    source.write_text(f".intel_syntax noprefix\n{text}\n.org 4096\ndata:\n")
    subprocess.run(["as", source, "-o", made], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, code], check=True)
    assert code.read_bytes().rstrip(b"\0").hex() == "".join(
        line[:16].strip() for line in LISTING.splitlines()
    )
