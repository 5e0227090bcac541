"""What the installed QEMU can do, found by trying, and remembered for as long as the program stays the same.

May import: errors, paths, process, qmp. Used by machines and `qemu-odx doctor`. Version numbers decide nothing:
distributions patch.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.paths import images_folder
from qemu_odx.lab.process import ManagedProcess
from qemu_odx.lab.qmp import Monitor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAM = "qemu-system-x86_64"
CACHE = "abilities.json"
FORMAT = 1  # of the cache; raised when a question is added
TRY_SECONDS = 60.0
POLL_SECONDS = 0.02
QUIET = ("-display", "none", "-nodefaults", "-no-user-config", "-S")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one QEMU program can do.

    Attributes:
        version: as QEMU says it, "7.2.22" for one.
        blk: it has vhost-user-blk for PCI.
        scsi: it has vhost-user-scsi for PCI.
        scsi_reconnects: vhost-user-scsi accepts a socket that connects again (7.2 does not).
        png: it writes screenshots as PNG.
        reconnect_ms: a socket's pause before it connects again can be given in milliseconds.
    """

    version: str
    blk: bool
    scsi: bool
    scsi_reconnects: bool
    png: bool
    reconnect_ms: bool


def abilities(program: str = PROGRAM) -> Abilities:
    """What `program` can do: from the cache, or found out now, which takes about a second.

    Raises:
        LabError: there is no such program, or it does not start.
    """
    path = shutil.which(program)
    if path is None:
        raise LabError(f"QEMU is not installed ({program} is not on PATH)", "run ./odx setup")
    key = _key(Path(path))
    cache = images_folder().parent / CACHE
    known = _read(cache)
    if key not in known:
        known = {key: asdict(probe(path)), **known}
        _write(cache, known)
    return Abilities(**known[key])


def _key(path: Path) -> str:
    """Another file, or the same with another content."""
    status = path.resolve().stat()
    return f"{FORMAT} {path.resolve()} {status.st_mtime_ns} {status.st_size}"


def _read(cache: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known


def _write(cache: Path, known: dict[str, Any]) -> None:
    """A cache that cannot be written is asked again next time, and that is all."""
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        scratch = cache.with_suffix(".new")
        scratch.write_text(json.dumps(known, indent=1))
        scratch.replace(cache)


def probe(program: str) -> Abilities:
    """Ask the program itself. Raises LabError if it does not start."""
    with tempfile.TemporaryDirectory(prefix="qemu-odx-probe-") as name:
        folder = Path(name)
        with _asked(program, folder) as monitor:
            blk, scsi = (_has_device(monitor, f"vhost-user-{kind}-pci") for kind in ("blk", "scsi"))
            schema = monitor.execute("query-qmp-schema")
            version = monitor.execute("query-version")["qemu"]
        return Abilities(
            version="{major}.{minor}.{micro}".format_map(version),
            blk=blk,
            scsi=scsi,
            scsi_reconnects=scsi and _scsi_reconnects(program, folder),
            png=_has_value(schema, "png", "ppm"),
            reconnect_ms=_has_member(schema, "reconnect-ms"),
        )


@contextmanager
def _asked(program: str, folder: Path) -> Iterator[Monitor]:
    """The monitor of a QEMU without a machine."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [program, "-machine", "none", *QUIET, "-chardev", f"socket,id=m,fd={theirs.fileno()}"]
        command += ["-mon", "chardev=m,mode=control"]
        process = ManagedProcess("QEMU", command, folder / "probe.log", pass_fds=[theirs.fileno()])
        theirs.close()
        try:
            monitor = _negotiated(ours, process)
            yield monitor
            monitor.close()
        finally:
            process.stop()


def _negotiated(connection: socket.socket, process: ManagedProcess) -> Monitor:
    try:
        return Monitor(connection, TRY_SECONDS)
    except LabError as error:
        words = process.last_words()
        reason = words.splitlines()[-1] if words else "it gave no reason"
        raise LabError(f"QEMU does not start: {reason}", "install QEMU again", details=words) from error


def _has_device(monitor: Monitor, name: str) -> bool:
    """One by one: a list of all would load every module, and one that does not fit would end QEMU."""
    try:
        monitor.execute("device-list-properties", {"typename": name})
    except LabError:
        return False
    return True


def _scsi_reconnects(program: str, folder: Path) -> bool:
    """Offer it a disk server that listens: a QEMU that can wait for it speaks first, another one gives up.

    What it says first is VHOST_USER_GET_FEATURES, of which any byte will do.
    """
    path = folder / "probe.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(POLL_SECONDS)
        command = [program, "-machine", "q35", "-accel", "tcg", "-m", "16M", *QUIET]
        command += ["-chardev", f"socket,id=s,path={path},reconnect=1"]
        command += ["-device", "vhost-user-scsi-pci,chardev=s"]
        # It hears no SIGTERM while it waits for an answer.
        process = ManagedProcess("QEMU", command, folder / "probe-scsi.log", patience=0)
        try:
            return _spoke_first(server, process)
        finally:
            process.stop()


def _spoke_first(server: socket.socket, process: ManagedProcess) -> bool:
    deadline = time.monotonic() + TRY_SECONDS
    peers: list[socket.socket] = []
    try:
        while time.monotonic() < deadline and process.exit_code() is None:
            with suppress(TimeoutError):
                peers.append(server.accept()[0])
                peers[-1].settimeout(POLL_SECONDS)
            for peer in peers:
                with suppress(TimeoutError, ConnectionError):
                    if peer.recv(1):
                        return True
    finally:
        for peer in peers:
            peer.close()
    return False


def _has_value(schema: Sequence[dict[str, Any]], *values: str) -> bool:
    """Whether some enumeration has all of these values."""
    return any(set(values) <= set(entry.get("values", ())) for entry in schema)


def _has_member(schema: Sequence[dict[str, Any]], name: str) -> bool:
    """Whether some structure has a member of that name."""
    return any(member.get("name") == name for entry in schema for member in entry.get("members", ()))
