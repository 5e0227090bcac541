"""From the user's media to a golden image: the steps, each with its time limit and what is wrong if it runs out.

May import: everything of the lab. Next: `cli/image.py` shows it, `golden.py` finds the result.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.catalogue import check_new_name
from qemu_odx.lab.disk_image import DiskImage, Firmware, find_firmware
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.live import LiveGuest
from qemu_odx.lab.machines.qemu import QemuMachine
from qemu_odx.lab.manifest import FACTS, sha256_of, write_facts
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.system_disk import run_qemu_img
from qemu_odx.lab.windows_image import golden
from qemu_odx.lab.windows_image.answer_disc import DiscContent, write_answer_disc
from qemu_odx.lab.windows_image.answers import Answers
from qemu_odx.lab.windows_image.install import install, keep_evidence
from qemu_odx.lab.windows_image.media import (
    Release,
    check_drivers,
    check_openssh,
    release_of,
    windows_edition,
)
from qemu_odx.lab.windows_image.steps import StateFile, Step, run_steps
from qemu_odx.lab.windows_image.wim import WindowsEdition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qemu_odx.lab.machine import Machine
    from qemu_odx.lab.phases import Observer
    from qemu_odx.lab.windows_image.steps import Deadline, Results

HOUR = 3600.0
ANSWERS, BLANK, FINISHED = "answers.iso", "blank.qcow2", "finished.qcow2"
SMALLEST_DISK = "64G"  # sparse; Windows 11 asks for 64
KEPT_AFTER_FAILURE = "failed"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user wants.

    Attributes:
        iso: Windows' installation medium.
        virtio_iso: the drivers.
        name: of the image in the cache.
        edition: number, name or edition identifier of the image on the medium; None for the smallest server.
        openssh_zip: OpenSSH for Windows, for releases before Server 2025.
        product_key: for media that are no evaluation.
        test_signing: let it load test-signed drivers.
        memory_mib: of the machine during setup.
        cpus: of the machine during setup.
        hours: time limit of the installation itself.
    """

    iso: Path
    virtio_iso: Path
    name: str = "windows"
    edition: str | None = None
    openssh_zip: Path | None = None
    product_key: str | None = None
    test_signing: bool = False
    memory_mib: int = 4096
    cpus: int = 2
    hours: float = 4.0


