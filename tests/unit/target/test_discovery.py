"""What Windows, Linux and SeaBIOS ask first; pages are also read by sg3_utils, which knows nothing of us."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.fields import u16, u32, u64

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.testing.conformance.reference import ReferenceTarget
    from qemu_odx.testing.initiator import Initiator


def decoded(tool: str, options: list[str], data: bytes, folder: Path) -> str:
    """What a tool of sg3_utils reads in some bytes."""
    if shutil.which(tool) is None:
        pytest.fail(f"{tool} is missing: ./odx setup installs it (package sg3-utils)")
    file = folder / "response.hex"
    file.write_text(" ".join(f"{byte:02x}" for byte in data) + "\n")
    done = subprocess.run([tool, *options, f"--inhex={file}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def vpd(initiator: Initiator, page: int, lun: int = 0) -> bytes:
    """A VPD page in full."""
    answer = initiator.command(lun, bytes((0x12, 1, page, 0x10, 0x00, 0)))
    assert answer.good
    return answer.data


def test_standard_inquiry_is_read_by_sg_inq(initiator: Initiator, tmp_path: Path) -> None:
    """A connected disk with third-party copy, SPC-4, command queuing."""
    data = initiator.command(0, "120000006000").data
    text = decoded("sg_inq", [], data, tmp_path)
    assert "PQual=0" in text
    assert "3PC=1" in text
    assert "CmdQue=1" in text
    assert "[SPC-4]" in text
    assert "Vendor identification: QEMU_ODX" in text
    assert len(data) == 96


def test_inquiry_is_cut_to_the_allocation_length(initiator: Initiator) -> None:
    """Linux asks for 36 bytes first."""
    assert len(initiator.command(0, "120000002400").data) == 36


def test_inquiry_with_a_page_code_but_no_evpd_is_refused(initiator: Initiator) -> None:
    """24/00 at byte 2 (SPC-4 6.6.1)."""
    assert initiator.command(0, "120080002400").fault == (5, 0x24, 0)


def test_page_00_ascends_strictly_from_00_and_lists_8f(initiator: Initiator) -> None:
    """Windows ignores all of 8Fh, B0h, B1h and B2h otherwise."""
    data = vpd(initiator, 0x00)
    codes = list(data[4:])
    assert codes == sorted(set(codes)) == [0x00, 0x80, 0x83, 0x8F, 0xB0, 0xB1, 0xB2]
    assert u16(data, 2) == len(codes)


@pytest.mark.parametrize("page", [0x00, 0x80, 0x83, 0x8F, 0xB0, 0xB1, 0xB2])
def test_every_listed_page_is_there_and_says_its_own_length(initiator: Initiator, page: int) -> None:
    """PAGE LENGTH is the full one."""
    data = vpd(initiator, page)
    assert data[1] == page
    assert u16(data, 2) == len(data) - 4


def test_page_8f_meets_what_windows_looks_at(initiator: Initiator) -> None:
    """First descriptor type 0000h with length exactly 20h; asked with 255 bytes; full PAGE LENGTH."""
    data = initiator.command(0, "12018f00ff00").data
    assert len(data) == 255
    assert u16(data, 2) >= 36
    assert (u16(data, 4), u16(data, 6)) == (0x0000, 0x0020)
    assert u16(data, 14) == 8
    assert (u32(data, 16), u32(data, 20)) == (600, 60)
    assert (u64(data, 24), u64(data, 32)) == (8192, 8192)


def test_page_8f_is_read_by_sg_vpd(initiator: Initiator, tmp_path: Path) -> None:
    """Every descriptor decodes, and its commands are those that are there."""
    text = decoded("sg_vpd", ["--page=tpc"], vpd(initiator, 0x8F), tmp_path)
    for phrase in (
        "Block Device ROD Token Limits",
        "Populate token",
        "Write using token",
        "ROD token features",
    ):
        assert phrase.lower() in text.lower()
    assert "unexpected" not in text.lower()


def test_page_83_designators_are_short_and_name_the_unit(
    initiator: Initiator, reference: ReferenceTarget, tmp_path: Path
) -> None:
    """Under 252 bytes in all: vioscsi hangs on longer ones. The NAA designator differs per unit."""
    first, second = vpd(initiator, 0x83, 0), vpd(initiator, 0x83, 1)
    assert len(first) < 252
    assert reference.target.units[0].naa in first
    assert first != second
    assert "0x6525400000000000000000000000000a" in decoded("sg_vpd", ["--page=di"], first, tmp_path)


def test_page_b0_sets_no_transfer_length(initiator: Initiator, tmp_path: Path) -> None:
    """Windows ignores MAXIMUM TRANSFER LENGTH for token ranges, so a finite one would only break copies."""
    data = vpd(initiator, 0xB0)
    assert len(data) == 64
    assert u32(data, 8) == 0
    text = decoded("sg_vpd", ["--page=bl"], data, tmp_path)
    assert "Maximum unmap LBA count: -1 [unbounded]" in text
    assert "Maximum compare and write length: 255" in text


def test_page_b2_says_thin(initiator: Initiator, tmp_path: Path) -> None:
    """UNMAP and both WRITE SAMEs unmap; unmapped blocks read as zeros."""
    text = decoded("sg_vpd", ["--page=lbpv"], vpd(initiator, 0xB2), tmp_path)
    for phrase in ("(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "(LBPRZ): 1", "Provisioning type: 2"):
        assert phrase in text


def test_page_b1_says_no_spinning(initiator: Initiator, tmp_path: Path) -> None:
    """Linux makes it a non-rotational disk."""
    assert "Non-rotating medium" in decoded("sg_vpd", ["--page=bdc"], vpd(initiator, 0xB1), tmp_path)


@pytest.mark.parametrize(("lun", "blocks", "size"), [(0, 16384, 512), (2, 2048, 4096)])
def test_read_capacity(initiator: Initiator, lun: int, blocks: int, size: int) -> None:
    """Both forms tell the last LBA and the block length."""
    short, long = initiator.command(lun, "25"), initiator.command(lun, "9e10000000000000000000000020")
    assert (u32(short.data, 0), u32(short.data, 4)) == (blocks - 1, size)
    assert (u64(long.data, 0), u32(long.data, 8)) == (blocks - 1, size)
    assert long.data[14] & 0xC0 == 0xC0


def test_report_luns(initiator: Initiator) -> None:
    """The inventory, also asked of a unit that is not there; too small an allocation is refused."""
    wanted = bytes.fromhex("0000001800000000" + "0000" + "00" * 6 + "0001" + "00" * 6 + "0002" + "00" * 6)
    assert initiator.command(0, "a0000000000000000400").data == wanted
    assert initiator.command(77, "a0000000000000000400").data == wanted
    assert initiator.command(0, "a0000000000000000008").fault == (5, 0x24, 0)


def test_a_unit_that_is_not_there(initiator: Initiator) -> None:
    """INQUIRY says so, REQUEST SENSE too; all else is 25/00."""
    assert initiator.command(9, "120000006000").data[0] == 0x7F
    assert initiator.command(9, "0300000012").data[12:14] == b"\x25\x00"
    assert initiator.command(9, "00").fault == (5, 0x25, 0)


def test_supported_operation_codes_list_every_handler(
    initiator: Initiator, reference: ReferenceTarget
) -> None:
    """Each listed command can be asked for alone and has its usage data."""
    data = initiator.command(0, "a30c000000000000ffff").data
    assert u32(data, 0) == len(data) - 4
    listed = {(data[at], u16(data, at + 2) if data[at + 5] & 1 else None) for at in range(4, len(data), 8)}
    rows = {
        (row.opcode, row.service_action): row for row in opcodes.OPERATIONS if reference.target.supports(row)
    }
    assert listed == set(rows)
    for (opcode, action), row in rows.items():
        options = 1 if action is None else 2
        cdb = bytes((0xA3, 0x0C, options, opcode)) + (action or 0).to_bytes(2, "big") + b"\0\0\1\0"
        answer = initiator.command(0, cdb)
        assert answer.data[1] & 7 == 3
        assert answer.data[4:] == row.usage


def test_an_unknown_opcode_and_an_unknown_service_action(initiator: Initiator) -> None:
    """20/00 and 24/00; asked about alone, an unknown command is "not supported"."""
    assert initiator.command(0, "c5").fault == (5, 0x20, 0)
    assert initiator.command(0, "9e1f").fault == (5, 0x24, 0)
    assert initiator.command(0, "a30c01c5000000001000").data[1] & 7 == 1


def test_naca_is_refused(initiator: Initiator) -> None:
    """NORMACA is 0."""
    assert initiator.command(0, "000000000004").fault == (5, 0x24, 0)


def test_mode_pages_are_what_windows_leaves_alone(initiator: Initiator) -> None:
    """QERR=0, D_SENSE=0, write cache on."""
    control = initiator.command(0, "1a080a00c0").data[4:]
    assert control[:2] == b"\x0a\x0a"
    assert control[3] & 0x06 == 0
    assert control[2] & 0x04 == 0
    caching = initiator.command(0, "1a080800c0").data[4:]
    assert caching[2] & 0x04


def test_all_mode_pages_with_a_block_descriptor(initiator: Initiator) -> None:
    """Page 3Fh, six and ten bytes: same pages, the header's lengths are right."""
    six, ten = initiator.command(0, "1a003f00ff").data, initiator.command(0, "5a003f000000000400").data
    assert six[0] == len(six) - 1
    assert u16(ten, 0) == len(ten) - 2
    assert six[4:] == ten[8:]


