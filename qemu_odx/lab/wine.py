"""The offload IOCTL from a Windows program: odx.exe and the filter driver under Wine, on a virtio-blk disk of ours.

May import: everything of the lab. Wine is no Windows: what runs here is the programs' and the driver's own code, the
system calls below them are Wine's. Next: `cli/demo_wine.py` shows the result.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab import wine_cases
from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, BlkExport, DiskSpec, serve_command
from qemu_odx.lab.demo import end_of, logs_kept, trace_arguments
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.image import ensure_image
from qemu_odx.lab.phases import Observer, Phases, Silent
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.windows_programs import PROGRAMS, ensure_programs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from qemu_odx.lab.wine_cases import Case

FOLDER = "/tmp/odx"  # noqa: S108 - in the guest
NODES = ("/dev/vdb", "/dev/vdc")  # behind the root disk, in the order of QEMU's command line
SESSION_SECONDS = 150.0
CPU = "max,smap=off"  # Wine returns by IRETQ from user mode, which TCG's SMAP takes for a kernel's access


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case and the object odx.exe printed for it."""

    case: Case
    printed: Mapping[str, Any]

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """Its IOCTLs."""
        return list(self.printed.get("calls", ()))

    @property
    def failure(self) -> str:
        """What is not as it must be, empty if nothing."""
        title, must_be = self.case.title, self.case.results
        status = int(self.calls[-1]["ntstatus"], 16) if self.calls else self.case.ntstatus
        if status != self.case.ntstatus:
            return f"{title}: status {status:#010x} instead of {self.case.ntstatus:#010x}"
        if not self.calls and not self.printed["ok"]:
            return f"{title}: {self.printed.get('error', 'it failed')}"
        found = {name: self.printed.get(name) for name in must_be}
        return f"{title}: {found} instead of {dict(must_be)}" if found != must_be else ""


