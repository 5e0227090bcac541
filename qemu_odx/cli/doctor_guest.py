"""`qemu-odx doctor --guest`: which layer refused ODX in a guest, or proof that tokens flow; and what the server saw.

May import: lab, trace, `monitor_client.py`. It owns what is shown, `lab/doctor/guest` what is found out.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.table import Table
from rich.text import Text

from qemu_odx.cli.console import stdout_console
from qemu_odx.cli.monitor_client import MonitorClient, MonitorFailure
from qemu_odx.lab.doctor.guest.ask import Question, ask_guest
from qemu_odx.lab.doctor.guest.host import host_layers
from qemu_odx.lab.doctor.guest.layer import GuestView, Layer, Verdict
from qemu_odx.trace.reading import TraceError, open_trace

if TYPE_CHECKING:
    from qemu_odx.lab.session.record import GuestRecord

STYLES = {Verdict.PASSES: "green", Verdict.REFUSES: "bold red", Verdict.UNKNOWN: "yellow"}


def examine(guest: GuestRecord, question: Question, monitor: str | None) -> GuestView:
    """Ask the guest, and the disk server what it saw of that if its monitor is known.

    Raises:
        LabError: the guest cannot be asked.
    """
    if monitor is None:
        return ask_guest(guest, question)
    with tempfile.TemporaryDirectory(prefix="qemu-odx-doctor-") as folder:
        file = Path(folder) / "trace.jsonl"
        try:
            with MonitorClient(monitor) as server:
                server.execute("odx-trace-start", {"file": str(file), "events": ["request"]})
        except MonitorFailure as error:
            said = Layer("disk server", Verdict.UNKNOWN, f"not asked: {error.message}", "see its monitor")
            return replace(ask_guest(guest, question), host=(said,))
        try:
            view = ask_guest(guest, question)
        finally:
            with suppress(MonitorFailure), MonitorClient(monitor) as server:
                server.execute("odx-trace-stop")
        return replace(view, host=_seen(file))


def _seen(file: Path) -> tuple[Layer, ...]:
    try:
        return host_layers(open_trace(file))
    except TraceError as error:
        return (Layer("disk server", Verdict.UNKNOWN, str(error), "try again"),)


def say(view: GuestView, *, as_json: bool) -> None:
    """A table for each side, and one sentence for each disk."""
    if as_json:
        click.echo(json.dumps(view.as_json()))
        return
    console = stdout_console()
    console.print(Text(view.system))
    for disk in view.disks:
        console.print(_table(f"{disk.node} {disk.serial}", disk.layers))
    if view.host:
        console.print(_table("disk server", view.host))
    for disk in view.disks:
        console.print(Text(f"{disk.node}: {_verdict(disk.refusing, proven=disk.proven)}"))
    if not view.disks:
        console.print("The guest has no disk of ours.")


def _verdict(refusing: Layer | None, *, proven: bool) -> str:
    if refusing is not None and refusing.name == "tokens":
        return f"the token commands are refused: {refusing.found}"
    if refusing is not None:
        return f"the {refusing.name} refuses ODX: {refusing.found}"
    return "tokens flow." if proven else "nothing refuses ODX, and nothing proves it: no copy was tried."


def _table(title: str, layers: tuple[Layer, ...]) -> Table:
    table = Table(title, "", "found", "cure", box=None, pad_edge=False)
    for layer in layers:
        verdict = Text(layer.verdict.value, STYLES[layer.verdict])
        table.add_row(Text(layer.name), verdict, Text(layer.found), Text(layer.cure))
    return table
