"""A machine that is a domain of libvirt: transient, and ended by libvirt itself when the lab's connection breaks.

May import: errors, machine, sockets, qemu (its data), machines/*. libvirt-python is imported when a
machine is started (extra `libvirt`). Next: `live.py`.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from qemu_odx.lab.errors import LabError, MissingError
from qemu_odx.lab.machine import SHUT_DOWN_SECONDS, UNPLUG_SECONDS
from qemu_odx.lab.machines.domain import DISK_LETTERS, DomainNames, blk_disk, domain_xml
from qemu_odx.lab.machines.hosted import HostedMachine
from qemu_odx.lab.machines.libvirt_console import ConsoleReader
from qemu_odx.lab.machines.libvirt_errors import Call, in_lab_words, libvirt_module, monitor_command
from qemu_odx.lab.machines.plugging import Ports, plug_commands, unplugged
from qemu_odx.lab.machines.png import as_png
from qemu_odx.lab.machines.power import press_until_off
from qemu_odx.lab.machines.usernet import forwarded_port
from qemu_odx.lab.sockets import require_served

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from qemu_odx.lab.machine import Plug
    from qemu_odx.lab.qemu import GuestSpec

SESSION = "qemu:///session"
START_SECONDS = 120.0
DESTROY_SECONDS = 120.0
POLL_SECONDS = 0.05
LIBVIRTS_OWN = "libvirt"


class LibvirtMachine(HostedMachine):
    """See `Machine`.

    Attributes:
        name: the domain's name.
        folder: takes `serial.log`, `domain.xml` and the machine's own system disk.
    """

    def __init__(
        self,
        spec: GuestSpec,
        folder: Path,
        uri: str = SESSION,
        *,
        owner: str | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """Prepare it; nothing runs yet.

        Args:
            spec: the guest.
            folder: the machine's files; with a daemon on another host it must be a folder of both.
            uri: libvirt connection URI.
            owner: as whom QEMU runs under a system daemon: "+UID:+GID"; "libvirt": the user of libvirt's
                configuration, whom the sockets must let in; None: the user of this process.
            start_seconds: a start that takes longer is given up.

        Raises:
            LabError: the image is not there.
        """
        self.name = f"qemu-odx-{uuid.uuid4().hex[:12]}"
        super().__init__(spec, folder)
        self._uri = uri
        self._owner = owner or f"+{os.geteuid()}:+{os.getegid()}"
        self._start_seconds = start_seconds
        self._ports = Ports(spec.hotplug_ports, prefix="")
        self._scsi: set[str] = set()
        self._connection: Any = None
        self._domain: Any = None
        self._console: ConsoleReader | None = None

    @property
    def running(self) -> bool:
        """See `Machine`. A transient domain that ended is gone."""
        if self._domain is None:
            return False
        try:
            return bool(self._domain.isActive())
        except libvirt_module().libvirtError:
            return False

    @property
    def ssh_port(self) -> int:
        """See `Machine`."""
        return forwarded_port(self)

    def start(self) -> None:
        """See `Machine`."""
        if self.running:
            raise LabError("the machine is on already", "shut it down first")
        require_served(self._sockets)
        self.kill()
        self._connection = self._connect()
        xml = domain_xml(self._spec, self._names(), self._system.files if self._system else None)
        (self.folder / "domain.xml").write_text(xml)
        start = Call(lambda: self._create(xml))
        try:
            in_time = start.within(self._start_seconds)
        except BaseException:
            self._destroy_by_name(start)
            self.kill()
            raise
        if not in_time:
            self._destroy_by_name(start)
            self.kill()
            raise LabError(
                f"libvirt did not start the domain in {self._start_seconds:.0f} s: "
                "a disk server does not answer, or its socket does not let QEMU in",
                "see the disk server's log; owner=, socket-group= and mode= of --export say who may connect",
            )

    def _connect(self) -> Any:
        cure = "start libvirtd, or see whether you may use its socket"
        with in_lab_words(f"open {self._uri}", cure, MissingError):
            return libvirt_module().open(self._uri)

    def _names(self) -> DomainNames:
        """A session daemon runs everything as its own user and knows no labels of owners."""
        system = urlsplit(self._connection.getURI()).path == "/system"  # whatever stands behind it
        return DomainNames(self.name, self._owner if system and self._owner != LIBVIRTS_OWN else None)

    def _create(self, xml: str) -> None:
        """Start it paused, so that the console is read from the first byte on."""
        libvirt = libvirt_module()
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        with in_lab_words("start the domain"):
            domain = self._connection.createXML(xml, flags | libvirt.VIR_DOMAIN_START_VALIDATE)
            self._console = ConsoleReader(libvirt, self._uri, self.name, self.folder / "serial.log")
            domain.resume()
            self._domain = domain

    def _destroy_by_name(self, start: Call) -> None:
        """End a domain whose start hangs; by another connection, for the first is waiting."""

        def destroy() -> None:
            connection = libvirt_module().open(self._uri)
            try:
                while not self._destroyed(connection) and start.under_way:
                    time.sleep(POLL_SECONDS)  # the daemon may not know it yet
            finally:
                connection.close()

        with suppress(libvirt_module().libvirtError):
            Call(destroy).within(DESTROY_SECONDS)

    def _destroyed(self, connection: Any) -> bool:
        """Whether there was such a domain, which is gone now."""
        try:
            connection.lookupByName(self.name).destroy()
        except libvirt_module().libvirtError:
            return False
        return True

    def _on(self) -> Any:
        if self._domain is None:
            raise LabError("the machine is off", "start it first")
        return self._domain

    def shut_down(self, seconds: float = SHUT_DOWN_SECONDS) -> None:
        """See `Machine`."""
        if not press_until_off(self, self._press_power, seconds):
            raise LabError(
                "the guest did not shut down when the power button was pressed",
                "give it longer, or end it with kill",
            )

    def _press_power(self) -> None:
        with in_lab_words("press the power button"):
            self._on().shutdownFlags(libvirt_module().VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def await_end(self, seconds: float) -> bool:
        """See `Machine`."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        if self._console:
            self._console.finish()
        return True

    def check(self) -> None:
        """See `Machine`. Why a transient domain ended is known to libvirt's log only."""

    def let_reboot(self, *, allowed: bool) -> None:
        """See `Machine`: a domain always boots again."""

    def reset(self) -> None:
        """See `Machine`."""
        with in_lab_words("reset the domain"):
            self._on().reset(0)

    def pause(self) -> None:
        """See `Machine`."""
        with in_lab_words("pause the domain"):
            self._on().suspend()

    def resume(self) -> None:
        """See `Machine`."""
        with in_lab_words("resume the domain"):
            self._on().resume()

    def plug(self, name: str, plug: Plug) -> None:
        """See `Machine`. libvirt has no words for vhost-user-scsi: QEMU is told directly."""
        require_served([plug.socket])
        bus = self._ports.take(name)
        try:
            if plug.kind == "blk":
                self._attach(name, plug, int(bus))
            else:
                for command, arguments in plug_commands(name, plug, f"pci.{bus}"):
                    self.execute(command, arguments)
                self._scsi.add(name)
        except LabError:
            self._ports.free(name)
            raise

    def _attach(self, name: str, plug: Plug, bus: int) -> None:
        taken = {target.get("dev") for target in self._description().iterfind("devices/disk/target")}
        index = next(index for index, letter in enumerate(DISK_LETTERS) if f"vd{letter}" not in taken)
        disk = blk_disk(plug.socket, index, alias=f"ua-{name}", queues=plug.queues, bus=bus)
        with in_lab_words("attach the disk"):
            self._on().attachDevice(ET.tostring(disk, encoding="unicode"))

    def _description(self) -> ET.Element:
        with in_lab_words("describe the domain"):
            return ET.fromstring(self._on().XMLDesc(0))  # noqa: S314 - libvirt wrote it

    def unplug(self, name: str, seconds: float = UNPLUG_SECONDS) -> None:
        """See `Machine`."""
        self._ports.check_taken(name)
        if name in self._scsi:
            self._unplug_scsi(name, seconds)
        else:
            self._detach(name, seconds)
        self._ports.free(name)

    def _unplug_scsi(self, name: str, seconds: float) -> None:
        self.execute("device_del", {"id": name})
        if not _until(seconds, lambda: name not in self._devices()):
            raise unplugged(name, seconds)
        _until(seconds, lambda: self._hung_up(name))
        self._scsi.discard(name)

    def _hung_up(self, name: str) -> bool:
        """Let go of the socket; the device leaves QEMU's list a moment before it does so itself."""
        try:
            self.execute("chardev-remove", {"id": f"{name}-socket"})
        except LabError:
            return False
        return True

    def _devices(self) -> set[str]:
        return {entry["name"] for entry in self.execute("qom-list", {"path": "/machine/peripheral"})}

    def _detach(self, name: str, seconds: float) -> None:
        with in_lab_words("detach the disk"):
            self._on().detachDeviceAlias(f"ua-{name}")
        if not _until(seconds, lambda: f"ua-{name}" not in self._aliases()):
            raise unplugged(name, seconds)

    def _aliases(self) -> set[str]:
        return {alias.get("name", "") for alias in self._description().iterfind("devices/disk/alias")}

    @property
    def console_is_whole(self) -> bool:
        """No: QEMU drops what is written to a pseudo-terminal that it finds closed, and a stream may end early."""
        return False

    def screenshot(self, target: Path) -> None:
        """See `Machine`."""
        self._require_screen()
        chunks: list[bytes] = []
        with in_lab_words("take a screenshot"):
            stream = self._connection.newStream(0)
            self._on().screenshot(stream, 0, 0)
            stream.recvAll(lambda _stream, data, _: chunks.append(data), None)
            stream.finish()
        target.write_bytes(as_png(b"".join(chunks)))

    def press_keys(self, *keys: str) -> None:
        """See `Machine`."""
        for key in keys:
            self.execute("send-key", {"keys": [{"type": "qcode", "data": key}]})

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """See `Machine`. It taints the domain (custom-monitor), which only libvirt's log notices."""
        return monitor_command(self._on(), command, dict(arguments or {}))

    def write_state(self) -> None:
        """See `Machine`: in `state.log`."""
        with suppress(LabError):
            registers = self.execute("human-monitor-command", {"command-line": "info registers -a"})
            (self.folder / "state.log").write_text(str(registers))

    def kill(self) -> None:
        """See `Machine`."""
        if self._connection is None:
            return
        errors = libvirt_module().libvirtError
        if self._domain is not None:
            with suppress(errors):
                self._domain.destroy()
            if self._console:
                self._console.finish()
        with suppress(errors):
            self._connection.close()
        self._connection = self._domain = self._console = None
        self._ports.free_all()
        self._scsi.clear()


def _until(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
