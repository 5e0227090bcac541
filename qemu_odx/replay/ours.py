"""A replay on our own target, in this process: disks in memory, a clock that stands where the recording's stood.

Imports `target`, `virtio`, `testing` and the storage. Copies run at once, so results do not depend on time; random
bytes come from a seed, so that every replay is the same.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.disk.file import FileDisk
from qemu_odx.disk.hostfile import HostFile
from qemu_odx.disk.image import Image
from qemu_odx.replay.port import Ending, ReplayError
from qemu_odx.tap.decision import Decision
from qemu_odx.target.manager import CopyManager
from qemu_odx.target.port import LoginNexus, Task
from qemu_odx.target.target import NO_ATTENTION, Target
from qemu_odx.testing.clock import VirtualClock
from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.ram import GuestRam
from qemu_odx.testing.runner import InlineRunner
from qemu_odx.tokens.token import Fault, Token
from qemu_odx.trace import payload
from qemu_odx.virtio.blk import BlkDevice
from qemu_odx.virtio.chain import MAX_REQUEST_BYTES
from qemu_odx.wire import mailbox
from qemu_odx.wire.names import name_of
from qemu_odx.wire.scsi.describe import status_name
from qemu_odx.wire.virtio import blk, scsi
from qemu_odx.wire.virtio.scsi import Response, TaskManagement

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from pathlib import Path

    from qemu_odx.replay.script import DiskState, Script, Step
    from qemu_odx.tap.exchange import Exchange, Outcome
    from qemu_odx.target.port import Reply

_RAM: Final = 2 * MAX_REQUEST_BYTES
_COPY_STEP: Final = 16 << 20
_ROOM: Final = 64 << 10
"""Data-in room of a command whose descriptors are not in the trace (it came through a mailbox)."""
_TEST_UNIT_READY: Final = bytes(16)
_ATTENTIONS: Final = 8


class Cut:
    """A tap that cuts requests short where the recording did."""

    def __init__(self) -> None:
        self.blocks: int | None = None

    def taken(self, exchange: Exchange) -> Decision | None:
        """Only so many blocks."""
        del exchange
        return None if self.blocks is None else Decision(blocks=self.blocks)

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Nothing more."""


@dataclass(slots=True)
class _Export:
    """One export: a target for SCSI commands (of a mailbox too), and a virtio-blk device with its queue."""

    about: dict[str, Any]
    target: Target
    nexus: Hashable = None
    blk: BlkDevice | None = None
    queue: DriverQueue | None = None
    cut: Cut = field(default_factory=Cut)


