"""Which Windows images an installation medium holds: the XML in the header of its `install.wim`.

May import: errors. Format: "Windows Imaging File Format (WIM) White Paper" (Microsoft, 2007), header and XML data; an
`install.esd` has the same header, and its XML is not compressed either.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from xml.etree import ElementTree as ET

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAGIC = b"MSWIM\0\0\0"
HEADER = 208
XML_RESOURCE = 72  # resource header: 7 bytes size, 1 byte flags, 8 bytes offset, 8 bytes original size
LONGEST_XML = 16 << 20
ARCHITECTURES = {"0": "x86", "9": "amd64", "12": "arm64"}  # PROCESSOR_ARCHITECTURE_* of winnt.h
NO_WIM = LabError(
    "the medium has no readable install.wim", "give the installation ISO, not an update or a tools ISO"
)


@dataclass(frozen=True, slots=True)
class WindowsEdition:
    """One installable image.

    Attributes:
        index: number by which Setup selects it, from 1.
        name: as the medium calls it, "Windows Server 2022 SERVERSTANDARDCORE" for one.
        edition: edition identifier, such as "ServerStandard".
        architecture: "amd64" for all that this lab can run.
        server: a server, not a client.
        core: a server without a desktop.
        build: Windows build number.
        language: default language, "en-US" for one.
    """

    index: int
    name: str
    edition: str
    architecture: str
    server: bool
    core: bool
    build: int
    language: str


def read_editions(wim: BinaryIO) -> list[WindowsEdition]:
    """The images in an open install.wim or install.esd. Raises LabError if it is neither."""
    header = wim.read(HEADER)
    if len(header) < HEADER or not header.startswith(MAGIC):
        raise NO_WIM
    size_and_flags, offset, _ = struct.unpack_from("<QQQ", header, XML_RESOURCE)
    size = size_and_flags & ((1 << 56) - 1)
    if not 0 < size <= LONGEST_XML:
        raise NO_WIM
    wim.seek(offset)
    try:
        root = ET.fromstring(wim.read(size).decode("utf-16"))  # noqa: S314 - expat of today refuses entity bombs
    except (ET.ParseError, UnicodeError) as error:
        raise NO_WIM from error
    return [_edition(image) for image in root.iterfind("IMAGE")]


def _edition(image: ET.Element) -> WindowsEdition:
    def text(path: str) -> str:
        return (image.findtext(path) or "").strip()

    return WindowsEdition(
        index=int(image.get("INDEX", "0")),
        name=text("NAME") or text("DISPLAYNAME"),
        edition=text("WINDOWS/EDITIONID"),
        architecture=ARCHITECTURES.get(text("WINDOWS/ARCH"), text("WINDOWS/ARCH")),
        server=text("WINDOWS/PRODUCTTYPE") == "ServerNT",
        core=text("WINDOWS/INSTALLATIONTYPE") == "Server Core",
        build=int(text("WINDOWS/VERSION/BUILD") or 0),
        language=text("WINDOWS/LANGUAGES/DEFAULT") or "en-US",
    )


def choose_edition(editions: Sequence[WindowsEdition], wanted: str | None) -> WindowsEdition:
    """The image that was asked for by number, name or edition identifier; by default the smallest server.

    Raises:
        LabError: there is none; it lists those there are.
    """
    possible = [edition for edition in editions if edition.architecture == "amd64" and edition.build]
    listed = ", ".join(f"{edition.index} {edition.name}" for edition in possible) or "none"
    if wanted is None:
        chosen = [edition for edition in possible if edition.core] or possible
    else:
        chosen = [edition for edition in possible if _is(edition, wanted)]
    if not chosen:
        raise LabError(
            f"the medium has no 64-bit Windows {wanted or ''}".rstrip(), f"choose --edition from: {listed}"
        )
    return chosen[0]


def _is(edition: WindowsEdition, wanted: str) -> bool:
    return wanted.casefold() in {str(edition.index), edition.name.casefold(), edition.edition.casefold()}
