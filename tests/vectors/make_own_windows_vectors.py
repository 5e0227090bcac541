"""Makes `own-windows-vectors.json`: Windows vectors computed from what the class driver's source does.

`python tests/vectors/make_own_windows_vectors.py` writes the file, `tests/unit/windows/test_windows_vectors.py`
replays it. Nothing of the package goes into it: bytes are packed by hand in `windows_steps.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from windows_commands import limited, read_answers, sensed, write_answers
from windows_requests import accepted, queried, rejected, started

if TYPE_CHECKING:
    from windows_steps import Json

PLACE = Path(__file__).with_name("own-windows-vectors.json")


def document() -> Json:
    """The whole file."""
    vectors = [
        *started(),
        *queried(),
        *rejected(),
        *accepted(),
        *limited(),
        *read_answers(),
        *write_answers(),
        *sensed(),
    ]
    return {
        "about": "Windows ODX initiator vectors in the format of windows-odx-vectors.json, computed by this project "
        "from the rules of the class driver's source; none of them was run against that source.",
        "count": len(vectors),
        "vectors": vectors,
    }


if __name__ == "__main__":
    PLACE.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
