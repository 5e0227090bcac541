"""`qemu-odx fault`: the fault rules of a running server, and what rules can say.

Imports `cli/monitor_client.py` and the tables of `faults/`. The work is done by the server, in
`server/monitor/commands/faults.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click

from qemu_odx.cli.figures import show
from qemu_odx.cli.monitor_client import MonitorClient, monitor_options, print_json
from qemu_odx.faults.actions import ACTIONS, BLK_STATUSES, ERRNOS, STATUSES
from qemu_odx.faults.operations import DISK_OPERATIONS, GROUPS
from qemu_odx.faults.senses import KEYS, SENSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COLUMNS = ("name", "state", "fired", "seen", "held", "last request", "rule")


@click.group()
def fault() -> None:
    """Make requests go wrong on purpose: look at, arm, release and remove the fault rules of a running server.

    A rule says which requests, which of those in turn, and what happens to them, as in

      op=WRITE USING TOKEN,nth=2,sense=token-expired

    `qemu-odx fault catalogue` has all words; docs/faults says what Windows and Linux make of each fault. The
    server is one that was started with `qemu-odx serve --monitor PATH`.

    Exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 no server listens.
    """


@fault.command("list")
@monitor_options
def list_(monitor: str, *, as_json: bool) -> None:
    """Show every rule: armed or not, how often it fired, and how many requests it holds."""
    with MonitorClient(monitor) as server:
        rules = server.execute("query-odx-faults")
    if as_json:
        print_json(rules)
    else:
        show(_COLUMNS, (_row(rule) for rule in rules), nothing="there is no rule")


@fault.command()
@click.argument("rule_or_name")
@monitor_options
def arm(rule_or_name: str, monitor: str, *, as_json: bool) -> None:
    """Add a rule, or arm one that is there, by its name."""
    key = "rule" if "=" in rule_or_name else "name"
    _change(monitor, "odx-fault-arm", {key: rule_or_name}, as_json=as_json)


@fault.command()
@click.argument("name")
@monitor_options
def release(name: str, monitor: str, *, as_json: bool) -> None:
    """Disarm a rule, and let everything go on that it holds."""
    _change(monitor, "odx-fault-release", {"name": name}, as_json=as_json)


@fault.command()
@click.argument("name")
@monitor_options
def remove(name: str, monitor: str, *, as_json: bool) -> None:
    """Release a rule and forget it."""
    _change(monitor, "odx-fault-remove", {"name": name}, as_json=as_json)


@fault.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def catalogue(*, as_json: bool) -> None:
    """List what a rule can say: actions with their keys, groups of operations, sense codes by name, status words."""
    if as_json:
        print_json(_catalogue())
        return
    actions = ((name, " ".join(_keys(name)), kind.summary) for name, kind in ACTIONS.items())
    groups = ((name, ", ".join(sorted(names))) for name, names in GROUPS.items())
    senses = ((name, value.name) for name, value in SENSES.items())
    words: dict[str, Iterable[str]] = {
        "status= (scsi)": STATUSES,
        "status= (blk)": BLK_STATUSES,
        "errno=": ERRNOS,
        "key=": KEYS,
    }
    show(("action", "keys of its own", "what happens"), actions, nothing="")
    show(("op= group", "operations"), groups, nothing="")
    show(("sense=", "sense code"), senses, nothing="")
    show(("key", "words"), ((key, ", ".join(values)) for key, values in words.items()), nothing="")
    click.echo(f"op= also takes every command's own name, and at the disk: {', '.join(DISK_OPERATIONS)}")


def _catalogue() -> dict[str, object]:
    return {
        "actions": {
            name: {"summary": kind.summary, "keys": kind.options, "required": kind.required}
            for name, kind in ACTIONS.items()
        },
        "groups": {name: sorted(names) for name, names in GROUPS.items()},
        "disk-operations": DISK_OPERATIONS,
        "senses": {name: f"{value.key:x}/{value.asc:02x}/{value.ascq:02x}" for name, value in SENSES.items()},
        "statuses": STATUSES,
        "blk-statuses": BLK_STATUSES,
        "errnos": list(ERRNOS),
        "keys": list(KEYS),
    }


def _keys(action: str) -> list[str]:
    kind = ACTIONS[action]
    return [key if key in kind.required else f"[{key}]" for key in kind.options]


def _change(monitor: str, command: str, arguments: Mapping[str, object], *, as_json: bool) -> None:
    with MonitorClient(monitor) as server:
        rule = server.execute(command, arguments)
    if as_json:
        print_json(rule)
    else:
        click.echo(f"{rule['name']}: {rule['state']}")


def _row(rule: Mapping[str, Any]) -> tuple[str, ...]:
    counts = (str(rule[key]) for key in ("fired", "seen", "held"))
    return (rule["name"], rule["state"], *counts, rule.get("last-event", ""), rule["rule"])
