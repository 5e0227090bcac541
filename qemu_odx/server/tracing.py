"""Recording a running server: a `Recorder` attached to its gates, sockets, tokens and copies, and taken off again.

Imports `trace/` and the rest of `server/`. Begun by `serve --trace` or by the monitor. While nothing is recorded,
nothing of this is attached anywhere.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import qemu_odx
from qemu_odx.server.clock import VirtualClock
from qemu_odx.server.config import BlkExport
from qemu_odx.server.options import ConfigError
from qemu_odx.server.trace_watch import Copies, Messages, Tokens
from qemu_odx.trace import payload
from qemu_odx.trace.describe import nexus_name
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import CHUNK, Sink

if TYPE_CHECKING:
    from qemu_odx.disk.port import Disk
    from qemu_odx.faults.book import Hit
    from qemu_odx.faults.event import Event
    from qemu_odx.server.backend import Backend, ServedExport
    from qemu_odx.server.trace_options import TraceConfig
    from qemu_odx.tap.gate import Gate

log = logging.getLogger(__name__)

_PIECE: Final = 1 << 20
"""Bytes of a disk that are read at once."""


class Tracing:
    """The recording of a server, at most one at a time.

    Attributes:
        recorder: who records, None while nothing is; fault injectors tell it what they do.
    """

    def __init__(self, backend: Backend) -> None:
        self.recorder: Recorder | None = None
        self._backend = backend
        self._attached: dict[str, tuple[Gate, ServedExport, Messages]] = {}
        self._tokens: Tokens | None = None
        self._copies: Copies | None = None

    def start(self, config: TraceConfig, *, fresh: bool = False) -> None:
        """Record from now on.

        Args:
            config: what.
            fresh: the server has just begun and serves nobody yet: there is time to record what is on the disks.

        Raises:
            ConfigError: something is recorded already, or the file cannot be made.
        """
        if self.recorder is not None:
            raise ConfigError(f"{self.recorder.sink.path} is being recorded: stop that first")
        backend = self._backend
        try:
            sink = Sink(config.path, backend.loop.call_later)
        except OSError as error:
            raise ConfigError(f"{config.path}: {error.strerror}; record to another file") from error
        self.recorder = Recorder(
            sink,
            backend.clock,
            events=config.events,
            data=config.data != "off",
            full=config.data == "full",
            head=self._head(fresh=fresh),
        )
        if config.data != "off":
            self._record_disks(config.initial if fresh else 0)
        self._tokens, self._copies = Tokens(self.recorder), Copies(self.recorder)
        backend.manager.tokens.observers.append(self._tokens)
        backend.manager.operations.observers.append(self._copies)
        backend.faults.book.fired.append(self._fault)
        for name in backend.exports:
            self.attach(name)

    def stop(self) -> Sink | None:
        """Record no more; the file, for the caller to close (that may wait). None: nothing was recorded."""
        recorder, self.recorder = self.recorder, None
        if recorder is None or self._tokens is None or self._copies is None:
            return None
        self._backend.manager.tokens.observers.remove(self._tokens)
        self._backend.manager.operations.observers.remove(self._copies)
        self._backend.faults.book.fired.remove(self._fault)
        for gate, export, messages in self._attached.values():
            gate.remove(recorder)
            export.running.watches.remove(messages)
        self._attached.clear()
        recorder.end()
        return recorder.sink

    def attach(self, name: str) -> None:
        """An export is there: record it too."""
        if self.recorder is None:
            return
        export = self._backend.exports[name]
        gate = self._backend.maker.gates[export.config.socket]
        messages = Messages(self.recorder, export.config)
        gate.add(self.recorder, last=True)
        export.running.watches.append(messages)
        self._attached[name] = gate, export, messages
        self.recorder.note("export", export=name, what="served", about=self._export(export))

    def disk_entered(self, disk: Disk) -> None:
        """A disk is there."""
        if self.recorder is not None:
            self.recorder.note("disk", disk=disk.name, what="served", about=_disk(disk))

    def detach(self, name: str) -> None:
        """An export has been taken away."""
        if self.recorder is not None and name in self._attached:
            gate, export, messages = self._attached.pop(name)
            gate.remove(self.recorder)
            export.running.watches.remove(messages)
            self.recorder.note("export", export=name, what="removed")

    def _fault(self, hit: Hit, event: Event) -> None:
        """A rule has fired, perhaps on a worker."""
        exports = event.exports & self._backend.exports.keys()
        members = {
            "level": event.level.value,
            "name": event.operation,
            **({"disk": event.disk} if event.disk else {}),
            **({"export": min(exports)} if exports else {}),
        }
        self._backend.loop.call_soon(partial(self._tell_fault, hit.entry.name, hit.action.name, members))

    def _tell_fault(self, rule: str, action: str, members: dict[str, str]) -> None:
        if self.recorder is not None:
            self.recorder.fault(rule, action, None, **members)

    def _head(self, *, fresh: bool) -> dict[str, Any]:
        backend = self._backend
        targets = {name: backend.maker.target_of(export.device) for name, export in backend.exports.items()}
        return {
            "program": f"qemu-odx {qemu_odx.__version__}",
            "clock": "virtual" if isinstance(backend.clock, VirtualClock) else "real",
            "fresh": fresh,
            "exports": [self._export(export) for export in backend.exports.values()],
            "disks": [_disk(served.disk) for served in backend.disks.values()],
            "nexuses": {
                name: [nexus_name(nexus) for nexus in target.nexuses()]
                for name, target in targets.items()
                if target
            },
        }

    def _export(self, export: ServedExport) -> dict[str, Any]:
        config = export.config
        about = {"id": config.id, "socket": config.socket, "group": self._backend.maker.group(config)}
        if isinstance(config, BlkExport):
            return about | {"type": "vhost-user-blk", "disk": config.disk, "mailbox": config.mailbox}
        return about | {"type": "vhost-user-scsi", "luns": {str(lun): disk for lun, disk in config.luns}}

    def _record_disks(self, most: int) -> None:
        """What is on the disks, as far as it is not too much: a replay begins there."""
        for served in self._backend.disks.values():
            _record_content(served.disk, self.recorder, most)


def _disk(disk: Disk) -> dict[str, Any]:
    return {
        "id": disk.name,
        "size": disk.size,
        "block_size": disk.block_size,
        "physical_block_size": disk.physical_block_size,
        "serial": disk.serial,
        "readonly": disk.readonly,
    }


def _record_content(disk: Disk, recorder: Recorder | None, most: int) -> None:
    assert recorder is not None  # noqa: S101 - called while it records
    mapped = [extent for extent, is_mapped in disk.allocated(0, disk.size) if is_mapped]
    held = sum(extent.length for extent in mapped)
    complete = held <= most
    if complete:
        for extent in mapped:
            for at in range(extent.offset, extent.offset + extent.length, _PIECE):
                data = bytearray(min(_PIECE, extent.offset + extent.length - at))
                disk.read(at, [memoryview(data)])
                if any(data):
                    packed = payload.member(bytes(data), content=True)
                    recorder.note(
                        "disk", disk=disk.name, what="initial", offset=at, data=packed, complete=True
                    )
                while recorder.sink.waiting > CHUNK:  # nobody is served yet: there is time
                    time.sleep(0.001)
    else:
        log.info("disk %s holds %d bytes: a replay needs --image %s=FILE", disk.name, held, disk.name)
    recorder.note("disk", disk=disk.name, what="initial", held=held, complete=complete)
