"""Names for sense codes: `token-expired`, `unrecovered-read-error`, or numbers as `5/23/07`.

Imports `wire/scsi/sense`. A name is the standard's own text of the additional sense code (SPC-4 annex D), in lower
case with dashes; each comes with the sense key that standards give it most, and `key=` chooses another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.wire.scsi.sense import TEXTS, Key, Sense

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEFT_OUT: Final = "INVALID TOKEN OPERATION, "
_KEYS: Final[dict[Key, str]] = {
    Key.RECOVERED_ERROR: "17/00 18/00 5D/00",
    Key.NOT_READY: "04/00 04/01 04/02 04/03 04/14 3A/00",
    Key.MEDIUM_ERROR: "0C/00 11/00 11/01 14/01 31/00",
    Key.HARDWARE_ERROR: "08/03 44/00",
    Key.ILLEGAL_REQUEST: (
        "00/16 1A/00 20/00 21/00 23/00 23/01 23/02 23/03 23/04 23/05 23/06 23/07 23/08 23/09 23/0A 24/00 25/00 "
        "26/00 26/04 26/06 26/07 26/08 26/09 2C/00 39/00 53/02 55/04 55/0C 55/0D"
    ),
    Key.UNIT_ATTENTION: ("29/00 29/03 29/07 2A/01 2A/03 2A/04 2A/05 2A/09 2F/00 38/07 3F/01 3F/03 3F/0E"),
    Key.DATA_PROTECT: "27/00 27/02 27/07",
    Key.COPY_ABORTED: "08/04 0D/01 0D/02 0D/03 0D/04 0D/05 26/0A 26/0D 2F/02",
    Key.ABORTED_COMMAND: "00/06 10/01 47/00 4B/00 4E/00 55/03",
    Key.MISCOMPARE: "1D/00",
}
"""The usual sense key of each additional sense code that has a name."""
_NUMBERS: Final = re.compile(r"([0-9a-f])h?/([0-9a-f]{1,2})h?/([0-9a-f]{1,2})h?", re.IGNORECASE)


def _named() -> Iterator[tuple[str, Sense]]:
    for key, codes in _KEYS.items():
        for code in codes.split():
            asc, ascq = (int(part, 16) for part in code.split("/"))
            yield slug(TEXTS[asc, ascq].removeprefix(_LEFT_OUT)), Sense(key, asc, ascq)


def slug(text: str) -> str:
    """A standard's words as one word: lower case, dashes for all that is no letter and no digit."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


SENSES: Final[dict[str, Sense]] = dict(_named())
"""Every name, with its sense key, additional sense code and qualifier."""
KEYS: Final[dict[str, Key]] = {slug(key.name): key for key in Key}
"""Sense keys by name."""


def parse_sense(text: str, key: str | None = None) -> Sense:
    """A name of `SENSES`, or KEY/ASC/ASCQ in hexadecimal.

    Args:
        text: as the user wrote it, in upper or lower case.
        key: another sense key, by name (`illegal-request`).

    Raises:
        FaultRuleError: it is neither; the names that look alike are in the text.
    """
    numbers = _NUMBERS.fullmatch(text)
    if numbers:
        found = Sense(int(numbers[1], 16), int(numbers[2], 16), int(numbers[3], 16))
    elif slug(text) in SENSES:
        found = SENSES[slug(text)]
    else:
        near = ", ".join(name for name in SENSES if set(slug(text).split("-")) & set(name.split("-")))
        raise FaultRuleError(
            f"'{text}' is no sense code: write KEY/ASC/ASCQ in hexadecimal (3/11/00) or a name"
            f"{f' such as {near}' if near else ''} (qemu-odx fault catalogue lists them)"
        )
    if key is None:
        return found
    if slug(key) not in KEYS:
        raise FaultRuleError(f"'{key}' is no sense key; there are {', '.join(KEYS)}")
    return Sense(KEYS[slug(key)], found.asc, found.ascq)
