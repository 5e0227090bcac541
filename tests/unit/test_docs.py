"""The generated pages are those of the code as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_command_pages_are_up_to_date() -> None:
    """`docs/generate.py` would write nothing new."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "generate.py", "--check"], check=False)
    assert done.returncode == 0, "run .venv/bin/python docs/generate.py"
