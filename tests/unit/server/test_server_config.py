"""The `--disk` and `--export` strings of `qemu-odx serve`."""

from __future__ import annotations

import pytest

from qemu_odx.server.config import BlkExport, DiskConfig, ScsiExport, parse_config
from qemu_odx.server.options import ConfigError, parse_size, split_options

DISK = "id=d0,path=a.img"
EXPORT = "type=vhost-user-blk,socket=b.sock,disk=d0"


def test_a_disk_with_everything() -> None:
    """All keys."""
    config = parse_config(["id=d0,path=a.img,size=1G,block-size=4096,serial=S 1,readonly=on"], [EXPORT])
    assert config.disks == (DiskConfig("d0", "a.img", 1 << 30, 4096, "S 1", readonly=True),)


@pytest.mark.parametrize(
    ("text", "size"), [("", None), (",physical-block-size=4096", 4096), (",physical-block-size=512", 512)]
)
def test_physical_blocks(text: str, size: int | None) -> None:
    """As given; else every front door has its own habit."""
    assert parse_config([DISK + text], [EXPORT]).disks[0].physical_block_size == size


def test_a_disk_with_the_least() -> None:
    """Size of the image, 512-byte blocks, writable."""
    assert parse_config([DISK], [EXPORT]).disks == (
        DiskConfig("d0", "a.img", None, 512, None, readonly=False),
    )


def test_a_blk_export() -> None:
    """Queues are limited only if asked."""
    config = parse_config([DISK], [EXPORT, "type=vhost-user-blk,socket=c.sock,disk=d0,num-queues=4"])
    assert config.exports == (
        BlkExport("b.sock", "d0", 256, id="export0"),
        BlkExport("c.sock", "d0", 4, id="export1"),
    )


@pytest.mark.parametrize(("text", "place"), [("on", 524288), ("off", None), ("4096", 4096), ("1M", 1 << 20)])
def test_a_mailbox(text: str, place: int | None) -> None:
    """At the default place, nowhere, or elsewhere; nowhere unless asked for."""
    assert parse_config([DISK], [f"{EXPORT},mailbox={text}"]).exports == (
        BlkExport("b.sock", "d0", 256, place, id="export0"),
    )
    assert parse_config([DISK], [EXPORT]).exports == (BlkExport("b.sock", "d0", 256, None, id="export0"),)


def test_exports_have_names() -> None:
    """Their own, or the first that is free; no two the same."""
    second, third = (f"type=vhost-user-blk,socket={name}.sock,disk=d0" for name in "cd")
    config = parse_config([DISK], [EXPORT, f"{second},id=export0", f"{third},id=mine"])
    assert [export.id for export in config.exports] == ["export1", "export0", "mine"]
    with pytest.raises(ConfigError, match="two exports have id=x"):
        parse_config([DISK], [f"{EXPORT},id=x", f"{second},id=x"])


def test_a_scsi_export() -> None:
    """Logical units in ascending order, in whatever order they were given."""
    export = "type=vhost-user-scsi,lun10=d1,socket=s.sock,lun0=d0"
    config = parse_config([DISK, "id=d1,path=b.img"], [export])
    assert config.exports == (ScsiExport("s.sock", ((0, "d0"), (10, "d1")), 254, id="export0"),)


def test_a_doubled_comma_is_a_comma() -> None:
    """As in QEMU."""
    assert split_options("a=1,,2,b=,,") == {"a": "1,2", "b": ","}


