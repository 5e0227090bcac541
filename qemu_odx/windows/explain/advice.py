"""What in a disk's pages works against ODX although it is on: each with page, byte, and what comes of it.

Imports the model. A table of rules; the facts behind them are the class driver's use of the limits, and Microsoft's
hardware requirement for copy offload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.windows.discovery import LIMITS, Finding
from qemu_odx.windows.limits import MIB, MOST_DESCRIPTORS, write_limits

if TYPE_CHECKING:
    from qemu_odx.windows.discovery import Discovery
    from qemu_odx.windows.limits import TokenLimits

_SHORT_LIFE = 10
"""Seconds: less is over before CopyFile uses the token again."""
_SMALL_PIECE = MIB
_LARGE_PIECE = 256 * MIB


def _transfer_length(known: Discovery, limits: TokenLimits, block_size: int) -> Finding | None:
    told = known.block_limits
    piece = write_limits(limits, block_size).blocks or 0
    if told is None or not told.max_transfer or told.max_transfer >= piece:
        return None
    return Finding(
        "VPD B0h",
        8,
        f"MAXIMUM TRANSFER LENGTH {told.max_transfer} blocks",
        f"0, or {piece} blocks and more",
        "Windows does not look at it and sends longer ranges; a disk that keeps to it refuses every large copy",
    )


def _limits_page(known: Discovery, _: TokenLimits, __: int) -> Finding | None:
    if known.block_limits is not None:
        return None
    listed = LIMITS in known.pages
    found = "page not usable" if listed else "not listed in VPD 00h"
    return Finding("VPD B0h", None, found, "the page, 64 bytes", "ODX works without it, the HLK's tests fail")


def _queue_error(known: Discovery, _: TokenLimits, __: int) -> Finding | None:
    if not known.qerr:
        return None
    effect = "Windows writes the page back with QERR=0 at every device start; a refusal is only logged"
    return Finding("control mode page", 3, f"QERR {known.qerr}", "QERR 0", effect)


def _token_size(_: Discovery, limits: TokenLimits, __: int) -> Finding | None:
    if not 0 < limits.max_token_blocks < limits.optimal_blocks:
        return None
    found = f"MAXIMUM TOKEN TRANSFER SIZE {limits.max_token_blocks} blocks"
    wanted = f"0, or OPTIMAL TRANSFER COUNT ({limits.optimal_blocks}) and more"
    return Finding("VPD 8Fh", 24, found, wanted, "every command is cut to it, the optimum is never reached")


def _small_pieces(_: Discovery, limits: TokenLimits, block_size: int) -> Finding | None:
    piece = (write_limits(limits, block_size).blocks or 0) * block_size
    if piece >= _SMALL_PIECE:
        return None
    by_token = 0 < limits.max_token_blocks < (limits.optimal_blocks or _SMALL_PIECE)
    return Finding(
        "VPD 8Fh",
        24 if by_token else 32,
        f"{piece} bytes for each WRITE USING TOKEN",
        f"{_SMALL_PIECE} bytes or more",
        "so many commands that a plain copy may be faster",
    )


def _large_pieces(_: Discovery, limits: TokenLimits, block_size: int) -> Finding | None:
    piece = (write_limits(limits, block_size).blocks or 0) * block_size
    if piece < _LARGE_PIECE:
        return None
    effect = "each command must be over in 4 s: if the disk is slower than 64 MiB/s, copies end early"
    return Finding(
        "VPD 8Fh", 32, f"{piece} bytes for each WRITE USING TOKEN", "what takes well under 4 s", effect
    )


def _few_ranges(_: Discovery, limits: TokenLimits, __: int) -> Finding | None:
    if not 0 < limits.max_ranges < MOST_DESCRIPTORS:
        return None
    found = f"MAXIMUM RANGE DESCRIPTORS {limits.max_ranges}"
    effect = "a token of a file in more pieces protects only the first of them"
    return Finding("VPD 8Fh", 14, found, f"0, or {MOST_DESCRIPTORS} and more", effect)


def _short_life(_: Discovery, limits: TokenLimits, __: int) -> Finding | None:
    if not 0 < limits.default_inactivity < _SHORT_LIFE:
        return None
    found = f"DEFAULT INACTIVITY TIMER {limits.default_inactivity} s"
    effect = "a token that expires before its first use takes ODX away from the pair of volumes"
    return Finding("VPD 8Fh", 20, found, f"{_SHORT_LIFE} s or more: Windows asks for the default", effect)


_RULES = (
    _transfer_length,
    _limits_page,
    _queue_error,
    _token_size,
    _small_pieces,
    _large_pieces,
    _few_ranges,
    _short_life,
)


def advice(known: Discovery, block_size: int) -> tuple[Finding, ...]:
    """All that can be said against the pages of a disk with ODX."""
    limits = known.limits
    if limits is None:
        return ()
    found = (rule(known, limits, block_size) for rule in _RULES)
    return tuple(item for item in found if item is not None)
