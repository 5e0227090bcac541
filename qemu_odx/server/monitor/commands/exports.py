"""Commands on exports, their logical units, and the front ends that are connected.

Imports `server/{backend,config}`, `vhost/` and `wire/` for the names of features.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from qemu_odx.server.config import BLK_KEYS, MAX_LUN, SCSI_KEYS, BlkExport, ScsiExport, free_id, parse_export
from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.commands import disks
from qemu_odx.server.monitor.commands.options import as_options, members_for
from qemu_odx.server.monitor.errors import MonitorError, not_found
from qemu_odx.server.monitor.schema import Member
from qemu_odx.server.options import ConfigError
from qemu_odx.virtio.scsi import ScsiDevice
from qemu_odx.wire.vhost_user import ProtocolFeature
from qemu_odx.wire.virtio import blk, scsi
from qemu_odx.wire.virtio.features import feature_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.backend import Backend, ServedExport
    from qemu_odx.server.monitor.schema import Members
    from qemu_odx.vhost.session import Session

ExportType: TypeAlias = Literal["vhost-user-blk", "vhost-user-scsi"]
KINDS: Final = {"num-queues": int}
"""Options of an export that are not text."""
_LUN_KEYS = ("lun0", "lun1", "...")


@dataclass(frozen=True, slots=True)
class Unit:
    """A logical unit.

    Attributes:
        lun: its number.
        disk: the disk that it shows.
    """

    lun: int
    disk: str


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A virtqueue that a front end has set up.

    Attributes:
        index: its number in the device.
        state: `idle`, `running` or `draining`.
        enabled: by the front end.
        size: entries.
        in_flight: requests taken and not yet completed.
        taken: requests taken since it was started.
        completed: requests completed since it was started.
    """

    index: int
    state: Literal["idle", "running", "draining"]
    enabled: bool
    size: int
    in_flight: int
    taken: int
    completed: int


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What was negotiated with a front end.

    Attributes:
        features: virtio features that driver and front end have acknowledged, by name.
        protocol_features: vhost-user protocol features, by name.
        inflight: requests survive a crash of the server in an area that the front end keeps.
        dirty_log: writes to guest memory are logged, for a live migration.
        queues: those that were set up.
    """

    features: list[str]
    protocol_features: list[str]
    inflight: bool
    dirty_log: bool
    queues: list[QueueInfo]


@dataclass(frozen=True, slots=True)
class ExportInfo:
    """An export.

    Attributes:
        id: its name.
        type: which device.
        socket: where front ends connect.
        units: its logical units; a virtio-blk device counts as unit 0.
        num_queues: request queues that a front end may use.
        group: exports of one group share tokens; missing if it was given none.
        mailbox: byte of the disk where its mailbox begins, if it has one.
        connection: the front end that is connected, if one is.
    """

    id: str
    type: ExportType
    socket: str
    units: list[Unit]
    num_queues: int
    group: str | None = None
    mailbox: int | None = None
    connection: ConnectionInfo | None = None


def query(backend: Backend) -> list[ExportInfo]:
    """All exports, with what was negotiated with their front ends.

    Example:
        -> {"execute": "query-odx-exports"}
        <- {"return": [{"id": "export0", "type": "vhost-user-blk", "socket": "b.sock",
                        "units": [{"lun": 0, "disk": "d0"}], "num-queues": 256,
                        "connection": {"features": ["BLK_SIZE", "FLUSH", "VERSION_1"],
                                       "protocol-features": ["MQ", "REPLY_ACK"],
                                       "inflight": true, "dirty-log": false,
                                       "queues": [{"index": 0, "state": "running", "enabled": true,
                                                   "size": 128, "in-flight": 1, "taken": 74,
                                                   "completed": 73}]}}]}
    """
    return [_info(export) for export in backend.exports.values()]


def add_members() -> Members:
    """The options of `--export` as members, logical units as a list."""
    keys = dict.fromkeys(key for key in (*BLK_KEYS, *SCSI_KEYS) if key not in _LUN_KEYS)
    members = members_for(keys, KINDS, required=("type", "socket"))
    return members | {"type": Member(ExportType, optional=False), "units": Member(list[Unit], optional=True)}


def add(backend: Backend, options: dict[str, object]) -> ExportInfo:
    """Listens for front ends of a new export; the members are the options of `qemu-odx serve --export`.

    Logical units of a vhost-user-scsi export are a list, `units`.

    Example:
        -> {"execute": "odx-export-add",
            "arguments": {"type": "vhost-user-scsi", "id": "s1", "socket": "/run/s1.sock",
                          "units": [{"lun": 0, "disk": "d0"}, {"lun": 1, "disk": "d2"}]}}
        <- {"return": {"id": "s1", "type": "vhost-user-scsi", "socket": "/run/s1.sock",
                       "units": [{"lun": 0, "disk": "d0"}, {"lun": 1, "disk": "d2"}],
                       "num-queues": 254}}
    """
    given = dict(options)
    units = given.pop("units", [])
    try:
        texts = as_options(given)
        for unit in units:  # type: ignore[attr-defined]  # a list of units, checked
            texts[f"lun{unit['lun']}"] = unit["disk"]
        config = parse_export(texts)
        if not config.id:
            config = replace(config, id=free_id(backend.exports))
        elif config.id in backend.exports:
            raise MonitorError(f"there is an export '{config.id}' already: choose another id")
        for name in config.disks:
            disks.find(backend, name)
        backend.add_export(config)
    except ConfigError as error:
        raise MonitorError(str(error)) from error
    return _info(backend.exports[config.id])


def remove(backend: Backend, id: str) -> Later[None]:  # noqa: A002 - the name of the argument in QMP
    """Takes an export away: the socket goes, the guest is dropped, what is in flight ends, and then this command.

    Tokens made from a disk end with its last logical unit (23/08). A QEMU without `reconnect` takes it as the loss
    of the device: unplug it there before.

    Args:
        id: name of the export.

    Example:
        -> {"execute": "odx-export-remove", "arguments": {"id": "s1"}}
        <- {"return": {}}
    """
    find(backend, id)

    def begin(done: Callable[[MonitorError | None], None]) -> None:
        backend.remove_export(id, lambda: done(None))

    return Later(begin)


def add_unit(backend: Backend, export: str, lun: int, disk: str) -> None:
    """Adds a logical unit to a vhost-user-scsi export while guests use it.

    Other units report 3F/0E (REPORTED LUNS DATA HAS CHANGED); drivers that take events are told to look.

    Args:
        export: name of the export.
        lun: number of the new logical unit.
        disk: name of the disk that it shows.

    Example:
        -> {"execute": "odx-unit-add", "arguments": {"export": "export0", "lun": 3, "disk": "d2"}}
        <- {"return": {}}
    """
    config, device = _scsi(find(backend, export))
    served = disks.find(backend, disk)
    if not 0 <= lun <= MAX_LUN:
        raise MonitorError(f"'lun' must be from 0 to {MAX_LUN}")
    if lun in dict(config.luns):
        raise MonitorError(f"export {export} has a logical unit {lun} already: choose another number")
    target = backend.maker.target_of(device)
    assert target is not None  # noqa: S101 - a SCSI device has one
    target.add(lun, served.disk)
    backend.exports[export].config = replace(config, luns=tuple(sorted((*config.luns, (lun, disk)))))
    backend.shows(config.socket, (disk,))
    device.notify(lun, scsi.Event.TRANSPORT_RESET, scsi.ResetReason.RESCAN)


def remove_unit(backend: Backend, export: str, lun: int) -> Later[None]:
    """Takes a logical unit away while guests use the others: it answers 25/00, and its commands and copies end.

    Other units report 3F/0E (REPORTED LUNS DATA HAS CHANGED); drivers that take events are told. Tokens made from a
    disk end with its last logical unit (23/08).

    Args:
        export: name of the export.
        lun: number of the logical unit.

    Example:
        -> {"execute": "odx-unit-remove", "arguments": {"export": "export0", "lun": 3}}
        <- {"return": {}}
    """
    config, device = _scsi(find(backend, export))
    if lun not in dict(config.luns):
        raise not_found("logical unit", str(lun), [str(number) for number, _ in config.luns])
    target = backend.maker.target_of(device)
    assert target is not None  # noqa: S101 - a SCSI device has one

    def begin(done: Callable[[MonitorError | None], None]) -> None:
        backend.exports[export].config = replace(
            config, luns=tuple(item for item in config.luns if item[0] != lun)
        )
        device.notify(lun, scsi.Event.TRANSPORT_RESET, scsi.ResetReason.REMOVED)
        target.remove(lun, lambda _: done(None))

    return Later(begin)


def find(backend: Backend, name: str) -> ServedExport:
    """An export by its name. Raises MonitorError."""
    if name not in backend.exports:
        raise not_found("export", name, list(backend.exports))
    return backend.exports[name]


def _scsi(served: ServedExport) -> tuple[ScsiExport, ScsiDevice]:
    if isinstance(served.config, ScsiExport) and isinstance(served.device, ScsiDevice):
        return served.config, served.device
    raise MonitorError(f"export {served.config.id} is no vhost-user-scsi export: it has no logical units")


def _info(served: ServedExport) -> ExportInfo:
    config, session = served.config, served.running.session
    plain = config if isinstance(config, BlkExport) else None
    luns = config.luns if isinstance(config, ScsiExport) else ((0, config.disk),)
    return ExportInfo(
        id=config.id,
        type="vhost-user-blk" if plain else "vhost-user-scsi",
        socket=config.socket,
        units=[Unit(*item) for item in luns],
        num_queues=config.num_queues,
        group=config.group,
        mailbox=plain.mailbox if plain else None,
        connection=_connection(served, session) if session else None,
    )


def _connection(served: ServedExport, session: Session) -> ConnectionInfo:
    names = blk.FEATURE_NAMES if isinstance(served.config, BlkExport) else scsi.FEATURE_NAMES
    protocol = {feature.value: feature.name for feature in ProtocolFeature}
    bits = session.protocol_features
    return ConnectionInfo(
        features=feature_names(session.features, names),
        protocol_features=[
            protocol.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1
        ],
        inflight=session.inflight is not None,
        dirty_log=session.log is not None,
        queues=[
            QueueInfo(
                index=vring.index,
                state=vring.state.value,
                enabled=vring.enabled,
                size=vring.size,
                in_flight=served.device.queue_load(vring.index).in_flight,
                taken=served.device.queue_load(vring.index).taken,
                completed=served.device.queue_load(vring.index).completed,
            )
            for vring in session.vrings
            if vring.size
        ],
    )
