"""Windows' answer file, `autounattend.xml`: what Setup asks, answered.

May import: wim, media (their data). Source: Microsoft Learn, "Unattended Windows Setup Reference"; one function
for each configuration pass. Next: `answer_disc.py`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from qemu_odx.lab.windows_image.media import Release
    from qemu_odx.lab.windows_image.wim import WindowsEdition

NAMESPACE = "urn:schemas-microsoft-com:unattend"
WCM = "http://schemas.microsoft.com/WMIConfig/2002/State"
COMPONENT = {
    "processorArchitecture": "amd64",
    "publicKeyToken": "31bf3856ad364e35",
    "language": "neutral",
    "versionScope": "nonSxS",
}
EFI_MEGABYTES, RESERVED_MEGABYTES = "260", "16"
COMPUTER_NAME = "ODX-LAB"  # at most 15 characters
OUR_USER = "Administrator"
SCRIPT = "first-logon.ps1"
RUN_SCRIPT = (  # CD letters are not stable
    f"cmd.exe /c for %i in (D E F G H I J) do if exist %i:\\{SCRIPT} "
    f"powershell.exe -NoProfile -ExecutionPolicy Bypass -File %i:\\{SCRIPT}"
)
BYPASSED_CHECKS = ("TPM", "SecureBoot", "RAM", "CPU")
NO_UPDATES = (
    r"reg.exe add HKLM\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU"
    r" /v NoAutoUpdate /t REG_DWORD /d 1 /f"
)
LOCAL_ACCOUNT = (
    r"reg.exe add HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\OOBE /v BypassNRO /t REG_DWORD /d 1 /f"
)

ET.register_namespace("", NAMESPACE)
ET.register_namespace("wcm", WCM)


@dataclass(frozen=True, slots=True)
class Answers:
    """What is asked of an installation.

    Attributes:
        edition: which image of the medium.
        release: its release.
        password: of Administrator; ssh is by key, but Windows wants one.
        product_key: for media that are no evaluation; None leaves the question to the medium's own key.
    """

    edition: WindowsEdition
    release: Release
    password: str
    product_key: str | None = None


def answer_file(answers: Answers) -> bytes:
    """The file as Setup reads it: UTF-8 with declaration."""
    root = ET.Element(f"{{{NAMESPACE}}}unattend")
    _windows_pe(root, answers)
    _offline_servicing(root)
    _specialize(root, answers)
    _oobe_system(root, answers)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _settings(root: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(root, f"{{{NAMESPACE}}}settings", {"pass": name})


def _component(settings: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(settings, f"{{{NAMESPACE}}}component", {"name": name, **COMPONENT})


def _add(parent: ET.Element, path: str, text: str | None = None) -> ET.Element:
    """Add the elements of `path`, one in the other; those that are there already are not added again."""
    for name in path.split("/"):
        tag = f"{{{NAMESPACE}}}{name}"
        found = parent.find(tag)
        parent = ET.SubElement(parent, tag) if found is None else found
    parent.text = text
    return parent


def _item(parent: ET.Element, name: str, **values: str) -> ET.Element:
    """An entry of a list, with its values."""
    item = ET.SubElement(parent, f"{{{NAMESPACE}}}{name}", {f"{{{WCM}}}action": "add"})
    for key, value in values.items():
        _add(item, key, value)
    return item


def _locale(component: ET.Element, language: str) -> None:
    for name in ("InputLocale", "SystemLocale", "UILanguage", "UserLocale"):
        _add(component, name, language)


def _windows_pe(root: ET.Element, answers: Answers) -> None:
    settings = _settings(root, "windowsPE")
    international = _component(settings, "Microsoft-Windows-International-Core-WinPE")
    _add(international, "SetupUILanguage/UILanguage", answers.edition.language)
    _locale(international, answers.edition.language)
    setup = _component(settings, "Microsoft-Windows-Setup")
    _partitions(_add(setup, "DiskConfiguration"))
    _image(_add(setup, "ImageInstall/OSImage"), answers.edition.index)
    user = _add(setup, "UserData")
    _add(user, "AcceptEula", "true")
    if answers.product_key:
        _add(user, "ProductKey/Key", answers.product_key)
    _add(user, "ProductKey/WillShowUI", "OnError")
    _add(setup, "DynamicUpdate/Enable", "false")
    if answers.release.needs_tpm:
        _run(setup, [_bypass(check) for check in BYPASSED_CHECKS])


def _bypass(check: str) -> str:
    """For a machine smaller than Windows 11 wants, secure boot off for test-signed drivers."""
    return rf"reg.exe add HKLM\SYSTEM\Setup\LabConfig /v Bypass{check}Check /t REG_DWORD /d 1 /f"


def _partitions(configuration: ET.Element) -> None:
    """EFI, Microsoft reserved, Windows, on the only disk that the machine has during setup."""
    disk = _item(configuration, "Disk", DiskID="0", WillWipeDisk="true")
    create = _add(disk, "CreatePartitions")
    _item(create, "CreatePartition", Order="1", Type="EFI", Size=EFI_MEGABYTES)
    _item(create, "CreatePartition", Order="2", Type="MSR", Size=RESERVED_MEGABYTES)
    _item(create, "CreatePartition", Order="3", Type="Primary", Extend="true")
    modify = _add(disk, "ModifyPartitions")
    _item(modify, "ModifyPartition", Order="1", PartitionID="1", Format="FAT32", Label="System")
    _item(modify, "ModifyPartition", Order="2", PartitionID="2")
    _item(modify, "ModifyPartition", Order="3", PartitionID="3", Format="NTFS", Label="Windows", Letter="C")
    _add(configuration, "WillShowUI", "OnError")


def _image(image: ET.Element, index: int) -> None:
    _item(_add(image, "InstallFrom"), "MetaData", Key="/IMAGE/INDEX", Value=str(index))
    _add(image, "InstallTo/DiskID", "0")
    _add(image, "InstallTo/PartitionID", "3")
    _add(image, "WillShowUI", "OnError")


def _run(component: ET.Element, commands: list[str]) -> None:
    run = _add(component, "RunSynchronous")
    for order, command in enumerate(commands, 1):
        _item(run, "RunSynchronousCommand", Order=str(order), Path=command)


def _offline_servicing(root: ET.Element) -> None:
    """No user account control: a script that logs in has its full rights."""
    component = _component(_settings(root, "offlineServicing"), "Microsoft-Windows-LUA-Settings")
    _add(component, "EnableLUA", "false")


def _specialize(root: ET.Element, answers: Answers) -> None:
    settings = _settings(root, "specialize")
    _add(_component(settings, "Microsoft-Windows-Shell-Setup"), "ComputerName", COMPUTER_NAME)
    _add(_component(settings, "Microsoft-Windows-Security-SPP-UX"), "SkipAutoActivation", "true")
    if answers.release.name.startswith("server"):
        manager = _component(settings, "Microsoft-Windows-ServerManager-SvrMgrNc")
        _add(manager, "DoNotOpenServerManagerAtLogon", "true")
    commands = [NO_UPDATES] + ([LOCAL_ACCOUNT] if answers.release.name == "windows11" else [])
    _run(_component(settings, "Microsoft-Windows-Deployment"), commands)


def _oobe_system(root: ET.Element, answers: Answers) -> None:
    settings = _settings(root, "oobeSystem")
    _locale(_component(settings, "Microsoft-Windows-International-Core"), answers.edition.language)
    encryption = _component(settings, "Microsoft-Windows-SecureStartup-FilterDriver")
    _add(encryption, "PreventDeviceEncryption", "true")
    shell = _component(settings, "Microsoft-Windows-Shell-Setup")
    _password(_add(shell, "UserAccounts/AdministratorPassword"), answers.password, "AdministratorPassword")
    logon = _add(shell, "AutoLogon")
    _add(logon, "Enabled", "true")
    _add(logon, "Username", OUR_USER)
    _add(logon, "LogonCount", "1")
    _password(_add(logon, "Password"), answers.password, "Password")
    for name in (
        *("HideEULAPage", "HideLocalAccountScreen", "HideOEMRegistrationScreen"),
        *("HideOnlineAccountScreens", "HideWirelessSetupInOOBE"),
    ):
        _add(shell, f"OOBE/{name}", "true")
    _add(shell, "OOBE/ProtectYourPC", "3")
    _add(shell, "TimeZone", "UTC")
    commands = _add(shell, "FirstLogonCommands")
    _item(commands, "SynchronousCommand", Order="1", CommandLine=RUN_SCRIPT)


def _password(element: ET.Element, password: str, name: str) -> None:
    """As Setup hides it: base64 of UTF-16LE of password and element name."""
    _add(element, "Value", base64.b64encode((password + name).encode("utf-16-le")).decode())
    _add(element, "PlainText", "false")
