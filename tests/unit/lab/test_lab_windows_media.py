"""Reading the user's media: a real WIM in a UDF image, and everything that can be wrong with either medium."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import pytest
from windows_media import (
    SERVER_2022,
    SERVER_2025,
    WINDOWS_11,
    make_wim,
    openssh_zip,
    virtio_iso,
    windows_iso,
)

from qemu_odx.lab.errors import LabError
from qemu_odx.lab.windows_image.media import check_drivers, check_openssh, release_of, windows_edition
from qemu_odx.lab.windows_image.wim import choose_edition, read_editions

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {
    "Windows Server 2022 Standard": {**SERVER_2022, "WINDOWS/INSTALLATIONTYPE": "Server"},
    "Windows Server 2022 Standard (Core)": SERVER_2022,
    "Windows 11 Pro": WINDOWS_11,
    "Windows for ARM": {**WINDOWS_11, "WINDOWS/ARCH": "12"},
}


def test_wim_of_another_implementation(tmp_path: Path) -> None:
    """Every property that wimlib wrote."""
    with make_wim(tmp_path, IMAGES).open("rb") as wim:
        editions = read_editions(wim)
    assert [edition.index for edition in editions] == [1, 2, 3, 4]
    assert [edition.name for edition in editions] == list(IMAGES)
    assert [edition.server for edition in editions] == [True, True, False, False]
    assert [edition.core for edition in editions] == [False, True, False, False]
    assert [edition.architecture for edition in editions] == ["amd64", "amd64", "amd64", "arm64"]
    assert editions[2].build == 26100
    assert editions[2].language == "de-DE"


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(None, 2), ("1", 1), ("windows 11 pro", 3), ("Professional", 3), ("serverstandard", 1)],
)
def test_edition_by_number_name_or_identifier(tmp_path: Path, wanted: str | None, index: int) -> None:
    """By default the smallest server."""
    with make_wim(tmp_path, IMAGES).open("rb") as wim:
        assert choose_edition(read_editions(wim), wanted).index == index


@pytest.mark.parametrize("wanted", ["9", "Windows Vista", "Windows for ARM"])
def test_edition_that_is_not_there(tmp_path: Path, wanted: str) -> None:
    """The error lists those that are, and only those that can be run."""
    with make_wim(tmp_path, IMAGES).open("rb") as wim:
        editions = read_editions(wim)
    with pytest.raises(
        LabError, match=r"--edition from: 1 Windows Server 2022 Standard, 2 .*, 3 Windows 11 Pro$"
    ):
        choose_edition(editions, wanted)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MSWIM\0\0\0",
        bytes(208),
        b"MSWIM\0\0\0" + bytes(200),
        b"MSWIM\0\0\0" + bytes(64) + struct.pack("<QQQ", 1 << 40, 0, 0) + bytes(112),
        b"MSWIM\0\0\0" + bytes(64) + struct.pack("<QQQ", 6, 208, 6) + bytes(112) + b"\xff\xfe<\0a\0",
    ],
    ids=["empty", "short", "zeros", "no xml", "vast xml", "broken xml"],
)
def test_file_that_is_no_wim(content: bytes) -> None:
    """One sentence, no traceback, and no vast allocation."""
    with pytest.raises(LabError, match=r"no readable install\.wim"):
        read_editions(io.BytesIO(content))


@pytest.mark.parametrize("name", ["install.wim", "install.esd"])
def test_windows_medium(tmp_path: Path, name: str) -> None:
    """The image is found in UDF, under either name."""
    edition = windows_edition(windows_iso(tmp_path, IMAGES, name), None)
    assert edition.name == "Windows Server 2022 Standard (Core)"


@pytest.mark.parametrize(
    ("properties", "name", "folder", "sshd", "tpm"),
    [
        (SERVER_2022, "server2022", "2k22", False, False),
        (SERVER_2025, "server2025", "2k25", True, False),
        (WINDOWS_11, "windows11", "w11", False, True),
        ({**WINDOWS_11, "WINDOWS/VERSION/BUILD": "19041"}, "windows10", "w10", False, False),
    ],
)
def test_release(
    tmp_path: Path, properties: dict[str, str], name: str, folder: str, *, sshd: bool, tpm: bool
) -> None:
    """By build number and kind."""
    with make_wim(tmp_path, {"Windows": properties}).open("rb") as wim:
        release = release_of(read_editions(wim)[0])
    assert (release.name, release.driver_folder) == (name, folder)
    assert (release.has_sshd, release.needs_tpm) == (sshd, tpm)


def test_release_that_is_too_old(tmp_path: Path) -> None:
    """virtio-win has no drivers for it."""
    with make_wim(tmp_path, {"Old": {**SERVER_2022, "WINDOWS/VERSION/BUILD": "7601"}}).open("rb") as wim:
        edition = read_editions(wim)[0]
    with pytest.raises(LabError, match=r"Old \(build 7601\) is too old"):
        release_of(edition)


def test_missing_iso(tmp_path: Path) -> None:
    """It says which one."""
    with pytest.raises(LabError, match=r"no Windows installation medium .*nowhere\.iso"):
        windows_edition(tmp_path / "nowhere.iso", None)


def test_file_that_is_no_iso(tmp_path: Path) -> None:
    """A download that went wrong is a page of HTML."""
    page = tmp_path / "win.iso"
    page.write_text("<html>sign in first</html>" * 4000)
    with pytest.raises(LabError, match="is no readable ISO"):
        windows_edition(page, None)


def test_wrong_iso_as_windows(tmp_path: Path) -> None:
    """The drivers' ISO has no install.wim."""
    with pytest.raises(LabError, match=r"has neither /sources/install\.wim nor /sources/install\.esd"):
        windows_edition(virtio_iso(tmp_path, "2k22"), None)


def test_drivers_for_the_release(tmp_path: Path) -> None:
    """All three, or the error names the first that is missing."""
    with make_wim(tmp_path, {"Windows": SERVER_2022}).open("rb") as wim:
        release = release_of(read_editions(wim)[0])
    check_drivers(virtio_iso(tmp_path, "2k22", "2k25"), release)
    with pytest.raises(LabError, match=r"has no /vioscsi/2k22/amd64.*server2022"):
        check_drivers(virtio_iso(tmp_path, "2k25"), release)


def test_openssh_package(tmp_path: Path) -> None:
    """It must hold the server."""
    check_openssh(openssh_zip(tmp_path))
    with pytest.raises(LabError, match="is no readable zip"):
        check_openssh(virtio_iso(tmp_path, "2k22"))
    with pytest.raises(LabError, match="is no readable zip"):
        check_openssh(tmp_path / "nowhere.zip")
