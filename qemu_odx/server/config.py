"""What `qemu-odx serve` is asked to do: `--disk` and `--export` strings as frozen values.

Imports `server/options.py`, the names of disk layers and numbers of `wire`. Next: `server/app.py` builds disks and
exports from it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from qemu_odx.disk.layers.table import LAYERS, option_keys
from qemu_odx.server.access import ACCESS_KEYS, AS_MADE, SocketAccess, parse_access
from qemu_odx.server.faulting.options import check_rules, layers_for, parse_fault
from qemu_odx.server.metrics.address import Address, parse_address
from qemu_odx.server.options import (
    ConfigError,
    Options,
    check_keys,
    get,
    parse_number,
    parse_size,
    parse_switch,
    split_options,
)
from qemu_odx.server.trace_options import parse_trace
from qemu_odx.wire.mailbox import ALIGNMENT, DEFAULT_OFFSET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qemu_odx.faults.rule import Rule
    from qemu_odx.server.trace_options import TraceConfig

R = TypeVar("R")

MAX_QUEUES = 256
"""Queues that the descriptor messages of vhost-user can name (SET_VRING_KICK: 8 bits)."""
SCSI_FIXED_QUEUES = 2
"""Control and event queue (virtio 1.2, 5.6.2); only the others count as num-queues."""
MAX_LUN = 255
"""The largest logical unit number that Windows' vioscsi can address."""
MAX_PHYSICAL_BLOCK = 65536
"""Bytes."""
MAX_SERIAL = 20
"""Bytes of a serial number in virtio-blk (virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID)."""