class OurDevice:
    """Implements `port.ReplayDevice`.

    Args:
        script: says which disks and exports there were.
        images: by disk, the image as it was when the recording began; it is only read.

    Raises:
        ReplayError: an image does not fit its disk.
    """

    same_device = True

    def __init__(self, script: Script, images: Mapping[str, Path]) -> None:
        self._clock = VirtualClock(script.head["mono"])
        self._runner = InlineRunner()
        seeded = random.Random(0)  # noqa: S311 - tokens of a replay are no secrets, and must be the same each time
        self._manager = CopyManager(self._runner, self._clock, random=seeded.randbytes)
        self._ram = GuestRam(_RAM)
        self._disks = {name: _disk(state, images.get(name)) for name, state in script.disks.items()}
        self._exports = {item["id"]: self._export(item) for item in script.head["exports"]}
        self._unsettled = {
            (export, nexus, lun)
            for export, nexuses in script.head.get("nexuses", {}).items()
            for nexus in nexuses
            for lun in self._exports[export].target.luns()
        }

    def passed(self, clock: float) -> None:
        """Let the clock stand there; what has expired meanwhile is over."""
        if clock > self._clock.now:
            self._clock.advance(clock - self._clock.now)
        self._manager.tick()

    def run(self, step: Step, data_out: bytes) -> Ending | None:
        """By the kind of request; what goes into a mailbox is replayed as the command that it was."""
        export = self._exports.get(step.record["export"])
        if export is None:
            raise ReplayError(f"export {step.record['export']} is not in the head of the trace")
        export.cut.blocks = step.record.get("decision", {}).get("blocks")
        kind = step.record["kind"]
        if kind == "blk":
            return self._blk(export, step, data_out)
        self._meet(export, step.record["nexus"])
        return self._control(export, step) if kind == "control" else self._scsi(export, step, data_out)

    def end_token(self, token: bytes, cause: str) -> bool:
        """Revoke or cancel it."""
        found = self._manager.tokens.resolve(token, self._group_of(token))
        if isinstance(found, Token):
            self._manager.tokens.kill(found, Fault[cause.upper()])
        return True

    def close(self) -> None:
        """Release tokens, disks and memory."""
        for token in self._manager.tokens:
            token.payload.release()
        for disk in self._disks.values():
            disk.close()
        self._ram.close()

    # -- making ------------------------------------------------------------------------------------

    def _export(self, about: dict[str, Any]) -> _Export:
        if about["type"] == "vhost-user-scsi":
            units = {int(lun): self._disks[name] for lun, name in about["luns"].items()}
        else:
            units = {0: self._disks[about["disk"]]}
        target = Target.on(units, self._manager, self._runner, about.get("group", ""))
        export = _Export(about, target)
        target.gate.add(export.cut)
        if about["type"] != "vhost-user-scsi":
            self._add_blk(export, about)
        return export

    def _add_blk(self, export: _Export, about: dict[str, Any]) -> None:
        disk, socket = self._disks[about["disk"]], about.get("socket", about["id"])

        def kept_out(writing: bool) -> bool:
            return self._manager.reservations(disk).keeps_out(socket, writing=writing)

        device = export.blk = BlkDevice(disk, self._runner, kept_out=kept_out)
        device.set_features(blk.F_FLUSH)
        device.gate.add(export.cut)
        export.queue = DriverQueue(self._ram, 64, kick=lambda: device.kick(0))
        device.start_queue(0, export.queue.ring(self._ram.memory()))

    # -- SCSI --------------------------------------------------------------------------------------

    def _meet(self, export: _Export, name: str) -> None:
        """Another nexus at the same export: the one before is lost."""
        nexus = _nexus(name)
        if export.nexus is not None and export.nexus != nexus:
            export.target.nexus_loss(export.nexus, _nothing)
        export.nexus = nexus

    def _scsi(self, export: _Export, step: Step, data_out: bytes) -> Ending:
        record = step.record
        self._settle(export, record)
        room = sum(record["in"]) - scsi.RESPONSE_SIZE if "in" in record else _ROOM
        return self._command(
            export.target, export.nexus, record["lun"], bytes.fromhex(record["cdb"]), data_out, room
        )

    def _command(  # noqa: PLR0917 - all that a command is
        self, target: Target, nexus: Hashable, lun: int, cdb: bytes, data_out: bytes, room: int
    ) -> Ending:
        data_in = memoryview(bytearray(max(room, 0)))
        replies: list[Reply] = []
        out = [memoryview(data_out)] if data_out else []
        whole = cdb.ljust(32 if cdb[0] == 0x7F else 16, b"\0")
        target.submit(Task(nexus, lun, whole, out, [data_in] if room > 0 else [], replies.append))
        if not replies:
            raise ReplayError(f"a command to lun {lun} never ended: {cdb.hex()}")
        reply = replies[0]
        return Ending(status_name(reply.status), reply.sense, bytes(data_in[: reply.data_in_length]))

    def _settle(self, export: _Export, record: dict[str, Any]) -> None:
        """A nexus that was known when the recording began had been told of its power on, or was told just then."""
        key = record["export"], record["nexus"], record["lun"]
        if key not in self._unsettled or record["name"] in NO_ATTENTION:
            return
        self._unsettled.discard(key)
        if (record.get("sense") or {}).get("key") == "UNIT ATTENTION":
            return
        for _ in range(_ATTENTIONS):
            ending = self._command(export.target, export.nexus, record["lun"], _TEST_UNIT_READY, b"", 0)
            if ending.status == "GOOD":
                break

    def _control(self, export: _Export, step: Step) -> Ending:
        """Nothing is in flight here, so most functions have nothing to do."""
        lun, code = step.record["lun"], step.record["code"]
        responses = [Response.OK]
        if code == TaskManagement.LOGICAL_UNIT_RESET:
            export.target.reset_lun(
                lun, lambda found: responses.append(Response.OK if found else Response.INCORRECT_LUN)
            )
        elif code == TaskManagement.I_T_NEXUS_RESET:
            export.target.nexus_loss(export.nexus, _nothing)
        return Ending(name_of(Response, responses[-1]))

    def _group_of(self, token: bytes) -> str:
        return next((item.group for item in self._manager.tokens if item.data == token), "")

    # -- virtio-blk --------------------------------------------------------------------------------

    def _blk(self, export: _Export, step: Step, data_out: bytes) -> Ending | None:
        if export.queue is None or self._in_mailbox(export, step):
            return None
        record = step.record
        sector = record["spans"][0][0] if record["name"] in {"IN", "OUT"} and record.get("spans") else 0
        header = blk.HEADER.pack(record["code"], 0, sector)
        request = export.queue.execute(header + data_out, sum(record["in"]))
        written = request.written or 0
        came = request.data_in[: min(written, len(request.data_in) - 1)]
        return Ending(name_of(blk.Status, request.data_in[-1]), b"", came)

    def _in_mailbox(self, export: _Export, step: Step) -> bool:
        """Pages of a mailbox hold tokens and check sums: the commands in them are replayed by themselves."""
        offset = export.about.get("mailbox")
        if offset is None:
            return False
        return step.name == "SCSI_CMD" or any(
            first < offset + mailbox.WINDOW and offset < end for first, end in step.ranges
        )


def _nexus(name: str) -> LoginNexus:
    port, _, life = name.rpartition("#")
    return LoginNexus(port, int(life)) if port else LoginNexus(name, 0)


def _nothing() -> None:
    """Nothing is in flight."""


def _disk(state: DiskState, image: Path | None) -> FileDisk:
    """A disk in memory with the content it had when the recording began, as far as that is known."""
    about = state.about
    fd = os.memfd_create(f"odx-replay-{about['id']}", os.MFD_CLOEXEC)
    os.ftruncate(fd, about["size"])
    if image is not None:
        _copy_image(image, fd, about["size"])
    else:
        for offset, packed in state.extents:
            os.pwrite(fd, payload.unpack(packed), offset)
    return FileDisk(
        about["id"],
        Image(HostFile(fd), about["size"], None),
        serial=about.get("serial", ""),
        block_size=about["block_size"],
        physical_block_size=about.get("physical_block_size"),
        readonly=about.get("readonly", False),
        snapshots="copy-before-write",
    )


def _copy_image(image: Path, fd: int, size: int) -> None:
    try:
        if image.stat().st_size != size:
            raise ReplayError(
                f"{image} has {image.stat().st_size} bytes, and the disk had {size}: give the image as it was"
            )
        with image.open("rb") as file:
            at = 0
            while chunk := file.read(_COPY_STEP):
                if chunk.strip(b"\0"):
                    os.pwrite(fd, chunk, at)
                at += len(chunk)
    except OSError as error:
        raise ReplayError(f"{image}: {error.strerror}") from error
