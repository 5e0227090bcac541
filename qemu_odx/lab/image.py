"""Builds the Linux guest image from the host distribution's packages, once, and caches it.

May import: errors, paths, recipe, apt, build_process, kernel. Next: `qemu.py` names its files on QEMU's command line.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from os import geteuid
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qemu_odx.lab import apt
from qemu_odx.lab.build_process import build_process
from qemu_odx.lab.errors import LabError, MissingError, tail
from qemu_odx.lab.kernel import unpack_kernel
from qemu_odx.lab.manifest import write_facts
from qemu_odx.lab.paths import images_folder
from qemu_odx.lab.recipe import load_recipe, this_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qemu_odx.lab.recipe import Host, Recipe

PROGRAMS = ("mmdebstrap", "mkfs.erofs", "lz4")
LEFT_OUT = ("man", "doc", "locale")  # folders of /usr/share nobody reads in the guest
UNFINISHED = "building-"
EMPTIED = "dev|proc|sys|tmp|var|run|odx"  # mount points in the guest, of no use there as they are now
MAKE_ROOT = f'mkfs.erofs --quiet -T0 --all-root --exclude-regex="^({EMPTIED})/" "$1/odx/out/root.erofs" "$1"'
FETCH_SOURCE = (  # with the new tree's apt settings; no compiler or unpacker of the host's is used
    'mkdir -p "$1/odx/sources" && cd "$1/odx/sources" && '
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --download-only source'
)
FETCH_ALONE = (  # without dependencies
    'mkdir -p "$1/odx/fetched" && cd "$1/odx/fetched" && '
    'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq download'
)
MADE_IN_GUEST = ("vmlinuz", "initrd", "kernel", "host_key.pub")  # what `customize` leaves in /odx/out


@dataclass(frozen=True, slots=True)
class Image:
    """A built image: the folder that holds its files."""

    name: str
    folder: Path

    @property
    def kernel(self) -> Path:
        """The kernel, unpacked where its packing was known."""
        unpacked = self.folder / "vmlinux"
        return unpacked if unpacked.exists() else self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initramfs with the modules the root disk needs."""
        return self.folder / "initrd"

    @property
    def root(self) -> Path:
        """The read-only root file system (EROFS); any number of guests may share it."""
        return self.folder / "root.erofs"

    @property
    def private_key(self) -> Path:
        """The ssh key that opens the guest."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """The guest's ssh host key, as one public key line."""
        return (self.folder / "host_key.pub").read_text().strip()

    @property
    def description(self) -> str:
        """What the guest is, for people: image and kernel release."""
        return f"{self.name}, kernel {(self.folder / 'kernel').read_text().strip()}"


def _quiet(_: str) -> None:
    pass


def ensure_image(name: str = "linux", report: Callable[[str], None] = _quiet) -> Image:
    """The image of the recipe `name`, built now if the cache does not hold it.

    Args:
        name: table of vm_images/images.toml.
        report: called with one short line for each step of a build.

    Raises:
        LabError: a program is missing, the packages cannot be fetched, or the build failed.
    """
    host = this_host()
    recipe = load_recipe(name, host)
    image = Image(f"{host.distribution} {host.codename}", images_folder() / f"{name}-{recipe.key}")
    if image.folder.is_dir():
        return image
    _require_programs()
    with _build_lock(image.folder.parent, report):
        if not image.folder.is_dir():
            _build(recipe, host, image.folder, report)
    return image


def _require_programs() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise MissingError(f"building the guest image needs {', '.join(missing)}", "run ./odx setup")


