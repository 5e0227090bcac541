"""The express lane of virtio-scsi: a batch of plain READ and WRITE commands, done in one go.

Imports `wire/virtio/{ring,scsi}`, `virtio/express` and the ports of target and storage. The target says, once for a
batch and logical unit, whether plain reads and writes need no more of it; all else is `virtio/scsi.py`'s. A test
compares the two. Clauses: VIRTIO 1.2, 5.6.6; SBC-3 clause 5.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from qemu_odx.virtio.express import LIMITS, NEXT_WRITE, TRIPLE, Lane, descriptors_of, gather
from qemu_odx.wire.virtio.ring import F_NEXT, F_WRITE
from qemu_odx.wire.virtio.scsi import COMMAND_SIZE, RESPONSE_SIZE, decode_lun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qemu_odx.disk.port import Disk, Io
    from qemu_odx.target.port import PlainAccess
    from qemu_odx.virtio.express import End, Flat
    from qemu_odx.virtio.memory import Window
    from qemu_odx.virtio.port import Ring

_COMMAND: Final = Struct("<8s8xB2x16s")
"""struct virtio_scsi_req_cmd: lun, task_attr, and the first 16 bytes of the CDB (5.6.6.1)."""
_SIMPLE: Final = 0
"""VIRTIO_SCSI_S_SIMPLE (5.6.6.1)."""
_READ_10, _WRITE_10, _READ_16, _WRITE_16 = 0x28, 0x2A, 0x88, 0x8A
_TEN: Final = Struct(">xBIxHB6x")
"""READ(10), WRITE(10): flags, LOGICAL BLOCK ADDRESS, TRANSFER LENGTH, CONTROL (SBC-3 5.8, 5.25)."""
_SIXTEEN: Final = Struct(">xBQIxB")
"""The same of READ(16), WRITE(16) (SBC-3 5.10, 5.27)."""
_FORMS: Final = {
    _READ_10: (False, _TEN.unpack),
    _WRITE_10: (True, _TEN.unpack),
    _READ_16: (False, _SIXTEEN.unpack),
    _WRITE_16: (True, _SIXTEEN.unpack),
}


class ScsiExpress(Lane):
    """The express lane of one request queue.

    Args:
        ring: the queue's ring.
        access: asks the target about a logical unit.
    """

    def __init__(self, ring: Ring, access: Callable[[int], PlainAccess | None]) -> None:
        super().__init__(ring, bytes(RESPONSE_SIZE))  # no sense, no residual, GOOD, OK
        self._access = access

    def _parse(self, heads: Sequence[int], window: Window) -> Iterable[tuple[Disk, list[Io], list[End]]]:
        base, size, ram = window
        last_command, last_response = size - COMMAND_SIZE, size - RESPONSE_SIZE
        units: dict[bytes, tuple[PlainAccess, list[Io], list[End]] | None] = {}
        for head, flat in zip(heads, descriptors_of(heads, self._ring, window), strict=True):
            if flat is None or flat[1] != COMMAND_SIZE or not 0 <= flat[0] - base <= last_command:
                continue
            lun, attribute, cdb = _COMMAND.unpack_from(ram, flat[0] - base)
            form = _FORMS.get(cdb[0])
            if form is None or attribute != _SIMPLE:
                continue
            is_write, unpack = form
            unit = units[lun] if lun in units else units.setdefault(lun, self._unit(lun))
            parts = _parts(flat, window, is_write=is_write)
            if unit is None or parts is None:
                continue
            (access, batch, ends), (views, length, response) = unit, parts
            flags, block, count, control = unpack(cdb)
            offset = block * access.disk.block_size
            if (
                flags | control
                or count * access.disk.block_size != length
                or length > LIMITS[is_write]
                or offset + length > access.disk.size
                or not 0 <= response <= last_response
                or (is_write and not access.writable)
            ):
                continue
            batch.append((is_write, offset, length, views))
            ends.append((head, RESPONSE_SIZE if is_write else RESPONSE_SIZE + length, response, flat))
        return [(unit[0].disk, unit[1], unit[2]) for unit in units.values() if unit]

    def _unit(self, lun: bytes) -> tuple[PlainAccess, list[Io], list[End]] | None:
        address = decode_lun(lun)
        if address is None or address.target or address.well_known:
            return None
        access = self._access(address.lun)
        return (access, [], []) if access else None


def _parts(flat: Flat, window: Window, *, is_write: bool) -> tuple[list[memoryview], int, int] | None:
    """Data buffers, their length, and the place of the response, which stands before data-in and after data-out."""
    if len(flat) == TRIPLE:
        return _parts_of_three(flat, window, is_write=is_write)
    last = len(flat) // 4 - 1
    if is_write:
        flags_right = flat[-2] == F_WRITE and flat[6:-4:4] == (F_NEXT,) * (last - 1)
        response, first, end = last, 1, last
    else:
        flags_right = flat[-2] == F_WRITE and flat[6:-4:4] == (NEXT_WRITE,) * (last - 1)
        response, first, end = 1, 2, last + 1
    if not flags_right or flat[4 * response + 1] != RESPONSE_SIZE:
        return None
    found = gather(flat, first, end, window)
    return None if found is None else (*found, flat[4 * response] - window[0])


def _parts_of_three(
    flat: Flat, window: Window, *, is_write: bool
) -> tuple[list[memoryview], int, int] | None:
    """The same for one data buffer, the usual case."""
    base, size, ram = window
    _, _, _, _, second, second_length, flags, _, third, third_length, last_flags, _ = flat
    if is_write:
        data, length, response, response_length, wanted = second, second_length, third, third_length, F_NEXT
    else:
        data, length, response, response_length, wanted = (
            third,
            third_length,
            second,
            second_length,
            NEXT_WRITE,
        )
    data -= base
    if flags != wanted or last_flags != F_WRITE or response_length != RESPONSE_SIZE:
        return None
    if not length or not 0 <= data <= size - length:
        return None
    return [ram[data : data + length]], length, response - base
