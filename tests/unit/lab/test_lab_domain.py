"""The XML of libvirt domains: against libvirt's own schema, and the elements that decide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from lxml import etree

from qemu_odx.lab.disk_image import DiskImage, Firmware, SystemFiles
from qemu_odx.lab.image import Image
from qemu_odx.lab.machines.domain import QEMU_NAMESPACE, DomainNames, blk_disk, domain_xml
from qemu_odx.lab.qemu import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_FILE = Path("/usr/share/libvirt/schemas/domain.rng")
LINUX = Image("test", Path("/images/linux"))
FILES = SystemFiles(Path("/run/lab/system0.qcow2"), Path("/run/lab/variables.fd"))
WINDOWS = DiskImage(
    Path("/images/win.qcow2"),
    system="windows",
    firmware=Firmware(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    cdroms=(Path("/iso/win.iso"), Path("/iso/virtio.iso")),
    tpm=True,
)
SOCKETS = {
    "scsi_sockets": (Path("/run/a,b/s.sock"), Path("/run/s2.sock")),
    "blk_sockets": (Path("/run/b.sock"),),
}
SPECS = {
    "linux": GuestSpec(LINUX, "tcg"),
    "linux with disks": GuestSpec(LINUX, "tcg", **SOCKETS, hotplug_ports=3, display=True),
    "wine": GuestSpec(LINUX, "tcg", tcg_cpu="max,smap=off"),
    "old processor": GuestSpec(LINUX, "tcg", tcg_cpu="qemu64"),
    "kvm": GuestSpec(LINUX, "kvm", **SOCKETS, extra=("-device", "pvpanic-pci")),
    "windows": GuestSpec(WINDOWS, "kvm", **SOCKETS, memory_mib=4096, display=True),
    "own linux": GuestSpec(DiskImage(Path("/x.raw"), "raw", disk_bus="virtio"), "tcg", **SOCKETS),
}


def domain(name: str, owner: str | None = None) -> etree._Element:
    """One of the domains, parsed by another library."""
    spec = SPECS[name]
    files = FILES if isinstance(spec.image, DiskImage) else None
    return etree.fromstring(domain_xml(spec, DomainNames("qemu-odx-test", owner), files))


def arguments(found: etree._Element) -> list[str]:
    """QEMU's own arguments."""
    return [
        each.get("value")
        for each in found.iterfind(f"{{{QEMU_NAMESPACE}}}commandline/{{{QEMU_NAMESPACE}}}arg")
    ]


def after(words: Sequence[str], option: str) -> list[str]:
    """The values of an option."""
    return [words[index + 1] for index, word in enumerate(words) if word == option]


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    """As libvirt ships it."""
    if not SCHEMA_FILE.exists():
        pytest.skip("libvirt's schema is not installed (package libvirt0 or libvirt-daemon)")
    return etree.RelaxNG(etree.parse(SCHEMA_FILE))


@pytest.mark.parametrize("owner", [None, "+1000:+1000"])
@pytest.mark.parametrize("name", SPECS)
def test_schema(schema: etree.RelaxNG, name: str, owner: str | None) -> None:
    """Every kind of domain is one for libvirt."""
    assert schema.validate(domain(name, owner)), schema.error_log


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("devices/disk[@type='vhostuser']/target", "bus", "floppy-disk"),
        ("memoryBacking/access", "mode", "open"),
        ("devices/disk/source/reconnect", "enabled", "perhaps"),
        ("clock", "offset", "moon"),
    ],
)
def test_schema_sees_mistakes(schema: etree.RelaxNG, path: str, attribute: str, value: str) -> None:
    """It is no schema that takes everything."""
    found = domain("linux with disks")
    found.find(path).set(attribute, value)
    assert not schema.validate(found)


def test_ram_is_shared() -> None:
    """Without it libvirt refuses vhost-user disks."""
    found = domain("linux with disks")
    assert found.find("memoryBacking/source").get("type") == "memfd"
    assert found.find("memoryBacking/access").get("mode") == "shared"


