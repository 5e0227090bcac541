"""Commands on disks.

Imports `server/{backend,config,options}`. Disks are opened, resized and closed on a worker: the host may be slow.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qemu_odx.disk.file import DiskError
from qemu_odx.disk.layers.table import option_keys
from qemu_odx.server.backend import open_configured
from qemu_odx.server.config import DISK_KEYS, parse_disk
from qemu_odx.server.monitor.command import Later
from qemu_odx.server.monitor.commands.options import as_options, members_for
from qemu_odx.server.monitor.errors import MonitorError, not_found
from qemu_odx.server.options import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.disk.port import Disk
    from qemu_odx.server.backend import Backend, ServedDisk
    from qemu_odx.server.config import DiskConfig
    from qemu_odx.server.monitor.schema import Members

KINDS: Final = {"size": int, "block-size": int, "physical-block-size": int, "readonly": bool}
"""Options of a disk that are not text."""


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A disk.

    Attributes:
        id: its name.
        path: the image.
        size: bytes.
        block_size: bytes of a logical block.
        physical_block_size: what guests are told to align to, if it is known.
        serial: its serial number.
        readonly: writes are refused.
        layers: what lies around the image, outermost first.
        exports: names of the exports that show it.
        tokens: how many live tokens were made from it.
        pinned_bytes: old data that is kept for them.
    """

    id: str
    path: str
    size: int
    block_size: int
    serial: str
    readonly: bool
    layers: list[str]
    exports: list[str]
    tokens: int
    pinned_bytes: int
    physical_block_size: int | None = None


def query(backend: Backend) -> list[DiskInfo]:
    """All disks.

    Example:
        -> {"execute": "query-odx-disks"}
        <- {"return": [{"id": "d0", "path": "a.img", "size": 1073741824, "block-size": 512,
                        "serial": "ODX-2f1c5d0e9b7a4c38", "readonly": false, "layers": [],
                        "exports": ["export0"], "tokens": 1, "pinned-bytes": 65536}]}
    """
    return [_info(backend, served) for served in backend.disks.values()]


def add_members() -> Members:
    """The options of `--disk`, as members."""
    return members_for((*DISK_KEYS, *option_keys()), KINDS, required=("id", "path"))


def add(backend: Backend, options: dict[str, object]) -> Later[None]:
    """Opens a disk for exports to come; the members are the options of `qemu-odx serve --disk`.

    Example:
        -> {"execute": "odx-disk-add",
            "arguments": {"id": "d2", "path": "/images/c.img", "size": 1073741824}}
        <- {"return": {}}
    """
    try:
        config = backend.faults.with_layer(parse_disk(as_options(options)))
    except ConfigError as error:
        raise MonitorError(str(error)) from error
    _check_free(backend, config)
    backend.reserved[config.id] = config.path

    def begin(done: Callable[[MonitorError | None], None]) -> None:
        def opened(result: Disk | BaseException) -> None:
            del backend.reserved[config.id]
            if isinstance(result, DiskError | OSError):
                done(MonitorError(str(result)))
            elif isinstance(result, BaseException):
                raise result
            else:
                backend.enter_disk(config, result)
                done(None)

        backend.workers.run(lambda: open_configured(config, backend.state), opened)

    return Later(begin)


def remove(backend: Backend, id: str) -> Later[None]:  # noqa: A002 - the name of the argument in QMP
    """Closes a disk that no export shows any more: it is flushed and unlocked, its tokens are cancelled (23/08).

    Args:
        id: name of the disk.

    Example:
        -> {"execute": "odx-disk-remove", "arguments": {"id": "d2"}}
        <- {"return": {}}
    """
    served = find(backend, id)
    if users := backend.users_of(id):
        raise MonitorError(
            f"disk {id} is shown by {', '.join(users)}: remove these first (odx-export-remove)"
        )
    disk = backend.leave_disk(id)
    backend.reserved[id] = served.config.path

    def begin(done: Callable[[MonitorError | None], None]) -> None:
        def closed(result: object) -> None:
            del backend.reserved[id]
            failed = isinstance(result, BaseException)
            done(MonitorError(f"disk {id} is closed, but was not flushed: {result}") if failed else None)

        backend.workers.run(disk.close, closed)

    return Later(begin)


def resize(backend: Backend, id: str, size: int | None = None) -> Later[DiskInfo]:  # noqa: A002
    """Changes the size of a disk and tells every guest: 2A/09, an event, or the configuration space.

    What live tokens protect beyond a new, smaller end is lost, and they are cancelled (23/08).

    Args:
        id: name of the disk.
        size: bytes. Without it, the disk follows an image that somebody has made larger, as with SIGUSR1.

    Example:
        -> {"execute": "odx-disk-resize", "arguments": {"id": "d0", "size": 2147483648}}
        <- {"return": {"id": "d0", "path": "a.img", "size": 2147483648, "block-size": 512,
                       "serial": "ODX-2f1c5d0e9b7a4c38", "readonly": false, "layers": [],
                       "exports": ["export0"], "tokens": 0, "pinned-bytes": 0}}
    """
    served = find(backend, id)
    disk, before = served.disk, served.disk.size

    def work() -> None:
        if size is None:
            disk.follow_growth()
        else:
            disk.resize(size)

    def begin(done: Callable[[DiskInfo | MonitorError], None]) -> None:
        def ended(result: object) -> None:
            if disk.size != before and backend.disks.get(id) is served:
                backend.resized(disk)
            if isinstance(result, OSError):
                done(MonitorError(f"disk {id}: {result.strerror or result}"))
            elif isinstance(result, BaseException):
                done(MonitorError(str(result)))
            else:
                done(_info(backend, served))

        backend.workers.run(work, ended)

    return Later(begin)


def find(backend: Backend, name: str) -> ServedDisk:
    """A disk by its name. Raises MonitorError."""
    if name not in backend.disks:
        raise not_found("disk", name, list(backend.disks))
    return backend.disks[name]


def _check_free(backend: Backend, config: DiskConfig) -> None:
    paths = {served.config.id: served.config.path for served in backend.disks.values()} | backend.reserved
    if config.id in paths:
        raise MonitorError(f"there is a disk '{config.id}' already: choose another id")
    wanted = os.path.realpath(config.path)
    for name, path in paths.items():
        if os.path.realpath(path) == wanted:
            raise MonitorError(f"{config.path} is disk {name} already; give one disk to several exports")


def _info(backend: Backend, served: ServedDisk) -> DiskInfo:
    disk, config = served.disk, served.config
    tokens = [token for token in backend.manager.tokens if token.creator == config.id]
    return DiskInfo(
        id=config.id,
        path=config.path,
        size=disk.size,
        block_size=disk.block_size,
        serial=disk.serial,
        readonly=disk.readonly,
        layers=list(config.layers),
        exports=backend.users_of(config.id),
        tokens=len(tokens),
        pinned_bytes=sum(token.payload.held_bytes() for token in tokens),
        physical_block_size=disk.physical_block_size,
    )
