"""fio in the guest finds every byte as it wrote it: random mixes on blk and scsi, four jobs at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "guest_fio.py"


def test_a_verified_mix(tmp_path: Path) -> None:
    """A little of what the benchmark does for a minute; its exit status is fio's judgement."""
    command = [sys.executable, PROGRAM, "--mebibytes", "4", "--ours", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows) == {"blk", "scsi"}
    assert all(row["ours"] > 0 for row in rows.values())
