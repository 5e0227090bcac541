"""The Wine demonstration's own judgement, and its programs: what must fail does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from qemu_odx.lab import windows_programs, wine_cases
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.wine import Outcome, WineResult, _image_failure
from qemu_odx.lab.wine_cases import Case, Piece

if TYPE_CHECKING:
    from pathlib import Path

CALL = {"action": "OffloadRead", "in_hex": "00", "out_hex": "", "win32": 87, "ntstatus": "0xC000000D"}


def outcome(case: Case, **printed: Any) -> Outcome:
    """What odx.exe printed for a case."""
    return Outcome(case, {"ok": True, **printed})


@pytest.mark.parametrize(
    ("case", "printed", "failure"),
    [
        (Case("a", "", 0xC000000D), {"calls": [CALL], "ok": False}, ""),
        (Case("a", ""), {"calls": [CALL]}, "a: status 0xc000000d instead of 0x00000000"),
        (Case("a", "", results={"flags": 1}), {"flags": 0}, "a: {'flags': 0} instead of {'flags': 1}"),
        (
            Case("a", "", results={"sha256": "x"}),
            {"sha256": "y"},
            "a: {'sha256': 'y'} instead of {'sha256': 'x'}",
        ),
        (Case("a", ""), {"ok": False, "error": "no disk"}, "a: no disk"),
        (Case("a", "", results={"flags": 0}), {"flags": 0}, ""),
    ],
)
def test_an_outcome_is_judged(case: Case, printed: dict[str, Any], failure: str) -> None:
    """Status, then whether it ran, then what it found."""
    assert outcome(case, **printed).failure == failure


def test_the_image_is_compared_to_the_byte(tmp_path: Path) -> None:
    """One byte too many, anywhere, is told."""
    image = tmp_path / "image"
    case = Case("a", "", pieces=(Piece(4096, b"data"),))
    expected = bytearray(wine_cases.DISK_BYTES)
    expected[4096:4100] = b"data"
    image.write_bytes(expected)
    assert _image_failure(image, [case]) == ""
    expected[77] = 1
    image.write_bytes(expected)
    assert _image_failure(image, [case]) == "on the host, the image differs from byte 77 on"


def test_a_source_that_was_not_overwritten_proves_nothing() -> None:
    """Equal hashes before and after are no point in time."""
    names = ("source_before", "source_after", "destination", "destination_on_host")
    result = WineResult([], dict.fromkeys(names, "x"), "", {}, "")
    assert not result.point_in_time
    assert not result.ok
    assert result.as_json()["verified_bytes"] == 0


def test_every_row_a_program_can_reach_is_tried() -> None:
    """Rows 4, 7 and 13 of the class driver's checks need kernel mode, a disk without geometry, no memory."""
    titles = [case.title for case in wine_cases.refused_by_policy() + wine_cases.rejected()]
    tried = {int(row) for title in titles for row in re.findall(r"^row (\d+):", title)}
    assert tried == {1, 2, 3, 5, 6, 8, 9, 10, 11, 12}


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that brings it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="gcc-mingw-w64-x86-64-win32"):
        windows_programs.ensure_programs()


def test_a_source_that_does_not_compile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing behind in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(windows_programs, "PARTS", ("no-such-part",))
    monkeypatch.setattr(windows_programs, "_key", lambda _: "0")
    with pytest.raises(LabError, match="cannot compile no-such-part"):
        windows_programs.ensure_programs()
    assert list((tmp_path / "qemu-odx" / "images").iterdir()) == []
