"""Makes `own-scsi-vectors.json`: SCSI vectors worked out by hand from SPC-4 and SBC-5, in the shared format.

`python tests/vectors/make_own_vectors.py` writes the file; `tests/unit/conformance/test_own_vectors.py` replays it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vectors_populate import identifier_vectors, other_vectors, populate_vectors
from vectors_write import refusal_vectors, short_vectors, write_vectors

if TYPE_CHECKING:
    from vector_steps import Json

PLACE = Path(__file__).with_name("own-scsi-vectors.json")


def document() -> Json:
    """The whole file."""
    return {
        "about": "SCSI token copy vectors worked out by hand from the standards, in the format of "
        "scsi-odx-vectors.json; computed by this project, so a second opinion is still wanted.",
        "vectors": [
            *populate_vectors(),
            *identifier_vectors(),
            *write_vectors(),
            *short_vectors(),
            *refusal_vectors(),
            *other_vectors(),
        ],
    }


if __name__ == "__main__":
    PLACE.write_text(json.dumps(document(), indent=1) + "\n", encoding="utf-8")
