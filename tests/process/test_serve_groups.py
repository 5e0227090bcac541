"""Export groups through the real server: a VM's tokens are unknown to every other VM; who may connect to a socket."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.testing.scsi_guest import ScsiGuest
from qemu_odx.testing.serve import ServeProcess, run_serve
from qemu_odx.wire.scsi.token_lists import Range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

UNKNOWN = (5, 0x23, 4)
ALL_TOKENS = "84080000000000000000000100000000"


@contextmanager
def exports(folder: Path, options: Sequence[str]) -> Iterator[list[ScsiGuest]]:
    """A guest on each of some exports of one disk, made with these options."""
    arguments = ["--disk", f"id=d0,path={folder}/d0.img,size=4M"]
    for number, more in enumerate(options):
        arguments += ["--export", f"type=vhost-user-scsi,socket={folder}/{number}.sock,lun0=d0{more}"]
    with ExitStack() as stack:
        stack.enter_context(ServeProcess(arguments))
        yield [stack.enter_context(ScsiGuest(folder / f"{n}.sock")) for n in range(len(options))]


def reported(guest: ScsiGuest) -> list[bytes]:
    """Bytes 0-95 of the tokens that REPORT ALL ROD TOKENS shows."""
    data = guest.initiator.command(0, ALL_TOKENS).data
    assert int.from_bytes(data[:4], "big") + 4 == len(data)
    return [data[at : at + 96] for at in range(8, len(data), 96)]


def shared(first: ScsiGuest, second: ScsiGuest) -> bool:
    """Whether the second may use a token of the first; if not, it learns nothing about it."""
    assert first.initiator.write(0, 0, 8, os.urandom(4096)).good
    old = first.initiator.read(0, 0, 8).data
    token = first.initiator.token(0, [Range(0, 8)])
    assert token[:96] in reported(first)
    answer = second.initiator.write_token(0, token, [Range(64, 8)])
    if answer.good:
        assert token[:96] in reported(second)
        assert second.initiator.read(0, 64, 8).data == old
        return True
    assert answer.fault == UNKNOWN
    assert token[:96] not in reported(second)
    assert second.initiator.read(0, 64, 8).data == bytes(4096)
    assert first.initiator.write_token(0, token, [Range(128, 8)]).good
    return False


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("", ""), True),
        ((",group=one", ",group=one"), True),
        ((",group=one", ",group=two"), False),
        ((",group=one", ""), False),
        (("", ",group=one"), False),
        (("", "", ",group=one"), False),
    ],
    ids=[
        "none named",
        "same",
        "different",
        "named to unnamed",
        "unnamed to named",
        "both unnamed, a third named",
    ],
)
def test_who_may_use_whose_tokens(tmp_path: Path, options: Sequence[str], *, expected: bool) -> None:
    """By name; without any name all are one VM; beside named ones an unnamed export is alone."""
    with exports(tmp_path, options) as guests:
        assert shared(guests[0], guests[1]) is expected
        assert shared(guests[1], guests[0]) is expected or not expected


def test_the_dead_are_unknown_too(tmp_path: Path) -> None:
    """Deleted, to those who knew the token; to others it never was, as is one with a wrong byte."""
    with exports(tmp_path, (",group=one", ",group=two")) as (first, second):
        token = first.initiator.token(0, [Range(0, 8)])
        broken = bytes([*token[:100], token[100] ^ 1, *token[101:]])
        assert first.initiator.write_token(0, broken, [Range(0, 8)]).fault == (5, 0x23, 5)
        assert second.initiator.write_token(0, broken, [Range(0, 8)]).fault == UNKNOWN
        assert first.initiator.write_token(0, token, [Range(0, 8)], delete=True).good
        assert first.initiator.write_token(0, token, [Range(0, 8)]).fault == (5, 0x23, 9)
        assert second.initiator.write_token(0, token, [Range(0, 8)]).fault == UNKNOWN


def test_mode_and_owner_are_on_the_socket_when_it_is_ready(tmp_path: Path) -> None:
    """Set before it listens."""
    if os.geteuid() != 0:
        pytest.skip("giving a socket away needs root")
    disk = ["--disk", f"id=d0,path={tmp_path}/d0.img,size=4M"]
    export = f"type=vhost-user-blk,socket={tmp_path}/s.sock,disk=d0,owner=nobody,socket-group=65534,mode=0620"
    with ServeProcess([*disk, "--export", export]):
        found = Path(tmp_path / "s.sock").stat()
        assert stat.S_IMODE(found.st_mode) == 0o620
        assert (found.st_uid, found.st_gid) == (65534, 65534)


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ("owner=no-such-user", "there is no user 'no-such-user'"),
        ("socket-group=no-such-group", "there is no group 'no-such-group'"),
        ("mode=rw", "write three octal digits"),
        ("mode=0888", "write three octal digits"),
        ("group=a b", "may hold letters"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, option: str, cure: str) -> None:
    """A usage error, with the key."""
    export = f"type=vhost-user-blk,socket={tmp_path}/s.sock,disk=d0,{option}"
    done = run_serve(["--disk", f"id=d0,path={tmp_path}/d0.img,size=4M", "--export", export])
    assert done.returncode == 2
    assert cure in done.stderr
