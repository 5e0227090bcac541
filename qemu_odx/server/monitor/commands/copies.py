"""Commands on copy operations that run.

Imports `tokens/operations`, `target/shared_disk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.commands.tokens import owner_name
from qemu_odx.server.monitor.errors import MonitorError, not_found
from qemu_odx.target.shared_disk import end_all
from qemu_odx.tokens.operations import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.backend import Backend
    from qemu_odx.tokens.operations import Operation

_NAMES: Final = {
    0x00: "EXTENDED COPY(LID1)",
    0x01: "EXTENDED COPY(LID4)",
    0x10: "POPULATE TOKEN",
    0x11: "WRITE USING TOKEN",
}
"""SERVICE ACTION of operation code 83h to the command (SPC-4 6.4)."""


@dataclass(frozen=True, slots=True)
class CopyInfo:
    """A copy operation that runs.

    Attributes:
        copy: its number.
        command: which SCSI command it is.
        mode: `foreground`: the initiator waits for it. `background`: it asked for that (IMMED).
        lun: the logical unit it was sent to.
        list_identifier: LIST IDENTIFIER.
        owner: the I_T nexus that started it: the socket, and which driver's life there.
        disks: the disks that it reads or writes.
        total: bytes that it is to write, 0 if it writes none.
        done: bytes that are written, also those that it had written when it went on in this process.
        elapsed: seconds since it began.
        rate: bytes per second in this process so far; missing while no time has passed.
        aborting: it was told to stop.
    """

    copy: int
    command: str
    mode: Literal["foreground", "background"]
    lun: int
    list_identifier: int
    owner: str
    disks: list[str]
    total: int
    done: int
    elapsed: float
    aborting: bool
    rate: float | None = None


def query(backend: Backend) -> list[CopyInfo]:
    """The copy operations that run now, in the order in which they began.

    Example:
        -> {"execute": "query-odx-copies"}
        <- {"return": [{"copy": 17, "command": "WRITE USING TOKEN", "mode": "foreground", "lun": 1,
                        "list-identifier": 3, "owner": "s.sock#0", "disks": ["d0", "d1"],
                        "total": 67108864, "done": 33554432, "elapsed": 0.25, "aborting": false,
                        "rate": 134217728.0}]}
    """
    return [_info(backend, item) for item in backend.manager.operations.all_running()]


def abort(backend: Backend, copy: int) -> Later[None]:
    """Stops a copy at its next step of 1 MiB, as COPY OPERATION ABORT does; answered when it has ended.

    What was written stays written.

    Args:
        copy: its number, as `query-odx-copies` tells it.

    Example:
        -> {"execute": "odx-copy-abort", "arguments": {"copy": 17}}
        <- {"return": {}}
    """
    running = {item.number: item for item in backend.manager.operations.all_running()}
    if copy not in running:
        raise not_found("running copy", str(copy), [str(number) for number in running])

    def begin(done: Callable[[MonitorError | None], None]) -> None:
        end_all(backend.manager, [], [running[copy]], lambda: done(None))

    return Later(begin)


def _info(backend: Backend, operation: Operation) -> CopyInfo:
    elapsed = backend.manager.clock() - operation.began
    return CopyInfo(
        copy=operation.number,
        command=_NAMES.get(operation.service_action, f"service action {operation.service_action:02X}h"),
        mode="background" if operation.status is OperationStatus.BACKGROUND else "foreground",
        lun=operation.lun,
        list_identifier=operation.list_identifier,
        owner=owner_name(operation.nexus),
        disks=sorted(map(str, operation.disks)),
        total=operation.total,
        done=operation.before + operation.done,
        elapsed=elapsed,
        aborting=operation.abort,
        rate=operation.done / elapsed if elapsed > 0 else None,
    )
