"""What `odx-doctor.ps1` printed in a Windows guest, as layers.

May import: doctor/guest/layer. The meaning of switch, filters and property is Microsoft's: the pages "Offloaded Data
Transfers" and DEVICE_COPY_OFFLOAD_DESCRIPTOR of the driver documentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qemu_odx.lab.doctor.guest.layer import DiskView, GuestView, Layer, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NOT_SUPPORTED = 3  # exit code of odx.exe: this path does not know ODX
BOTH_WAYS = 3  # SprtFtrs, bit 0 offload read, bit 1 offload write
SMALLEST_FILE = 256 << 10  # the copy engine asks for tokens from here on
REFUSED_ATTRIBUTES = ("Compressed", "Encrypted", "SparseFile")
FILE_SYSTEM_KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\FileSystem"


def windows_view(printed: Mapping[str, Any]) -> GuestView:
    """The guest's disks; what lies above belongs to the disk that has the volume."""
    disks = tuple(_disk(disk, printed) for disk in printed["disks"])
    return GuestView(printed["version"], disks)


def _disk(seen: Mapping[str, Any], printed: Mapping[str, Any]) -> DiskView:
    layers = [*_device_and_driver(seen, there=printed["tool"]), _policy(printed)]
    if _has_the_volume(seen, printed):
        layers += [
            *_volume(printed["volume"]),
            *(layer for file in printed["files"] for layer in _file(file)),
        ]
    layers.append(_tokens(printed["proof"] if _has_the_volume(seen, printed) else None))
    return DiskView(seen["node"], seen["serial"], tuple(layers))


def _has_the_volume(seen: Mapping[str, Any], printed: Mapping[str, Any]) -> bool:
    return str(printed["volume"]["disk"]).lower() == str(seen["node"]).lower()


def _device_and_driver(seen: Mapping[str, Any], *, there: bool) -> Iterator[Layer]:
    """The class driver's property tells both: it asks the device through the port driver, once, at its start."""
    driver, found = seen["driver"] or "an unknown driver", seen["property"]
    if not there or found is None:
        cure = "put odx.exe beside the script: make -C guest_scripts/windows/odx"
        yield Layer("device", Verdict.UNKNOWN, "odx.exe was not there to ask for its property", cure)
    elif found["ok"]:
        limits = found["property"]
        count = limits["optimal_transfer_count"]
        yield Layer("device", Verdict.PASSES, f"copy-offload property, {count} blocks at a time")
        yield Layer("driver", Verdict.PASSES, driver)
    elif driver == "viostor":
        cure = "export the disk by vhost-user-scsi (vioscsi), or install odxflt on a disk with mailbox=on"
        yield Layer(
            "driver", Verdict.REFUSES, "viostor never asks for page 8Fh and refuses the commands", cure
        )
    elif found["exit"] == NOT_SUPPORTED:
        cure = "qemu-odx windows explain names the byte of the disk's pages that is to blame"
        yield Layer("device", Verdict.REFUSES, f"Windows found no ODX on it (through {driver})", cure)
    else:
        said = found.get("error", f"exit code {found['exit']}")
        yield Layer(
            "device", Verdict.UNKNOWN, f"its property could not be asked: {said}", "run as administrator"
        )


def _policy(printed: Mapping[str, Any]) -> Layer:
    off = printed["odx_off"] or 0
    cure = rf"reg add {FILE_SYSTEM_KEY} /v FilterSupportedFeaturesMode /t REG_DWORD /d 0"
    if off == 0:
        return Layer("policy", Verdict.PASSES, "FilterSupportedFeaturesMode 0")
    return Layer("policy", Verdict.REFUSES, f"FilterSupportedFeaturesMode {off}: ODX is off", cure)


def _volume(volume: Mapping[str, Any]) -> Iterator[Layer]:
    name = volume["name"]
    blocking = [f["name"] for f in volume["filters"] if f["features"] & BOTH_WAYS != BOTH_WAYS]
    if blocking:
        cure = "set SupportedFeatures=3 of its service if its maker allows, or take it off this volume"
        yield Layer("filters", Verdict.REFUSES, f"{', '.join(blocking)} on {name} lets none through", cure)
    else:
        yield Layer("filters", Verdict.PASSES, f"none on {name} blocks it")
    kind = volume["file_system"] or "no file system"
    if kind != "NTFS":
        yield Layer("file system", Verdict.REFUSES, f"{kind} on {name}", "format it with NTFS")
    elif volume["bitlocker"] not in {"Off", "FullyDecrypted"}:
        found = f"BitLocker on {name}: {volume['bitlocker']}"
        yield Layer("file system", Verdict.REFUSES, found, f"manage-bde -off {name}")
    else:
        yield Layer("file system", Verdict.PASSES, f"NTFS on {name}, not encrypted")


def _file(file: Mapping[str, Any]) -> Iterator[Layer]:
    refused = [word for word in REFUSED_ATTRIBUTES if word in file["attributes"].replace(",", " ").split()]
    path = file["path"]
    if refused:
        cure = "take the attribute off (compact /u, cipher /d, fsutil sparse setflag)"
        yield Layer("file", Verdict.REFUSES, f"{path} is {', '.join(refused)}", cure)
    elif file["length"] < SMALLEST_FILE:
        found = f"{path} has {file['length']} bytes: the copy engine asks for tokens from {SMALLEST_FILE} on"
        yield Layer("file", Verdict.REFUSES, found, "take a larger file")
    else:
        yield Layer("file", Verdict.PASSES, f"{path}, {file['length']} bytes")


def _tokens(proof: Mapping[str, Any] | None) -> Layer:
    if proof is None:
        cure = "name two files on this disk: --source FILE --destination FILE"
        return Layer("tokens", Verdict.UNKNOWN, "no copy was tried", cure)
    if proof["ok"]:
        return Layer("tokens", Verdict.PASSES, f"{proof['copied']} bytes were copied by token")
    last = proof["calls"][-1] if proof.get("calls") else {}
    said = (
        f"{last.get('action', 'the copy')} ended with {last.get('ntstatus', proof.get('error', 'no reason'))}"
    )
    return Layer("tokens", Verdict.REFUSES, said, "see the layers below, and what the disk server counted")
