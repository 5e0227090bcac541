"""`qemu-odx serve`: disks over vhost-user sockets, in the manner of qemu-storage-daemon.

Imports `server/` only. Next: `server/config.py` reads the options, `server/app.py` serves.
"""

from __future__ import annotations

import json
import logging
import os
import sys

import rich_click as click

from qemu_odx.cli.failing import fail
from qemu_odx.server.app import Server, ServerError
from qemu_odx.server.config import ServeConfig, parse_config
from qemu_odx.server.options import ConfigError

_FAILED, _USAGE = 1, 2
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)

_EXAMPLES = """\
 Two disks as two logical units of one SCSI device, the second one also as a
 virtio-blk device:

   qemu-odx serve \\
     --disk id=d0,path=a.img,size=1G --disk id=d1,path=b.img \\
     --export type=vhost-user-scsi,socket=s.sock,lun0=d0,lun1=d1 \\
     --export type=vhost-user-blk,socket=b.sock,disk=d1

 QEMU needs shared guest memory for it:

   qemu-system-x86_64 -machine q35,memory-backend=mem -m 1G \\
     -object memory-backend-memfd,id=mem,size=1G,share=on \\
     -chardev socket,id=s,path=s.sock \\
     -device vhost-user-scsi-pci,chardev=s \\
     -chardev socket,id=b,path=b.sock,reconnect=1 \\
     -device vhost-user-blk-pci,chardev=b

 Start them in any order; QEMU may leave and come back. SIGTERM or Ctrl-C ends
 the server: it finishes what is in flight, flushes, removes its sockets and
 exits 0. SIGUSR1 makes it look at the images again: one that was made larger
 (truncate -s, lvextend) shows its new size to the guests at once.
 A comma inside a value is written twice.
"""


class _WithExamples(click.RichCommand):
    """Help that ends in text to copy, so its lines stay as they are."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_EXAMPLES)


@click.command(cls=_WithExamples)
@click.option(
    "--disk",
    "disks",
    multiple=True,
    metavar="id=ID,path=FILE[,...]",
    help="A raw image or block device. size=1G creates a missing image, sparse, and never changes an existing "
    "one; block-size=512|4096; physical-block-size=N is what guests shall align to; serial=TEXT (up to 20 "
    "characters); readonly=on; layers=verify finds silent corruption, layers=power-cut models a crash of the "
    "host, several with + between them (docs/layers.md).",
)
@click.option(
    "--export",
    "exports",
    multiple=True,
    metavar="type=TYPE,socket=PATH,...",
    help="A socket for one QEMU at a time. type=vhost-user-scsi with lun0=ID,lun1=ID,... or "
    "type=vhost-user-blk with disk=ID[,mailbox=on|OFFSET]; num-queues=N limits what QEMU may use; id=ID names it "
    "(else export0, export1, ...). A disk may be behind several exports. A mailbox takes token copies in a few "
    "sectors of the disk (docs/mailbox.md). "
    "group=NAME says which VM it belongs to: a token made in one group is unknown in every other. If no export has a "
    "name, all are one group; if any has, one without is a group by itself. owner=USER,socket-group=GROUP,mode=0660 "
    "set who may connect.",
)
@click.option(
    "--monitor",
    metavar="PATH",
    help="A socket for QMP clients (qmp-shell, qemu-odx top, qemu-odx token, ...), private to the user: see and "
    "steer what runs, add and remove disks and exports (docs/monitor.md).",
)
@click.option(
    "--clock",
    type=click.Choice(["real", "virtual"]),
    default="real",
    help="Whether token expiry and delays take the system's time, or only that of 'qemu-odx clock advance'.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="action=ACTION[,...]",
    help="A rule by which requests go wrong on purpose, such as op=WRITE USING TOKEN,nth=2,sense=token-expired "
    "(docs/faults). It stacks with others; armed=off waits until somebody arms it.",
)
@click.option(
    "--guest-control",
    is_flag=True,
    help="Guests may add, arm and release faults by WRITE BUFFER (docs/faults/guest-control.md).",
)
@click.option(
    "--trace",
    metavar="FILE[,data=on][,events=...]",
    help="Record every request, message, token and copy in FILE (docs/trace.md). data=on makes it fit for 'qemu-odx "
    "replay', and secret; events=request+token+... chooses; initial=SIZE is how much of a disk's content goes in.",
)
@click.option(
    "--state",
    metavar="DIR",
    help="A folder in which tokens, snapshots and running copies outlive the server: started again after a kill or "
    "an upgrade, it goes on with them (docs/restart.md). Made if missing; one server at a time. By default nothing "
    "is kept, and tokens end with the server.",
)
@click.option(
    "--metrics",
    metavar="127.0.0.1:PORT",
    help="Numbers for Prometheus at http://127.0.0.1:PORT/metrics, on a loopback address only; port 0 takes a free "
    "one. Needs the extra 'metrics'.",
)
@click.option("--json", "as_json", is_flag=True, help="Say that it is ready by one JSON object.")
@click.option("-v", "--verbose", count=True, help="Log front ends that come and go (-vv: more) on stderr.")
def serve(
    disks: tuple[str, ...],
    exports: tuple[str, ...],
    *,
    monitor: str | None,
    clock: str,
    faults: tuple[str, ...],
    guest_control: bool,
    trace: str | None,
    state: str | None,
    metrics: str | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Serve disks to QEMU over vhost-user sockets.

    Prints one line as soon as every socket listens, then serves until SIGTERM or Ctrl-C.
    """
    logging.basicConfig(
        level=_LEVELS[min(verbose, len(_LEVELS) - 1)], format="qemu-odx serve: %(message)s", stream=sys.stderr
    )
    try:
        config = parse_config(
            disks,
            exports,
            monitor=monitor,
            virtual_clock=clock == "virtual",
            faults=faults,
            guest_control=guest_control,
            trace=trace,
            state=state,
            metrics=metrics,
        )
        _run(config, as_json=as_json)
    except ConfigError as error:
        fail(error, _USAGE)
    except ServerError as error:
        fail(error, _FAILED)


def _run(config: ServeConfig, *, as_json: bool) -> None:
    with Server(config) as server:
        print(_ready_line(server.sockets, config.monitor, server.metrics, as_json=as_json), flush=True)
        server.run()


def _ready_line(sockets: list[str], monitor: str | None, metrics: str | None, *, as_json: bool) -> str:
    if as_json:
        others = {name: value for name, value in (("monitor", monitor), ("metrics", metrics)) if value}
        return json.dumps({"ready": True, "sockets": sockets, "pid": os.getpid(), **others})
    there = [f"QEMU may connect to {' and '.join(sockets)}"] if sockets else []
    there += [f"the monitor is at {monitor}"] if monitor else []
    there += [f"metrics are at {metrics}"] if metrics else []
    return f"ready: {', '.join(there)}"
