"""What the disk server saw of the same copies, from the records of its trace.

May import: doctor/guest/layer. A command that a guest says it sent and that never came was held back on the way.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.doctor.guest.layer import Layer, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMANDS = ("POPULATE TOKEN", "RECEIVE ROD TOKEN INFORMATION", "WRITE USING TOKEN")
GOOD = "GOOD"
UNIT_ATTENTION = "UNIT ATTENTION"


def host_layers(records: Iterable[Mapping[str, Any]]) -> tuple[Layer, ...]:
    """One layer for each token command.

    Args:
        records: of a trace (docs/trace.md); only its requests are looked at.
    """
    requests = [record for record in records if record.get("event") == "request"]
    return tuple(_layer(name, [one for one in requests if one["name"] == name]) for name in COMMANDS)


def _layer(name: str, came: list[Mapping[str, Any]]) -> Layer:
    if not came:
        return Layer(name, Verdict.UNKNOWN, "did not come")
    bad = [record for record in came if record.get("status") != GOOD and not _news(record)]
    if not bad:
        news = sum(_news(record) for record in came)
        said = f", {news} only to be told a unit attention" if news else ""
        return Layer(name, Verdict.PASSES, f"{len(came)} came, none was refused{said}")
    reasons = Counter(_reason(record) for record in bad)
    said = "; ".join(f"{number} times {reason}" for reason, number in reasons.items())
    page = name.lower().replace(" ", "-")
    return Layer(
        name, Verdict.REFUSES, f"{len(came)} came, {len(bad)} refused: {said}", f"see docs/commands/{page}.md"
    )


def _news(record: Mapping[str, Any]) -> bool:
    """The device had something to tell first (SAM-5 5.14); the guest sends the command again."""
    return bool((record.get("sense") or {}).get("key") == UNIT_ATTENTION)


def _reason(record: Mapping[str, Any]) -> str:
    sense = record.get("sense") or {}
    words = (str(sense[key]) for key in ("key", "code", "text") if sense.get(key))
    return f"{record.get('disk', 'a disk')}: {' '.join(words) or record.get('status', 'no status')}"
