"""The reference target that a vector file describes, made from our own parts, with its clock and its background.

May import `target`, `disk`, `tokens`. Used by `replay.py` and by the bench in `local.py`.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NotRequired, TypedDict

from qemu_odx.disk.dispatch import DiskQueue
from qemu_odx.disk.memory import memory_disk
from qemu_odx.target.lun import LogicalUnit
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.policy import Policy
from qemu_odx.target.port import Task
from qemu_odx.target.target import Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.initiator import Answer, Initiator
from qemu_odx.testing.runner import HeldRunner, InlineRunner
from qemu_odx.tokens.limits import Limits, Quotas
from qemu_odx.wire.scsi import sense

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from qemu_odx.disk.file import FileDisk
    from qemu_odx.target.port import Reply

CDB_SIZE = 16
DATA_IN_ROOM = 1 << 20
"""Bytes offered for data-in: more than any allocation length of a vector."""


class UnitDescription(TypedDict):
    """A logical unit of the file's reference target."""

    lun: int
    blocks: int
    block_size: int
    naa: NotRequired[str]


class LimitsDescription(TypedDict, total=False):
    """The limits of the file's reference target; what is missing is as in `USUAL`."""

    max_ranges: int
    max_ito_s: int
    default_ito_s: int
    max_token_transfer_blocks: int
    max_tokens: int


class TargetDescription(TypedDict):
    """`reference_target` of a vector file."""

    lus: list[UnitDescription]
    limits: NotRequired[LimitsDescription]


USUAL: TargetDescription = {
    "lus": [
        {"lun": 0, "blocks": 16384, "block_size": 512, "naa": f"6{0:031x}"},
        {"lun": 1, "blocks": 16384, "block_size": 512, "naa": f"6{1:031x}"},
        {"lun": 2, "blocks": 2048, "block_size": 4096, "naa": f"6{2:031x}"},
    ],
    "limits": {
        "max_ranges": 8,
        "max_ito_s": 600,
        "default_ito_s": 60,
        "max_token_transfer_blocks": 8192,
        "max_tokens": 64,
    },
}
"""The reference target of a file that describes none."""


@dataclass(slots=True)
class ReferenceTarget:
    """A fresh target as a vector file describes it: no unit attention pending, time 0."""

    description: TargetDescription
    policy: Policy = field(default_factory=Policy.standard)
    filled: bool = True
    clock: VirtualClock = field(default_factory=VirtualClock)
    background: HeldRunner = field(default_factory=HeldRunner)
    target: Target = field(init=False)
    disks: dict[int, FileDisk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits: LimitsDescription = {**USUAL["limits"], **self.description.get("limits", {})}
        most = limits["max_token_transfer_blocks"]
        shared = Limits(
            max_ranges=limits["max_ranges"],
            max_inactivity_timeout=limits["max_ito_s"],
            default_inactivity_timeout=limits["default_ito_s"],
            max_token_blocks=most,
            optimal_blocks=most,
            max_cscd=2,
            max_segments=1,
        )
        quotas = Quotas(tokens=limits["max_tokens"], tokens_per_nexus=limits["max_tokens"])
        manager = CopyManager(self.background, self.clock, policy=self.policy, quotas=quotas)
        units = {item["lun"]: self._unit(item, shared) for item in self.description["lus"]}
        self.target = Target(units, manager, InlineRunner(), power_on_attention=False)
        manager.join(self.target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.background.run_all()
        for token in self.target.manager.tokens:
            token.payload.release()
        for disk in self.disks.values():
            disk.close()

    def _unit(self, item: UnitDescription, limits: Limits) -> LogicalUnit:
        number, size = item["lun"], item["block_size"]
        disk = memory_disk(f"lu{number}", item["blocks"] * size, size)
        if self.filled:
            disk.write(0, [_content(number, item["blocks"], size)])
        self.disks[number] = disk
        naa = bytes.fromhex(item.get("naa") or f"6{number:031x}")
        return LogicalUnit(number, disk, DiskQueue(disk, InlineRunner()), naa, limits)

    def initiator(self, nexus: str = "I0") -> Initiator:
        """An initiator on an I_T nexus of this target."""
        return Initiator(lambda lun, cdb, data_out: self.command(nexus, lun, cdb, data_out))

    def command(self, nexus: str, lun: int, cdb: bytes, data_out: bytes) -> Answer:
        """Send a command and wait for it; copies in the background stay where they are."""
        room = memoryview(
            mmap.mmap(-1, DATA_IN_ROOM)
        )  # as zeroed as a bytearray, but only where it is looked at
        replies: list[Reply] = []
        whole = cdb.ljust(CDB_SIZE, b"\0")
        task = Task(nexus, lun, whole, [memoryview(data_out)] if data_out else [], [room], replies.append)
        self.target.submit(task)
        while not replies:
            self.background.step()
        reply = replies[0]
        return Answer(reply.status, reply.sense, bytes(room[: reply.data_in_length]))

    def protect(self, lun: int, *, protected: bool) -> None:
        """Write-protect the medium of a logical unit, or lift that."""
        self.disks[lun].readonly = protected

    def reset(self, lun: int) -> None:
        """LOGICAL UNIT RESET; copies stop before it is over."""
        self.target.reset_lun(lun, lambda _: None)
        self.background.run_all()

    def nexus_loss(self, nexus: str) -> None:
        """The nexus goes away and comes back, to be told of it (SAM-5 6.3.4)."""
        self.target.nexus_loss(nexus, lambda: None)
        for unit in self.target.units.values():
            unit.attend(nexus, sense.NEXUS_LOSS)

    def read(self, lun: int, lba: int, blocks: int) -> bytes:
        """Blocks of a logical unit, as they are."""
        disk = self.disks[lun]
        data = bytearray(blocks * disk.block_size)
        disk.read(lba * disk.block_size, [memoryview(data)])
        return bytes(data)


@cache
def _content(lun: int, blocks: int, size: int) -> bytes:
    """Content at the start: each block tells where it is."""
    return b"".join(f"L{lun}B{block:08d}".encode().ljust(size, b".") for block in range(blocks))
