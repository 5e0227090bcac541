"""Windows guests: OpenSSH as Microsoft ships it, PowerShell for everything.

May import: ssh (its `Login`), powershell. See `port.py`. A member of Administrators is let in by the keys in
`administrators_authorized_keys`, and has its full rights at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qemu_odx.lab.adapters.powershell import encoded, literal, run_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qemu_odx.lab.ssh import Login

USER = "Administrator"
MARKER = "LAB:ssh-ready"  # a task of our golden image writes it to COM1 once sshd listens
BOOT_SECONDS = 1800.0
"""By TCG on a busy host; with KVM it is half a minute."""
FIND_BY_SERIAL = (
    "$d=Get-Disk|Where-Object {{$_.SerialNumber -and $_.SerialNumber.Trim() -eq {0}}}|Select-Object -First 1;"
    "if($d){{if($d.IsOffline){{Set-Disk -Number $d.Number -IsOffline $false}};"
    "if($d.IsReadOnly){{Set-Disk -Number $d.Number -IsReadOnly $false}};"
    "'\\\\.\\PhysicalDrive'+$d.Number}}"
)
"""The SAN policy of Windows Server brings new disks up offline and read-only."""
EVENTS = "Get-WinEvent -LogName System -MaxEvents 300|Format-List -Property *"


@dataclass(frozen=True, slots=True)
class WindowsAdapter:
    """See `GuestAdapter`."""

    login: Login
    marker: str | None = None
    boot_seconds: float = BOOT_SECONDS
    name: str = field(default="windows")

    def command(self, arguments: Sequence[str], folder: str | None = None) -> str:
        """See `GuestAdapter`. A PowerShell script is run by PowerShell, another file must be a program."""
        program = arguments[0]
        if program.lower().endswith(".ps1"):
            arguments = ["powershell.exe", "-NoProfile", "-ExecutionPolicy", "Bypass", "-File", *arguments]
        return encoded(run_program(arguments, folder))

    def new_folder(self, name: str) -> str:
        """See `GuestAdapter`."""
        return f"C:/Windows/Temp/{name}"

    def boot_identity(self) -> str:
        """See `GuestAdapter`."""
        return encoded("(Get-CimInstance Win32_OperatingSystem).LastBootUpTime.Ticks")

    def reboot(self) -> str:
        """See `GuestAdapter`."""
        return encoded("shutdown.exe /r /f /t 0")

    def power_off(self) -> str:
        """See `GuestAdapter`."""
        return encoded("shutdown.exe /s /f /t 0")

    def disk_node(self, serial: str) -> str:
        """See `GuestAdapter`. The disk is put online."""
        return encoded(FIND_BY_SERIAL.format(literal(serial)))

    def collected_commands(self) -> Mapping[str, str]:
        """See `GuestAdapter`."""
        return {
            "system.txt": encoded("Get-ComputerInfo|Format-List;driverquery.exe /v /fo list"),
            "disks.txt": encoded("Get-Disk|Format-List *;fltmc.exe instances -v"),
            "events.txt": encoded(EVENTS),
        }

    def collected_files(self) -> Sequence[str]:
        """See `GuestAdapter`."""
        return (
            "C:/Windows/MEMORY.DMP",
            "C:/Windows/Panther/setupact.log",
            "C:/Windows/Panther/setuperr.log",
        )
