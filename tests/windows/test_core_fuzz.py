"""The driver's core under random requests and random answers: no byte outside its buffers, no block off the disk."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from core import DRIVER, HERE, SANITIZERS, compiled

if TYPE_CHECKING:
    from pathlib import Path

INPUTS = 60_000


@pytest.mark.parametrize("seed", [1, 2])
def test_random_input_under_sanitizers(tmp_path: Path, seed: int) -> None:
    """core_fuzz.c, with inputs of its own making; the same ones each time."""
    program = compiled(tmp_path, "core_fuzz.c", "-DSTANDALONE")
    done = subprocess.run([program, str(seed), str(INPUTS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{INPUTS} inputs\n"


@pytest.mark.skipif(not shutil.which("clang"), reason="clang is not installed")
def test_guided_input_by_libfuzzer(tmp_path: Path) -> None:
    """The same function, its inputs guided by coverage."""
    program = tmp_path / "guided"
    core = sorted(str(path) for path in DRIVER.glob("odx_*.c"))
    flags = ["-std=gnu11", "-g", "-O1", *SANITIZERS, "-fsanitize=fuzzer", f"-I{DRIVER}"]
    subprocess.run(["clang", *flags, *core, HERE / "core_fuzz.c", "-o", program], check=True)
    options = ["-seed=1", "-runs=100000", "-max_len=4096", "-len_control=0"]
    done = subprocess.run([program, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
