"""Whole input buffers of the offload IOCTL, laid out as the SDK's helpers lay them out.

Imports the other modules of `dsm`. The parameter block starts at the first multiple of its alignment after the head,
the ranges at the next multiple of 8 (DeviceDsmInitializeInput, DeviceDsmAddDataSetRange). Other layouts are as good:
the head says where everything is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.wire.dsm.codes import DsmAction
from qemu_odx.wire.dsm.structures import DataSetRange, DsmInput, OffloadReadParameters, OffloadWriteParameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.wire.dsm.record import Record

    Extent = tuple[int, int]
    """Offset and length in bytes."""


def offload_read(ranges: Sequence[Extent], *, time_to_live: int = 0) -> bytes:
    """Input buffer of DeviceDsmAction_OffloadRead."""
    return _input(DsmAction.OFFLOAD_READ, OffloadReadParameters(time_to_live=time_to_live), ranges)


def offload_write(token: bytes, ranges: Sequence[Extent], *, token_offset: int = 0) -> bytes:
    """Input buffer of DeviceDsmAction_OffloadWrite; `token` has 512 bytes."""
    parameters = OffloadWriteParameters(token_offset=token_offset, token=token)
    return _input(DsmAction.OFFLOAD_WRITE, parameters, ranges)


def _input(action: DsmAction, parameters: Record, ranges: Sequence[Extent]) -> bytes:
    block_at = _round_up(DsmInput.SIZE, parameters.ALIGN)
    ranges_at = _round_up(block_at + parameters.SIZE, DataSetRange.ALIGN)
    described = b"".join(DataSetRange(offset, length).packed() for offset, length in ranges)
    head = DsmInput(DsmInput.SIZE, action, 0, block_at, parameters.SIZE, ranges_at, len(described))
    front = head.packed().ljust(block_at, b"\0") + parameters.packed()
    return front.ljust(ranges_at, b"\0") + described


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
