"""Carriers that answer the model's commands from a vector and object to every command that the vector does not have.

Imports the model's `port` and `vector_file`. `Script` is for requests: exchange by exchange. `StartScript` is for
device start, of which a vector may show a part: what it leaves out is answered by an ordinary disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.windows.port import Completion, Delivery
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.windows.check.vector_file import Step

_ASIDE = frozenset({0x1B, 0x25, 0x4D, 0x9E})
"""START STOP UNIT, READ CAPACITY, LOG SENSE: what Windows' worker threads send beside a request after some errors."""
_START_STOP_UNIT, _MODE_SELECT = 0x1B, 0x15
_SECONDS_KEYS = ("seconds", "elapsed_s", "elapsed_seconds", "duration_s", "takes_s", "delay_s")
_SECONDS = re.compile(r"\b(?:takes|took|elapsed|ends after|late by)\b\D*(\d+(?:\.\d+)?)\s*s", re.IGNORECASE)
_SRB = {
    0x02: Delivery.ABORTED,
    0x05: Delivery.BUSY,
    0x09: Delivery.TIMEOUT,
    0x0B: Delivery.TIMEOUT,
    0x0E: Delivery.RESET,
}
"""SRB_STATUS values (srb.h)."""
_OVERRUN = 0x12
"""SRB_STATUS_DATA_OVERRUN."""
_SRB_WORDS = {"BUSY": 0x05, "TIMEOUT": 0x09, "RESET": 0x0E, "ABORT": 0x02, "OVERRUN": _OVERRUN}
_CDB_SIZE = 16


class MismatchError(Exception):
    """The model does not do what the vector says."""


def seconds(step: Step) -> float | None:
    """How long an exchange takes, None if the file does not say."""
    for key in _SECONDS_KEYS:
        if isinstance(step.raw.get(key), int | float):
            return float(step.raw[key])
    told = _SECONDS.search(str(step.raw.get("note", "")))
    return float(told[1]) if told else None


def completion(step: Step) -> Completion:
    """What the vector answers."""
    srb = _srb_status(step)
    residual = int(step.raw.get("residual") or step.raw.get("resid") or srb == _OVERRUN)
    delivery = _SRB.get(srb, Delivery.DONE)
    return Completion(_scsi_status(step), step.sense, step.data_in, residual, delivery)


def _scsi_status(step: Step) -> int:
    value = step.raw.get("scsi_status") or 0
    if isinstance(value, str):
        return Status[value.strip().upper().replace(" ", "_")]
    return int(value)


def _srb_status(step: Step) -> int:
    """The key; without it the note, for a step that says that there was no SCSI status."""
    value = step.raw.get("srb_status")
    if value is None and "scsi_status" in step.raw and step.raw["scsi_status"] is None:
        value = step.raw.get("note")
    if isinstance(value, int):
        return value & 0x3F  # the two upper bits tell of sense data and of the frozen queue
    words = str(value or "").upper()
    return next((code for word, code in _SRB_WORDS.items() if word in words), 0)


def same(sent: bytes, cdb: bytes) -> bool:
    """True if they are one CDB, filled up with zeros or not."""
    return sent.ljust(_CDB_SIZE, b"\0") == cdb.ljust(_CDB_SIZE, b"\0")


def _check_data(step: Step, data_out: bytes, number: int) -> None:
    if step.data_out == data_out:
        return
    if len(step.data_out) != len(data_out):
        found, wanted = f"{len(data_out)} bytes", f"{len(step.data_out)}"
    else:
        at = next(i for i, pair in enumerate(zip(data_out, step.data_out, strict=True)) if len(set(pair)) > 1)
        found, wanted = f"byte {at} is {data_out[at]:02x}", f"{step.data_out[at]:02x}"
    raise MismatchError(f"step {number}: parameter list: {found}, the vector has {wanted}")


@dataclass(slots=True)
class Script:
    """Answers in order; the model has to send exactly the vector's commands."""

    steps: tuple[Step, ...]
    pass_time: Callable[[float], None]
    at: int = 0
    sent: list[bytes] = field(default_factory=list)

    def __call__(self, cdb: bytes, data_out: bytes) -> Completion:
        """Take the next step."""
        if cdb[0] == _START_STOP_UNIT and not (self.at < len(self.steps) and self._next.cdb[0] == cdb[0]):
            return Completion(Status.GOOD)
        if cdb[0] not in _ASIDE:
            self._skip_asides()
        if self.at == len(self.steps):
            raise MismatchError(f"Windows would send {cdb.hex()} after the last of {self.at} steps")
        step = self._next
        if not same(cdb, step.cdb):
            raise MismatchError(f"step {self.at}: Windows sends {cdb.hex()}, the vector has {step.cdb.hex()}")
        _check_data(step, data_out, self.at)
        self.sent.append(cdb)
        self.at += 1
        self.pass_time(seconds(step) or 0)
        return completion(step)

    @property
    def _next(self) -> Step:
        return self.steps[self.at]

    def _skip_asides(self) -> None:
        while self.at < len(self.steps) and self._next.cdb[0] in _ASIDE:
            self.at += 1

    def finish(self) -> None:
        """Object to steps that never came."""
        self._skip_asides()
        if self.at < len(self.steps):
            raise MismatchError(
                f"Windows is done after {self.at} steps, the vector goes on with {self._next.cdb.hex()}"
            )


@dataclass(slots=True)
class StartScript:
    """Answers of device start: the vector's, and for what it does not show those of an ordinary disk."""

    steps: tuple[Step, ...]
    ordinary: Callable[[bytes], Completion]
    at: int = 0
    sent: list[bytes] = field(default_factory=list)

    def __call__(self, cdb: bytes, data_out: bytes) -> Completion:
        """Answer from the vector if it has the command, else as the ordinary disk."""
        self.sent.append(cdb)
        if not any(same(cdb, step.cdb) for step in self.steps):
            if cdb[0] == _MODE_SELECT:
                raise MismatchError(
                    f"Windows would send {cdb.hex()} to clear QERR, the vector has no such step"
                )
            return self.ordinary(cdb)
        if self.at == len(self.steps):
            raise MismatchError(f"Windows sends {cdb.hex()} once more than the vector has it")
        step = self.steps[self.at]
        if not same(cdb, step.cdb):
            raise MismatchError(f"step {self.at}: Windows sends {cdb.hex()}, the vector has {step.cdb.hex()}")
        _check_data(step, data_out, self.at)
        self.at += 1
        return completion(step)

    def finish(self) -> None:
        """Object to steps that never came."""
        if self.at < len(self.steps):
            raise MismatchError(f"Windows never sends {self.steps[self.at].cdb.hex()} (step {self.at})")
