"""What `odx.exe` prints, as records of a trace.

Imports `wire/dsm` and `schema`. Each DeviceIoControl that the tool made becomes one record, with the structures'
fields by name; the tool's own line has no other time than `unix_us`, microseconds since 1970 by the guest's clock.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from qemu_odx.trace.reading import TraceError
from qemu_odx.wire.dsm.codes import ControlCode, DsmAction
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import (
    DataSetRange,
    DsmInput,
    OffloadReadOutput,
    OffloadReadParameters,
    OffloadWriteOutput,
    OffloadWriteParameters,
)
from qemu_odx.wire.scsi.describe import token_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.trace.schema import Record

    Fields = dict[str, Any]

_RANGES: Final = 64
"""Ranges of a data set that are shown."""


def records(line: str, *, offset: float = 0.0) -> Iterator[Record]:
    """The calls of one line that `odx.exe` printed; none for a line without calls.

    Args:
        line: one JSON object.
        offset: seconds by which the guest's clock is ahead of the host's.

    Raises:
        TraceError: it is none of the tool's lines.
    """
    try:
        said = json.loads(line)
        calls = said.get("calls", ())
        for call in calls:
            yield _record(said.get("command", ""), call, offset)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise TraceError(f"no line of odx.exe ({error!r}): {line[:80]}") from error


def _record(command: str, call: dict[str, Any], offset: float) -> Record:
    if "unix_us" not in call:
        raise TraceError("a call without 'unix_us': build odx.exe anew, older ones do not tell the time")
    code, sent, came = int(call["code"], 16), bytes.fromhex(call["in_hex"]), bytes.fromhex(call["out_hex"])
    return {
        "event": "ioctl",
        "wall": call["unix_us"] / 1e6 - offset,
        "name": _code_name(code),
        "command": command,
        "action": call["action"],
        "status": _status_name(int(call["ntstatus"], 16)),
        "win32": call["win32"],
        "fields": _fields(code, sent, came),
        "in_length": len(sent),
        "out_length": len(came),
    }


def _code_name(code: int) -> str:
    try:
        return ControlCode(code).name
    except ValueError:
        return f"{code:#010x}"


def _status_name(status: int) -> str:
    try:
        return NtStatus(status).label
    except ValueError:
        return f"{status:#010x}"


def _fields(code: int, sent: bytes, came: bytes) -> Fields:
    if code != ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES or len(sent) < DsmInput.SIZE:
        return {}
    head = DsmInput.parse(sent)
    try:
        action = DsmAction(head.action)
    except ValueError:
        return {"action": f"{head.action:#010x}"}
    ranges = _ranges(head, sent)
    fields: Fields = {"action": action.name, "ranges": ranges[:_RANGES]}
    if len(ranges) > _RANGES:
        fields["ranges_left_out"] = len(ranges) - _RANGES
    if action is DsmAction.OFFLOAD_READ:
        return fields | _read(head, sent, came)
    return fields | _write(head, sent, came) if action is DsmAction.OFFLOAD_WRITE else fields


def _ranges(head: DsmInput, sent: bytes) -> list[list[int]]:
    """Offset and length in bytes of each whole range."""
    end = min(head.ranges_offset + head.ranges_length, len(sent)) - DataSetRange.SIZE + 1
    found = (DataSetRange.parse(sent, at) for at in range(head.ranges_offset, end, DataSetRange.SIZE))
    return [[item.offset, item.length] for item in found]


def _read(head: DsmInput, sent: bytes, came: bytes) -> Fields:
    fields: Fields = {}
    if len(sent) >= head.parameter_offset + OffloadReadParameters.SIZE:
        fields["time_to_live"] = OffloadReadParameters.parse(sent, head.parameter_offset).time_to_live
    if len(came) >= OffloadReadOutput.SIZE:
        output = OffloadReadOutput.parse(came)
        fields |= {"flags": output.flags, "length_protected": output.length_protected}
        fields |= token_fields(output.token)
    return fields


def _write(head: DsmInput, sent: bytes, came: bytes) -> Fields:
    fields: Fields = {}
    if len(sent) >= head.parameter_offset + OffloadWriteParameters.SIZE:
        parameters = OffloadWriteParameters.parse(sent, head.parameter_offset)
        fields |= {"token_offset": parameters.token_offset} | token_fields(parameters.token)
    if len(came) >= OffloadWriteOutput.SIZE:
        output = OffloadWriteOutput.parse(came)
        fields |= {"flags": output.flags, "length_copied": output.length_copied}
    return fields
