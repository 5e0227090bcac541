"""`--fault` on the command line of the server.

Imports `faults/` and `server/options.py`. Used by `server/config.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.event import Level
from qemu_odx.faults.rule import parse_rule
from qemu_odx.server.options import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from qemu_odx.faults.rule import Rule
    from qemu_odx.server.options import Options


def parse_fault(options: Options) -> Rule:
    """One `--fault`. Raises ConfigError."""
    try:
        return parse_rule(options)
    except FaultRuleError as error:
        raise ConfigError(str(error)) from error


def layers_for(disk: str, layers: tuple[str, ...], rules: Iterable[Rule]) -> tuple[str, ...]:
    """The layers of a disk, with one for faults if a rule may break the disk itself."""
    hit = any(Level.DISK in rule.action.levels and rule.match.disk in {"", disk} for rule in rules)
    return ("faults", *layers) if hit and "faults" not in layers else layers


def check_places(rule: Rule, disks: Sequence[str], exports: Mapping[str, Collection[str]]) -> None:
    """See that a rule's disk is there, and its export, of which `exports` has all names. Raises FaultRuleError."""
    disk, export = rule.match.disk, rule.match.export
    if disk not in {"", *disks}:
        raise FaultRuleError(f"there is no disk '{disk}', only {', '.join(disks) or 'none'}")
    if export and not any(export in names for names in exports.values()):
        raise FaultRuleError(f"there is no export '{export}', only {', '.join(exports) or 'none'}")


def check_rules(rules: Iterable[Rule], disks: Sequence[str], exports: Mapping[str, Collection[str]]) -> None:
    """See that each rule's disk and export are there, and no name twice. Raises ConfigError."""
    names: set[str] = set()
    for rule in rules:
        try:
            check_places(rule, disks, exports)
        except FaultRuleError as error:
            raise ConfigError(f"--fault {rule.text}: {error}") from error
        if rule.name in names:
            raise ConfigError(f"two faults have name={rule.name}")
        names |= {rule.name} - {""}
