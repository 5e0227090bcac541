"""What guests print, as layers: which one refuses, or proof. Windows' outputs are scripted after its pages."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from click.testing import CliRunner

from qemu_odx.cli import doctor as command
from qemu_odx.cli import doctor_guest
from qemu_odx.lab.doctor.guest.host import host_layers
from qemu_odx.lab.doctor.guest.layer import DiskView, GuestView, Layer, Verdict
from qemu_odx.lab.doctor.guest.linux import linux_view
from qemu_odx.lab.doctor.guest.windows import windows_view
from qemu_odx.lab.session.record import GuestRecord, Process

LINUX_DISK: dict[str, Any] = {
    "node": "/dev/sda",
    "serial": "odx-a",
    "driver": "virtio_scsi",
    "holders": [],
    "mounts": [],
    "path": "SG_IO",
    "pages": [0x00, 0x80, 0x83, 0x8F, 0xB0],
    "page_8f": "00" * 36,
    "refusal": "",
    "token": {"ok": True, "seconds": 0.0042, "blocks": 8},
}
REFUSED = {"ok": False, "error": "command 83h/10h on /dev/sda was refused: ILLEGAL REQUEST, 26h/00h"}


def linux(**changes: object) -> DiskView:
    """The disk with changes, as the doctor sees it."""
    (disk,) = linux_view({"version": "6.1", "disks": [{**LINUX_DISK, **changes}]}).disks
    return disk


def test_linux_disk_on_which_tokens_flow() -> None:
    """All layers pass, the last one is the proof."""
    disk = linux()
    assert disk.proven
    assert disk.refusing is None
    assert [layer.name for layer in disk.layers] == ["device", "driver", "tokens"]
    assert "4.2 ms" in disk.layers[-1].found


@pytest.mark.parametrize(
    ("changes", "layer", "said"),
    [
        ({"pages": [0, 0x80], "page_8f": None}, "device", "8Fh is not in its list"),
        ({"pages": [0, 0x8F, 0x83]}, "device", "00 8F 83"),
        ({"pages": [0x83, 0x8F]}, "device", "Windows rejects"),
        ({"refusal": "page 8Fh does not begin with the limits"}, "device", "does not begin"),
        ({"error": "no mailbox", "driver": "virtio_blk", "path": ""}, "driver", "takes no SCSI commands"),
        ({"error": "host status 0x1", "driver": "ahci"}, "driver", "ahci: host status"),
        ({"token": REFUSED}, "tokens", "26h/00h"),
    ],
)
def test_linux_layer_that_refuses(changes: dict[str, Any], layer: str, said: str) -> None:
    """The lowest one is named, with a cure."""
    disk = linux(**changes)
    assert not disk.proven
    assert disk.refusing is not None
    assert disk.refusing.name == layer
    assert said in disk.refusing.found
    assert disk.refusing.cure


def test_what_lies_above_a_linux_disk_is_told() -> None:
    """It refuses nothing, but tokens pass below its cache."""
    disk = linux(holders=["dm-0"], mounts=[{"where": "/mnt", "type": "ext4"}])
    assert disk.proven
    assert {layer.name: layer.verdict for layer in disk.layers}["filters"] is Verdict.UNKNOWN
    assert any("ext4 at /mnt" in layer.found for layer in disk.layers)


def test_root_disk_is_not_judged() -> None:
    """It is none of ours."""
    assert linux_view({"version": "6", "disks": [{**LINUX_DISK, "serial": "odx-root"}]}).disks == ()


def test_a_disk_needs_one_open_door() -> None:
    """By SCSI tokens flow, so that the same disk's virtio-blk device need not."""
    closed = {**LINUX_DISK, "node": "/dev/vdb", "driver": "virtio_blk", "error": "no mailbox"}
    assert linux_view({"version": "6", "disks": [LINUX_DISK, closed]}).ok
    assert not linux_view({"version": "6", "disks": [LINUX_DISK, {**closed, "serial": "odx-b"}]}).ok
    assert not linux_view({"version": "6", "disks": []}).ok


WINDOWS: dict[str, Any] = {
    "system": "windows",
    "version": "Microsoft Windows Server 2025 10.0.26100",
    "odx_off": None,
    "tool": True,
    "volume": {
        "name": "D:",
        "file_system": "NTFS",
        "disk": r"\\.\PHYSICALDRIVE1",
        "bitlocker": "FullyDecrypted",
        "filters": [{"name": "FileInfo", "features": 7}, {"name": "Wof", "features": 3}],
    },
    "disks": [
        {
            "node": r"\\.\PHYSICALDRIVE0",
            "serial": "QM00001",
            "driver": "storahci",
            "property": {"command": "property", "calls": [{"win32": 50}], "ok": False, "exit": 3},
        },
        {
            "node": r"\\.\PHYSICALDRIVE1",
            "serial": "odx-source",
            "driver": "vioscsi",
            "property": {
                "command": "property",
                "calls": [],
                "property": {"optimal_transfer_count": 131072},
                "ok": True,
                "exit": 0,
            },
        },
    ],
    "files": [{"path": r"D:\a.bin", "length": 1 << 20, "attributes": "Archive"}],
    "proof": {"command": "fsctl", "calls": [], "copied": 1 << 20, "ok": True, "exit": 0},
}


def windows(*path: str | int, value: object = None) -> DiskView:
    """The disk with the volume, one value of what was printed changed."""
    printed = copy.deepcopy(WINDOWS)
    if path:
        place: Any = printed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    return windows_view(json.loads(json.dumps(printed))).disks[1]


