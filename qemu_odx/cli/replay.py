"""`qemu-odx replay`: run a recorded session again, without a guest, and compare.

Imports `replay/` and `trace/`. Next: `replay/script.py` reads the trace, `replay/run.py` runs it.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console
from rich.progress import Progress, TaskID

from qemu_odx.cli.failing import fail
from qemu_odx.replay.ours import OurDevice
from qemu_odx.replay.port import ReplayError
from qemu_odx.replay.run import Replay
from qemu_odx.replay.script import load
from qemu_odx.replay.sg import SgReplay
from qemu_odx.trace.payload import PayloadError
from qemu_odx.trace.reading import TraceError, open_trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qemu_odx.replay.port import ReplayDevice
    from qemu_odx.replay.run import Verdict
    from qemu_odx.replay.script import Script

_DIFFERENT, _USAGE, _IMPOSSIBLE = 1, 2, 3
_NODE = "sg:"
_SHOWN = 10


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="[DISK=]sg:/dev/sgN",
    help="Run it on this SCSI disk instead of our own target; with several disks, one for each, as DISK=sg:/dev/sgN.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="DISK=FILE",
    help="The image as it was when the recording began, if the trace does not hold it. It is only read.",
)
@click.option("--destroy-data", is_flag=True, help="Allow that the disks of --target are written to.")
@click.option("--stop", is_flag=True, help="Stop at the first difference.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    file: Path,
    *,
    targets: tuple[str, ...],
    images: tuple[str, ...],
    destroy_data: bool,
    stop: bool,
    as_json: bool,
) -> None:
    """Run a recorded session again, without a guest, and compare status, sense and data.

    FILE is a trace that was recorded with data (serve --trace FILE,data=on). Tokens of the recording stand for those
    of the replay. Exit codes: 0 all that could be compared is the same, 1 there are differences or nothing could be
    compared, 2 wrong usage, 3 it cannot be replayed.
    """
    try:
        script = load(open_trace(file))
        known = _pairs("--image", images, script)
        device = _device(script, targets, known, destroy_data=destroy_data)
        with closing(device):
            verdict = _run(Replay(script, device, known), len(script.steps), stop=stop)
    except (TraceError, PayloadError, ReplayError, OSError) as error:
        fail(error, _IMPOSSIBLE)
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # a trace may come from anywhere
        fail(
            f"{file}: a record lacks something that a replay needs, or contradicts itself: {error!r}",
            _IMPOSSIBLE,
        )
    print(json.dumps({"file": str(file), **verdict.as_object()})) if as_json else _tell(verdict)
    sys.exit(0 if verdict.same else _DIFFERENT)


def _run(run: Replay, steps: int, *, stop: bool) -> Verdict:
    """With a bar on a terminal."""
    errors = Console(stderr=True)
    with Progress(transient=True, console=errors, disable=not errors.is_terminal) as progress:
        task: TaskID = progress.add_task("replay", total=steps)
        return run.run(stop=stop, progress=lambda done: progress.update(task, completed=done))


def _device(
    script: Script, targets: tuple[str, ...], images: Mapping[str, str], *, destroy_data: bool
) -> ReplayDevice:
    if not targets or targets == ("ours",):
        return OurDevice(script, {name: Path(image) for name, image in images.items()})
    if images:
        fail("--image is for our own target: an SCSI disk keeps what is on it", _USAGE)
    if not destroy_data:
        fail("--target is written to: give --destroy-data if nothing on it is needed any more", _USAGE)
    if len(targets) == 1 and "=" not in targets[0]:
        targets = (f"{next(iter(script.disks))}={targets[0]}",)
    nodes = _pairs("--target", targets, script)
    for node in nodes.values():
        if not node.startswith(_NODE):
            fail(f"--target {node}: write sg:/dev/sgN, or leave it out for our own target", _USAGE)
    return SgReplay(script, {name: node.removeprefix(_NODE) for name, node in nodes.items()})


def _pairs(option: str, given: tuple[str, ...], script: Script) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or name not in script.disks:
            fail(
                f"{option} {item}: write DISK=..., with a disk of the trace: {', '.join(script.disks)}",
                _USAGE,
            )
        pairs[name] = value
    return pairs


def _tell(verdict: Verdict) -> None:
    for difference in verdict.differences[:_SHOWN]:
        print(difference)
    if len(verdict.differences) > _SHOWN:
        print(f"... and {len(verdict.differences) - _SHOWN} more")
    for what, counts in (("not compared", verdict.uncompared), ("not replayed", verdict.skipped)):
        for reason, count in counts.items():
            print(f"{what}: {count}: {reason}")
    if verdict.missing:
        print(f"{verdict.missing} records are missing in the trace: differences may come from that")
    print(_summary(verdict))


def _summary(verdict: Verdict) -> str:
    counts = f"{verdict.replayed} requests replayed, {verdict.compared} compared"
    if verdict.differences:
        return f"DIFFERENT: {counts}, {len(verdict.differences)} ended otherwise"
    return f"SAME: {counts}" if verdict.compared else f"NOTHING COMPARED: {counts}"
