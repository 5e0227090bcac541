"""What a real Linux guest makes of faults: its SCSI and virtio-blk drivers, and the program that arms from inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.faults import OdxFault
    from qemu_odx.pytest_plugin.guests import OdxGuest

pytestmark = [
    pytest.mark.odx_disk("disk", size="64M", blk=True, mailbox=True, layers="faults"),
    pytest.mark.odx_server("--guest-control"),
]


def read(guest: OdxGuest, node: str, *, block: int, count: int = 8) -> tuple[int, str]:
    """Read some blocks of 512 bytes past the page cache: dd's exit status and what it said."""
    done = guest.run(
        f"dd if={node} of=/dev/null bs={512 * count} iflag=direct,skip_bytes skip={512 * block} count=1"
    )
    return done.status, done.stderr


def test_errors_reach_programs(odx_guest: OdxGuest, odx_disk: OdxDisk, odx_fault: OdxFault) -> None:
    """A bad block fails at once and only where it is: ENODATA past the page cache, EIO through it; IOERR is EIO."""
    node, blk = odx_guest.node(odx_disk), odx_guest.node(odx_disk, blk=True)
    odx_guest.sh("dmesg -c > /dev/null")
    with odx_fault.rule("op=read,lba=4096,sense=unrecovered-read-error") as bad:
        status, said = read(odx_guest, node, block=4096)
        assert (status, "No data available" in said) == (1, True), said
        through = odx_guest.run(f"dd if={node} of=/dev/null bs=4096 skip=512 count=1")
        assert (through.status, "Input/output error" in through.stderr) == (1, True), through.stderr
        assert odx_fault.fired(bad) >= 1
        assert read(odx_guest, node, block=4104)[0] == 0
        assert "critical medium error" in odx_guest.sh("dmesg")
    assert read(odx_guest, node, block=4096)[0] == 0
    with odx_fault.rule("op=IN,lba=4096,action=blk-status,status=ioerr"):
        status, said = read(odx_guest, blk, block=4096)
        assert (status, "Input/output error" in said) == (1, True), said
        assert read(odx_guest, node, block=4096)[0] == 0
    with odx_fault.rule("op=disk-read,lba=4096,action=disk-error"):
        assert read(odx_guest, blk, block=4096)[0] == 1
        assert read(odx_guest, node, block=4096)[0] == 1
    assert read(odx_guest, blk, block=4096)[0] == 0


@pytest.mark.parametrize(
    "rule",
    [
        "action=status,status=busy",
        "action=status,status=task-set-full",
        "sense=insufficient-resources",
        "sense=capacity-data-has-changed",
        "sense=logical-unit-is-in-process-of-becoming-ready",
    ],
)
def test_what_linux_tries_again(
    odx_guest: OdxGuest, odx_disk: OdxDisk, odx_fault: OdxFault, rule: str
) -> None:
    """The program sees nothing of it: the read comes out well in the end."""
    node = odx_guest.node(odx_disk)
    name = odx_fault(f"op=READ(10)+READ(16),lba=4096,count=2,{rule}")
    assert read(odx_guest, node, block=4096)[0] == 0
    assert odx_fault.fired(name) == 2


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("sense=space-allocation-failed-write-protect", "No space left on device"),
        ("disk=d0,op=disk-write,action=out-of-space", "No space left on device"),
        ("action=status,status=reservation-conflict", "Invalid exchange"),
        ("sense=logical-block-address-out-of-range", "Remote I/O error"),
    ],
)
def test_what_linux_does_not_try_again(
    odx_guest: OdxGuest, odx_disk: OdxDisk, odx_fault: OdxFault, rule: str, told: str
) -> None:
    """One command, and the errno that says most."""
    node = odx_guest.node(odx_disk)
    name = odx_fault(rule if "op=" in rule else f"op=write,{rule}")
    done = odx_guest.run(f"dd if=/dev/zero of={node} bs=4096 count=1 oflag=direct")
    assert (done.status, told in done.stderr) == (1, True), done.stderr
    assert odx_fault.fired(name) == 1


ARMED_INSIDE = """
set -e
cd {scripts}
fault() {{ python3 odx_fault.py --disk {serial} {door} "$@" > /tmp/said; }}
look() {{ dd if={node} of=/dev/null bs=4096 count=1 iflag=direct 2> /dev/null && echo fine || echo broken; }}
fault add name=now,op=read,export={export},{action},armed=off
look
fault arm now
look
fault release now
look
grep -o '"fired": [0-9]*' /tmp/said
fault remove now
if fault arm now 2> /tmp/why; then echo armed; else cat /tmp/why; fi
"""


@pytest.mark.parametrize("door", ["", "--mailbox"])
def test_armed_from_inside_at_an_exact_moment(odx_guest: OdxGuest, odx_disk: OdxDisk, door: str) -> None:
    """A script in the guest arms a rule, meets it, and releases it: over SCSI, and over virtio-blk."""
    node = odx_guest.node(odx_disk, blk=bool(door))
    script = ARMED_INSIDE.format(
        scripts=odx_guest.scripts(),
        serial=odx_disk.serial,
        door=door,
        node=node,
        export="blk0.sock" if door else "scsi.sock",
        action="action=blk-status,status=ioerr" if door else "sense=unrecovered-read-error",
    )
    lines = odx_guest.sh(script, seconds=180).splitlines()
    assert lines[:3] == ["fine", "broken", "fine"]
    assert int(lines[3].split()[-1]) >= 1
    assert lines[4] == "error: there is no fault rule 'now'; there are: none"