def test_an_equals_sign_in_a_value() -> None:
    """Only the first one ends the key."""
    assert split_options("path=a=b") == {"path": "a=b"}


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("64K", 65536), ("10m", 10 << 20), ("1G", 1 << 30), ("1GiB", 1 << 30), ("2TB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    """Powers of 1024, however written."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "1.5G", "-1", "1X", "G", "1 G", "0x10"])
def test_sizes_that_are_none(text: str) -> None:
    """Not guessed at."""
    with pytest.raises(ConfigError, match="is no size"):
        parse_size(text)


BAD_DISKS = {
    "id=d0,pth=a": (
        "unknown key 'pth'; known keys are id, path, size, block-size, serial, readonly, physical-block-size"
    ),
    "path=a": "'id=' is missing",
    "id=d0": "'path=' is missing",
    "id=d0,path=": "'path=' is missing",
    "id=d0,path=a,": "'' is not of the form key=value",
    "id=d0,path=a,readonly": "'readonly' is not of the form key=value",
    "id=d0,path=a,id=d1": "'id' is given twice",
    "id=d 0,path=a": "id: 'd 0' may hold letters",
    "id=d0,path=a,size=huge": "size: 'huge' is no size",
    "id=d0,path=a,block-size=1024": "block-size: '1024' is neither 512 nor 4096",
    "id=d0,path=a,physical-block-size=1000": "physical-block-size: '1000' is not one of 512, 1024, 2048, 4096",
    "id=d0,path=a,block-size=4096,physical-block-size=512": "is not one of 4096, 8192, 16384, 32768, 65536",
    "id=d0,path=a,physical-block-size=131072": "'131072' is not one of",
    "id=d0,path=a,readonly=yes": "readonly: 'yes' is neither 'on' nor 'off'",
    "id=d0,path=a,serial=123456789012345678901": "is not 1 to 20 printable ASCII characters",
    "id=d0,path=a,serial=é": "is not 1 to 20 printable ASCII characters",
}


@pytest.mark.parametrize(("text", "reason"), BAD_DISKS.items())
def test_a_bad_disk_is_explained(text: str, reason: str) -> None:
    """The option, the key, and what would be right."""
    with pytest.raises(ConfigError) as error:
        parse_config([text], [EXPORT])
    assert str(error.value).startswith(f"--disk {text}: ")
    assert reason in str(error.value)


BAD_EXPORTS = {
    "socket=s,disk=d0": "type: '' is not one of vhost-user-blk, vhost-user-scsi",
    "type=nbd,socket=s": "type: 'nbd' is not one of",
    "type=vhost-user-blk,socket=s": "'disk=' is missing",
    "type=vhost-user-blk,disk=d0": "'socket=' is missing",
    "type=vhost-user-blk,socket=s,disk=d0,lun0=d0": "unknown key 'lun0'",
    "type=vhost-user-blk,socket=s,disk=d0,num-queues=0": "'0' is not a number from 1 to 256",
    "type=vhost-user-blk,socket=s,disk=d0,num-queues=257": "from 1 to 256",
    "type=vhost-user-blk,socket=s,disk=d0,mailbox=yes": "mailbox: 'yes' is no place for a mailbox: write on, off, or",
    "type=vhost-user-blk,socket=s,disk=d0,mailbox=0": "mailbox: '0' is no place for a mailbox",
    "type=vhost-user-blk,socket=s,disk=d0,mailbox=512": "or a place on the disk that is a multiple of 4096",
    "type=vhost-user-scsi,socket=s,lun0=d0,mailbox=on": "unknown key 'mailbox'",
    "type=vhost-user-scsi,socket=s": "'lun0=' is missing",
    "type=vhost-user-scsi,socket=s,lun1=d0": "'lun0=' is missing",
    "type=vhost-user-scsi,socket=s,lun0=d0,lun256=d0": "lun256: logical unit numbers go up to 255",
    "type=vhost-user-scsi,socket=s,lun0=d0,lun01=d0": "unknown key 'lun01'",
    "type=vhost-user-scsi,socket=s,lun0=d0,num-queues=255": "from 1 to 254",
    "type=vhost-user-scsi,socket=s,lun0=nix": "there is no disk 'nix', only d0",
    "type=vhost-user-blk,socket=s,disk=nix": "there is no disk 'nix', only d0",
}


@pytest.mark.parametrize(("text", "reason"), BAD_EXPORTS.items())
def test_a_bad_export_is_explained(text: str, reason: str) -> None:
    """The same for exports, checked against the disks too."""
    with pytest.raises(ConfigError) as error:
        parse_config([DISK], [text])
    assert str(error.value).startswith("--export ")
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("disks", "exports", "reason"),
    [
        ([], [EXPORT], "nothing to serve"),
        ([DISK], [], "nothing to serve"),
        ([DISK, "id=d0,path=b.img"], [EXPORT], "two disks have id=d0"),
        ([DISK, "id=d1,path=a.img"], [EXPORT], "two disks have path=a.img"),
        ([DISK], [EXPORT, EXPORT], "two exports have socket=b.sock"),
    ],
)
def test_options_that_contradict_each_other(disks: list[str], exports: list[str], reason: str) -> None:
    """What no single option can know."""
    with pytest.raises(ConfigError, match=reason):
        parse_config(disks, exports)
