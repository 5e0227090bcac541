"""Commands on silent corruption: what the verify layers have found.

Imports `server/witness.py` and `disk/layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.errors import MonitorError
from qemu_odx.server.witness import verify_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.layers.finding import Finding
    from qemu_odx.disk.layers.record import Write
    from qemu_odx.disk.layers.verify import VerifyLayer
    from qemu_odx.server.backend import Backend


@dataclass(frozen=True, slots=True)
class WriteInfo:
    """A write to some blocks.

    Attributes:
        number: counts the writes to the disk, from 0.
        request: operation, number and place of the request that it came from, as far as known.
        offset: bytes.
        length: bytes.
        begun: seconds since 1970.
        ended: the same; absent if it never did.
    """

    number: int
    request: str
    offset: int
    length: int
    begun: float
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class WrongBlock:
    """A block that did not hold what was written last.

    Attributes:
        block: its number, in logical blocks.
        offset: its first byte.
        found_by: the request that met it.
        time: when, in seconds since 1970.
        expected: CRC-32 of what was written.
        found: CRC-32 of what was there.
        zeros: that was zeros.
        text: all of it in a sentence.
        overlapping: requests that were at the block at the same time as the last writer.
        written_by: the request that wrote it last; absent if that is not known.
    """

    block: int
    offset: int
    found_by: str
    time: float
    expected: int
    found: int
    zeros: bool
    text: str
    overlapping: list[WriteInfo]
    written_by: WriteInfo | None = None


@dataclass(frozen=True, slots=True)
class Corruption:
    """What was found on a disk with the layer `verify`.

    Attributes:
        disk: its name.
        checked: blocks compared so far.
        wrong: wrong blocks found so far.
        first: the first of all.
        blocks: the last thousand of them, oldest first.
    """

    disk: str
    checked: int
    wrong: int
    blocks: list[WrongBlock]
    first: WrongBlock | None = None


def query(backend: Backend, disk: str | None = None) -> list[Corruption]:
    """Wrong blocks, of one disk or of all that have the layer `verify`.

    Args:
        disk: name of the disk.

    Example:
        -> {"execute": "query-odx-corruption"}
        <- {"return": [{"disk": "d0", "checked": 81920, "wrong": 0, "blocks": []}]}
    """
    if disk is not None:
        return [_corruption(_layer(backend, disk))]
    layers = [verify_layer(served.disk) for served in backend.disks.values()]
    return [_corruption(layer) for layer in layers if layer is not None]


def scan(backend: Backend, disk: str) -> Later[Corruption]:
    """Looks at every block of a disk now, beside its guests; answers when that is done.

    Args:
        disk: name of the disk.

    Example:
        -> {"execute": "odx-corruption-scan", "arguments": {"disk": "d0"}}
        <- {"return": {"disk": "d0", "checked": 212992, "wrong": 0, "blocks": []}}
    """
    layer = _layer(backend, disk)

    def begin(answer: Callable[[Corruption | MonitorError], None]) -> None:
        def over(result: int | BaseException) -> None:
            if isinstance(result, BaseException):
                answer(MonitorError(f"disk {disk} cannot be read: {result}"))
            else:
                answer(_corruption(layer))

        backend.workers.run(layer.scan, over)

    return Later(begin)


def _layer(backend: Backend, disk: str) -> VerifyLayer:
    served = backend.disks.get(disk)
    if served is None:
        raise MonitorError(f"there is no disk '{disk}': the disks are {', '.join(backend.disks)}")
    layer = verify_layer(served.disk)
    if layer is None:
        raise MonitorError(f"disk '{disk}' is not verified: add layers=verify to its --disk")
    return layer


def _corruption(layer: VerifyLayer) -> Corruption:
    first = _wrong_block(layer.first) if layer.first else None
    blocks = [_wrong_block(finding) for finding in tuple(layer.findings)]
    return Corruption(layer.name, layer.checked, layer.wrong, blocks, first)


def _wrong_block(finding: Finding) -> WrongBlock:
    return WrongBlock(
        finding.block,
        finding.block * finding.block_size,
        finding.found_by,
        finding.when,
        finding.expected,
        finding.found,
        finding.zeros,
        str(finding),
        [_write_info(write) for write in finding.overlapping],
        _write_info(finding.written) if finding.written else None,
    )


def _write_info(write: Write) -> WriteInfo:
    return WriteInfo(write.number, write.who, write.offset, write.length, write.begun, write.ended or None)
