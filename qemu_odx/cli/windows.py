"""`qemu-odx windows`: Windows' side of ODX as a model: vectors replayed, disks explained.

Imports `windows/`, and the option parser of `server/`. Next: `windows/check/replay.py`, `windows/explain/report.py`.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from qemu_odx.cli.failing import fail
from qemu_odx.server.config import DiskConfig, parse_disk
from qemu_odx.server.options import ConfigError, split_options
from qemu_odx.windows.check.replay import as_object as verdicts_object
from qemu_odx.windows.check.replay import replay
from qemu_odx.windows.check.vector_file import VectorFileError, load
from qemu_odx.windows.explain import opening
from qemu_odx.windows.explain.opening import DiskError, SgError
from qemu_odx.windows.explain.report import as_lines, as_object, explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.windows.port import Carrier

_FAILED, _USAGE = 1, 2
_NODE = "sg:"


@click.group()
def windows() -> None:
    """What Windows' class driver would do: a model after its published source, not Windows itself."""


@windows.command()
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Vectors: IOCTL buffers and the SCSI commands they make Windows send.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(vectors: Path, *, as_json: bool) -> None:
    """Replay a file of Windows vectors on the model.

    Exit codes: 0 all passed, 1 some failed, 2 the file cannot be used.
    """
    try:
        verdicts = [replay(vector) for vector in load(vectors)]
    except VectorFileError as error:
        fail(error, _USAGE)
    told = verdicts_object(verdicts)
    if as_json:
        print(json.dumps(told))
    else:
        for verdict in verdicts:
            print(
                f"{'pass' if verdict.ok else 'FAIL'}  {verdict.name}{': ' * bool(verdict.why)}{verdict.why}"
            )
        print(f"{told['passed']} passed, {told['failed']} failed")
    if told["failed"]:
        sys.exit(_FAILED)


@windows.command(name="explain")
@click.option(
    "--disk",
    metavar="PATH[,block-size=4096]",
    help="An image or block device, as our own target would show it; it is opened for reading.",
)
@click.option("--target", metavar="sg:/dev/sgN", help="A SCSI disk of this machine; it is only asked.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain_command(disk: str | None, target: str | None, *, as_json: bool) -> None:
    """Say whether Windows would switch ODX on for a disk, with which limits, and if not, which byte is to blame.

    Exit codes: 0 on, 1 off, 2 the disk cannot be asked.
    """
    try:
        with _opened(disk, target) as carry:
            told = explain(carry)
    except (ConfigError, DiskError, SgError) as error:
        fail(error, _USAGE)
    device = disk or target or ""
    print(json.dumps(as_object(told, device)) if as_json else "\n".join(as_lines(told, device)))
    if not told.on:
        sys.exit(_FAILED)


@contextmanager
def _opened(disk: str | None, target: str | None) -> Iterator[Carrier]:
    if (disk is None) == (target is None):
        raise ConfigError("name one disk: --disk PATH or --target sg:/dev/sgN")
    if target is not None:
        if not target.startswith(_NODE):
            raise ConfigError(f"{target!r} is no device: write sg: and a disk node, such as sg:/dev/sg1")
        with opening.node(target.removeprefix(_NODE)) as carry:
            yield carry
    elif disk is not None:
        config = _config(disk)
        with opening.image(
            config.path, block_size=config.block_size, physical_block_size=config.physical_block_size
        ) as carry:
            yield carry


def _config(disk: str) -> DiskConfig:
    """`PATH[,key=value]` or the string that `serve --disk` takes."""
    options = split_options(disk if "path=" in disk else f"path={disk}")
    if "size" in options:
        raise ConfigError("size=: the image has to be there already; leave the size out")
    config = parse_disk({"id": "disk", **options})
    if not Path(config.path).exists():
        raise ConfigError(f"{config.path} does not exist: correct the path")
    return config
