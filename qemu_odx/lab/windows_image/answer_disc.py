"""The answer disc: a CD image with the answer file, the first-logon script and our ssh key.

May import: errors, paths, answers, adapters/windows (its marker). Setup looks for `autounattend.xml` in the root of
every removable medium, so the user's own ISO stays as it is. Next: `install.py` puts it into a drive.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
import pycdlib

from qemu_odx.lab.adapters.windows import MARKER
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.windows_image.answers import SCRIPT, Answers, answer_file

if TYPE_CHECKING:
    from pathlib import Path

INSTALLED = "LAB:installed"
LABEL = "ODX_ANSWERS"
JOLIET_LEVEL = 3
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # without it PowerShell 5 takes a script for the local code page


@dataclass(frozen=True, slots=True)
class DiscContent:
    """What goes on the disc.

    Attributes:
        answers: for the answer file.
        public_key: one public key line, which Administrator lets in.
        openssh_zip: OpenSSH for Windows, for releases that bring none; None to use Windows' own.
        test_signing: let the guest load test-signed drivers.
    """

    answers: Answers
    public_key: str
    openssh_zip: Path | None = None
    test_signing: bool = False


def first_logon_script(content: DiscContent) -> str:
    """The PowerShell that Windows runs at the first logon."""
    template = (data_folder("vm_images") / "windows" / f"{SCRIPT}.j2").read_text()
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)  # noqa: S701 - no HTML
    return environment.from_string(template).render(
        driver_folder=content.answers.release.driver_folder,
        has_sshd=content.answers.release.has_sshd,
        openssh_zip=content.openssh_zip is not None,
        test_signing=content.test_signing,
        marker=MARKER,
        installed=INSTALLED,
    )


def write_answer_disc(content: DiscContent, target: Path) -> None:
    """Make the disc; Joliet carries the real names."""
    script = first_logon_script(content).replace("\n", "\r\n").encode()
    files = {
        "autounattend.xml": answer_file(content.answers),
        SCRIPT: BYTE_ORDER_MARK + script,
        "authorized_keys": f"{content.public_key.strip()}\n".encode(),
    }
    if content.openssh_zip:
        files["openssh.zip"] = content.openssh_zip.read_bytes()
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=JOLIET_LEVEL, joliet=JOLIET_LEVEL, vol_ident=LABEL)
    for number, (name, data) in enumerate(files.items()):
        short = f"/FILE{number}.;1"
        disc.add_fp(io.BytesIO(data), len(data), short, joliet_path=f"/{name}")
    disc.write(str(target))
    disc.close()
