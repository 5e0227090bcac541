"""A guest image's recipe: what goes in, and the key under which the result is cached.

May import: errors, paths. Next: `image.py` builds it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError, MissingError
from qemu_odx.lab.paths import data_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BUILDER_VERSION = 1  # raised whenever `image.py` makes something else of the same recipe


@dataclass(frozen=True, slots=True)
class Host:
    """The distribution this machine runs; the guest is made of the same packages."""

    distribution: str  # "debian" or "ubuntu"
    codename: str  # "bookworm"
    architecture: str  # "x86_64"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of."""

    name: str
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    fetched: tuple[str, ...]
    boot_modules: tuple[str, ...]
    late_modules: tuple[str, ...]
    folders: tuple[Path, ...]
    key: str

    def files(self) -> list[Path]:
        """The recipe's own files: the scripts that run in the new tree or become part of it."""
        return _files(self.folders)


def this_host() -> Host:
    """The host as /etc/os-release tells it. Raises LabError where the guest cannot be made."""
    release = platform.freedesktop_os_release()
    distribution, codename = release["ID"], release.get("VERSION_CODENAME", "")
    if distribution not in {"debian", "ubuntu"} or not codename:
        raise MissingError(
            f"the guest image is made of Debian or Ubuntu packages, and this is {release.get('PRETTY_NAME')}",
            "run on Debian 12 or 13 or Ubuntu 24.04",
        )
    return Host(distribution, codename, platform.machine())


def load_recipe(name: str, host: Host) -> Recipe:
    """The recipe called `name` in vm_images/images.toml, for this host.

    Raises:
        LabError: there is no such recipe, or it names no kernel for the host's distribution.
    """
    images = data_folder("vm_images")
    tables = _tables(tomllib.loads((images / "images.toml").read_text()), name)
    if "builder" in tables[-1]:
        raise LabError(
            f"the image {name} is not built of packages",
            f"build it from your own medium first: qemu-odx image build {name} --help",
        )
    folders = tuple(images / table["recipe"] for table in tables if "recipe" in table)

    def all_of(entry: str) -> tuple[str, ...]:
        return tuple(word for table in tables for word in table.get(entry, ()))

    return Recipe(
        name=name,
        packages=(*all_of("packages"), *tables[0]["host_packages"][host.distribution]),
        sources=all_of("sources"),
        fetched=all_of("fetched"),
        boot_modules=all_of("boot_modules"),
        late_modules=all_of("late_modules"),
        folders=folders,
        key=_key(tables, folders, host),
    )


def _tables(recipes: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The table called `name`, behind those that it extends."""
    if name not in recipes:
        raise LabError(f"there is no image recipe called {name}", f"choose from: {', '.join(recipes)}")
    table = recipes[name]
    return [*(_tables(recipes, table["extends"]) if "extends" in table else ()), table]


def _files(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]


def _key(tables: Sequence[Mapping[str, Any]], folders: Iterable[Path], host: Host) -> str:
    """16 hexadecimal digits that change with anything that changes the image."""
    digest = hashlib.sha256()
    digest.update(json.dumps([BUILDER_VERSION, tables, host.distribution, host.codename]).encode())
    digest.update(host.architecture.encode())
    for path in _files(folders):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