def test_windows_disk_on_which_tokens_flow() -> None:
    """Seven layers from device to proof."""
    disk = windows()
    assert disk.proven
    names = ["device", "driver", "policy", "filters", "file system", "file", "tokens"]
    assert [layer.name for layer in disk.layers] == names


@pytest.mark.parametrize(
    ("path", "value", "layer", "said"),
    [
        (("disks", 1, "property"), {"ok": False, "exit": 3, "calls": []}, "device", "through vioscsi"),
        (("odx_off",), 1, "policy", "FilterSupportedFeaturesMode 1"),
        (("volume", "filters", 1, "features"), 1, "filters", "Wof on D:"),
        (("volume", "file_system"), "ReFS", "file system", "ReFS on D:"),
        (("volume", "bitlocker"), "FullyEncrypted", "file system", "BitLocker"),
        (("files", 0, "attributes"), "Archive, Compressed", "file", "Compressed"),
        (("files", 0, "attributes"), "SparseFile", "file", "SparseFile"),
        (("files", 0, "length"), 4096, "file", "262144"),
        (
            ("proof",),
            {"ok": False, "exit": 1, "calls": [{"action": "FSCTL_OFFLOAD_READ", "ntstatus": "0xC0000010"}]},
            "tokens",
            "FSCTL_OFFLOAD_READ ended with 0xC0000010",
        ),
    ],
)
def test_windows_layer_that_refuses(
    path: tuple[str | int, ...], value: object, layer: str, said: str
) -> None:
    """The lowest one is named, with a cure."""
    disk = windows(*path, value=value)
    assert disk.refusing is not None
    assert disk.refusing.name == layer
    assert said in disk.refusing.found
    assert disk.refusing.cure
    assert not disk.proven


def test_viostor_is_the_layer_that_refuses() -> None:
    """Not the disk: its driver never asks."""
    printed = copy.deepcopy(WINDOWS)
    printed["disks"][1] |= {"driver": "viostor", "property": {"ok": False, "exit": 3, "calls": []}}
    refusing = windows_view(printed).disks[1].refusing
    assert refusing is not None
    assert refusing.name == "driver"
    assert "vhost-user-scsi" in refusing.cure


def test_windows_without_tool_or_rights_is_unknown() -> None:
    """Nothing refuses, nothing is proven."""
    for changes in (("tool", False), ("tool", True)):
        printed = copy.deepcopy(WINDOWS)
        printed[changes[0]] = changes[1]
        printed["disks"][1]["property"] = (
            None if not changes[1] else {"ok": False, "exit": 1, "error": "access"}
        )
        printed["proof"] = None
        disk = windows_view(printed).disks[1]
        assert disk.refusing is None
        assert not disk.proven
        assert disk.layers[0].verdict is Verdict.UNKNOWN


def request(name: str, status: str = "GOOD", **more: object) -> dict[str, Any]:
    """A record of a trace."""
    return {"event": "request", "name": name, "status": status, "disk": "d0", **more}


def test_what_the_disk_server_saw() -> None:
    """Refused ones by reason, unit attentions aside, and what never came."""
    refusal = {"key": "ILLEGAL REQUEST", "code": "26/00", "text": "INVALID FIELD IN PARAMETER LIST"}
    news = {"key": "UNIT ATTENTION", "code": "29/00", "text": "POWER ON"}
    records = [
        {"event": "trace"},
        request("POPULATE TOKEN", "CHECK CONDITION", sense=news),
        request("POPULATE TOKEN", "CHECK CONDITION", sense=refusal),
        request("POPULATE TOKEN", "CHECK CONDITION", sense=refusal),
        request("RECEIVE ROD TOKEN INFORMATION"),
        request("RECEIVE ROD TOKEN INFORMATION", "CHECK CONDITION", sense=news),
        request("INQUIRY"),
    ]
    populate, receive, write = host_layers(records)
    assert populate.verdict is Verdict.REFUSES
    assert populate.found.startswith("3 came, 2 refused: 2 times d0: ILLEGAL REQUEST 26/00 INVALID FIELD")
    assert populate.cure.endswith("populate-token.md")
    assert receive.verdict is Verdict.PASSES
    assert "1 only to be told" in receive.found
    assert write.verdict is Verdict.UNKNOWN


def test_report_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each disk has a sentence; the exit code tells whether something refuses."""
    layer = Layer("driver", Verdict.REFUSES, "it [does] not", "take another")
    view = GuestView("linux 6", (DiskView("/dev/sda", "odx-a", (layer,)),), (layer,))
    guest = GuestRecord("g", "linux", "", "root", 1, None, None, "", Process(1, 1))
    monkeypatch.setattr(command.Target, "find", lambda _: (guest, None))
    monkeypatch.setattr(doctor_guest, "ask_guest", lambda *_: view)
    done = CliRunner().invoke(command.doctor, ["--guest", "x"])
    assert done.exit_code == 1
    assert "/dev/sda: the driver refuses ODX: it [does] not" in done.stdout
    done = CliRunner().invoke(command.doctor, ["--guest", "x", "--json"])
    assert json.loads(done.stdout)["disks"][0]["refusing"] == "driver"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--guest", "a", "--ssh", "root@1"], "exclude each other"),
        (["--ssh", "root"], "write USER@PORT"),
        (["--ssh", "root@1", "--source", "x"], "belong together"),
    ],
)
def test_options_that_do_not_fit(options: list[str], said: str) -> None:
    """Wrong usage."""
    done = CliRunner().invoke(command.doctor, options)
    assert done.exit_code == 2
    assert said in done.stderr