def test_blk_is_a_vhostuser_disk() -> None:
    """With reconnect, one queue, a name of ours, on the root bus."""
    disk = domain("linux with disks").find("devices/disk[@type='vhostuser']")
    assert disk.find("source").get("path") == "/run/b.sock"
    assert disk.find("source/reconnect").get("enabled") == "yes"
    assert disk.find("driver").get("queues") == "1"
    assert disk.find("alias").get("name") == "ua-blk-disk0"
    assert disk.find("address").get("slot") == "0x09"


def test_scsi_is_an_argument_of_qemu() -> None:
    """Commas in paths are doubled; each device has a place of its own; no reconnect, which QEMU 7.2 refuses."""
    words = arguments(domain("linux with disks"))
    assert after(words, "-chardev") == [
        "socket,id=scsi0,path=/run/a,,b/s.sock",
        "socket,id=scsi1,path=/run/s2.sock",
    ]
    devices = after(words, "-device")
    assert devices[0] == "virtio-net-pci,netdev=net,romfile=,addr=0x10"
    assert devices[1:] == [
        "vhost-user-scsi-pci,id=scsi-host0,chardev=scsi0,addr=0x11",
        "vhost-user-scsi-pci,id=scsi-host1,chardev=scsi1,addr=0x12",
    ]


def test_network_reaches_nothing_but_ssh() -> None:
    """As with QEMU of the lab."""
    assert after(arguments(domain("linux")), "-netdev") == [
        "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"
    ]


def test_windows_has_what_its_setup_knows() -> None:
    """SATA, e1000e, UEFI without secure boot, TPM, local time, CDs read-only behind the disk."""
    found = domain("windows")
    disks = found.findall("devices/disk[@type='file']")
    assert [disk.get("device") for disk in disks] == ["disk", "cdrom", "cdrom"]
    assert {disk.find("target").get("bus") for disk in disks} == {"sata"}
    assert [disk.find("boot").get("order") for disk in disks] == ["1", "2", "3"]
    assert found.findtext("os/loader") == "/usr/share/OVMF/OVMF_CODE_4M.fd"
    assert found.findtext("os/nvram") == "/run/lab/variables.fd"
    assert found.find("devices/tpm/backend").get("version") == "2.0"
    assert found.find("clock").get("offset") == "localtime"
    assert any(word.startswith("e1000e,") for word in after(arguments(found), "-device"))


def test_owner_relabels_nothing() -> None:
    """QEMU runs as we are, and no file's owner is changed."""
    label = domain("linux", "+1000:+1000").find("seclabel")
    assert (label.get("model"), label.get("type"), label.get("relabel")) == ("dac", "static", "no")
    assert label.findtext("label") == "+1000:+1000"
    assert domain("linux").find("seclabel") is None


def test_processors_as_qemu_has_them() -> None:
    """`max`, a feature less, a named model, the host's own."""
    assert domain("linux").find("cpu").get("mode") == "maximum"
    feature = domain("wine").find("cpu/feature")
    assert (feature.get("name"), feature.get("policy")) == ("smap", "disable")
    assert domain("old processor").findtext("cpu/model") == "qemu64"
    assert domain("kvm").find("cpu").get("mode") == "host-passthrough"


def test_extra_arguments_come_last() -> None:
    """As they stand."""
    assert arguments(domain("kvm"))[-2:] == ["-device", "pvpanic-pci"]


def test_plugged_disk_is_one_for_the_schema(schema: etree.RelaxNG) -> None:
    """In the place of a disk of a domain."""
    found = domain("linux with disks")
    plugged = blk_disk(Path("/run/hot.sock"), 4, alias="ua-hot", queues=2, bus=3)
    found.find("devices").append(etree.fromstring(ET.tostring(plugged)))
    assert schema.validate(found), schema.error_log
    assert found.findall("devices/disk/target")[-1].get("dev") == "vde"
