"""The host's own package sources, in the form mmdebstrap wants them.

May import: errors, recipe. The guest comes from the mirrors, through the proxy, that the host itself uses;
sources of other vendors are left out, for the guest needs none of their packages.
"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import LabError, MissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.lab.recipe import Host

KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
COMPONENTS = {"main", "universe"}
TARGET_FORMAT = "$(ORIGIN) $(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)"
EVEN_UNFETCHED = "APT::Get::IndexTargets::Filtered=false"  # else a machine before its first update has none
# Settings that decide whether the mirror can be reached at all: proxies, certificates, old snapshots.
CARRIED_SETTING = re.compile(r"^Acquire::(https?::|Check-)")


def source_lines(host: Host, kinds: Sequence[str] = ("deb",)) -> str:
    """The host distribution's sources as the text of a sources.list.

    Args:
        host: what the guest is made of.
        kinds: "deb" for binary packages, "deb-src" for source packages too.

    Raises:
        LabError: this machine has no source of its own distribution.
    """
    command = [
        "apt-get",
        "indextargets",
        "-o",
        EVEN_UNFETCHED,
        "--format",
        TARGET_FORMAT,
        "Created-By: Packages",
    ]
    lines = {_source_line(target, host, kind) for target in _output(command) for kind in kinds} - {""}
    if not lines:
        raise MissingError(
            f"apt knows no source of {host.distribution} {host.codename} packages",
            "add one to /etc/apt/sources.list and run apt-get update",
        )
    return "\n".join(sorted(lines)) + "\n"


def _source_line(target: str, host: Host, kind: str) -> str:
    """One line of this kind, or nothing if the target is another vendor's or another release's.

    A field that apt cannot know before the first update stays as written, `$(ORIGIN)` for one.
    """
    origin, uri, release, codename, component = target.split(" ")
    base = (release if codename.startswith("$") else codename).split("-")[0]
    ours = origin.lower() in {host.distribution, "$(origin)"} and base == host.codename
    if not ours or component not in COMPONENTS:
        return ""
    return f"{kind} [signed-by={KEYRINGS[host.distribution]}] {uri} {release} {component}"


def apt_settings() -> list[str]:
    """The host's apt settings that the guest's package download needs too, one `Name "value";` each."""
    return [line for line in _output(["apt-config", "dump", "--no-empty"]) if CARRIED_SETTING.match(line)]


def _output(command: list[str]) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(f"cannot ask apt for its sources ({error})", "check /etc/apt") from error
