"""`qemu-odx up`, `ps`, `exec`, `cp`, `logs`, `shell`, `doctor --guest`, `down`: labs side by side, and gone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from leftovers import PROGRAM, Scratch

from qemu_odx.lab.session.record import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.image import Image

TWO_GUESTS = """\
[disk.d0]
size = "64M"
[disk.d1]
path = "mine/kept.img"
size = "64M"

[export.first]
disks = ["d0", "d1"]
[export.second]
disks = ["d1"]
[export.plain]
type = "vhost-user-blk"
disk = "d0"

[guest.a]
exports = ["first"]
memory = "256M"
[guest.b]
exports = ["second", "plain"]
memory = "256M"
cpus = 1
"""
FIND_D1 = "d=$(for s in /sys/block/sd*; do grep -qs odx-d1 $s/device/vpd_pg80 && echo /dev/${s##*/}; done)"
D1 = f'for i in $(seq 1200); do {FIND_D1}; [ -z "$d" ] || break; sleep 0.1; done; '
"""Linux may find the units in any order, and after a while."""
KEPT = ("runs", "mine", "odx.toml")


@pytest.fixture(scope="module")
def scratch(image: Image) -> Iterator[Scratch]:
    """A place for this module's labs."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        place = Scratch(Path(folder))
        (place.folder / "mine").mkdir()
        yield place
        place.run("down", "--all", "--now")


