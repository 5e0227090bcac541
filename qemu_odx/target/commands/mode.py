"""MODE SENSE and MODE SELECT in both lengths (SPC-4 6.9 to 6.12). Next: `target/mode_pages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.target.mode_pages import PageControl
from qemu_odx.target.plan import GOOD
from qemu_odx.target.request import cut
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.fields import put16, put32, put64, u16

if TYPE_CHECKING:
    from qemu_odx.target.lun import LogicalUnit
    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Handler, Request
    from qemu_odx.wire.scsi.sense import Sense

_WRITE_PROTECT = 0x80
_DPOFUA = 0x10
_NO_SUBPAGE, _ALL_SUBPAGES = 0x00, 0xFF


@dataclass(frozen=True, slots=True)
class _Form:
    """The six-byte or the ten-byte form: length of the header and where its fields are."""

    header: int
    length_width: int
    device_parameter: int
    descriptor_length: int
    allocation: int


_SIX = _Form(header=4, length_width=1, device_parameter=2, descriptor_length=3, allocation=4)
_TEN = _Form(header=8, length_width=2, device_parameter=3, descriptor_length=6, allocation=7)


def _form(request: Request) -> _Form:
    return _SIX if request.operation.length == 6 else _TEN


def mode_sense(request: Request) -> Plan:
    """MODE SENSE(6), (10): header, block descriptor unless DBD, pages."""
    cdb, form = request.cdb, _form(request)
    control, code = PageControl(cdb[2] >> 6), cdb[2] & 0x3F
    if control == PageControl.SAVED:
        return sense.SAVING_NOT_SUPPORTED
    pages = request.unit.mode.sense(code, control)
    if pages is None or cdb[3] not in {_NO_SUBPAGE, _ALL_SUBPAGES}:
        return sense.INVALID_FIELD_IN_CDB.at(2, in_cdb=True, bit=5)
    descriptor = b"" if cdb[1] & 0x08 else _descriptor(request, form)
    data = bytearray(form.header) + descriptor + pages
    data[0 : form.length_width] = (len(data) - form.length_width).to_bytes(form.length_width, "big")
    protected = _WRITE_PROTECT if request.unit.write_protection() else 0
    data[form.device_parameter] = protected | _DPOFUA
    if form is _TEN:
        data[4] = len(descriptor) == 16  # LONGLBA
        put16(data, form.descriptor_length, len(descriptor))
        return cut(bytes(data), u16(cdb, form.allocation))
    data[form.descriptor_length] = len(descriptor)
    return cut(bytes(data), cdb[form.allocation])


def _descriptor(request: Request, form: _Form) -> bytes:
    """The block descriptor: 8 bytes, or 16 with LLBAA in the ten-byte form (SBC-3 6.4.2)."""
    unit = request.unit
    if form is _TEN and request.cdb[1] & 0x10:
        data = bytearray(16)
        put64(data, 0, unit.blocks)
        put32(data, 12, unit.block_size)
        return bytes(data)
    data = bytearray(8)
    put32(data, 0, min(unit.blocks, 0xFFFFFFFF))
    put32(data, 4, unit.block_size)
    return bytes(data)


def mode_select(request: Request) -> Plan:
    """MODE SELECT(6), (10): every page is checked before any is taken; other nexuses are told."""
    cdb, form = request.cdb, _form(request)
    if cdb[1] & 0x01:  # SP
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=0)
    if not cdb[1] & 0x10:  # PF
        return sense.INVALID_FIELD_IN_CDB.at(1, in_cdb=True, bit=4)
    length = u16(cdb, form.allocation) if form is _TEN else cdb[form.allocation]
    data = request.parameter_list(length)
    if not length:
        return GOOD
    if len(data) < form.header:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    at = form.header + (u16(data, 6) if form is _TEN else data[3])
    fault = _block_descriptor_fault(data, form, request.unit)
    return fault or _take_pages(request, data, at)


def _block_descriptor_fault(data: bytes, form: _Form, unit: LogicalUnit) -> Sense | None:
    """A block descriptor may only say what is so already."""
    length = u16(data, 6) if form is _TEN else data[3]
    if length not in {0, 8, 16}:
        return sense.INVALID_FIELD_IN_LIST.at(form.descriptor_length)
    if len(data) < form.header + length:
        return sense.PARAMETER_LIST_LENGTH_ERROR
    size = int.from_bytes(data[form.header + length - 3 : form.header + length], "big")
    if length and size not in {0, unit.block_size}:
        return sense.INVALID_FIELD_IN_LIST.at(form.header + length - 3)
    return None


def _take_pages(request: Request, data: bytes, at: int) -> Plan:
    unit = request.unit
    trial = unit.mode.copy()
    changed = False
    while at < len(data):
        length = 2 + data[at + 1] if at + 2 <= len(data) else 2
        if at + length > len(data):
            return sense.PARAMETER_LIST_LENGTH_ERROR
        took = trial.select(data[at : at + length])
        if took is None:
            return sense.INVALID_FIELD_IN_LIST.at(at)
        changed = changed or took
        at += length
    unit.mode = trial
    if changed:
        for nexus in request.target.nexuses():
            if nexus != request.nexus:
                unit.attend(nexus, sense.MODE_PARAMETERS_CHANGED)
    return GOOD


HANDLERS: dict[str, Handler] = {
    "MODE SENSE(6)": mode_sense,
    "MODE SENSE(10)": mode_sense,
    "MODE SELECT(6)": mode_select,
    "MODE SELECT(10)": mode_select,
}