DISK_KEYS = ("id", "path", "size", "block-size", "serial", "readonly", "physical-block-size", "layers")
BLK_KEYS = ("type", "id", "socket", "disk", "num-queues", "mailbox", "group", *ACCESS_KEYS)
SCSI_KEYS = ("type", "id", "socket", "lun0", "lun1", "...", "num-queues", "group", *ACCESS_KEYS)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LUN_KEY = re.compile(r"lun(0|[1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """One `--disk`: a raw image. `size` in bytes, or None to take the image as it is; so `physical_block_size`.

    `layers` are put on it, the one that guests meet first; `layer_options` are theirs as written (`docs/layers.md`).
    """

    id: str
    path: str
    size: int | None = None
    block_size: int = 512
    serial: str | None = None
    readonly: bool = False
    physical_block_size: int | None = None
    layers: tuple[str, ...] = ()
    layer_options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class BlkExport:
    """One `--export type=vhost-user-blk`. `num_queues` is the most that a front end may use.

    `mailbox` is the byte of the disk where the mailbox window begins (`docs/mailbox.md`), None without one. `group`
    is the VM whose exports share tokens (`docs/policy.md`), `access` who may connect. An empty `id` becomes
    `export0`, `export1` and so on.
    """

    socket: str
    disk: str
    num_queues: int = MAX_QUEUES
    mailbox: int | None = None
    group: str | None = None
    access: SocketAccess = AS_MADE
    id: str = ""

    @property
    def disks(self) -> tuple[str, ...]:
        """The disks it shows."""
        return (self.disk,)


@dataclass(frozen=True, slots=True)
class ScsiExport:
    """One `--export type=vhost-user-scsi`: disks by logical unit number, ascending. Request queues only.

    `group` and `access` as in `BlkExport`.
    """

    socket: str
    luns: tuple[tuple[int, str], ...]
    num_queues: int = MAX_QUEUES - SCSI_FIXED_QUEUES
    group: str | None = None
    access: SocketAccess = AS_MADE
    id: str = ""

    @property
    def disks(self) -> tuple[str, ...]:
        """The disks it shows."""
        return tuple(disk for _, disk in self.luns)


Export = BlkExport | ScsiExport


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """All of it, checked against itself.

    Attributes:
        monitor: where the QMP monitor listens; without one, nothing is added or removed while it runs.
        virtual_clock: time passes only when the monitor says so.
        faults: in force from the start, as their rules say.
        guest_control: guests may arm and release them too.
        trace: what is recorded from the beginning on.
        state: the folder in which tokens outlive the server, None without.
        metrics: where Prometheus finds its numbers.
    """

    disks: tuple[DiskConfig, ...]
    exports: tuple[Export, ...]
    monitor: str | None = None
    virtual_clock: bool = False
    faults: tuple[Rule, ...] = ()
    guest_control: bool = False
    trace: TraceConfig | None = None
    state: str | None = None
    metrics: Address | None = None


def parse_config(
    disks: Iterable[str],
    exports: Iterable[str],
    *,
    monitor: str | None = None,
    virtual_clock: bool = False,
    faults: Iterable[str] = (),
    guest_control: bool = False,
    trace: str | None = None,
    state: str | None = None,
    metrics: str | None = None,
) -> ServeConfig:
    """Everything on the command line.

    Raises:
        ConfigError: one sentence naming the option and the cure.
    """
    rules = tuple(_named("--fault", text, parse_fault) for text in faults)
    config = ServeConfig(
        tuple(_breakable(_named("--disk", text, parse_disk), rules) for text in disks),
        _with_ids(_named("--export", text, parse_export) for text in exports),
        monitor,
        virtual_clock,
        rules,
        guest_control,
        parse_trace(trace) if trace else None,
        state,
        parse_address(metrics) if metrics else None,
    )
    _check_together(config)
    return config


def _breakable(disk: DiskConfig, rules: Iterable[Rule]) -> DiskConfig:
    return replace(disk, layers=layers_for(disk.id, disk.layers, rules))


def parse_disk(options: Options) -> DiskConfig:
    """One `--disk`."""
    layers = _layers(options)
    check_keys(options, (*DISK_KEYS, *option_keys()), ("id", "path"))
    block_size = get(options, "block-size", _block_size, 512)
    return DiskConfig(
        id=get(options, "id", _id, ""),
        path=options["path"],
        size=get(options, "size", parse_size, None),
        block_size=block_size,
        physical_block_size=get(
            options, "physical-block-size", partial(_physical_block_size, block_size=block_size), None
        ),
        serial=get(options, "serial", _serial, None),
        readonly=get(options, "readonly", parse_switch, default=False),
        layers=layers,
        layer_options=_layer_options(options, layers),
    )


def parse_export(options: Options) -> Export:
    """One `--export`."""
    kinds = {"vhost-user-blk": _blk_export, "vhost-user-scsi": _scsi_export}
    kind = options.get("type", "")
    if kind not in kinds:
        raise ConfigError(f"type: '{kind}' is not one of {', '.join(kinds)}")
    return kinds[kind](options)


def _blk_export(options: Options) -> Export:
    check_keys(options, BLK_KEYS, ("socket", "disk"))
    queues = get(options, "num-queues", partial(parse_number, least=1, most=MAX_QUEUES), MAX_QUEUES)
    mailbox = get(options, "mailbox", _mailbox, None)
    group, access = get(options, "group", _id, None), parse_access(options)
    name = get(options, "id", _id, "")
    return BlkExport(options["socket"], options["disk"], queues, mailbox, group, access, name)


def _scsi_export(options: Options) -> Export:
    luns = {int(match[1]): options[key] for key in options if (match := _LUN_KEY.fullmatch(key))}
    others = {key: value for key, value in options.items() if not _LUN_KEY.fullmatch(key)}
    check_keys(others, SCSI_KEYS, ("socket",))
    if not luns.get(0):
        raise ConfigError("'lun0=' is missing: guests ask logical unit 0 which others there are")
    if max(luns) > MAX_LUN:
        raise ConfigError(f"lun{max(luns)}: logical unit numbers go up to {MAX_LUN}")
    most = MAX_QUEUES - SCSI_FIXED_QUEUES
    queues = get(options, "num-queues", partial(parse_number, least=1, most=most), most)
    group, access = get(options, "group", _id, None), parse_access(options)
    name = get(options, "id", _id, "")
    return ScsiExport(options["socket"], tuple(sorted(luns.items())), queues, group, access, name)


def _layers(options: Options) -> tuple[str, ...]:
    names = tuple(options["layers"].split("+")) if "layers" in options else ()
    for name in names:
        if name not in LAYERS:
            known = ", ".join(LAYERS)
            raise ConfigError(f"layers: '{name}' is none; there are {known}, several with + between them")
    _refuse_twice(list(names), "the layer {} is given twice")
    return names


def _layer_options(options: Options, layers: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Those that belong to a layer; one whose layer is not there would do nothing, silently."""
    mine = option_keys()
    for key in options:
        if key in mine and not any(key.startswith(f"{name}-") for name in layers):
            raise ConfigError(f"'{key}' needs its layer: add it to layers=")
    return tuple((key, value) for key, value in options.items() if key in mine)


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ConfigError(f"'{text}' may hold letters, digits, '.', '_' and '-' only")
    return text


def export_names(export: Export) -> frozenset[str]:
    """All that a fault rule may call an export by."""
    return frozenset({export.id, export.socket, export.socket.rpartition("/")[2]})


def free_id(taken: Iterable[str]) -> str:
    """The first of `export0`, `export1`, ... that no other export has."""
    used = set(taken)
    return next(name for number in itertools.count() if (name := f"export{number}") not in used)


def _with_ids(exports: Iterable[Export]) -> tuple[Export, ...]:
    """Each export with a name."""
    named = list(exports)
    for at, export in enumerate(named):
        if not export.id:
            named[at] = replace(export, id=free_id(other.id for other in named))
    return tuple(named)


def _block_size(text: str) -> int:
    if text not in {"512", "4096"}:
        raise ConfigError(f"'{text}' is neither 512 nor 4096")
    return int(text)


def _mailbox(text: str) -> int | None:
    if text in {"on", "off"}:
        return DEFAULT_OFFSET if text == "on" else None
    cure = f"write on, off, or a place on the disk that is a multiple of {ALIGNMENT}"
    try:
        offset = parse_size(text)
    except ConfigError:
        raise ConfigError(f"'{text}' is no place for a mailbox: {cure}") from None
    if offset % ALIGNMENT:
        raise ConfigError(f"'{text}' is no place for a mailbox: {cure}")
    return offset


def _physical_block_size(text: str, block_size: int) -> int:
    """A power of two: what is larger than 64 KiB, guests do not believe."""
    sizes = [block_size << exponent for exponent in range(8) if block_size << exponent <= MAX_PHYSICAL_BLOCK]
    if text not in map(str, sizes):
        raise ConfigError(f"'{text}' is not one of {', '.join(map(str, sizes))}")
    return int(text)


def _serial(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]{1,20}", text):
        raise ConfigError(f"'{text}' is not 1 to {MAX_SERIAL} printable ASCII characters")
    return text


def _named(option: str, text: str, parse: Callable[[Options], R]) -> R:
    try:
        return parse(split_options(text))
    except ConfigError as error:
        raise ConfigError(f"{option} {text}: {error}") from error


def _check_together(config: ServeConfig) -> None:
    """What no single option can know."""
    if not (config.disks and config.exports) and not config.monitor:
        raise ConfigError("nothing to serve: give at least one --disk and one --export, or a --monitor")
    if config.virtual_clock and not config.monitor:
        raise ConfigError("--clock virtual: time would stand still for ever: give a --monitor to advance it")
    ids = [disk.id for disk in config.disks]
    _refuse_twice(ids, "two disks have id={}")
    _refuse_twice(
        [disk.path for disk in config.disks], "two disks have path={}; give one disk to several exports"
    )
    _refuse_twice([export.id for export in config.exports], "two exports have id={}")
    _refuse_twice([export.socket for export in config.exports], "two exports have socket={}")
    check_rules(config.faults, ids, {export.id: export_names(export) for export in config.exports})
    for export in config.exports:
        for disk in export.disks:
            if disk not in ids:
                raise ConfigError(
                    f"--export socket={export.socket}: there is no disk '{disk}', only {', '.join(ids)}"
                )


def _refuse_twice(values: list[str], sentence: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(sentence.format(value))