@pytest.mark.parametrize(("cdb", "fault"), [("1a00c800ff", (5, 0x39, 0)), ("1a003100ff", (5, 0x24, 0))])
def test_mode_sense_refusals(initiator: Initiator, cdb: str, fault: tuple[int, int, int]) -> None:
    """Saved values, and a page that is not there."""
    assert initiator.command(0, cdb).fault == fault


def test_mode_select_changes_what_is_changeable_and_tells_the_others(
    initiator: Initiator, reference: ReferenceTarget
) -> None:
    """SWP stops writes with 27/02 and raises 2A/01 for the other nexus."""
    other = reference.initiator("I1")
    other.command(0, "00")
    page = bytearray(initiator.command(0, "1a080a00c0").data[4:])
    page[4] |= 0x08
    assert initiator.command(0, "1510000010", bytes(4) + bytes(page)).good
    assert initiator.write(0, 0, 1, bytes(512)).fault == (7, 0x27, 2)
    assert other.command(0, "00").fault == (6, 0x2A, 1)
    assert other.command(0, "00").good


def test_mode_select_takes_nothing_if_one_bit_is_wrong(initiator: Initiator) -> None:
    """26/00, and the page before it is not taken either."""
    before = initiator.command(0, "1a083f00ff").data
    caching, control = bytearray(before[4:24]), bytearray(before[24:36])
    caching[2] ^= 0x04
    control[2] |= 0x04
    data = bytes(4) + bytes(caching) + bytes(control)
    assert initiator.command(0, bytes((0x15, 0x10, 0, 0, len(data), 0)), data).fault == (5, 0x26, 0)
    assert initiator.command(0, "1a083f00ff").data == before
