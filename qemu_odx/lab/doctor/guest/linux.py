"""What `odx_doctor.py` printed in a Linux guest, as layers.

May import: doctor/guest/layer. Linux' own file systems never ask for a token copy: programs do, by SG_IO.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.doctor.guest.layer import DiskView, GuestView, Layer, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT_SERIAL = "odx-root"
PASSING_DRIVERS = ("virtio_scsi",)
THIRD_PARTY_COPY = 0x8F


def linux_view(printed: Mapping[str, Any]) -> GuestView:
    """The guest's disks but its root disk."""
    disks = tuple(_disk(disk) for disk in printed["disks"] if disk["serial"] != ROOT_SERIAL)
    return GuestView(f"linux {printed['version']}", disks)


def _disk(seen: Mapping[str, Any]) -> DiskView:
    error = seen.get("error", "")
    layers = (
        [_driver(seen, error)] if error else [_device(seen), _driver(seen, ""), *_above(seen), _tokens(seen)]
    )
    return DiskView(seen["node"], seen["serial"], tuple(layers))


def _driver(seen: Mapping[str, Any], error: str) -> Layer:
    driver = seen["driver"] or "an unknown driver"
    if not error:
        return Layer("driver", Verdict.PASSES, f"{driver}, commands by {seen['path']}")
    if driver == "virtio_blk":
        cure = "export the disk with mailbox=on, or as a logical unit of vhost-user-scsi"
        return Layer("driver", Verdict.REFUSES, f"virtio_blk takes no SCSI commands; {error}", cure)
    return Layer("driver", Verdict.REFUSES, f"{driver}: {error}", "load the module sg; see the guest's dmesg")


def _device(seen: Mapping[str, Any]) -> Layer:
    pages: Sequence[int] = seen["pages"]
    cure = "qemu-odx windows explain tells what Windows makes of this disk"
    if THIRD_PARTY_COPY not in pages:
        return Layer("device", Verdict.REFUSES, "page 8Fh is not in its list of pages", cure)
    if pages[0] != 0 or any(before >= after for before, after in pairwise(pages)):
        listed = " ".join(f"{page:02X}" for page in pages)
        return Layer("device", Verdict.REFUSES, f"Windows rejects its list of pages: {listed}", cure)
    if seen["refusal"]:
        return Layer("device", Verdict.REFUSES, seen["refusal"], cure)
    return Layer("device", Verdict.PASSES, f"page 8Fh, {len(seen['page_8f']) // 2} bytes")


def _above(seen: Mapping[str, Any]) -> list[Layer]:
    """What lies on top of the disk: a token made below does not know what is cached above."""
    layers = []
    if seen["holders"]:
        found = f"{', '.join(seen['holders'])} lie on this disk"
        cure = "send token commands to the disk itself, and flush what lies above before"
        layers.append(Layer("filters", Verdict.UNKNOWN, found, cure))
    for mount in seen["mounts"]:
        found = f"{mount['type']} at {mount['where']} asks for no token copies by itself"
        cure = f"sync -f {mount['where']} before a token is made; copy by SG_IO (odx_copy.py)"
        layers.append(Layer("file system", Verdict.UNKNOWN, found, cure))
    return layers


def _tokens(seen: Mapping[str, Any]) -> Layer:
    token = seen["token"]
    if token["ok"]:
        found = f"a token for {token['blocks']} blocks was made in {token['seconds'] * 1000:.1f} ms"
        return Layer("tokens", Verdict.PASSES, found)
    return Layer("tokens", Verdict.REFUSES, token["error"], "see docs/commands for this sense data")
