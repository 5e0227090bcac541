"""A device under test made from our own parts in this process, with a clock that does not make anyone wait.

May import `reference`. Next: `bench.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.policy import Policy
from qemu_odx.testing.conformance.bench import (
    HELD,
    NEXUS_LOSS,
    PROTECT,
    RESET,
    SECOND,
    SECOND_NEXUS,
    TWO_SIZES,
)
from qemu_odx.testing.conformance.reference import ReferenceTarget

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from qemu_odx.testing.conformance.reference import TargetDescription
    from qemu_odx.testing.initiator import Answer

SMALL: TargetDescription = {
    "lus": [
        {"lun": 0, "blocks": 4096, "block_size": 512},
        {"lun": 1, "blocks": 4096, "block_size": 512},
        {"lun": 2, "blocks": 512, "block_size": 4096},
    ],
    "limits": {
        "max_ranges": 64,
        "max_ito_s": 600,
        "default_ito_s": 60,
        "max_token_transfer_blocks": 1024,
        "max_tokens": 64,
    },
}
"""Small, so that a fresh one for each check costs little."""


class LocalDevice:
    """Three logical units, as many nexuses as are named, copies held until told to go on."""

    features = frozenset({SECOND, TWO_SIZES, SECOND_NEXUS, HELD, RESET, NEXUS_LOSS, PROTECT})
    patience = float("inf")

    def __init__(self, policy: Policy | None = None) -> None:
        self.reference = ReferenceTarget(SMALL, policy=policy or Policy(), filled=False)
        self.luns = self.reference.target.luns()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.reference.__exit__(kind, error, trace)

    def carry(self, nexus: int, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send a command."""
        return self.reference.command(f"I{nexus}", lun, cdb, data_out)

    def sleep(self, seconds: float) -> None:
        """Move the clock; the copy manager looks after its tokens meanwhile, as in a server."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.reference.clock.advance(step)
            self.reference.target.manager.tick()
            seconds -= step

    def idle(self) -> None:
        """Run what is held in the background."""
        self.reference.background.run_all()

    def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET."""
        self.reference.reset(lun)

    def lose_nexus(self, nexus: int) -> None:
        """I_T nexus loss."""
        self.reference.nexus_loss(f"I{nexus}")

    def protect(self, lun: int, *, on: bool) -> None:
        """Write-protect the medium."""
        self.reference.protect(lun, protected=on)
