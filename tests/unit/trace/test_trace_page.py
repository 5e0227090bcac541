"""`docs/trace.md`: its examples are what the program makes, and its tables name every event and member there is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from test_recorder import record
from trace_bench import requests

from qemu_odx.trace import text
from qemu_odx.trace.schema import EVENTS, is_error

if TYPE_CHECKING:
    from qemu_odx.testing.tap_bench import TapBench

PAGE = (Path(__file__).parents[3] / "docs" / "trace.md").read_text()


def example(mark: str) -> str:
    """The code block behind a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\w*\n(.*?)\n```", PAGE, re.DOTALL)
    assert found
    return found[1]


def test_the_example_of_a_record(bench: TapBench, tmp_path: Path) -> None:
    """The same command recorded here has the same members in the same order, and says the same."""
    shown = json.loads(example("record"))
    mine = next(item for item in requests(record(bench, tmp_path / "t")) if item.get("sense"))
    assert list(mine) == list(shown)
    for name in ("kind", "name", "cdb", "fields", "spans", "status", "sense", "queue", "disk", "bytes_in"):
        assert mine[name] == shown[name], name
    assert is_error(shown)
    assert "ILLEGAL REQUEST 21/00 LOGICAL BLOCK ADDRESS OUT OF RANGE, CDB byte 2" in text.line(shown)


def test_the_example_of_a_line(bench: TapBench, tmp_path: Path) -> None:
    """A WRITE USING TOKEN in words has these words in this order."""
    words = re.compile(r"[a-z_]+(?==)|[A-Z]{3,}|->|queued|served")
    mine = next(
        item for item in requests(record(bench, tmp_path / "t")) if item["name"] == "WRITE USING TOKEN"
    )
    assert words.findall(text.line(mine)) == words.findall(example("text"))


def test_every_event_and_member_is_told(bench: TapBench, tmp_path: Path) -> None:
    """Nothing is written that the page does not name."""
    for event in EVENTS:
        assert f"| `{event}` |" in PAGE
    members = {name for item in requests(record(bench, tmp_path / "t", data=True)) for name in item}
    assert [name for name in sorted(members) if f"`{name}`" not in PAGE] == []
