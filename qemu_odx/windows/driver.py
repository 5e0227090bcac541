"""The class driver of one disk: an I/O control buffer in, SCSI commands to the disk, the answer out.

Imports the model's parts. `ClassDriver.start` does what Windows does at device start; `control` is DeviceIoControl as
a kernel caller sees it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.commands import ListIdentifiers
from qemu_odx.windows.copy_property import query_copy_offload
from qemu_odx.windows.discovery import discover
from qemu_odx.windows.limits import ADAPTER_BYTES
from qemu_odx.windows.offload_read import offload_read
from qemu_odx.windows.offload_write import TARGET_DURATION, Session, offload_write
from qemu_odx.windows.packets import Packets
from qemu_odx.windows.request import Buffer, IoStatus, Request, Volume
from qemu_odx.windows.validation import objection
from qemu_odx.wire.dsm.codes import COPY_OFFLOAD_PROPERTY, ControlCode, DsmAction
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import DsmInput, PropertyQuery
from qemu_odx.wire.scsi.fields import u32, u64

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qemu_odx.windows.port import Carrier

_CAPACITY_ROOM = 32
_READ_CAPACITY = b"\x9e\x10" + bytes(8) + _CAPACITY_ROOM.to_bytes(4, "big") + bytes(2)
"""READ CAPACITY(16) (SBC-3 5.16)."""
_RETRIES = 4
_OFFLOAD = {DsmAction.OFFLOAD_READ, DsmAction.OFFLOAD_WRITE}


class NotModelledError(Exception):
    """A control request that has nothing to do with offloaded data transfer."""


@dataclass(slots=True)
class Environment:
    """What surrounds the disks of a machine.

    Attributes:
        identifiers: list identifiers, one counter for all disks.
        clock: seconds that go by.
        wait: lets seconds go by.
        adapter_bytes: the adapter's largest transfer.
        out_of_memory: nothing can be allocated for a request.
        target_duration: the registry's CopyOffloadMaxTargetDuration; less than 4 s counts as 4 s.
    """

    identifiers: ListIdentifiers = field(default_factory=ListIdentifiers)
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    adapter_bytes: int = ADAPTER_BYTES
    out_of_memory: bool = False
    target_duration: float = TARGET_DURATION


@dataclass(slots=True)
class ClassDriver:
    """One disk.

    Attributes:
        packets: sends commands; what else errors made Windows do is in its `effects`.
        volume: what is known of the disk.
    """

    packets: Packets
    volume: Volume
    environment: Environment = field(default_factory=Environment)

    @classmethod
    def start(cls, carry: Carrier, environment: Environment | None = None) -> Self:
        """Start the device: read its capacity and its pages."""
        around = environment or Environment()
        packets = Packets(carry, around.wait)
        capacity = read_capacity(packets) or (0, 0)
        known = discover(packets)
        volume = Volume(known, *capacity, read_capacity=lambda: read_capacity(packets))
        return cls(packets, volume, around)

    def control(self, request: Request) -> IoStatus:
        """Carry out a control request.

        Raises:
            NotModelledError: it is no offload request and no query of the copy-offload property.
            UndefinedError: the disk's answer makes Windows work with stray memory.
        """
        if request.code == ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES:
            return self._manage(request)
        if request.code == ControlCode.IOCTL_STORAGE_QUERY_PROPERTY:
            return self._query(request)
        raise NotModelledError(f"control code {request.code:#010x} is not one of offloaded data transfer")

    def _query(self, request: Request) -> IoStatus:
        if len(request.data) < PropertyQuery.SIZE:
            return IoStatus(NtStatus.INFO_LENGTH_MISMATCH)
        code = PropertyQuery.parse(request.data).property_id
        if code != COPY_OFFLOAD_PROPERTY:
            raise NotModelledError(f"property {code} is not the copy-offload property")
        return query_copy_offload(request, self.volume.known)

    def _manage(self, request: Request) -> IoStatus:
        if len(request.data) < DsmInput.SIZE:
            return IoStatus(NtStatus.INVALID_PARAMETER)
        buffer = Buffer(request)
        action = buffer.head.action
        if action not in _OFFLOAD:
            raise NotModelledError(f"DSM action {action:#x} is no offload action")
        refused = objection(request, self.volume)
        limits, size = self.volume.known.limits, self.volume.block_size
        if refused is not None or limits is None:
            return IoStatus(refused or NtStatus.DEVICE_FEATURE_NOT_SUPPORTED)
        around = self.environment
        if around.out_of_memory:
            return IoStatus(NtStatus.INSUFFICIENT_RESOURCES)
        if action == DsmAction.OFFLOAD_READ:
            return offload_read(buffer, self.packets, limits, size, around.identifiers)
        duration = max(around.target_duration, TARGET_DURATION)
        session = Session(
            self.packets, limits, size, around.identifiers, around.adapter_bytes, duration, around.clock
        )
        return offload_write(buffer, session)


def read_capacity(packets: Packets) -> tuple[int, int] | None:
    """Block size and size in bytes; None if the disk does not tell."""
    done = packets.send(_READ_CAPACITY, retries=_RETRIES)
    if not done.status.ok or len(done.data) < 12:
        return None
    size = u32(done.data, 8)
    return size, (u64(done.data, 0) + 1) * size
