"""What Windows' class driver, as a model, makes of faults in its token commands, over the real server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from fault_rig import FaultRig, fault_rig
from test_windows_over_the_ring import manage, vioscsi

from qemu_odx.testing.clock import VirtualClock
from qemu_odx.windows.driver import ClassDriver, Environment
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import OffloadReadOutput, OffloadWriteOutput

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
SOURCE, TARGET = 16 * MIB, 32 * MIB
TOKEN_INVALID, RANGE_TRUNCATED = 2, 1


@pytest.fixture(scope="module")
def module_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRig]:
    """One server for the module."""
    with fault_rig(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
def rig(module_rig: FaultRig) -> Iterator[FaultRig]:
    """It, without rules before and after, the target empty."""
    for at in range(2):
        assert module_rig.scsi.initiator.write(0, (TARGET + at * MIB) // 512, MIB // 512, bytes(MIB)).good
    yield module_rig
    module_rig.faults.clear()


@pytest.fixture
def driver(rig: FaultRig) -> ClassDriver:
    """Windows' driver of unit 0, on a clock of its own."""
    clock = VirtualClock()
    return ClassDriver.start(vioscsi(rig.scsi, all_taken=False), Environment(clock=clock, wait=clock.advance))


@pytest.fixture
def data(rig: FaultRig) -> bytes:
    """What the source holds."""
    content = os.urandom(2 * MIB)
    for at in range(2):
        part = content[at * MIB : (at + 1) * MIB]
        assert rig.scsi.initiator.write(0, (SOURCE + at * MIB) // 512, MIB // 512, part).good
    return content


def token_of(driver: ClassDriver) -> bytes:
    """An offload read that must go well."""
    end = manage(driver, build.offload_read([(SOURCE, 2 * MIB)]))
    assert end.status is NtStatus.SUCCESS, end.status.label
    return OffloadReadOutput.parse(end.output).token


def target(rig: FaultRig, length: int = 2 * MIB) -> bytes:
    """What the target holds."""
    reads = (
        rig.scsi.initiator.read(0, (TARGET + at) // 512, min(MIB // 2, length - at) // 512)
        for at in range(0, length, MIB // 2)
    )
    return b"".join(answer.data for answer in reads)


@pytest.mark.parametrize(
    ("fault", "status", "flags"),
    [
        ("sense=token-expired", NtStatus.INVALID_TOKEN, TOKEN_INVALID),
        ("sense=cause-not-reportable", NtStatus.INVALID_TOKEN, TOKEN_INVALID),
        ("sense=insufficient-resources", NtStatus.INSUFFICIENT_RESOURCES, 0),
        ("sense=unreachable-copy-target,key=illegal-request", NtStatus.DEVICE_UNREACHABLE, 0),
        ("sense=too-many-segment-descriptors", NtStatus.TOO_MANY_SEGMENT_DESCRIPTORS, 0),
        ("sense=write-error", NtStatus.DEVICE_DATA_ERROR, 0),
        ("sense=space-allocation-failed-write-protect", NtStatus.DISK_RESOURCES_EXHAUSTED, 0),
    ],
)
def test_refused_writes(  # noqa: PLR0917  # the fixtures and the row
    rig: FaultRig, driver: ClassDriver, data: bytes, fault: str, status: NtStatus, flags: int
) -> None:
    """The reason arrives, though Windows asks for the result after it; nothing is written."""
    token = token_of(driver)
    with rig.fault(f"op=WRITE USING TOKEN,{fault}"):
        end = manage(driver, build.offload_write(token, [(TARGET, 2 * MIB)]))
    assert (end.status, OffloadWriteOutput.parse(end.output).flags) == (status, flags), end.status.label
    assert target(rig) == bytes(len(data))


def test_a_cut_write_goes_on_behind_what_was_done(rig: FaultRig, driver: ClassDriver, data: bytes) -> None:
    """The count in the sense data is where the next command begins: all arrives, in two commands."""
    token = token_of(driver)
    with rig.fault("op=WRITE USING TOKEN,action=partial,blocks=1000,nth=1") as name:
        end = manage(driver, build.offload_write(token, [(TARGET, MIB), (TARGET + MIB, MIB)]))
        assert end.status is NtStatus.SUCCESS, end.status.label
        assert rig.faults.find(name)["fired"] == 1
    assert OffloadWriteOutput.parse(end.output) == OffloadWriteOutput(0, 0, 2 * MIB)
    assert target(rig) == data


def test_a_cut_write_and_then_an_error_is_truncation(rig: FaultRig, driver: ClassDriver, data: bytes) -> None:
    """Success for what was written, with the flag; and the target holds exactly that."""
    token = token_of(driver)
    rig.faults.add("op=WRITE USING TOKEN,action=partial,blocks=1000,nth=1")
    rig.faults.add("op=WRITE USING TOKEN,nth=2,sense=insufficient-resources")
    end = manage(driver, build.offload_write(token, [(TARGET, 2 * MIB)]))
    assert end.status is NtStatus.SUCCESS
    assert OffloadWriteOutput.parse(end.output) == OffloadWriteOutput(RANGE_TRUNCATED, 0, 1000 * 512)
    assert target(rig) == data[: 1000 * 512].ljust(2 * MIB, b"\0")


def test_a_cut_populate_makes_a_shorter_token(rig: FaultRig, driver: ClassDriver, data: bytes) -> None:
    """Windows asks for the result, and tells its caller how much is protected."""
    with rig.fault("op=POPULATE TOKEN,action=partial,blocks=1000"):
        end = manage(driver, build.offload_read([(SOURCE, 2 * MIB)]))
    found = OffloadReadOutput.parse(end.output)
    assert end.status is NtStatus.SUCCESS, end.status.label
    assert (found.flags, found.length_protected) == (RANGE_TRUNCATED, 1000 * 512)
    end = manage(driver, build.offload_write(found.token, [(TARGET, 1000 * 512)]))
    assert end.status is NtStatus.SUCCESS
    assert target(rig, 1000 * 512) == data[: 1000 * 512]


@pytest.mark.parametrize(("word", "resets"), [("busy", True), ("task-set-full", False)])
def test_busy_words(rig: FaultRig, driver: ClassDriver, data: bytes, word: str, resets: bool) -> None:
    """Tried again at once and done; BUSY makes the disk driver reset the bus."""
    token = token_of(driver)
    with rig.fault(f"op=WRITE USING TOKEN,count=1,action=status,status={word}"):
        end = manage(driver, build.offload_write(token, [(TARGET, 2 * MIB)]))
    assert end.status is NtStatus.SUCCESS, end.status.label
    assert any("resets the bus" in effect for effect in driver.packets.effects) is resets
    assert target(rig) == data


def test_no_space_on_the_host(rig: FaultRig, driver: ClassDriver, data: bytes) -> None:
    """55/03: the disk stays online and the copy goes on in the ordinary way."""
    token = token_of(driver)
    with rig.fault("disk=d0,action=out-of-space,op=disk-write"):
        end = manage(driver, build.offload_write(token, [(TARGET, 2 * MIB)]))
    assert end.status is NtStatus.INSUFFICIENT_RESOURCES, end.status.label
    assert not any("offline" in effect for effect in driver.packets.effects)
    assert target(rig) == bytes(len(data))
