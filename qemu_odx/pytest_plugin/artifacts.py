"""What is kept of a test: logs of its server and guest, by the user's policy.

Imports options only. Used by `server.py` and `guests.py` when a test is over.
"""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from qemu_odx.pytest_plugin.plugin import REPORTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.pytest_plugin.options import OdxOptions

KEPT_KINDS = frozenset({".log", ".txt", ".json", ".jsonl", ".xml", ".png"})
LONGEST_NAME = 120


class Artifacts:
    """The folder of one test; it exists once something has been put there."""

    def __init__(self, item: pytest.Item, options: OdxOptions, factory: pytest.TempPathFactory) -> None:
        self._item = item
        self._policy = options.keep
        self._broken = self._said = False
        base = options.artifacts or factory.getbasetemp() / "odx-artifacts"
        self.folder = base / re.sub(r"[^A-Za-z0-9_.=-]+", "_", item.nodeid)[-LONGEST_NAME:].strip("_")

    @property
    def wanted(self) -> bool:
        """Whether the policy wants those of this test."""
        if self._policy == "failed":
            reports = self._item.stash.get(REPORTS, {}).values()
            return self._broken or any(report.failed for report in reports)
        return self._policy == "all"

    @contextmanager
    def kept(self, folder: Path) -> Iterator[None]:
        """Keep a folder's logs at the end. What raises in here, a fixture, has failed without a report so far."""
        try:
            yield
        except pytest.skip.Exception:
            raise
        except BaseException:
            self._broken = True
            raise
        finally:
            self.keep(folder)

    def keep(self, folder: Path) -> None:
        """Copy the logs of a run folder, if they are wanted, and let the test's report say where they are."""
        if not self.wanted:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path.suffix in KEPT_KINDS and path.is_file():
                shutil.copy(path, self.folder)
        self._say(f"artefacts: {self.folder}")

    def _say(self, words: str) -> None:
        if not self._said:
            when = "teardown" if "call" in self._item.stash.get(REPORTS, {}) else "setup"
            self._item.add_report_section(when, "qemu-odx", words)
        self._said = True
