"""The mode pages of a logical unit: caching (08h), control (0Ah), informational exceptions (1Ch).

Imports nothing of ours. Current values are shared by all initiators of the logical unit. Layouts: SPC-4 7.5,
SBC-3 6.5. QERR is 0 because Windows writes it to 0 otherwise; D_SENSE stays 0 because Windows keeps 18 bytes of
sense data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class PageControl(IntEnum):
    """PC field of MODE SENSE (SPC-4 6.11)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True, slots=True)
class _Page:
    """Default bytes of a page, and the mask of the bits that MODE SELECT may change."""

    default: bytes
    changeable: bytes


_CACHING = _Page(
    bytes.fromhex("0812 04 00 ffff 0000 ffff ffff 80 14 00 00 000000 00"),
    bytes.fromhex("0812 04 00 0000 0000 0000 0000 00 00 00 00 000000 00"),
)
"""WCE set and changeable, FSW set."""
_CONTROL = _Page(
    bytes.fromhex("0a0a 02 10 00 00 0000 ffff 0000"),
    bytes.fromhex("0a0a 00 00 08 00 0000 0000 0000"),
)
"""GLTSD set, unrestricted reordering, busy time-out unlimited; SWP changeable."""
_EXCEPTIONS = _Page(
    bytes.fromhex("1c0a 08 00 00000000 00000000"),
    bytes.fromhex("1c0a 00 00 00000000 00000000"),
)
"""DEXCPT set: there is nothing to predict."""

PAGES: dict[int, _Page] = {0x08: _CACHING, 0x0A: _CONTROL, 0x1C: _EXCEPTIONS}
ALL_PAGES = 0x3F


@dataclass(slots=True)
class ModePages:
    """Current mode page values."""

    _current: dict[int, bytes] = field(default_factory=lambda: {k: page.default for k, page in PAGES.items()})

    def sense(self, code: int, control: PageControl) -> bytes | None:
        """Page bytes for a page code, all pages for 3Fh; None for a page that is not there."""
        codes = sorted(PAGES) if code == ALL_PAGES else [code]
        if any(item not in PAGES for item in codes):
            return None
        return b"".join(self._one(item, control) for item in codes)

    def _one(self, code: int, control: PageControl) -> bytes:
        if control == PageControl.CHANGEABLE:
            return PAGES[code].changeable
        return PAGES[code].default if control == PageControl.DEFAULT else self._current[code]

    def select(self, page: bytes) -> bool | None:
        """Take a page from MODE SELECT.

        Returns:
            True if a value changed, False if none did, None if the page is unknown, has the wrong length or
            touches a bit that cannot be changed.
        """
        code = page[0] & 0x3F
        known = PAGES.get(code)
        if known is None or len(page) != len(known.default) or page[1] != known.default[1]:
            return None
        wanted = bytes((code,)) + page[1:]
        now = self._current[code]
        pairs = zip(wanted, now, known.changeable, strict=True)
        if any((new ^ old) & ~mask for new, old, mask in list(pairs)[2:]):
            return None
        self._current[code] = wanted
        return wanted != now

    def copy(self) -> ModePages:
        """An independent copy, to try changes on."""
        return ModePages(dict(self._current))

    def reset(self) -> None:
        """Back to the defaults: nothing is saved."""
        self._current = {code: page.default for code, page in PAGES.items()}

    @property
    def as_made(self) -> bool:
        """True while every page has its default."""
        return all(self._current[code] == page.default for code, page in PAGES.items())

    @property
    def write_cache(self) -> bool:
        """WCE: writes may stay in the cache."""
        return bool(self._current[0x08][2] & 0x04)

    @property
    def software_write_protect(self) -> bool:
        """SWP."""
        return bool(self._current[0x0A][4] & 0x08)
