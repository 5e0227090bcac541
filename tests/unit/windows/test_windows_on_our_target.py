"""Our target gives Windows what it wants: the model's offload requests against it, with data checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from windows_machine import Altered, manage, read_output, write_output

from qemu_odx.windows.driver import ClassDriver, NotModelledError
from qemu_odx.windows.request import Request
from qemu_odx.wire.dsm import build
from qemu_odx.wire.dsm.codes import COPY_OFFLOAD_PROPERTY, ControlCode
from qemu_odx.wire.dsm.ntstatus import NtStatus
from qemu_odx.wire.dsm.structures import ZERO_TOKEN, CopyOffloadDescriptor, OffloadReadOutput, PropertyQuery

if TYPE_CHECKING:
    from windows_machine import Machine

    from qemu_odx.windows.port import Completion

MIB = 1 << 20
POPULATE, WRITE, RECEIVE = "8310", "8311", "8407"
MARKS = (0, 63 * MIB + 4096, 64 * MIB - 4096, 64 * MIB, 333 * MIB, 600 * MIB - 4096)
"""Places in a large range where there is data; the rest is holes."""
PIECE = 4096


def fill(machine: Machine, lun: int, start: int, word: bytes) -> None:
    """Data at each mark, with its place in it."""
    for mark in MARKS:
        text = word + str(mark).encode()
        machine.disks[lun].write(start + mark, [text.ljust(PIECE, b".")])


def content(machine: Machine, lun: int, offset: int, length: int = PIECE) -> bytes:
    """Bytes of a disk."""
    data = bytearray(length)
    machine.disks[lun].read(offset, [memoryview(data)])
    return bytes(data)


def holds(machine: Machine, lun: int, start: int, word: bytes) -> bool:
    """True if all marks have what `fill` put there."""
    expected = [(mark, (word + str(mark).encode()).ljust(PIECE, b".")) for mark in MARKS]
    return all(content(machine, lun, start + mark) == data for mark, data in expected)


def token_of(driver: ClassDriver, ranges: list[tuple[int, int]], ttl: int = 30) -> bytes:
    """A token of all the ranges."""
    end = manage(driver, build.offload_read(ranges, time_to_live=ttl))
    assert end.status is NtStatus.SUCCESS
    answer = read_output(end)
    assert answer.flags == 0
    assert answer.length_protected == sum(length for _, length in ranges)
    return answer.token


@pytest.mark.parametrize("lun", [0, 2])
def test_device_start_switches_odx_on(machine: Machine, lun: int) -> None:
    """All pages are accepted, QERR is 0 already, and nothing else is sent or done."""
    driver = machine.start(lun)
    known = driver.volume.known
    assert known.on
    assert known.against is None
    assert known.block_limits is not None
    assert known.qerr == 0
    assert not known.qerr_cleared
    assert not driver.packets.effects
    assert driver.volume.size == 2 << 30
    assert {cdb[0] for _, cdb in machine.sent} == {0x12, 0x1A, 0x9E}


def test_old_data_arrives_after_an_overwrite_600_mib_in_pieces_of_the_optimum(machine: Machine) -> None:
    """One token for all of it; ten writes of up to OPTIMAL TRANSFER COUNT; no RECEIVE after any of them."""
    driver = machine.start()
    fill(machine, 0, 0, b"old")
    token = token_of(driver, [(0, 600 * MIB)])
    assert machine.codes() == [POPULATE, RECEIVE]
    fill(machine, 0, 0, b"new")
    end = manage(driver, build.offload_write(token, [(1024 * MIB, 600 * MIB)]))
    assert (end.status, end.information) == (NtStatus.SUCCESS, 16)
    assert write_output(end).length_copied == 600 * MIB
    assert write_output(end).flags == 0
    assert machine.codes() == [WRITE] * 10
    assert holds(machine, 0, 1024 * MIB, b"old")
    assert holds(machine, 0, 0, b"new")


@pytest.mark.parametrize("destination", [1, 2])
def test_a_token_travels_to_another_disk(machine: Machine, destination: int) -> None:
    """Also to one of another block size; token offset and ranges are honoured."""
    fill(machine, 0, 0, b"old")
    token = token_of(machine.start(0), [(0, 64 * MIB)])
    driver = machine.start(destination)
    ranges = [(8 * MIB, PIECE), (16 * MIB, MIB - PIECE)]
    end = manage(driver, build.offload_write(token, ranges, token_offset=63 * MIB))
    assert end.status is NtStatus.SUCCESS, end.status.label
    assert content(machine, destination, 8 * MIB) == bytes(PIECE)
    assert content(machine, destination, 16 * MIB).startswith(b"old")


def test_no_time_to_live_cuts_a_token_at_the_optimum(machine: Machine) -> None:
    """As CopyFile asks: OPTIMAL TRANSFER COUNT is protected, RANGE_TRUNCATED says so."""
    driver = machine.start()
    answer = read_output(manage(driver, build.offload_read([(0, 100 * MIB)])))
    assert (answer.flags, answer.length_protected, answer.token_length) == (1, 64 * MIB, 512)


def test_the_zero_token_zeroes(machine: Machine) -> None:
    """NTFS' own token of zeros, of any length."""
    driver = machine.start()
    fill(machine, 0, 0, b"old")
    end = manage(driver, build.offload_write(ZERO_TOKEN, [(0, 600 * MIB)]))
    assert end.status is NtStatus.SUCCESS
    assert write_output(end).length_copied == 600 * MIB
    assert all(not any(content(machine, 0, mark)) for mark in MARKS)