@pytest.fixture(scope="module")
def labs(scratch: Scratch) -> Iterator[Scratch]:
    """Two labs side by side: `pair` from a file, with two guests, and `one` from options."""
    (scratch.folder / "odx.toml").write_text(TWO_GUESTS)
    pair = scratch.start("up", "pair", "--lab", str(scratch.folder / "odx.toml"))
    one = scratch.run("up", "one", "--json", "--memory", "256")
    _, complaints = pair.communicate()
    assert pair.returncode == 0, complaints
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout)["state"] == "up"
    yield scratch
    held_open = D1 + "sleep 1000 < $d > /dev/null 2>&1 & "  # else the kernel writes back when dd closes it
    unflushed = f"{held_open}printf bye | dd of=$d bs=512 seek=1 count=1 2> /dev/null"
    assert scratch.run("exec", "pair/a", unflushed).returncode == 0
    done = scratch.run("down", "pair", "one", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ok": True, "down": ["pair", "one"]}
    assert scratch.left(*KEPT) == {}
    kept = (scratch.folder / "mine/kept.img").read_bytes()
    assert kept[512:515] == b"bye"  # the guest was shut down, not killed


def listed(scratch: Scratch) -> dict[str, Any]:
    """What `ps` says, by name."""
    return {lab["name"]: lab for lab in json.loads(scratch.run("ps", "--json").stdout)}


def test_both_are_listed(labs: Scratch) -> None:
    """For programs and for people."""
    found = listed(labs)
    assert {name: lab["state"] for name, lab in found.items()} == {"one": "up", "pair": "up"}
    assert [guest["name"] for guest in found["pair"]["guests"]] == ["a", "b"]
    table = labs.run("ps").stdout
    assert f"b (root@127.0.0.1:{found['pair']['guests'][1]['port']})" in table
    assert "\x1b" not in table


def test_commands_run_in_the_guest_that_is_meant(labs: Scratch) -> None:
    """Each guest has its own devices; exit code, output and error are those of the command."""
    scsi, blk = "ls /sys/class/scsi_disk | wc -l", "ls -d /sys/block/vd* | wc -l"
    for guest, units, disks in (("pair/a", 2, 1), ("pair/b", 1, 2), ("one", 2, 3)):
        found = f'"$({scsi}) $({blk})" = "{units} {disks}"'  # Linux takes its time
        done = labs.run(
            "exec", guest, f"for i in $(seq 1200); do [ {found} ] && break; sleep 0.1; done; {scsi}; {blk}"
        )
        assert done.stdout.split() == [str(units), str(disks)], guest
    done = labs.run("exec", "one", "echo out; echo err >&2; exit 9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n", "err\n")
    done = labs.run("exec", "--json", "one", "printf", "%s", "a b")
    assert json.loads(done.stdout) == {"exit": 0, "stdout": "a b", "stderr": ""}
    assert labs.run("exec", "one", "--", "sh", "-c", "exit 7").returncode == 7


def test_disk_is_shared_by_two_guests(labs: Scratch) -> None:
    """What one writes, the other reads; the file stays for the user."""
    write = D1 + "printf hello | dd of=$d conv=fsync bs=512 count=1 2> /dev/null"
    assert labs.run("exec", "pair/a", write).returncode == 0
    read = D1 + "dd if=$d bs=512 count=1 iflag=direct 2> /dev/null | head -c 5"
    assert labs.run("exec", "pair/b", read).stdout == "hello"


def test_files_are_copied_both_ways(labs: Scratch) -> None:
    """Into a file, into a folder, and back."""
    file, back = labs.folder / "mine/there", labs.folder / "mine/back"
    file.write_bytes(bytes(range(256)) * 100)
    assert labs.run("cp", str(file), "pair/b:/tmp/x").returncode == 0
    assert json.loads(labs.run("cp", "--json", "pair/b:/tmp/x", str(back)).stdout)["bytes"] == 25600
    assert back.read_bytes() == file.read_bytes()
    done = labs.run("cp", "pair/b:/nowhere", str(back))
    assert done.returncode == 1
    assert "cannot fetch /nowhere" in done.stderr
    assert back.read_bytes() == file.read_bytes()
    assert "one side must be in a guest" in labs.run("cp", str(file), str(back)).stderr


def test_logs_are_shown(labs: Scratch) -> None:
    """The serial port by default; following ends with Ctrl-C."""
    assert "LAB:ssh-ready" in labs.run("logs", "pair/b").stdout
    assert "qmp_capabilities" in labs.run("logs", "one", "--of", "qmp").stdout
    with labs.start("logs", "one", "-f") as follower:
        labs.run("exec", "one", "echo from the test > /dev/console")
        assert follower.stdout is not None
        while "from the test" not in follower.stdout.readline():
            assert follower.poll() is None
        follower.send_signal(signal.SIGINT)
        follower.communicate()
    assert follower.returncode == 130


@pytest.mark.parametrize("client", ["ssh", "ours"])
def test_shell_at_a_terminal(labs: Scratch, client: str) -> None:
    """A real terminal: the prompt comes, keys go to the guest, Ctrl-C too, the exit code comes back."""
    environment = labs.environment
    if client == "ours":
        environment["PATH"] = "/nonexistent"
    ours, theirs = pty.openpty()
    command = [*PROGRAM, "shell", "one"]
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as shell:
        os.close(theirs)
        await_text(ours, "# ")
        os.write(ours, b"sleep 500\n")
        await_text(ours, "sleep 500")
        while "sleep 500" not in labs.run("exec", "one", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout:
            pass
        os.write(ours, b"\x03")
        await_text(ours, "# ")
        os.write(ours, b"tty; exit $((30 + 4))\n")
        await_text(ours, "/dev/pts/")
        assert shell.wait(120) == 34
    os.close(ours)


def await_text(terminal: int, wanted: str) -> None:
    """Read until it comes; the test's own time-out ends the wait."""
    seen = ""
    while wanted not in seen:
        seen += os.read(terminal, 1024).decode(errors="replace")


def test_doctor_proves_that_tokens_flow(labs: Scratch) -> None:
    """In the guest by a token, on the host by what its disk server saw."""
    done = labs.run("doctor", "--guest", "pair/a", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert sorted(disk["serial"] for disk in found["disks"]) == ["odx-d0", "odx-d1"]
    assert all(disk["proven"] for disk in found["disks"])
    populate, receive, write = found["host"]
    assert populate["verdict"] == receive["verdict"] == "passes"
    assert populate["found"].startswith("2 came, none was refused")
    assert write["found"] == "did not come"


def test_doctor_names_the_driver_that_refuses(labs: Scratch) -> None:
    """virtio-blk without a mailbox: no command comes to the disk server."""
    done = labs.run("doctor", "--guest", "pair/b", "--serial", "odx-d0", "--json")
    (disk,) = json.loads(done.stdout)["disks"]
    assert done.returncode == 1
    assert (disk["refusing"], disk["layers"][0]["name"]) == ("driver", "driver")
    assert "mailbox=on" in disk["layers"][0]["cure"]
    assert {layer["found"] for layer in json.loads(done.stdout)["host"]} == {"did not come"}


def test_doctor_names_the_refusal_of_the_disk_server(labs: Scratch) -> None:
    """A fault refuses POPULATE TOKEN: the guest tells the sense code, the server its name; by ssh alone too."""
    (pair,) = [lab for lab in listed(labs).values() if lab["name"] == "pair"]
    rule = "op=POPULATE TOKEN,sense=token-expired,name=no"
    assert labs.run("fault", "arm", "--monitor", pair["monitor"], rule).returncode == 0
    guest = pair["guests"][0]
    login = f"{guest['user']}@{guest['port']}"
    try:
        done = labs.run(
            *("doctor", "--ssh", login, "--key", guest["private_key"], "--monitor", pair["monitor"])
        )
    finally:
        assert labs.run("fault", "remove", "--monitor", pair["monitor"], "no").returncode == 0
    assert done.returncode == 1
    assert "/dev/sda: the tokens refuses ODX" not in done.stdout
    assert "/dev/sda: the token commands are refused" in done.stdout
    assert "INVALID TOKEN OPERATION, TOKEN EXPIRED" in done.stdout


def test_name_is_taken_while_its_lab_is_up(labs: Scratch) -> None:
    """Nothing is started a second time."""
    done = labs.run("up", "one")
    assert done.returncode == 1
    assert "a lab called one is up; choose another name, or: qemu-odx down one" in done.stderr


def test_unclear_addresses_are_explained(labs: Scratch) -> None:
    """Which labs and guests there are."""
    assert "several labs are up; name one of one, pair" in labs.run("logs").stderr
    assert "lab pair has no guest c; take one of a, b" in labs.run("exec", "pair/c", "true").stderr
    assert "no lab called two is up; up are: one, pair" in labs.run("exec", "two", "true").stderr


def test_killed_supervisor_takes_its_lab_along(scratch: Scratch, labs: Scratch) -> None:
    """The kernel ends guest and server; `ps` tells, `down` removes what is left, and the name is free again."""
    done = scratch.run("up", "doomed", "--json", "--memory", "256")
    lab = json.loads(done.stdout)
    os.kill(lab["supervisor"]["pid"], signal.SIGKILL)
    while Process(**lab["guests"][0]["process"]).alive:
        time.sleep(0.05)
    assert listed(scratch)["doomed"]["state"] == "dead"
    assert "guest guest of lab doomed is off" in scratch.run("exec", "doomed", "true").stderr
    assert scratch.run("down", "doomed").returncode == 0
    assert "doomed" not in listed(scratch)
    assert not Path(lab["folder"]).exists()
    assert not (scratch.folder / "state/qemu-odx/labs/doomed").exists()


def test_guest_that_powers_off_ends_its_lab(scratch: Scratch, labs: Scratch) -> None:
    """Nobody is left to keep the disks for."""
    lab = json.loads(scratch.run("up", "short", "--json", "--memory", "256").stdout)
    scratch.run("exec", "short", "poweroff -f")
    while "short" in listed(scratch):
        time.sleep(0.2)
    assert not Path(lab["folder"]).exists()
