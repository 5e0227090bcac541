"""The tools of sg3_utils against our disks in the guest: raw commands, decoded pages, copies, reservations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.scsi.token_lists import PopulateToken, Range, TokenInformation, WriteUsingToken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client_guest import ClientGuest, Unit

ILLEGAL_REQUEST, MISCOMPARE, CONFLICT = 5, 14, 24
PAGES = ("sv", "sn", "di", "tpc", "bl", "bdc", "lbpv")
OPCODES = {  # lines of sg_opcodes: operation code, service action and name as that tool knows it
    "83 0 Extended copy(LID1)",
    "83 10 Populate token",
    "83 11 Write using token",
    "83 1c Copy operation abort",
    "84 5 Receive copy status",
    "84 7 Receive ROD token information",
    "84 8 Report all ROD tokens",
    "88 Read(16)",
    "8a Write(16)",
    "93 Write same(16)",
    "42 Unmap",
    "a3 c Report supported operation codes",
}


def populate(clients: ClientGuest, lid: int, ranges: list[Range]) -> None:
    """Send POPULATE TOKEN to the first disk as raw bytes."""
    length = 16 * len(ranges)
    clients.put("pt.bin", PopulateToken(14 + length, False, None, 0, length, tuple(ranges)).packed())
    cdb = f"83 10 00 00 00 00 00 00 00 {lid:02x} 00 00 00 {16 + length:02x} 00 00"
    assert "SCSI Status: Good" in clients.run(f"sg_raw -s {16 + length} -i pt.bin {clients.one.node} {cdb}")


def received(clients: ClientGuest, unit: Unit, action: int, lid: int) -> bytes:
    """The parameter data of RECEIVE ROD TOKEN INFORMATION (07h) or RECEIVE COPY STATUS (05h)."""
    cdb = f"84 {action:02x} 00 00 00 {lid:02x} 00 00 00 00 00 00 04 00 00 00"
    clients.run(f"rm -f answer.bin; sg_raw -r 1024 -o answer.bin {unit.node} {cdb}")
    return clients.get("answer.bin")


def test_token_copy_in_raw_commands(clients: ClientGuest) -> None:
    """POPULATE TOKEN, RECEIVE ROD TOKEN INFORMATION twice, WRITE USING TOKEN, and what it says about itself."""
    populate(clients, 0x2A, [Range(0x90, 4), Range(0x80, 2)])
    status = received(clients, clients.one, 0x05, 0x2A)
    answer = received(clients, clients.one, 0x07, 0x2A)
    assert (len(status), len(answer), answer[:4].hex()) == (32, 550, "00000222")
    assert received(clients, clients.one, 0x07, 0x2A)[8:] == answer[8:]  # 6-7 is the operation counter
    told = TokenInformation.parse(answer)
    assert (told.status.status, told.status.count) == (1, 6)
    assert told.token is not None

    ranges = (Range(0x800, 6),)
    clients.put("wut.bin", WriteUsingToken(550, False, False, 0, told.token, 16, ranges).packed())
    cdb = "83 11 00 00 00 00 00 00 00 2b 00 00 02 28 00 00"
    clients.run(f"sg_raw -s 552 -i wut.bin {clients.two.node} {cdb}")
    assert clients.two.now(0x800, 6) == clients.one.first(0x90, 4) + clients.one.first(0x80, 2)
    answer = received(clients, clients.two, 0x07, 0x2B)
    assert (len(answer), TokenInformation.parse(answer).status.count) == (36, 6)


@pytest.mark.parametrize(
    ("length", "words"),
    [(15, "Parameter list length error"), (24, "Invalid field in parameter list"), (0, "SCSI Status: Good")],
)
def test_malformed_lists(clients: ClientGuest, length: int, words: str) -> None:
    """Cut short, without a complete descriptor, and empty (which is no error)."""
    clients.put(
        "cut.bin",
        PopulateToken(length - 2, False, None, 0, 8, ()).packed().ljust(24, b"\0") if length else b"x",
    )
    send = f"-s {length} -i cut.bin" if length else ""
    done = clients.complete(
        f"sg_raw {send} {clients.one.node} 83 10 00 00 00 00 00 00 00 2c 00 00 00 {length:02x} 00 00"
    )
    assert words in done.stdout + done.stderr
    assert done.status == (ILLEGAL_REQUEST if length else 0)


def test_every_page_is_decoded(clients: ClientGuest) -> None:
    """Page 00h lists just the pages that are there, and each is read without complaint."""
    listed = clients.run(f"sg_vpd -p sv {clients.one.node}")
    assert re.findall(r"\[(\w+)\]$", listed, flags=re.MULTILINE) == list(PAGES)
    whole = clients.run(f"sg_vpd -a {clients.one.node}")
    for words in (
        "Unit serial number: odx-one",
        "Maximum range descriptors: 256",
        "Write same non-zero (WSNZ): 1",
        "Non-rotating medium",
        "Provisioning type: 2 (thin provisioned)",
    ):
        assert words in whole
    for complaint in ("bad", "invalid", "truncated", "too short"):
        assert complaint not in whole.lower()
    clients.run(f"sg_raw -r 64 {clients.one.node} 12 01 86 00 40 00", status=ILLEGAL_REQUEST)


def test_identities_differ(clients: ClientGuest) -> None:
    """Page 83h: each unit its own NAA designator; two paths to one unit have the same."""

    def naa(node: str) -> str:
        found = re.search(r"0x6[0-9a-f]{31}", clients.run(f"sg_vpd -p di {node}"))
        assert found is not None
        return found[0]

    names = [naa(node) for node in (clients.one.node, clients.two.node, clients.scratch.node)]
    assert len(set(names)) == len(names)
    assert naa(clients.second_path) == names[2]


def test_supported_commands(clients: ClientGuest) -> None:
    """REPORT SUPPORTED OPERATION CODES, all of them and with timeout descriptors."""
    out = clients.run(f"sg_opcodes {clients.one.node}")
    rows = re.findall(r"^ ([0-9a-f]{2}) +([0-9a-f]+ +)?\d+ +\d,\d +(.+)$", out, flags=re.MULTILINE)
    assert {" ".join(f"{code} {action} {name}".split()) for code, action, name in rows} >= OPCODES
    assert "Populate token" in clients.run(f"sg_opcodes -R {clients.one.node}")
    out = clients.run(f"sg_opcodes -o 0x83,0x10 {clients.one.node}")
    assert "Command is supported [conforming to SCSI standard]" in out
    assert "Usage data: 83 1f 00 00 00 00 ff ff ff ff ff ff ff ff 3f 04" in out


@pytest.mark.parametrize(("unit", "exponent"), [("one", 0), ("large", 0), ("scratch", 3)])
def test_capacity(clients: ClientGuest, unit: str, exponent: int) -> None:
    """Size, block length, physical blocks and provisioning."""
    disk: Unit = getattr(clients, unit)
    out = clients.run(f"sg_readcap -l {disk.node}")
    assert f"Number of logical blocks={disk.size // disk.block_size}" in out
    assert f"Logical block length={disk.block_size} bytes" in out
    assert f"physical block exponent={exponent}" in out
    assert "lbpme=1, lbprz=1" in out


def test_extended_copy(clients: ClientGuest) -> None:
    """sg_xcopy with identification descriptors; then what the copy manager tells of it."""
    clients.run(f"sg_xcopy if={clients.one.node} of={clients.two.node} bs=512 count=64 skip=4 seek=0x900")
    assert clients.two.now(0x900, 64) == clients.one.first(4, 64)
    assert clients.two.now(0x940, 1) == clients.two.first(0x940, 1)
    out = clients.run(f"sg_copy_results -s -l 1 {clients.one.node}")
    assert "Operation completed without errors" in out
    assert f"Transfer count: {64 * 512}" in out
    clients.run(f"sg_copy_results -s -l 1 {clients.one.node}", status=ILLEGAL_REQUEST)  # told once


def test_copy_operating_parameters(clients: ClientGuest) -> None:
    """RECEIVE COPY OPERATING PARAMETERS: one kind of segment, one kind of CSCD."""
    out = clients.run(f"sg_copy_results -p {clients.one.node}")
    assert "Segment descriptor 0x02: Copy from block device to block device" in out
    assert "Target descriptor 0xe4: Identification descriptor" in out


def test_unmap_and_status(clients: ClientGuest) -> None:
    """What UNMAP gives back reads as zeros and is deallocated; its neighbours stay."""
    node = clients.two.node
    clients.run(f"sg_unmap -f -l 0x4000 -n 256 {node}")
    assert clients.two.now(0x4000, 256) == bytes(256 * 512)
    assert clients.two.now(0x4100, 1) == clients.two.first(0x4100, 1)
    out = clients.run(f"sg_get_lba_status -l 0x4000 {node}")
    assert re.search(r"0x0*4000 .*blocks: *256 .*deallocated", out)


def test_write_same(clients: ClientGuest) -> None:
    """A pattern into four blocks; a count of 0 is refused."""
    node = clients.two.node
    clients.put("block.bin", b"same" * 128)
    clients.run(f"sg_write_same -i block.bin --xferlen=512 -l 0xa00 -n 4 {node}")
    assert clients.two.now(0xA00, 5) == b"same" * 512 + clients.two.first(0xA04, 1)
    clients.run(f"sg_write_same -i block.bin --xferlen=512 -l 0xa00 -n 0 {node}", status=ILLEGAL_REQUEST)


def test_compare_and_write(clients: ClientGuest) -> None:
    """Written only over what was expected."""
    node, old = clients.two.node, clients.two.first(0xB00, 1)
    clients.put("wrong.bin", b"x" * 512 + b"new!" * 128)
    clients.run(f"sg_compare_and_write -q -i wrong.bin -l 0xb00 -n 1 {node}", status=MISCOMPARE)
    assert clients.two.now(0xB00, 1) == old
    clients.put("right.bin", old + b"new!" * 128)
    clients.run(f"sg_compare_and_write -i right.bin -l 0xb00 -n 1 {node}")
    assert clients.two.now(0xB00, 2) == b"new!" * 128 + clients.two.first(0xB01, 1)


def test_verify(clients: ClientGuest) -> None:
    """With the right data and with wrong data."""
    clients.put("block.bin", clients.one.first(0x77, 1))
    verify = f"sg_verify -i block.bin -b 1 -n 512 --lba=0x77 --count=1 {clients.one.node}"
    clients.run(verify)
    clients.put("block.bin", clients.one.first(0x78, 1))
    clients.run(verify, status=MISCOMPARE)


@pytest.fixture
def registered(clients: ClientGuest) -> Iterator[str]:
    """The scratch disk with two paths registered, 1 and 2; cleared afterwards."""
    first, second = clients.scratch.node, clients.second_path
    clients.run(f"sg_persist -o -I -S 1 {first}; sg_persist -o -I -S 2 {second}")
    yield first
    clients.run(f"sg_persist -o -I -S 1 {first} > /dev/null && sg_persist -o -C -K 1 {first}")
    clients.complete(f"sg_turs -n 4 {second}")  # takes the unit attention that tells of it


def test_persistent_reservation(clients: ClientGuest, registered: str) -> None:
    """A reservation by one path keeps the other from writing, and a token from being written by it."""
    other = clients.second_path
    assert re.findall(r"0x\d$", clients.run(f"sg_persist -k {registered}"), flags=re.MULTILINE) == [
        "0x1",
        "0x2",
    ]
    clients.run(f"sg_persist -o -R -K 1 -T 1 {registered}")
    assert "Write Exclusive" in clients.run(f"sg_persist -r {other}")
    clients.put("zero.rt", bytes.fromhex("ffff0001 0000 01f8") + bytes(504))
    clients.run(f"sg_raw -s 512 -i /dev/zero {other} 2a 00 00 00 00 00 00 00 01 00", status=CONFLICT)
    clients.run(f"ddptctl --wut=0,1 --rtf=zero.rt {other}", status=CONFLICT)
    clients.run(f"ddptctl --wut=0,1 --rtf=zero.rt {registered}")
    clients.run(f"sg_persist -o -L -K 1 -T 1 {registered}")
    clients.run(f"ddptctl --wut=0,1 --rtf=zero.rt {other}")


def test_mode_pages(clients: ClientGuest) -> None:
    """Caching, control, informational exceptions; QERR is 0, which Windows sees to."""
    out = clients.run(f"sg_modes -a {clients.one.node}")
    for title in ("Caching", "Control", "Informational exceptions control"):
        assert f">> {title}, page_control: current" in out
    assert "WP=1" in clients.run(f"sg_modes -a {clients.protected.node}")


def test_stop_and_start(clients: ClientGuest) -> None:
    """A stopped unit is not ready; POPULATE TOKEN neither."""
    node = clients.kit[1].node
    clients.run(f"sg_start --stop {node}")
    clients.run(f"sg_turs {node}", status=2)
    clients.run(f"ddptctl --pt=0,1 {node}", status=2)
    clients.run(f"sg_start --start {node}")
    clients.run(f"sg_turs {node} && sg_sync {node} && ddptctl --pt=0,1 {node}")


def test_write_protected_disk(clients: ClientGuest) -> None:
    """A token can be made of it but not written to it: DATA PROTECT 27/00."""
    node = clients.protected.node
    clients.run(f"ddptctl --pt=0,8 --rtf=w.rt {node}")
    clients.run(f"ddptctl --wut=8,8 --rtf=w.rt {node}", status=7)
    assert clients.protected.now(8, 8) == clients.protected.first(8, 8)
    clients.run(f"ddptctl --wut=0xc00,8 --rtf=w.rt {clients.two.node}")
    assert clients.two.now(0xC00, 8) == clients.protected.first(0, 8)


def test_units_are_listed(clients: ClientGuest) -> None:
    """REPORT LUNS."""
    out = clients.run(f"sg_luns {clients.one.node}")
    assert re.findall(r"^ +00([0-9a-f]{2})0{12}$", out, flags=re.MULTILINE) == [f"{n:02x}" for n in range(9)]