def test_an_expired_token_is_invalid(machine: Machine) -> None:
    """STATUS_INVALID_TOKEN with its flag, nothing written, and no RECEIVE."""
    driver = machine.start()
    fill(machine, 0, 0, b"old")
    token = token_of(driver, [(0, MIB)], ttl=5)
    machine.clock.advance(3600)
    machine.codes()
    end = manage(driver, build.offload_write(token, [(8 * MIB, MIB)]))
    assert end.status is NtStatus.INVALID_TOKEN
    assert (write_output(end).flags, write_output(end).length_copied, end.information) == (2, 0, 16)
    assert machine.codes() == [WRITE]
    assert content(machine, 0, 8 * MIB) == bytes(PIECE)


def test_use_keeps_a_token_alive(machine: Machine) -> None:
    """The inactivity timer starts again with each use: a slow copy of a large file goes through."""
    driver = machine.start()
    token = token_of(driver, [(0, 4 * MIB)], ttl=60)
    for number in range(4):
        machine.clock.advance(50)
        offset = number * MIB
        data = build.offload_write(token, [(512 * MIB + offset, MIB)], token_offset=offset)
        assert manage(driver, data).status is NtStatus.SUCCESS


def test_forged_tokens_are_invalid(machine: Machine) -> None:
    """A changed byte, in the header or in the secret part."""
    driver = machine.start()
    token = token_of(driver, [(0, MIB)])
    for place in (0, 8, 300, 511):
        forged = bytearray(token)
        forged[place] ^= 1
        end = manage(driver, build.offload_write(bytes(forged), [(8 * MIB, MIB)]))
        assert end.status is NtStatus.INVALID_TOKEN, place
        assert write_output(end).flags == 2


def test_more_than_a_token_holds_is_success_truncated(machine: Machine) -> None:
    """Whole pieces that fit are written, then the target refuses: LengthCopied tells."""
    driver = machine.start()
    fill(machine, 0, 0, b"old")
    token = token_of(driver, [(0, 64 * MIB)])
    end = manage(driver, build.offload_write(token, [(1024 * MIB, 128 * MIB)]))
    assert end.status is NtStatus.SUCCESS
    assert (write_output(end).flags, write_output(end).length_copied) == (1, 64 * MIB)
    assert content(machine, 0, 1024 * MIB).startswith(b"old0")


def test_over_asking_in_one_command_tells_data_overrun(machine: Machine) -> None:
    """Refused before it began, and RECEIVE says why, not that the result is unknown."""
    driver = machine.start()
    token = token_of(driver, [(0, MIB)])
    machine.codes()
    end = manage(driver, build.offload_write(token, [(8 * MIB, 2 * MIB)]))
    assert end.status is NtStatus.DATA_OVERRUN
    assert machine.codes() == [WRITE, RECEIVE]


