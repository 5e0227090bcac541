"""What the user wants: command line first, then the ini file.

Imports nothing of ours. Next: `plugin.py` hands it to the fixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KEEP: Final = ("failed", "all", "none")
MACHINES: Final = ("qemu", "libvirt")
SYSTEMS: Final = ("linux", "windows")
FIRMWARES: Final = ("bios", "uefi")


@dataclass(frozen=True, slots=True)
class OdxOptions:
    """The options `--odx-*`; the ini names are the same with underscores.

    Attributes:
        guest: recipe of an image that the lab builds.
        image: a disk image of the user's, instead.
        user: who logs in to it.
        port: the port in it of its ssh server.
        key: the private key that it accepts.
        system: what is in it ("linux" or "windows").
        firmware: what starts it ("bios" or "uefi").
        machine: who runs QEMU: "qemu" (we do) or "libvirt".
        libvirt_uri: which libvirt.
        fresh: a guest of its own for each test.
        boot: boot every guest, resume none.
        keep: whose artefacts are kept: "failed", "all", "none".
        artifacts: where; None: in pytest's own temporary folder.
        require: what is missing here is a failure, not a skip.
    """

    guest: str
    image: Path | None
    user: str
    port: int
    key: Path | None
    system: str
    firmware: str
    machine: str
    libvirt_uri: str
    fresh: bool
    boot: bool
    keep: str
    artifacts: Path | None
    require: bool


_TEXTS: Final = {
    "guest": ("NAME", "linux", "guest image that the lab builds (qemu-odx image list)"),
    "image": ("FILE", "", "your own disk image, instead"),
    "ssh": ("USER@PORT", "root@22", "who logs in to --odx-image, and the port of its ssh server"),
    "key": ("FILE", "", "private key that --odx-image accepts"),
    "os": ("NAME", "linux", f"what is in --odx-image: {' or '.join(SYSTEMS)}"),
    "firmware": ("NAME", "bios", f"what starts --odx-image: {' or '.join(FIRMWARES)}"),
    "machine": ("NAME", "qemu", f"who runs QEMU: {' or '.join(MACHINES)}"),
    "libvirt-uri": ("URI", "qemu:///session", "which libvirt"),
    "keep": ("WHICH", "failed", f"artefacts of which tests are kept: {', '.join(KEEP)}"),
    "artifacts": ("DIR", "", "where artefacts are kept (pytest's temporary folder)"),
}
_FLAGS: Final = {
    "fresh": "a guest of its own for each test",
    "boot": "boot every guest; do not resume a saved one",
    "require": "what this machine lacks is a failure and not a skip",
}
_CHOICES: Final = {"machine": MACHINES, "keep": KEEP, "os": SYSTEMS, "firmware": FIRMWARES}


def add_options(parser: pytest.Parser) -> None:
    """Tell pytest which options there are."""
    group = parser.getgroup("qemu-odx", "virtual disks with ODX, and guests on them")
    for name, (metavar, default, words) in _TEXTS.items():
        shown = f"{words}; default: {default}" if default else words
        group.addoption(
            f"--odx-{name}", metavar=metavar, default=None, choices=_CHOICES.get(name), help=shown
        )
        parser.addini(_key(name), words, default=default)
    for name, words in _FLAGS.items():
        group.addoption(f"--odx-{name}", action="store_true", default=None, help=words)
        parser.addini(_key(name), words, type="bool", default=False)


def read_options(config: pytest.Config) -> OdxOptions:
    """The options of this run.

    Raises:
        ValueError: a value is none of the choices, or cannot be what it says.
    """
    text = {name: _text(config, name) for name in _TEXTS}
    for name, choices in _CHOICES.items():
        if text[name] not in choices:
            raise ValueError(f"odx_{name} = {text[name]} in the ini file: choose one of {', '.join(choices)}")
    user, port = _login(text["ssh"])
    image, key = _path(config, text["image"]), _path(config, text["key"])
    for option, path in (("--odx-image", image), ("--odx-key", key)):
        if path is not None and not path.is_file():
            raise ValueError(f"{option} {path}: there is no such file")
    flag = {name: _flag(config, name) for name in _FLAGS}
    return OdxOptions(
        guest=text["guest"],
        image=image,
        user=user,
        port=port,
        key=key,
        system=text["os"],
        firmware=text["firmware"],
        machine=text["machine"],
        libvirt_uri=text["libvirt-uri"],
        keep=text["keep"],
        artifacts=_path(config, text["artifacts"]),
        **flag,
    )


def _login(text: str) -> tuple[str, int]:
    user, _, port = text.rpartition("@")
    if not user or not port.isdecimal():
        raise ValueError(f"--odx-ssh {text}: write USER@PORT, like root@22")
    return user, int(port)


def _key(name: str) -> str:
    """What pytest calls an option in Python and in the ini file."""
    return f"odx_{name.replace('-', '_')}"


def _text(config: pytest.Config, name: str) -> str:
    given = config.getoption(_key(name))
    return str(config.getini(_key(name)) if given is None else given)


def _flag(config: pytest.Config, name: str) -> bool:
    return bool(config.getoption(_key(name)) or config.getini(_key(name)))


def _path(config: pytest.Config, text: str) -> Path | None:
    return config.invocation_params.dir / text if text else None
