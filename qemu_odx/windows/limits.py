"""The limits that the class driver caches at device start, and those of each command that follow from them.

Imports nothing of ours. Filled by `discovery.py`, used by the offload operations and by `explain`.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
MOST_DESCRIPTORS = 64
"""MAX_NUMBER_BLOCK_DEVICE_DESCRIPTORS (classp.h)."""
_POPULATE_DESCRIPTORS, _WRITE_DESCRIPTORS = 4094, 4062
"""What a parameter list of 65535 bytes holds behind headers of 16 and 536 bytes."""
_WRITE_BYTES_BY_DEFAULT = 64 * MIB
_WRITE_BYTES_AT_MOST = 256 * MIB
_LIST_AT_MOST = 0xFFFF
_WRITE_HEADER, _DESCRIPTOR = 536, 16
_RECEIVE_HEADER, _SENSE_ROOM = 32, 255
READ_ALLOCATION = _RECEIVE_HEADER + _SENSE_ROOM + 4 + 514
"""Allocation length of RECEIVE ROD TOKEN INFORMATION after POPULATE TOKEN: 805."""
ADAPTER_BYTES = 2 * MIB
"""vioscsi's largest transfer: 512 pages with indirect descriptors."""


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """The first descriptor of VPD page 8Fh; sizes in blocks, times in seconds."""

    max_ranges: int
    max_inactivity: int
    default_inactivity: int
    max_token_blocks: int
    optimal_blocks: int


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """What is kept of VPD page B0h: lengths in blocks. Told by the property query, used for nothing else."""

    max_transfer: int = 0
    optimal_transfer: int = 0
    granularity: int = 0


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """Limits of one command.

    Attributes:
        descriptors: range descriptors.
        blocks: sum of all ranges, None for no limit.
    """

    descriptors: int
    blocks: int | None


def populate_limits(limits: TokenLimits, time_to_live: int) -> CommandLimits:
    """Of one POPULATE TOKEN; OPTIMAL TRANSFER COUNT counts only with a time to live of 0."""
    optimal = limits.optimal_blocks if time_to_live == 0 else 0
    return CommandLimits(
        _descriptors(limits, _POPULATE_DESCRIPTORS), _least(limits.max_token_blocks, optimal)
    )


def write_limits(limits: TokenLimits, block_size: int) -> CommandLimits:
    """Of one WRITE USING TOKEN: 64 MiB if no optimum is given, 256 MiB at most."""
    optimal = limits.optimal_blocks or _WRITE_BYTES_BY_DEFAULT // block_size
    blocks = _least(limits.max_token_blocks, min(optimal, _WRITE_BYTES_AT_MOST // block_size))
    return CommandLimits(_descriptors(limits, _WRITE_DESCRIPTORS), blocks)


def write_allocation(limits: TokenLimits, adapter_bytes: int = ADAPTER_BYTES) -> int:
    """Allocation length of RECEIVE ROD TOKEN INFORMATION after WRITE USING TOKEN: the size of the buffer for both."""
    longest = _LIST_AT_MOST
    if limits.max_ranges:
        longest = min(_WRITE_HEADER + _DESCRIPTOR * limits.max_ranges, _LIST_AT_MOST)
    return min(max(longest, _RECEIVE_HEADER + _SENSE_ROOM), adapter_bytes)


def _descriptors(limits: TokenLimits, fit: int) -> int:
    return min(MOST_DESCRIPTORS, limits.max_ranges or fit)


def _least(*sizes: int) -> int | None:
    """The smallest limit; 0 is no limit."""
    return min((size for size in sizes if size), default=None)