def test_64_scattered_ranges_go_by_one_command(machine: Machine) -> None:
    """A fragmented file, its pieces not ascending."""
    driver = machine.start()
    ranges = [(number * MIB, PIECE) for number in reversed(range(64))]
    for number in range(64):
        machine.disks[0].write(number * MIB, [str(number).encode().ljust(PIECE, b"-")])
    token = token_of(driver, ranges)
    machine.codes()
    end = manage(driver, build.offload_write(token, [(1024 * MIB, 64 * PIECE)]))
    assert end.status is NtStatus.SUCCESS
    assert machine.codes() == [WRITE]
    first, last = content(machine, 0, 1024 * MIB), content(machine, 0, 1024 * MIB + 63 * PIECE)
    assert (first[:3], last[:3]) == (b"63-", b"0--")


def test_a_unit_attention_is_survived(machine: Machine) -> None:
    """A reset between two requests: the command is sent again with the same list identifier."""
    driver = machine.start()
    token = token_of(driver, [(0, MIB)])
    machine.target.reset_lun(0, lambda _: None)
    machine.sent.clear()
    end = manage(driver, build.offload_write(token, [(8 * MIB, MIB)]))
    assert end.status is NtStatus.SUCCESS
    cdbs = [cdb for _, cdb in machine.sent]
    assert len(cdbs) == 2
    assert cdbs[0] == cdbs[1]


def test_list_identifiers_count_over_all_disks(machine: Machine) -> None:
    """0 first, then one more for each operation on any disk."""
    one, two = machine.start(0), machine.start(1)
    token_of(one, [(0, MIB)])
    token = token_of(two, [(0, MIB)])
    manage(one, build.offload_write(token, [(8 * MIB, MIB)]))
    found = [int.from_bytes(cdb[6:10], "big") for _, cdb in machine.sent if cdb[0] == 0x83]
    assert found == [0, 1, 2]


def test_a_slow_target_ends_a_request_truncated(machine: Machine) -> None:
    """After 4 s no further WRITE USING TOKEN is sent: the caller goes on by itself."""
    carry = machine.carrier()

    def slow(cdb: bytes, data_out: bytes) -> Completion:
        machine.clock.advance(2.5 if cdb[:2] == b"\x83\x11" else 0)
        return carry(cdb, data_out)

    driver = ClassDriver.start(slow, machine.environment)
    token = token_of(driver, [(0, 600 * MIB)])
    end = manage(driver, build.offload_write(token, [(1024 * MIB, 600 * MIB)]))
    assert end.status is NtStatus.SUCCESS
    assert (write_output(end).flags, write_output(end).length_copied) == (1, 128 * MIB)


def test_the_property_is_what_page_8f_says(machine: Machine) -> None:
    """Blocks, not bytes, and no command is sent."""
    driver = machine.start()
    machine.sent.clear()
    query = PropertyQuery(COPY_OFFLOAD_PROPERTY).packed()
    end = driver.control(Request(ControlCode.IOCTL_STORAGE_QUERY_PROPERTY, query, 48, kernel=False))
    told = CopyOffloadDescriptor.parse(end.output)
    assert (end.status, end.information) == (NtStatus.SUCCESS, 48)
    assert (told.optimal_transfer_count, told.maximum_data_descriptors) == (64 * MIB // 512, 256)
    assert (told.default_token_lifetime, told.maximum_token_lifetime) == (60, 600)
    assert not machine.sent


def test_a_program_is_refused_and_sends_nothing(machine: Machine) -> None:
    """The offload actions are for kernel callers."""
    driver = machine.start()
    machine.sent.clear()
    code = ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES
    request = Request(code, build.offload_read([(0, MIB)]), OffloadReadOutput.SIZE, kernel=False)
    assert driver.control(request).status is NtStatus.ACCESS_DENIED
    assert not machine.sent


def test_other_requests_are_no_part_of_the_model(machine: Machine) -> None:
    """They are refused by name instead of being guessed at."""
    driver = machine.start()
    with pytest.raises(NotModelledError, match="0x00070000"):
        driver.control(Request(0x70000, b"", 0))
    with pytest.raises(NotModelledError, match="DSM action 0x1"):
        manage(driver, b"\x1c\0\0\0\x01" + bytes(60))


def test_a_page_that_changes_later_is_not_seen(machine: Machine) -> None:
    """What was read at device start stays."""
    altered = Altered(machine.carrier())
    driver = ClassDriver.start(altered, machine.environment)
    altered.changes[bytes.fromhex("12018f")] = {5: 1}
    token_of(driver, [(0, MIB)])
    assert not ClassDriver.start(altered, machine.environment).volume.known.on
