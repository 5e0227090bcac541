"""An explanation of a disk: for people in sentences, for programs as an object.

Imports the model and the other modules of `explain`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.windows.copy_property import descriptor
from qemu_odx.windows.discovery import CONTROL_PAGE, Finding
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.windows.explain.advice import advice
from qemu_odx.windows.explain.copy_plan import CopyPlan, plan_copy
from qemu_odx.windows.limits import READ_ALLOCATION, populate_limits, write_allocation, write_limits
from qemu_odx.wire.scsi.sense import Status

if TYPE_CHECKING:
    from qemu_odx.windows.discovery import Discovery
    from qemu_odx.windows.limits import CommandLimits, TokenLimits
    from qemu_odx.windows.port import Carrier

_INQUIRY = bytes.fromhex("120000006000")
"""Standard INQUIRY data, 96 bytes."""
_DISK_TYPE = 0x00
_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))
_LEAST_FILE = "CopyFile leaves files below 256 KiB alone; NTFS only."
"""Facts from Microsoft's documentation of offloaded data transfer."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What Windows would make of a disk.

    Attributes:
        known: what came of device start.
        block_size, size: of the disk, in bytes; 0 if it does not tell.
        blame: why ODX is off, None if it is on.
        advice: what works against it.
        plan: a copy of 10 GiB, None if ODX is off.
    """

    known: Discovery
    block_size: int
    size: int
    blame: Finding | None
    advice: tuple[Finding, ...]
    plan: CopyPlan | None

    @property
    def on(self) -> bool:
        """Windows would switch ODX on."""
        return self.blame is None


def explain(carry: Carrier) -> Explanation:
    """Start the disk as Windows does, and look at what came."""
    driver = ClassDriver.start(carry, Environment())
    known, size = driver.volume.known, driver.volume.block_size
    blame = _no_disk(carry) or known.against or _no_capacity(size)
    on = blame is None
    return Explanation(
        known,
        size,
        driver.volume.size,
        blame,
        advice(known, size) if on else (),
        plan_copy(known, size) if on else None,
    )


def _no_disk(carry: Carrier) -> Finding | None:
    done = carry(_INQUIRY, b"")
    kind = done.data[0] if done.status == Status.GOOD and done.data else None
    if kind == _DISK_TYPE:
        return None
    found = "no answer" if kind is None else f"{kind:02X}h"
    effect = "Windows' disk class driver does not take the device"
    return Finding("INQUIRY", 0, found, "00h, a disk that is connected", effect)


def _no_capacity(block_size: int) -> Finding | None:
    if block_size:
        return None
    effect = "every offload request ends with STATUS_INVALID_PARAMETER"
    return Finding("READ CAPACITY", None, "no block size", "the capacity", effect)


def as_object(told: Explanation, device: str) -> dict[str, Any]:
    """Everything, for JSON."""
    limits = told.known.limits
    return {
        "device": device,
        "odx": told.on,
        "block_size": told.block_size,
        "disk_bytes": told.size,
        "blame": asdict(told.blame) if told.blame else None,
        "limits": asdict(limits) if limits and told.on else None,
        "property": _property(told.known) if limits and told.on else None,
        "commands": _commands(limits, told.block_size) if limits and told.on else None,
        "copy": _copy(told.plan) if told.plan else None,
        "advice": [asdict(item) for item in told.advice],
        "pages": {_page_name(code): data.hex() for code, data in sorted(told.known.raw.items())},
    }


def _property(known: Discovery) -> dict[str, int]:
    """The copy-offload property, without its padding."""
    return {name: value for name, value in asdict(descriptor(known)).items() if isinstance(value, int)}


def _page_name(code: int) -> str:
    return "mode 0Ah" if code == CONTROL_PAGE else f"VPD {code:02X}h"


def _commands(limits: TokenLimits, block_size: int) -> dict[str, Any]:
    def told(of: CommandLimits) -> dict[str, int | None]:
        return {
            "range_descriptors": of.descriptors,
            "bytes": None if of.blocks is None else of.blocks * block_size,
        }

    return {
        "populate_token": told(populate_limits(limits, 0)),
        "populate_token_with_time_to_live": told(populate_limits(limits, 1)),
        "write_using_token": told(write_limits(limits, block_size)),
        "receive_after_populate_bytes": READ_ALLOCATION,
        "receive_after_write_bytes": write_allocation(limits),
    }


def _copy(plan: CopyPlan) -> dict[str, Any]:
    return {
        "bytes": plan.size,
        "finished": plan.finished,
        "populate_token": {"count": len(plan.tokens), "bytes": _grouped(plan.tokens)},
        "offload_write_requests": plan.requests,
        "write_using_token": {"count": len(plan.writes), "bytes": _grouped(plan.writes)},
        "scsi_commands": plan.commands,
    }


def _grouped(sizes: tuple[int, ...]) -> list[dict[str, int]]:
    """Equal sizes together, largest first."""
    return [{"size": size, "times": times} for size, times in sorted(Counter(sizes).items(), reverse=True)]


def as_lines(told: Explanation, device: str) -> list[str]:
    """In sentences."""
    lines = [f"{device}: {_amount(told.size)}, blocks of {told.block_size} bytes"]
    if told.blame:
        return [*lines, "ODX: off. Windows would copy by reading and writing.", *_finding(told.blame)]
    lines.append("ODX: on.")
    lines += _limit_lines(told)
    if told.plan:
        lines += _plan_lines(told.plan)
    for item in told.advice:
        lines += ["But:", *_finding(item)]
    return lines


def _finding(item: Finding) -> list[str]:
    place = item.page if item.byte is None else f"{item.page}, byte {item.byte}"
    return [f"  {place} is {item.found}; Windows wants {item.wanted}.", f"  So: {item.effect}."]


def _limit_lines(told: Explanation) -> list[str]:
    limits = told.known.limits
    if limits is None:
        return []
    commands = _commands(limits, told.block_size)
    populate, write = commands["populate_token"], commands["write_using_token"]
    life = f"{limits.default_inactivity} s" if limits.default_inactivity else "as long as the disk likes"
    longest = f"up to {limits.max_inactivity} s" if limits.max_inactivity else "any time"
    return [
        f"  A token stands for {_limit(populate['bytes'])} in {populate['range_descriptors']} ranges at most,",
        f"  a WRITE USING TOKEN for {_limit(write['bytes'])} in {write['range_descriptors']} ranges.",
        f"  A token that is not used lives {life}; a caller may ask for {longest}.",
        f"  {_LEAST_FILE}",
    ]


def _plan_lines(plan: CopyPlan) -> list[str]:
    head = f"A file of {_amount(plan.size)} in one piece goes by {plan.commands} SCSI commands:"
    if not plan.finished:
        head = f"After {plan.commands} SCSI commands a file of 10 GiB is copied no further than {_amount(plan.size)}:"
    return [
        head,
        f"  POPULATE TOKEN {_times(plan.tokens)}, each with RECEIVE ROD TOKEN INFORMATION;",
        f"  WRITE USING TOKEN {_times(plan.writes)}, in {plan.requests} requests of CopyFile.",
    ]


def _times(sizes: tuple[int, ...]) -> str:
    groups = (f"{item['times']} x {_amount(item['size'])}" for item in _grouped(sizes))
    return " and ".join(groups)


def _limit(size: int | None) -> str:
    return "any size" if size is None else _amount(size)


def _amount(size: int) -> str:
    """Bytes in the largest unit that leaves no remainder."""
    for unit, value in _UNITS:
        if size and size % value == 0:
            return f"{size // value} {unit}"
    return f"{size} bytes"