@dataclass(frozen=True, slots=True)
class WineResult:
    """What the programs printed and what the disk holds. `as_json` is the public form."""

    outcomes: Sequence[Outcome]
    sha256: Mapping[str, str]
    image_failure: str
    phases: Mapping[str, float]
    description: str

    @property
    def point_in_time(self) -> bool:
        """The source was really overwritten before the copy, and the old data arrived all the same."""
        hashes = self.sha256
        overwritten = hashes["source_after"] != hashes["source_before"]
        return (
            overwritten and hashes["destination"] == hashes["source_before"] == hashes["destination_on_host"]
        )

    @property
    def failure(self) -> str:
        """The first thing that is wrong, empty if all is right."""
        for outcome in self.outcomes:
            if outcome.failure:
                return outcome.failure
        if not self.point_in_time:
            return "the data that arrived is not the data the source held when the token was made"
        return self.image_failure

    @property
    def ok(self) -> bool:
        """Every status and every byte is as it must be."""
        return not self.failure

    @property
    def verified_bytes(self) -> int:
        """Bytes that tokens wrote and that were found on the host as they must be."""
        cases = [outcome.case for outcome in self.outcomes if outcome.case.by_token]
        return sum(len(piece.content) for case in cases for piece in case.pieces) if self.ok else 0

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx demo --guest wine --json` prints."""
        keys = ("action", "code", "unix_us", "in_hex", "out_hex", "ntstatus", "win32")
        calls = [call for outcome in self.outcomes for call in outcome.calls]
        return {
            "ok": self.ok,
            "guest": "wine",
            "ioctls": [{key: call[key] for key in keys if key in call} for call in calls],
            "verified_bytes": self.verified_bytes,
            "point_in_time": self.point_in_time,
            "sha256": dict(self.sha256),
        }


def run_wine_demo(observer: Observer | None = None, *, logs: Path | None = None) -> WineResult:
    """Run the whole demonstration and clean up after it.

    Args:
        observer: is told how it goes.
        logs: a folder that takes the logs and a trace of all requests, however it ends.

    Raises:
        LabError: something is missing or failed, or a status or a byte is wrong; `logs` says where the logs are.
    """
    phases = Phases(observer or Silent())
    with phases.phase("image"):
        image = ensure_image("wine", report=phases.observer.detail)
        programs = ensure_programs()
    with logs_kept(logs) as folder, ExitStack() as stack:
        disk = DiskSpec("d0", folder / "d0.img", wine_cases.DISK_BYTES, "odx-wine")
        exports = [
            BlkExport(folder / "mailbox.sock", "d0", mailbox=True),
            BlkExport(folder / "plain.sock", "d0"),
        ]
        accelerator = choose_accelerator()
        with phases.phase("serve"):
            traced = [] if logs is None else trace_arguments(folder)
            backend = Backend([*serve_command([disk], exports), *traced], folder / "serve.log")
            stack.callback(backend.stop)
        with phases.phase("boot"):
            sockets = tuple(export.socket for export in exports)
            guest = Guest(GuestSpec(image, accelerator, blk_sockets=sockets, cpus=1, tcg_cpu=CPU), folder)
            stack.callback(guest.kill)
        with phases.phase("copy"):
            outcomes = _run_cases(guest, backend, folder, programs, phases.observer)
        with phases.phase("power_off"):
            guest.power_off()
            end_of(backend)
        cases = [outcome.case for outcome in outcomes]
        sha256 = _hashes(outcomes) | {"destination_on_host": _hash_on_host(disk.path)}
        description = f"Wine on {image.description}, {accelerator}"
        result = WineResult(outcomes, sha256, _image_failure(disk.path, cases), phases.seconds, description)
        if not result.ok:
            raise LabError(f"not as it must be under Wine: {result.failure}", "report it with the logs")
    return result


def _run_cases(
    guest: Guest, backend: Backend, folder: Path, programs: Path, observer: Observer
) -> list[Outcome]:
    """Both sessions: the IOCTL closed to programs, then open."""
    sessions = {"closed": wine_cases.refused_by_policy(), "open": wine_cases.all_cases()}
    _upload(guest, folder, programs, sessions)
    outcomes: list[Outcome] = []
    for policy, (name, cases) in enumerate(sessions.items()):
        observer.detail(f"odx.exe under Wine, the IOCTL {name} to programs: {len(cases)} cases")
        outcomes += _session(guest, backend, policy, name, cases)
    return outcomes


def _upload(guest: Guest, folder: Path, programs: Path, sessions: Mapping[str, Sequence[Case]]) -> None:
    upload = folder / "upload"
    upload.mkdir()
    for program in PROGRAMS:
        shutil.copy(programs / program, upload)
    for name, cases in sessions.items():
        (upload / name).write_text("".join(f"{case.line}\n" for case in cases))
    guest.shell.upload(upload, FOLDER)


def _session(guest: Guest, backend: Backend, policy: int, name: str, cases: Sequence[Case]) -> list[Outcome]:
    """Start Wine, run the cases in one process, end Wine."""
    command = f"cd {FOLDER} && odx-wine {policy} {shlex.join(NODES)} -- batch {name}"
    try:
        done = guest.shell.run(command, seconds=SESSION_SECONDS)
    except LabError:
        backend.check()  # if the disk is gone, that is the cause
        raise
    backend.check()
    lines = done.stdout.splitlines()
    if done.status != 0 or len(lines) != len(cases):
        cause = f"odx.exe under Wine ran {len(lines)} of {len(cases)} cases (exit status {done.status})"
        raise LabError(cause, "see what it said", details=done.stderr or done.stdout[-2000:])
    return [Outcome(case, json.loads(line)) for case, line in zip(cases, lines, strict=True)]


def _hashes(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The hashes the guest took, by name."""
    named = ((outcome.case.hash_name, outcome.printed.get("sha256", "")) for outcome in outcomes)
    return {name: sha256 for name, sha256 in named if name}


def _hash_on_host(image: Path) -> str:
    """The destination as the image file has it."""
    with image.open("rb") as file:
        file.seek(wine_cases.DESTINATION)
        return hashlib.sha256(file.read(wine_cases.LENGTH)).hexdigest()


def _image_failure(image: Path, cases: Iterable[Case]) -> str:
    """Whether the image file holds what the cases wrote and nothing else, to the byte."""
    expected = bytearray(wine_cases.DISK_BYTES)
    for case in cases:
        for piece in case.pieces:
            expected[piece.offset : piece.offset + len(piece.content)] = piece.content
    found = image.read_bytes()
    if found == expected:
        return ""
    pairs = enumerate(zip(found, expected, strict=False))
    place = next((at for at, (is_there, must_be) in pairs if is_there != must_be), len(found))
    return f"on the host, the image differs from byte {place} on"
