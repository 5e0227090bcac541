"""Commands on fault rules.

Imports `server/faulting/`. The rules themselves are in `docs/faults`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qemu_odx.faults.book import UnknownRuleError
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.server.config import export_names
from qemu_odx.server.faulting.faults import FaultInfo, read_rule
from qemu_odx.server.faulting.options import check_places
from qemu_odx.server.monitor.errors import MonitorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.backend import Backend


def query(backend: Backend) -> list[FaultInfo]:
    """All fault rules, armed or not, with how often they have fired and what they hold.

    Example:
        -> {"execute": "query-odx-faults"}
        <- {"return": [{"name": "busy", "rule": "op=read,action=status,status=busy", "action": "status",
                        "state": "armed", "seen": 3, "fired": 3, "held": 0, "last": 12.5,
                        "last-event": "READ(16) on d0"}]}
    """
    return backend.faults.list()


def arm(backend: Backend, rule: str | None = None, name: str | None = None) -> FaultInfo:
    """Adds a fault rule, or puts one that is there in force; it counts from now on.

    Args:
        rule: a new rule, as `qemu-odx serve --fault` takes it.
        name: an old one. Either this or `rule`.

    Example:
        -> {"execute": "odx-fault-arm", "arguments": {"rule": "op=WRITE USING TOKEN,count=1,sense=token-expired"}}
        <- {"return": {"name": "sense-1", "rule": "op=WRITE USING TOKEN,count=1,sense=token-expired",
                       "action": "sense", "state": "armed", "seen": 0, "fired": 0, "held": 0}}
    """
    if (rule is None) == (name is None):
        raise MonitorError("give either 'rule', to add one, or 'name', to arm one that is there")
    if rule is not None:
        return _done(partial(_add, backend), rule)
    return _done(backend.faults.arm, name or "")


def release(backend: Backend, name: str) -> FaultInfo:
    """Puts a rule out of force, and lets every request go on that it holds.

    Args:
        name: the rule.

    Example:
        -> {"execute": "odx-fault-release", "arguments": {"name": "stall-1"}}
        <- {"return": {"name": "stall-1", "rule": "action=stall,op=write", "action": "stall", "state": "off",
                       "seen": 2, "fired": 2, "held": 0, "last": 3.25, "last-event": "WRITE(10) on d0"}}
    """
    return _done(backend.faults.release, name)


def remove(backend: Backend, name: str) -> FaultInfo:
    """Releases a rule and forgets it.

    Args:
        name: the rule.

    Example:
        -> {"execute": "odx-fault-remove", "arguments": {"name": "stall-1"}}
        <- {"return": {"name": "stall-1", "rule": "action=stall,op=write", "action": "stall", "state": "off",
                       "seen": 2, "fired": 2, "held": 0}}
    """
    return _done(backend.faults.remove, name)


def _add(backend: Backend, text: str) -> FaultInfo:
    rule = read_rule(text)
    exports = {name: export_names(served.config) for name, served in backend.exports.items()}
    check_places(rule, list(backend.disks), exports)
    return backend.faults.enter(rule)


def _done(change: Callable[[str], FaultInfo], argument: str) -> FaultInfo:
    try:
        return change(argument)
    except UnknownRuleError as error:
        raise MonitorError(str(error), "DeviceNotFound") from error
    except FaultRuleError as error:
        raise MonitorError(str(error)) from error
