"""The architecture's arrows: who may import whom. A wrong import fails here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import qemu_odx

ROOT = Path(qemu_odx.__file__).parent
BELOW = {
    "wire": set(),
    "faults": {"wire"},
    "tap": {"wire"},
    "trace": {"tap", "tokens", "wire"},
    "disk": set(),
    "tokens": {"wire"},
    "target": {"tokens", "disk", "tap", "wire"},
    "virtio": {"target", "disk", "tap", "wire"},
    "vhost": {"virtio", "wire"},
    "server": {"faults", "vhost", "virtio", "target", "tokens", "disk", "trace", "tap", "wire"},
    "testing": {"server", "vhost", "virtio", "target", "tokens", "disk", "trace", "tap", "wire"},
    "replay": {"testing", "trace", "virtio", "target", "tokens", "disk", "tap", "wire"},
    "windows": {"testing", "target", "tokens", "disk", "wire"},
    "lab": set(),
    "report": set(),
    "cli": {"faults", "lab", "report", "server", "testing", "windows", "trace", "replay", "wire"},
    "pytest_plugin": {"lab", "testing", "wire"},
}
"""What each part may import besides itself and the package's own root."""
PURE = {"wire", "tokens", "faults"}
"""Parts that touch no file, socket, thread or clock."""
SYSTEM_MODULES = {
    "os",
    "socket",
    "threading",
    "time",
    "mmap",
    "select",
    "subprocess",
    "fcntl",
    "ctypes",
    "asyncio",
}

SOURCES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str | None:
    """The part of ours that a module belongs to, None for the root and for others."""
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "qemu_odx" and len(pieces) > 1 and pieces[1] in BELOW else None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    """A file imports only from its own part and from those below it."""
    mine = path.relative_to(ROOT).parts[0].removesuffix(".py")
    allowed = BELOW.get(mine, set(BELOW)) | {mine}
    wrong = {module for module in imported(path) if (part := part_of(module)) and part not in allowed}
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PURE],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_pure_parts_touch_no_system(path: Path) -> None:
    """`wire`, `tokens` and `faults` take clock and randomness from outside."""
    assert not imported(path) & SYSTEM_MODULES


def test_every_module_says_what_it_is() -> None:
    """Each module has a docstring."""
    silent = [
        str(path.relative_to(ROOT)) for path in SOURCES if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []
