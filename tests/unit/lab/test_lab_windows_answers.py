"""The answer file against a schema and by element, the script against a parser, the disc as another reader has it."""

from __future__ import annotations

import base64
import itertools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lxml import etree
from scripted_windows import powershell_errors

from qemu_odx.lab.windows_image.answer_disc import DiscContent, first_logon_script, write_answer_disc
from qemu_odx.lab.windows_image.answers import Answers, answer_file
from qemu_odx.lab.windows_image.media import release_of
from qemu_odx.lab.windows_image.wim import WindowsEdition

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = {
    "u": "urn:schemas-microsoft-com:unattend",
    "wcm": "http://schemas.microsoft.com/WMIConfig/2002/State",
}
SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "unattend.rng"))
EDITIONS = {
    "server2022": WindowsEdition(1, "S22", "ServerStandard", "amd64", True, True, 20348, "en-US"),
    "server2025": WindowsEdition(2, "S25", "ServerStandard", "amd64", True, False, 26100, "fr-FR"),
    "windows10": WindowsEdition(3, "W10", "Professional", "amd64", False, False, 19045, "en-GB"),
    "windows11": WindowsEdition(4, "W11", "Professional", "amd64", False, False, 22631, "de-DE"),
}
KEY = "ssh-ed25519 AAAAC3Nz qemu-odx lab"


def answers(release: str, **changes: str) -> Answers:
    """For one release."""
    edition = EDITIONS[release]
    return Answers(edition, release_of(edition), "pass&<word>", **changes)


def tree(made: Answers) -> etree._Element:
    """The file, parsed by another library."""
    return etree.fromstring(answer_file(made))


def texts(root: etree._Element, path: str) -> list[str]:
    """The texts at a path with `u:` names."""
    return [element.text for element in root.xpath(path, namespaces=NAMES)]


@pytest.mark.parametrize("key", [None, "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"])
@pytest.mark.parametrize("release", EDITIONS)
def test_schema(release: str, key: str | None) -> None:
    """Passes, components, elements, their places and values, as Microsoft's reference has them."""
    root = tree(answers(release, product_key=key))
    assert SCHEMA.validate(root), SCHEMA.error_log


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'pass="specialize"', b'pass="specialise"'),
        (b'name="Microsoft-Windows-Setup"', b'name="Microsoft-Windows-Shell-Setup"'),
        (b"<WillWipeDisk>true", b"<WillWipeDisk>yes"),
        (b"<PartitionID>3</PartitionID>", b""),
        (b"<AcceptEula>true</AcceptEula>", b""),
        (b'wcm:action="add"', b""),
        (b"31bf3856ad364e35", b"31bf3856ad364e36"),
        (b"AdministratorPassword", b"AdminPassword"),
    ],
)
def test_schema_sees_mistakes(old: bytes, new: bytes) -> None:
    """It is no schema that takes everything."""
    text = answer_file(answers("server2022"))
    assert old in text
    assert not SCHEMA.validate(etree.fromstring(text.replace(old, new)))


@pytest.mark.parametrize("release", EDITIONS)
def test_every_component_is_of_windows_64_bit(release: str) -> None:
    """Setup skips a component whose attributes differ, silently."""
    for component in tree(answers(release)).xpath("//u:component", namespaces=NAMES):
        assert component.get("processorArchitecture") == "amd64"
        assert component.get("publicKeyToken") == "31bf3856ad364e35"
        assert component.get("language") == "neutral"
        assert component.get("versionScope") == "nonSxS"


def test_what_is_installed_where() -> None:
    """The image by number, to the third partition of the only disk."""
    root = tree(answers("server2025"))
    assert texts(root, "//u:InstallFrom/u:MetaData/u:Key") == ["/IMAGE/INDEX"]
    assert texts(root, "//u:InstallFrom/u:MetaData/u:Value") == ["2"]
    assert texts(root, "//u:InstallTo/*") == ["0", "3"]
    assert texts(root, "//u:CreatePartition/u:Type") == ["EFI", "MSR", "Primary"]
    assert texts(root, "//u:ModifyPartition/u:PartitionID") == ["1", "2", "3"]
    assert texts(root, "//u:UILanguage") == ["fr-FR"] * 3


def test_passwords_are_hidden_as_setup_does() -> None:
    """base64 of UTF-16LE of password and element name."""
    root = tree(answers("server2022"))
    for name in ("AdministratorPassword", "Password"):
        hidden = texts(root, f"//u:{name}/u:Value")[0]
        assert base64.b64decode(hidden).decode("utf-16-le") == f"pass&<word>{name}"
    assert texts(root, "//u:PlainText") == ["false", "false"]


def test_product_key_only_if_given() -> None:
    """A key that fits no image of the medium ends Setup; evaluation media want none."""
    assert texts(tree(answers("server2022")), "//u:ProductKey/u:Key") == []
    assert texts(tree(answers("server2022", product_key="A-B")), "//u:ProductKey/u:Key") == ["A-B"]


@pytest.mark.parametrize(("release", "checks"), [("windows11", 4), ("windows10", 0), ("server2025", 0)])
def test_windows_11_is_let_onto_small_machines(release: str, checks: int) -> None:
    """By the four values of LabConfig, and no other release needs them."""
    paths = texts(tree(answers(release)), "//u:settings[@pass='windowsPE']//u:RunSynchronousCommand/u:Path")
    assert len(paths) == checks
    assert all(r"HKLM\SYSTEM\Setup\LabConfig" in path for path in paths)


@pytest.mark.parametrize("release", EDITIONS)
def test_no_sleep_no_updates_no_encryption(release: str) -> None:
    """What would change the guest behind the tester's back."""
    made = answers(release)
    root = tree(made)
    assert any("NoAutoUpdate" in path for path in texts(root, "//u:settings[@pass='specialize']//u:Path"))
    assert texts(root, "//u:DynamicUpdate/u:Enable") == ["false"]
    assert texts(root, "//u:PreventDeviceEncryption") == ["true"]
    script = first_logon_script(DiscContent(made, KEY))
    assert "'/hibernate', 'off'" in script
    assert "Set-Service -Name wuauserv -StartupType Disabled" in script


def variants() -> Iterator[DiscContent]:
    """Every combination that changes the script."""
    for release, zipped, signing in itertools.product(EDITIONS, (None, Path("/x.zip")), (False, True)):
        yield DiscContent(answers(release), KEY, zipped, signing)


@pytest.mark.parametrize("content", list(variants()), ids=lambda content: content.answers.release.name)
def test_first_logon_script_parses(content: DiscContent) -> None:
    """By a parser that is not ours; nothing of the template is left."""
    script = first_logon_script(content)
    assert powershell_errors(script) == []
    assert "{%" not in script
    assert "{{" not in script
    assert rf"\{content.answers.release.driver_folder}\amd64" in script
    assert ("testsigning" in script) == content.test_signing
    assert ("Expand-Archive" in script) == (content.openssh_zip is not None)
    from_windows = not content.answers.release.has_sshd and content.openssh_zip is None
    assert ("Add-WindowsCapability" in script) == from_windows


def test_script_tells_the_end_before_it_switches_off() -> None:
    """The marker of the installer first; a failure never says it."""
    script = first_logon_script(DiscContent(answers("server2022"), KEY))
    assert script.index("LAB:installed") < script.index("shutdown.exe") < script.index("} catch {")
    assert script.count("LAB:installed") == 1
    assert 'Say "LAB:failed' in script.partition("} catch {")[2]


def test_disc_as_another_reader_has_it(tmp_path: Path) -> None:
    """Libarchive finds the files by the names that Windows will see."""
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed (package libarchive-tools)")
    package = tmp_path / "x.zip"
    package.write_bytes(b"PK" * 5000)
    content = DiscContent(answers("windows11"), KEY, package, test_signing=True)
    write_answer_disc(content, tmp_path / "answers.iso")
    disc = tmp_path / "disc"
    disc.mkdir()
    subprocess.run(["bsdtar", "-xf", tmp_path / "answers.iso", "-C", disc], check=True)
    names = {path.name for path in disc.iterdir()}
    assert names == {"autounattend.xml", "first-logon.ps1", "authorized_keys", "openssh.zip"}
    assert (disc / "autounattend.xml").read_bytes() == answer_file(content.answers)
    assert (disc / "authorized_keys").read_text() == f"{KEY}\n"
    assert (disc / "openssh.zip").read_bytes() == package.read_bytes()
    script = (disc / "first-logon.ps1").read_bytes()
    assert script.startswith(b"\xef\xbb\xbf#")
    assert script[3:].decode().replace("\r\n", "\n") == first_logon_script(content)
    assert b"\n" not in script.replace(b"\r\n", b"")


def test_disc_without_openssh(tmp_path: Path) -> None:
    """Two discs of the same wishes differ in nothing but times: the content is a function of the wishes."""
    content = DiscContent(answers("server2025"), KEY)
    assert answer_file(content.answers) == answer_file(replace(content.answers))
    write_answer_disc(content, tmp_path / "answers.iso")
    assert (tmp_path / "answers.iso").read_bytes()[32768:32774] == b"\x01CD001"
