"""The demonstration: a guest copies data by token on our disks, and proves it.

May import: everything of the lab. Next: `cli/demo.py` shows the result.
"""

from __future__ import annotations

import json
import re
import shlex
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.phases import Observer, Phases, Silent
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

MEBIBYTE = 1 << 20
DISK_BYTES = 256 * MEBIBYTE
COPY_MEBIBYTES = 64
SOURCE_SERIAL = "odx-source"
DESTINATION_SERIAL = "odx-destination"
SCRIPTS = "/tmp/odx"  # noqa: S108 - in the guest
TRACE = "trace.jsonl"
SILENCE_SECONDS = 120.0
PROGRESS = re.compile(r"progress: (\d+) (\d+) (.*)")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of copying took, as the guest measured it."""

    bytes: int
    seconds: float
    ring_bytes: int


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the guest found. `as_json` is the public form.

    `samples` are the requests of "token_copy" and "plain_copy", each with operation, bytes and seconds.
    """

    guest: str
    accelerator: str
    sha256: Mapping[str, str]
    token_copy: Cost
    plain_copy: Cost
    phases: Mapping[str, float]
    samples: Mapping[str, list[tuple[str, int, float]]] = field(default_factory=dict)

    @property
    def point_in_time(self) -> bool:
        """The source was really overwritten before the copy, and the old data arrived all the same."""
        overwritten = self.sha256["source_after"] != self.sha256["source_before"]
        return overwritten and self.sha256["destination"] == self.sha256["source_before"]

    @property
    def ok(self) -> bool:
        """Old data arrived, and the second way in to the destination shows the same."""
        return self.point_in_time and self.sha256["destination_through_blk"] == self.sha256["source_before"]

    @property
    def failure(self) -> str:
        """Why it is not ok, in a few words; empty if it is."""
        if self.sha256["source_after"] == self.sha256["source_before"]:
            return "the source still holds the old data, so the overwrite was not done"
        if not self.point_in_time:
            return "the data that arrived is not the data the source held when the token was made"
        return "" if self.ok else "the virtio-blk device shows other data than the SCSI device"

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx demo --json` prints."""
        return {
            "ok": self.ok,
            "guest": self.guest,
            "accelerator": self.accelerator,
            "verified_bytes": self.token_copy.bytes if self.ok else 0,
            "point_in_time": self.point_in_time,
            "sha256": dict(self.sha256),
            "token_copy": _cost_as_json(self.token_copy),
            "plain_copy": _cost_as_json(self.plain_copy),
            "phases": {name: round(seconds, 3) for name, seconds in self.phases.items()},
        }


def _cost_as_json(cost: Cost) -> dict[str, Any]:
    return {"bytes": cost.bytes, "seconds": round(cost.seconds, 6), "ring_bytes": cost.ring_bytes}


def run_demo(observer: Observer | None = None, *, logs: Path | None = None) -> DemoResult:
    """Run the whole demonstration and clean up after it.

    Args:
        observer: is told how it goes.
        logs: a folder that takes the logs and a trace of all requests, however it ends.

    Raises:
        LabError: something is missing or failed, or the data is wrong; `logs` says where the logs are.
    """
    phases = Phases(observer or Silent())
    with phases.phase("image"):
        image = ensure_image(report=phases.observer.detail)
    with logs_kept(logs) as folder:
        accelerator = choose_accelerator()
        disks, scsi, blk = demo_disks(folder)
        with ExitStack() as stack:
            with phases.phase("serve"):
                traced = [] if logs is None else trace_arguments(folder)
                backend = Backend([*serve_command(disks, [scsi, blk]), *traced], folder / "serve.log")
                stack.callback(backend.stop)
            with phases.phase("boot"):
                spec = GuestSpec(image, accelerator, (scsi.socket,), (blk.socket,))
                guest = Guest(spec, folder)
                stack.callback(guest.kill)
            with phases.phase("copy"):
                found = copy_in_guest(guest, backend, phases.observer)
            with phases.phase("power_off"):
                guest.power_off()
                end_of(backend)
        result = _result(found, image.description, accelerator, phases.seconds)
        if not result.ok:
            raise LabError(f"the copy is wrong: {result.failure}", "report it with the logs")
    return result


def trace_arguments(folder: Path) -> list[str]:
    """What lets a disk server record every request and token."""
    return ["--trace", f"{folder / TRACE},events=request+token+fault"]


@contextmanager
def logs_kept(wanted: Path | None = None) -> Iterator[Path]:
    """A run folder; if the run fails, its logs are copied to where they stay and the error says where.

    The folder `wanted` gets them in any case.
    """
    with RunFolder() as run:
        try:
            yield run.path
        except LabError as error:
            error.logs = run.keep_logs()
            raise
        finally:
            if wanted is not None:
                run.copy_logs(wanted)


def demo_disks(folder: Path) -> tuple[list[DiskSpec], ScsiExport, BlkExport]:
    """Two disks; both are units of one vhost-user-scsi device, the second is also a vhost-user-blk device."""
    disks = [
        DiskSpec("d0", folder / "d0.img", DISK_BYTES, SOURCE_SERIAL),
        DiskSpec("d1", folder / "d1.img", DISK_BYTES, DESTINATION_SERIAL),
    ]
    return disks, ScsiExport(folder / "scsi.sock", ("d0", "d1")), BlkExport(folder / "blk.sock", "d1")


def copy_in_guest(guest: Guest, backend: Backend, observer: Observer) -> dict[str, Any]:
    """Upload the guest script, run it, and return the object it prints. Raises LabError if it fails."""
    guest.shell.upload(data_folder("guest_scripts") / "linux", SCRIPTS)
    command = ["python3", f"{SCRIPTS}/odx_copy.py", "--source", SOURCE_SERIAL]
    command += ["--destination", DESTINATION_SERIAL, "--mebibytes", str(COPY_MEBIBYTES)]
    try:
        done = guest.shell.run(shlex.join(command), seconds=SILENCE_SECONDS, on_stderr=_relay(observer))
    except LabError:
        backend.check()  # if the disks are gone, that is the cause
        raise
    if done.status != 0:
        backend.check()
        last = done.stderr.rstrip().rsplit("\n", 1)[-1].removeprefix("error: ")
        raise LabError(f"the guest script failed: {last}", "see the logs", details=done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _relay(observer: Observer) -> Callable[[str], None]:
    """Hand the guest script's progress lines on."""

    def relay(line: str) -> None:
        match = PROGRESS.fullmatch(line)
        if match:
            observer.detail(match[3])
            observer.progress(int(match[1]), int(match[2]))

    return relay


def end_of(backend: Backend) -> None:
    """Stop the disk server. Raises LabError if it does not end well."""
    code = backend.stop()
    if code != 0:
        raise LabError(f"the disk server did not end well (exit code {code})", "see serve.log")


def _result(found: dict[str, Any], guest: str, accelerator: str, phases: Mapping[str, float]) -> DemoResult:
    return DemoResult(
        guest=guest,
        accelerator=accelerator,
        sha256=found["sha256"],
        token_copy=Cost(**found["token_copy"]),
        plain_copy=Cost(**found["plain_copy"]),
        phases=phases,
        samples={name: [tuple(one) for one in every] for name, every in found.get("samples", {}).items()},
    )
