"""Named choices where the standards leave room, or where the standards and Windows' tests disagree.

Imports nothing of ours. `Policy()` is what Windows accepts; `Policy.standard()` follows the letter of SPC and SBC
and is what conformance vectors are replayed against.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OverAsk(Enum):
    """A synchronous WRITE USING TOKEN that asks for more than the ROD holds."""

    REFUSE = "refuse"
    """ILLEGAL REQUEST 0D/04, nothing written: what the HLK's compliance test is reported to want."""
    PARTIAL = "partial"
    """Write what there is, then COPY ABORTED 0D/04 with the count (SBC-5 4.28.2)."""


class NoResources(Enum):
    """Sense when no token or snapshot can be made."""

    WINDOWS = "windows"
    """ABORTED COMMAND 55/03: Windows falls back to an ordinary copy."""
    STANDARD = "standard"
    """ILLEGAL REQUEST 55/0C or 55/0D (SPC-4 5.17.6)."""


class RefusedWrite(Enum):
    """The result of a WRITE USING TOKEN that was refused before it began."""

    KEEP = "keep"
    """Kept for RECEIVE ROD TOKEN INFORMATION: Windows asks after most failures, and 24/00 would hide why."""
    DROP = "drop"
    """No list identifier is left behind."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All switches.

    Attributes:
        over_ask: see `OverAsk`.
        no_resources: see `NoResources`.
        refused_write: see `RefusedWrite`.
        extended_copy_lid4: offer EXTENDED COPY(LID4).
    """

    over_ask: OverAsk = OverAsk.REFUSE
    no_resources: NoResources = NoResources.WINDOWS
    refused_write: RefusedWrite = RefusedWrite.KEEP
    extended_copy_lid4: bool = True

    @classmethod
    def standard(cls) -> Policy:
        """The letter of the standards, as the reference target of the conformance vectors."""
        return cls(OverAsk.PARTIAL, NoResources.STANDARD, RefusedWrite.DROP, extended_copy_lid4=False)
