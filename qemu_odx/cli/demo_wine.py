"""What `qemu-odx demo --guest wine` shows: every IOCTL, which buffers crossed, and what the driver answered.

May import: the lab. Used by `demo.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

    from qemu_odx.lab.wine import Outcome, WineResult

HASH_TITLES = {
    "source_before": "source, when the token was made",
    "source_after": "source, overwritten before the copy",
    "destination": "destination, read under Wine",
    "destination_on_host": "destination, read on the host",
}
SHOWN_DIGITS = 32  # of 64; --json has them all


def print_wine_result(console: Console, result: WineResult) -> None:
    """Tables for people."""
    table = Table(
        *("", "in", "out", "NTSTATUS", "Win32", "copied"),
        title="DeviceIoControl under Wine: bytes of its buffers, and what came of it",
        title_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for outcome in result.outcomes:
        if outcome.calls:
            table.add_row(*_cells(outcome))
    hashes = Table("SHA-256 of", "", title="The data", title_justify="left")
    for name, title in HASH_TITLES.items():
        hashes.add_row(title, f"{result.sha256[name][:SHOWN_DIGITS]}…")
    console.print(table, hashes, sep="\n")
    total = sum(result.phases.values())
    console.print(f"Guest: {result.description}; {total:.1f} s in all.", highlight=False)
    console.print(
        f"[green]OK[/] under Wine: {result.verified_bytes:,} bytes arrived by token, every refusal is the class "
        "driver's. The same programs have not yet been run on Windows.",
        highlight=False,
    )


def _cells(outcome: Outcome) -> tuple[str, ...]:
    call = outcome.calls[-1]
    copied = sum(len(piece.content) for piece in outcome.case.pieces) if outcome.case.by_token else 0
    sent, got = (len(call[name]) // 2 for name in ("in_hex", "out_hex"))
    status = f"{int(call['ntstatus'], 16):08X}"
    return (
        outcome.case.title,
        str(sent),
        str(got),
        status,
        str(call["win32"]),
        f"{copied:,}" if copied else "",
    )
