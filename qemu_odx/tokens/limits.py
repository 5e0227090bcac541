"""The limits a copy manager reports in VPD page 8Fh and keeps.

Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of token copy on one logical unit, in its own logical blocks.

    Attributes:
        max_ranges: MAXIMUM RANGE DESCRIPTORS of one POPULATE TOKEN or WRITE USING TOKEN.
        max_inactivity_timeout: seconds; a larger request is refused.
        default_inactivity_timeout: seconds, used when the initiator asks for 0.
        max_token_blocks: MAXIMUM TOKEN TRANSFER SIZE.
        optimal_blocks: OPTIMAL TRANSFER COUNT: what one command copies well within the 4 s Windows allows.
        max_lifetime: longest life of a token in seconds, from VPD 8Fh descriptor 0106h.
        max_cscd: CSCD descriptors of one EXTENDED COPY.
        max_segments: segment descriptors of one EXTENDED COPY.
        max_copies: copy operations running at once.
    """

    max_ranges: int = 256
    max_inactivity_timeout: int = 600
    default_inactivity_timeout: int = 60
    max_token_blocks: int = 1 << 31
    optimal_blocks: int = 64 * MIB // 512
    max_lifetime: int = 86400
    max_cscd: int = 16
    max_segments: int = 16
    max_copies: int = 16

    @classmethod
    def for_block_size(cls, block_size: int) -> Limits:
        """Defaults for blocks of `block_size` bytes: tokens of up to 1 TiB, 64 MiB a WRITE USING TOKEN."""
        return cls(max_token_blocks=(1 << 40) // block_size, optimal_blocks=64 * MIB // block_size)


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one I_T nexus, and all together, may hold; tokens are counted for all lives of an initiator port together.

    Attributes:
        tokens: live tokens of the whole copy manager.
        tokens_per_nexus: live tokens minted over one nexus.
        pinned_bytes: bytes that the live tokens of one nexus stand for: the most old data they can pin.
        tombstones: dead tokens of one nexus that are remembered, so that expired, deleted and cancelled can be told
            from unknown.
        results: finished copy operations kept for RECEIVE ROD TOKEN INFORMATION, per nexus.
        copies_per_nexus: copy operations of one nexus that run at once.
    """

    tokens: int = 65536
    tokens_per_nexus: int = 16384
    pinned_bytes: int = 1 << 50
    tombstones: int = 16384
    results: int = 1024
    copies_per_nexus: int = 16