@contextmanager
def _build_lock(images: Path, report: Callable[[str], None]) -> Iterator[None]:
    """One build at a time for each cache; a second one waits and then finds the image made."""
    images.mkdir(parents=True, exist_ok=True)
    with (images / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another build of the guest image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(recipe: Recipe, host: Host, target: Path, report: Callable[[str], None]) -> None:
    """Build in a folder beside the target and rename it, so that a half-built image is never found."""
    for abandoned in target.parent.glob(f"{UNFINISHED}*"):  # the lock is ours, so its builder was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target.parent) as scratch:
        folder = Path(scratch) / "image"
        folder.mkdir()
        _write_inputs(recipe, folder)
        sources = apt.source_lines(host, ("deb", "deb-src") if recipe.sources else ("deb",))
        _run_mmdebstrap(mmdebstrap_command(recipe, host, folder), sources, folder, report)
        report("unpacking the kernel")
        unpack_kernel(folder / "vmlinuz", folder / "vmlinux")
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        write_facts(folder, {"name": recipe.name, "digest": recipe.key, "host": asdict(host)}, files)
        folder.rename(target)


def _write_inputs(recipe: Recipe, folder: Path) -> None:
    """The ssh key of this image and the module lists, which `customize` reads."""
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    private_key = folder / "id_ed25519"
    private_key.touch(mode=0o600)
    private_key.write_bytes(secret)
    (folder / "authorized_keys").write_bytes(public + b" qemu-odx lab\n")
    (folder / "boot_modules").write_text(" ".join(recipe.boot_modules) + "\n")
    (folder / "late_modules").write_text(" ".join(recipe.late_modules) + "\n")


def mmdebstrap_command(recipe: Recipe, host: Host, folder: Path) -> list[str]:
    """The command that makes the image's files in `folder`, one option to a row; sources come on stdin.

    The variant `extract` unpacks the packages and runs none of their scripts: the recipe's own `customize`
    does the rest, inside the new tree. Special hooks (copy-in, download) cross the border of the user
    namespace in which mmdebstrap works for a user who is not root.
    """
    inputs = [
        *recipe.files(),
        *(folder / name for name in ("authorized_keys", "boot_modules", "late_modules")),
    ]
    return [
        "mmdebstrap",
        f"--mode={'root' if geteuid() == 0 else 'unshare'}",
        "--variant=extract",
        "--skip=check/empty,cleanup",
        "--format=null",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
        *(f"--aptopt={setting}" for setting in apt.apt_settings()),
        '--aptopt=Acquire::Languages "none";',
        '--aptopt=APT::Install-Recommends "false";',
        f"--include={','.join(recipe.packages)}",
        # One folder for programs and libraries: packages of before and after that change mix in one tree.
        '--setup-hook=for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done',
        '--extract-hook=mkdir -p "$1/odx/recipe" "$1/odx/out"',
        f"--extract-hook=copy-in {' '.join(_quoted(path) for path in inputs)} /odx/recipe",
        *(f"--extract-hook={FETCH_SOURCE} {name}" for name in recipe.sources),
        *(f"--extract-hook={FETCH_ALONE} {name}" for name in recipe.fetched),
        '--extract-hook=chroot "$1" /bin/busybox sh -x /odx/recipe/customize',
        f"--extract-hook={MAKE_ROOT}",
        *(
            f"--extract-hook=download /odx/out/{name} {_quoted(folder / name)}"
            for name in (*MADE_IN_GUEST, "root.erofs")
        ),
        host.codename,
        "/dev/null",
        "-",
    ]


def _quoted(path: Path) -> str:
    """For mmdebstrap's hooks, which split their words as a shell does."""
    return "'" + str(path).replace("'", "'\\''") + "'"


def _run_mmdebstrap(command: list[str], sources: str, folder: Path, report: Callable[[str], None]) -> None:
    log = folder / "build.log"
    step = ""
    with log.open("w") as lines, build_process(command) as process:
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        assert process.stderr is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # it ended at once; its exit code tells
            process.stdin.write(sources)
            process.stdin.close()
        for line in process.stderr:
            lines.write(line)
            if (next_step := _in_words(line)) not in {"", step}:
                step = next_step
                report(step)
    if process.returncode != 0:
        raise _build_error(step, log)


STEPS = {  # what mmdebstrap says when it begins one
    "I: running apt-get update": "fetching package lists",
    "I: downloading packages with apt": "fetching packages",
    "I: extracting archives": "unpacking packages",
    "I: running --extract-hook": "making the guest",
}


def _in_words(line: str) -> str:
    return next((words for start, words in STEPS.items() if line.startswith(start)), "")


def _build_error(step: str, log: Path) -> LabError:
    details = tail(log)
    errors = [line for line in details.splitlines() if line.startswith("E: ")]
    reason = errors[0][3:] if errors else "no reason given"
    if step.startswith("fetching"):
        return LabError(
            f"cannot fetch Debian packages: {reason}",
            "check the network and /etc/apt/sources.list",
            details=details,
        )
    kept = shutil.copy(log, images_folder() / "failed-build.log")
    return LabError(f"cannot build the guest image: {reason}", f"see {kept}", details=details)
