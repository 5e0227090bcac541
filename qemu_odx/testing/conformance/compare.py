"""What a vector expects of an answer, and whether it came.

May import `wire/scsi`. Each function raises `MismatchError` with the first difference. What a file leaves open is
open: steps without a status, keys that are missing, bytes that a target may choose.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.vector_file import listed
from qemu_odx.wire.scsi import sense
from qemu_odx.wire.scsi.sense import Sense, Status

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.vector_file import Json
    from qemu_odx.testing.initiator import Answer

_AS_GOOD = re.compile(r"\b([0-9a-f]{2})h?/([0-9a-f]{2})h?\b[^.;]*?(?:as good|common too)", re.IGNORECASE)
"""A note that allows another sense code: "23h/04h (unknown) is as good", "20h/00h is common too"."""


class MismatchError(Exception):
    """A step did not give what the vector says."""


def status_name(status: str | int) -> str:
    """The standard's name of a status, whether a file gives name or number."""
    if isinstance(status, str):
        return " ".join(re.split(r"[\s_]+", status.strip().upper()))
    try:
        return Status(status).name.replace("_", " ")
    except ValueError:
        return f"{status:02X}h"


def as_good(note: str) -> set[tuple[int, int]]:
    """ASC and ASCQ pairs that a note calls as good as the expected one."""
    return {(int(asc, 16), int(ascq, 16)) for asc, ascq in _AS_GOOD.findall(note)}


def compare_status(step: Json, answer: Answer, others: set[tuple[int, int]]) -> None:
    """Status, and sense data if any is expected; `others` are codes as good as the expected one."""
    got, found = status_name(answer.status), answer.full_sense
    if "status" in step and got != status_name(step["status"]):
        said = f" ({found.name})" if found else ""
        raise MismatchError(f"status {got}{said}, expected {status_name(step['status'])}")
    choices = listed(step.get("sense"))
    if not choices:
        return
    if found is None:
        raise MismatchError(f"no sense data, expected {_words(choices[0])}")
    faults = [_sense_fault(wanted, found, answer.sense, others) for wanted in choices]
    if all(faults):
        raise MismatchError(str(faults[0]))


def _sense_fault(wanted: Json, found: Sense, data: bytes, others: set[tuple[int, int]]) -> str | None:
    given = sense.parse(bytes.fromhex(wanted["fixed"])) if wanted.get("fixed") else None
    key = wanted.get("key", given.key if given else None)
    code = (
        wanted.get("asc", given.asc if given else None),
        wanted.get("ascq", given.ascq if given else None),
    )
    if key is not None and found.key != key:
        return f"sense {found.name}, expected {_words(wanted)}"
    if None not in code and (found.asc, found.ascq) not in {code, *others}:
        return f"sense {found.name}, expected {_words(wanted)}"
    information = wanted.get("information")
    if information is None and given is not None:
        information = given.information
    if information is not None and found.information != information:
        return f"INFORMATION {found.information}, expected {information}"
    return _pointer_fault(wanted, data)


def _words(wanted: Json) -> str:
    if "text" in wanted:
        return str(wanted["text"])
    code = [wanted.get(name) for name in ("key", "asc", "ascq")]
    if None not in code:
        return Sense(*code).name  # type: ignore[arg-type]  # none of them is None
    given = sense.parse(bytes.fromhex(wanted.get("fixed", "")))
    return given.name if given else str(wanted)


def _pointer_fault(wanted: Json, data: bytes) -> str | None:
    """A field pointer need not be there; if it is, it has to be right."""
    expected, got = wanted.get("sks_optional"), sense.pointer_of(data)
    if not expected or got is None:
        return None
    if (got.in_cdb, got.byte) != (expected.get("in_cdb", got.in_cdb), expected.get("byte", got.byte)):
        place = "CDB" if expected.get("in_cdb") else "parameter list"
        return f"field pointer at byte {got.byte}, expected byte {expected.get('byte')} of the {place}"
    return None


def compare_data(step: Json, answer: Answer) -> None:
    """Length and bytes of data-in, but for those that a target may choose."""
    if "data_in_len" in step and len(answer.data) != step["data_in_len"]:
        raise MismatchError(f"{len(answer.data)} bytes of data-in, expected {step['data_in_len']}")
    if "data_in_sha256" in step and hashlib.sha256(answer.data).hexdigest() != step["data_in_sha256"]:
        raise MismatchError(f"data-in {answer.data[:16].hex()}..., expected another SHA-256")
    if "data_in" not in step:
        return
    wanted, got = bytearray.fromhex(step["data_in"]), bytearray(answer.data)
    if len(wanted) != len(got):
        raise MismatchError(f"{len(got)} bytes of data-in, expected {len(wanted)}")
    for free in step.get("data_in_free", ()):
        place = slice(free["offset"], free["offset"] + free["length"])
        got[place] = wanted[place]
    if wanted != got:
        at = next(i for i, (a, b) in enumerate(zip(wanted, got, strict=True)) if a != b)
        raise MismatchError(f"data-in byte {at} is {got[at]:02x}, expected {wanted[at]:02x}")


def compare_blocks(wanted: Json, data: bytes) -> None:
    """Content of a disk: by SHA-256, by its first bytes, or by all of its bytes, whatever the file gives."""
    place = f"LU {wanted['lun']} block {wanted['lba']}, {wanted['blocks']} blocks"
    found = f"{place}: expected {wanted.get('meaning', 'other content')}, found {data[:16]!r}..."
    whole = wanted.get("data", wanted.get("hex"))
    if "sha256" in wanted:
        same = hashlib.sha256(data).hexdigest() == wanted["sha256"].lower()
    elif whole is not None:
        same = data == bytes.fromhex(whole)
    elif "first16" in wanted:
        same = data.startswith(bytes.fromhex(wanted["first16"]))
    else:
        raise MismatchError(f"{place}: nothing to compare with: give sha256, data or first16")
    if not same:
        raise MismatchError(found)
