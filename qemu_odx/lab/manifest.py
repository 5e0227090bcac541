"""What an image's files must be: SHA-256 of each, beside them, so that a damaged image is found and not debugged.

Imports nothing of ours. Used when an image is finished and by `qemu-odx image verify`.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

FACTS = "image.json"
CHUNK = 8 << 20


def write_facts(
    folder: Path,
    facts: Mapping[str, Any],
    files: Iterable[str],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write `image.json`: the facts, and size and SHA-256 of the files."""
    digests = {name: _of(folder / name, progress) for name in files}
    (folder / FACTS).write_text(json.dumps({**facts, "files": digests}, indent=1) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """What `image.json` says; empty if it is damaged."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    except (OSError, ValueError):
        return {}
    return facts


def _of(path: Path, progress: Callable[[int, int], None]) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path, progress)}


def damaged_files(
    folder: Path, facts: Mapping[str, Any], progress: Callable[[int, int], None] = lambda *_: None
) -> list[str]:
    """The files that are missing or not what `facts` say, each with what is wrong."""
    wrong = []
    for name, must_be in facts.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != must_be["bytes"]:
            wrong.append(f"{name} has {path.stat().st_size} bytes instead of {must_be['bytes']}")
        elif sha256_of(path, progress) != must_be["sha256"]:
            wrong.append(f"{name} has other content than when it was built")
    return wrong


def sha256_of(path: Path, progress: Callable[[int, int], None] = lambda *_: None) -> str:
    """The file's SHA-256; `progress` is told bytes done and bytes in all."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    return digest.hexdigest()
