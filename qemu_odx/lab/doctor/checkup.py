"""All checks of this machine, in the order of the report.

May import: doctor/*. Next: `cli/doctor.py` shows the findings.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.doctor.finding import Finding, Level
from qemu_odx.lab.doctor.host import Host
from qemu_odx.lab.doctor.leftovers import check_leftovers
from qemu_odx.lab.doctor.libvirt import check_libvirt
from qemu_odx.lab.doctor.memory import check_memory
from qemu_odx.lab.doctor.qemu import check_qemu
from qemu_odx.lab.doctor.security import check_security
from qemu_odx.lab.doctor.storage import check_storage
from qemu_odx.lab.doctor.tools import check_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

FEATURES = ("libvirt", "windows", "wine")


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `as_json` is the public form."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing that is asked for will fail."""
        return not any(finding.level is Level.ERROR for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The object that `qemu-odx doctor --json` prints."""
        counts = Counter(finding.level.value for finding in self.findings)
        return {
            "ok": self.ok,
            "counts": {level.value: counts[level.value] for level in Level},
            "findings": [finding.as_json() for finding in self.findings],
        }


def check_up(
    host: Host | None = None,
    *,
    needs: Collection[str] = (),
    folders: tuple[Path, ...] = (),
    seen: Callable[[Finding], None] = lambda _: None,
) -> Report:
    """Look at everything.

    Args:
        host: the machine, this one by default.
        needs: features whose parts must be there (`FEATURES`).
        folders: where the user's disks are, to be looked at too.
        seen: called with each finding as it comes.
    """
    findings = []
    for finding in _findings(host or Host(), folders):
        findings.append(finding.needed_by(needs))
        seen(findings[-1])
    return Report(tuple(findings))


def _findings(host: Host, folders: tuple[Path, ...]) -> Iterator[Finding]:
    yield from _guarded("tools", check_tools(host))
    yield from _guarded("qemu", check_qemu(host))
    yield from _guarded("memory", check_memory(host))
    yield from _guarded("storage", check_storage(host, folders))
    yield from _guarded("security", check_security(host))
    yield from _guarded("libvirt", check_libvirt(host))
    yield from _guarded("leftovers", check_leftovers(host))


def _guarded(area: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """A machine so odd that a check breaks on it is a finding too; the other checks go on."""
    try:
        yield from findings
    except OSError as error:
        yield Finding(
            area, "check", Level.ERROR, f"broke off: {error}", "see what is special about this path"
        )