@dataclass
class WindowsBuild:
    """One build in its folder beside the image to be.

    Attributes:
        wishes: what is built.
        observer: is told how it goes.
        make_machine: makes the machines; a test gives others.
    """

    wishes: Wishes
    observer: Observer
    make_machine: Callable[[GuestSpec, Path], Machine] = QemuMachine
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        target = golden.golden_folder(self.wishes.name)
        self.folder = target.with_name(f"{target.name}{golden.BUILDING}")

    def run(self) -> golden.GoldenImage:
        """Do what is still to be done; after a failure the next run goes on from there.

        Raises:
            UsageError: the name is none that an image can have.
            LabError: a step failed.
        """
        check_new_name(self.wishes.name)
        target = golden.golden_folder(self.wishes.name)
        if (target / FACTS).exists():
            raise LabError(
                f"there is an image called {self.wishes.name} already",
                "remove it, or choose another name: --as NAME",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            state = StateFile(self.folder / "state.json", _as_json(self.wishes))
            run_steps(self._steps(), state, self.observer)
            self._move_to(target)
        return golden.GoldenImage(target)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LabError(f"{self.wishes.name} is being built already", "wait for it") from error
            yield

    def _steps(self) -> list[Step]:
        hours = self.wishes.hours * HOUR
        return [
            Step("media", "checking the media", HOUR, "the file system of the ISO is very slow", self._media),
            Step("answers", "writing the answer disc", 300, "the disk is very slow", self._answers),
            Step(
                "install",
                "Windows installs itself",
                hours,
                "see the screenshot; --hours gives it longer",
                self._install,
            ),
            Step("flatten", "making one disk of it", HOUR, "the disk is full or very slow", self._flatten),
            Step("check", "logging in", HOUR, "sshd does not start: see the screenshot", self._check),
            Step("seal", "writing down what it is", HOUR, "the disk is very slow", self._seal),
        ]

    def _media(self, _: Results, deadline: Deadline) -> dict[str, Any]:
        """Everything that can be wrong with the media, before anything is started."""
        wishes = self.wishes
        edition = windows_edition(wishes.iso, wishes.edition)
        release = release_of(edition)
        check_drivers(wishes.virtio_iso, release)
        if wishes.openssh_zip:
            check_openssh(wishes.openssh_zip)
        elif not release.has_sshd:
            raise LabError(
                f"{release.name} brings no OpenSSH server, and the guest has no network to fetch it",
                "give --openssh OpenSSH-Win64.zip (releases of PowerShell/Win32-OpenSSH)",
            )
        find_firmware()

        def hashed(path: Path) -> str:
            def progress(done: int, total: int) -> None:
                deadline.check()
                self.observer.progress(done, total)

            return sha256_of(path, progress)

        digests = {path.name: hashed(path) for path in (wishes.iso, wishes.virtio_iso)}
        return {"edition": asdict(edition), "release": asdict(release), "sha256": digests}

    def _answers(self, done: Results, _: Deadline) -> dict[str, Any]:
        """A key of its own for each image."""
        public_key = _make_key(self.folder / golden.KEY)
        answers = Answers(
            WindowsEdition(**done["media"]["edition"]),
            Release(**done["media"]["release"]),
            password=secrets.token_urlsafe(12) + "aA1!",
            product_key=self.wishes.product_key,
        )
        content = DiscContent(answers, public_key, self.wishes.openssh_zip, self.wishes.test_signing)
        write_answer_disc(content, self.folder / ANSWERS)
        return {"public_key": public_key}

    def _install(self, done: Results, deadline: Deadline) -> dict[str, Any]:
        """On a new empty disk: an interrupted Setup cannot go on."""
        work = self.folder / "install"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        blank = self.folder / BLANK
        blank.unlink(missing_ok=True)
        run_qemu_img("create", "-q", "-f", "qcow2", str(blank), SMALLEST_DISK)
        cdroms = (self.wishes.iso.absolute(), self.wishes.virtio_iso.absolute(), self.folder / ANSWERS)
        machine = self.make_machine(self._spec(done, blank, find_firmware(), cdroms), work)
        try:
            progress = install(machine, deadline, self.observer.detail)
        except LabError as error:
            error.logs = self.folder / KEPT_AFTER_FAILURE
            keep_evidence(machine, error.logs)
            raise
        finally:
            machine.kill()
        return {"boots": dict(progress.boots)}

    def _spec(
        self, done: Results, disk: Path, firmware: Firmware, cdroms: tuple[Path, ...] = ()
    ) -> GuestSpec:
        image = DiskImage(
            disk,
            system="windows",
            firmware=firmware,
            cdroms=cdroms,
            tpm=bool(done["media"]["release"]["needs_tpm"]),
        )
        wishes = self.wishes
        return GuestSpec(
            image, choose_accelerator(), memory_mib=wishes.memory_mib, cpus=wishes.cpus, display=True
        )

    def _flatten(self, _: Results, deadline: Deadline) -> dict[str, Any]:
        """What it was made of goes only after the step is remembered (`_check`): it may be done twice."""
        work = self.folder / "install"
        source, target = work / "system0.qcow2", self.folder / FINISHED
        run_qemu_img("convert", "-O", "qcow2", str(source), str(target), seconds=deadline.left)
        shutil.copyfile(work / "variables.fd", self.folder / golden.VARIABLES)
        return {}

    def _check(self, done: Results, deadline: Deadline) -> dict[str, Any]:
        """Boot an overlay of it, log in with the key, and ask what it is."""
        shutil.rmtree(self.folder / "install", ignore_errors=True)
        (self.folder / BLANK).unlink(missing_ok=True)
        work = self.folder / "check"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        firmware = Firmware(find_firmware().code, self.folder / golden.VARIABLES)
        machine = self.make_machine(self._spec(done, self.folder / FINISHED, firmware), work)
        try:
            guest = LiveGuest(machine, golden.GoldenImage(self.folder).adapter, patience=deadline.seconds)
            version = guest.run(["cmd.exe", "/c", "ver"]).stdout.strip()
            guest.power_off()
        except LabError as error:
            error.logs = self.folder / KEPT_AFTER_FAILURE
            keep_evidence(machine, error.logs)
            raise
        finally:
            machine.kill()
        shutil.rmtree(work)
        return {"version": version}

    def _seal(self, done: Results, deadline: Deadline) -> dict[str, Any]:
        """Read-only from here on; what it is and what it was made of, beside it."""
        if (self.folder / FINISHED).exists():  # not if the last run was interrupted just here
            (self.folder / FINISHED).replace(self.folder / golden.DISK)
        (self.folder / golden.DISK).chmod(0o444)
        edition, release = done["media"]["edition"], done["media"]["release"]
        facts = {
            "name": edition["name"],
            "release": release["name"],
            "build": edition["build"],
            "version": done["check"]["version"],
            "tpm": release["needs_tpm"],
            "test_signing": self.wishes.test_signing,
            "media_sha256": done["media"]["sha256"],
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_facts(self.folder, facts, (golden.DISK, golden.VARIABLES), lambda *_: deadline.check())
        return {}

    def _move_to(self, target: Path) -> None:
        """The answer disc goes: it holds the password."""
        for name in (ANSWERS, "state.json", "lock"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.folder / KEPT_AFTER_FAILURE, ignore_errors=True)
        self.folder.rename(target)


def _as_json(wishes: Wishes) -> dict[str, Any]:
    """Wishes for the state file: another medium under the same path is another wish."""
    found = {name: str(value) for name, value in asdict(wishes).items()}
    for name in ("iso", "virtio_iso", "openssh_zip"):
        path = getattr(wishes, name)
        if path is not None and path.exists():
            found[f"{name}_state"] = f"{path.stat().st_size} {path.stat().st_mtime_ns}"
    found.pop("hours")  # a longer time limit is no other image
    return found


def _make_key(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} qemu-odx lab"
