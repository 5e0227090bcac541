"""The images there can be and the images there are: what `vm_images/images.toml` names, and what the cache holds.

May import: errors, paths, recipe, manifest, windows_image/golden. Next: `cli/image.py` shows it.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError, UsageError
from qemu_odx.lab.manifest import FACTS, damaged_files, read_facts
from qemu_odx.lab.paths import data_folder, images_folder
from qemu_odx.lab.recipe import load_recipe, this_host
from qemu_odx.lab.windows_image.golden import BUILDING, WINDOWS, golden_images, unfinished_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.

    Attributes:
        name: as `image build` and `--guest` take it.
        kind: "packages" for one built from the distribution's packages, or "windows".
        digest: 16 hexadecimal digits of all that goes into it; another recipe is another image. Empty for Windows,
            whose `image.json` has the digests of the media.
        folder: where it is or will be; None for a Windows that was never built.
        facts: what was written down when it was built; empty if it is not there, or older than that custom.
    """

    name: str
    kind: str
    digest: str
    folder: Path | None
    facts: dict[str, Any]

    @property
    def built(self) -> bool:
        """It is in the cache and fits the recipe of now."""
        return self.folder is not None and self.folder.is_dir()

    @property
    def build_command(self) -> str:
        """What makes it, but for the media."""
        name = self.name if self.kind != WINDOWS else WINDOWS
        return f"qemu-odx image build {name}" + (f" --as {self.name}" if name != self.name else "")

    @property
    def size(self) -> int:
        """Bytes that its files take on the disk."""
        if self.folder is None or not self.folder.is_dir():
            return 0
        return sum(path.stat().st_blocks * 512 for path in self.folder.iterdir() if path.is_file())

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx image list --json` prints for it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "digest": self.digest,
            "built": self.built,
            "bytes": self.size,
            "folder": str(self.folder) if self.folder else None,
            "facts": self.facts,
        }


def entries() -> list[Entry]:
    """Every image that has a recipe, then every Windows that is there or begun.

    Raises:
        LabError: this is neither Debian nor Ubuntu.
    """
    host = this_host()
    found = []
    for name in package_images():
        key = load_recipe(name, host).key
        folder = images_folder() / f"{name}-{key}"
        found.append(Entry(name, "packages", key, folder, _facts(folder)))
    built = golden_images()
    names = dict.fromkeys([*built, *unfinished_images()]) or [WINDOWS]
    return [*found, *(_windows(name, built.get(name)) for name in names)]


def _windows(name: str, folder: Path | None) -> Entry:
    return Entry(name, WINDOWS, "", folder, _facts(folder) if folder else {})


def _facts(folder: Path) -> dict[str, Any]:
    return read_facts(folder) if (folder / FACTS).exists() else {}


def package_images() -> list[str]:
    """The names of those that are built from the distribution's packages."""
    recipes = tomllib.loads((data_folder("vm_images") / "images.toml").read_text())
    return [name for name, table in recipes.items() if "builder" not in table]


def check_new_name(name: str) -> None:
    """Raise UsageError if a new Windows cannot be called `name`: it names a folder, and no other image."""
    if not NEW_NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name", "take up to 32 letters, digits, '_' and '-'")
    if name in package_images():
        raise UsageError(f"{name} is another image's name", "choose another: --as NAME")


def check_name(name: str) -> None:
    """Raise UsageError if no image is called `name`, built or not."""
    known = dict.fromkeys([*package_images(), WINDOWS, *golden_images()])
    if name not in known:
        raise UsageError(f"there is no image called {name}", f"choose from: {', '.join(known)}")


def find_entry(name: str) -> Entry:
    """The image called `name`. Raises LabError if there is no such name."""
    known = entries()
    for entry in known:
        if entry.name == name:
            return entry
    raise LabError(
        f"there is no image called {name}", f"choose from: {', '.join(each.name for each in known)}"
    )


def verify(entry: Entry, progress: Callable[[int, int], None] = lambda *_: None) -> list[str]:
    """What is wrong with the files of a built image, empty if they are as they were when it was built.

    Raises:
        LabError: it is not built, or was built before digests were written down.
    """
    if entry.folder is None or not entry.built:
        raise LabError(f"the image {entry.name} is not built", entry.build_command)
    if not entry.facts:
        raise LabError(
            f"the image {entry.name} was built before digests were written down",
            f"qemu-odx image remove {entry.name}, then build it again",
        )
    return damaged_files(entry.folder, entry.facts, progress)


def remove(name: str) -> list[Path]:
    """Remove an image, those of older recipes of that name and unfinished ones; what was removed.

    Raises:
        LabError: there is nothing of that name.
    """
    entry = find_entry(name)
    folders = [entry.folder] if entry.folder else []
    if entry.kind == WINDOWS:
        folders += list(images_folder().glob(f"golden/{name}{BUILDING}"))
    else:
        folders += list(images_folder().glob(f"{name}-" + "[0-9a-f]" * 16))
    there = sorted({folder for folder in folders if folder.is_dir()})
    if not there:
        raise LabError(f"the image {name} is not built", "there is nothing to remove")
    for folder in there:
        shutil.rmtree(folder)
    return there
