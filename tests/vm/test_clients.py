"""Token copy by ddptctl and ddpt, clients that share no line with us: what they print, and what is on the disks.

Their exit codes are in ddpt's manual page: 100 and up for copy errors, 110 + ASCQ for sense 23/xx.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from client_guest import ClientGuest

ZERO_TOKEN = bytes.fromhex("ffff0001 0000 01f8") + bytes(504)  # SPC-4 5.17.6.4.3
ILLEGAL_REQUEST, OUT_OF_RANGE, INVALID_FIELD, UNDERRUN = 5, 22, 101, 103
TOKEN_UNKNOWN, TOKEN_DELETED = 114, 119
TOKEN_SIZE = 512
ATTEMPTS = 5


@pytest.fixture
def token(clients: ClientGuest) -> str:
    """A file with a token for blocks 10h to 13h and 40h to 47h of the first disk."""
    clients.run(f"ddptctl --pt=0x10,4,0x40,8 --rtf=usual.rt {clients.one.node}")
    return "usual.rt"


def usual(clients: ClientGuest) -> bytes:
    """The data behind `token`."""
    return clients.one.first(0x10, 4) + clients.one.first(0x40, 8)


def test_populate_and_write_reach_the_blocks_they_name(clients: ClientGuest) -> None:
    """Range descriptors a byte early, as in the unmended program, would name other blocks and other counts."""
    out = clients.run(f"ddptctl --pt=0x10,4 --rtf=a.rt {clients.one.node}")
    assert "PT completes with a transfer count of 4 [0x4]" in out
    assert len(clients.get("a.rt")) == TOKEN_SIZE
    out = clients.run(f"ddptctl --wut=0x100,4 --rtf=a.rt {clients.two.node}")
    assert "WUT completes with a transfer count of 4 [0x4]" in out
    assert clients.two.now(0x100, 4) == clients.one.first(0x10, 4)
    assert clients.two.now(0xFF, 1) + clients.two.now(0x104, 1) == (
        clients.two.first(0xFF, 1) + clients.two.first(0x104, 1)
    )


def test_token_of_a_wanted_type_and_timeout(clients: ClientGuest) -> None:
    """RTV, ROD TYPE and INACTIVITY TIMEOUT on the wire; the token is of the type asked for."""
    options = "--pt=0x10,4,0x40,8 --rtype=pit-pers --timeout=120 --rtf=p.rt"
    assert "transfer count of 12 [0xc]" in clients.run(f"ddptctl {options} {clients.one.node}")
    assert clients.get("p.rt")[:8] == bytes.fromhex("00800002 0000 01f8")


def test_timeout_above_the_limit_is_refused(clients: ClientGuest) -> None:
    """26/00, not quietly shortened (SBC-5 5.12)."""
    clients.run(f"ddptctl --pt=0,4 --timeout=601 {clients.one.node}", status=INVALID_FIELD)


def test_token_is_a_point_in_time(clients: ClientGuest) -> None:
    """What was written to the source after the token was made does not arrive."""
    clients.run(f"ddptctl --pt=0x1000,16 --rtf=t.rt {clients.one.node}")
    clients.run(f"sg_dd if=/dev/zero of={clients.one.node} bs=512 seek=0x1000 count=16 blk_sgio=1")
    assert clients.one.now(0x1000, 16) == bytes(16 * 512)
    clients.run(f"ddptctl --wut=0x1000,16 --rtf=t.rt {clients.two.node}")
    assert clients.two.now(0x1000, 16) == clients.one.first(0x1000, 16)


def test_ranges_scatter_in_their_order(clients: ClientGuest, token: str) -> None:
    """Two source ranges to three destination ranges that do not ascend."""
    out = clients.run(f"ddptctl --wut=0x208,2,0x200,3,0x220,7 --rtf={token} {clients.two.node}")
    assert "transfer count of 12 [0xc]" in out
    written = clients.two.now(0x208, 2) + clients.two.now(0x200, 3) + clients.two.now(0x220, 7)
    assert written == usual(clients)


def test_offset_into_the_rod(clients: ClientGuest, token: str) -> None:
    """The last four of twelve blocks."""
    clients.run(f"ddptctl --wut=0x300,4 --oir=8 --rtf={token} {clients.two.node}")
    assert clients.two.now(0x300, 4) == usual(clients)[8 * 512 :]


def test_offset_counts_blocks_of_the_destination(clients: ClientGuest) -> None:
    """512 to 4096: an offset of 1 skips eight source blocks; the end of the last block is zeros."""
    clients.run(f"ddptctl --pt=0x20,20 --rtf=small.rt {clients.one.node}")
    out = clients.run(f"ddptctl --wut=0x30,2 --oir=1 --rtf=small.rt {clients.large.node}")
    assert "transfer count of 2 [0x2]" in out
    assert clients.large.now(0x30, 2) == clients.one.first(0x28, 12) + bytes(4 * 512)


def test_large_blocks_to_small_ones(clients: ClientGuest) -> None:
    """4096 to 512."""
    clients.run(f"ddptctl --pt=5,1 --rtf=large.rt {clients.large.node}")
    clients.run(f"ddptctl --wut=0x380,8 --rtf=large.rt {clients.two.node}")
    assert clients.two.now(0x380, 8) == clients.large.first(5, 1)


def test_asking_for_more_than_there_is_moves_nothing(clients: ClientGuest, token: str) -> None:
    """The default policy refuses the whole command: ILLEGAL REQUEST 0D/04."""
    before = clients.two.now(0x400, 4)
    out = clients.run(f"ddptctl --wut=0x400,4 --oir=10 --rtf={token} {clients.two.node}", status=UNDERRUN)
    assert "Target underrun" in out
    assert clients.two.now(0x400, 4) == before


def test_offset_past_the_end(clients: ClientGuest, token: str) -> None:
    """26/00."""
    out = clients.run(
        f"ddptctl --wut=0x400,4 --oir=12 --rtf={token} {clients.two.node}", status=INVALID_FIELD
    )
    assert "Invalid field in parameter" in out


@pytest.mark.parametrize("command", ["--pt=32760,16", "--wut=32760,9 --rtf=usual.rt"])
def test_range_past_the_end(clients: ClientGuest, token: str, command: str) -> None:
    """21/00 at the source and at the destination; the last block itself is fine."""
    assert "LBA out of range" in clients.run(f"ddptctl {command} {clients.two.node}", status=OUT_OF_RANGE)
    clients.run(f"ddptctl --pt=32767,1 {clients.two.node}")


def test_deleted_token_says_so(clients: ClientGuest, token: str) -> None:
    """DEL_TKN with a range of no blocks deletes; then 23/09."""
    out = clients.run(f"ddptctl --wut=0,0 --del-tkn --rtf={token} {clients.two.node}")
    assert "transfer count of 0 [0x0]" in out
    out = clients.run(f"ddptctl --wut=0x400,4 --rtf={token} {clients.two.node}", status=TOKEN_DELETED)
    assert "token deleted" in out
    assert clients.two.now(0x400, 4) == clients.two.first(0x400, 4)


def test_forged_token_moves_nothing(clients: ClientGuest, token: str) -> None:
    """The same token with one bit of its secret turned: 23/04."""
    forged = bytearray(clients.get(token))
    forged[-1] ^= 1
    clients.put("forged.rt", bytes(forged))
    clients.run(f"ddptctl --wut=0x400,4 --rtf=forged.rt {clients.two.node}", status=TOKEN_UNKNOWN)
    assert clients.two.now(0x400, 4) == clients.two.first(0x400, 4)


def test_zero_token(clients: ClientGuest) -> None:
    """The well-known token of zeros."""
    clients.put("zero.rt", ZERO_TOKEN)
    out = clients.run(f"ddptctl --wut=0x500,4 --rtf=zero.rt {clients.two.node}")
    assert "transfer count of 4 [0x4]" in out
    assert clients.two.now(0x4FF, 6) == clients.two.first(0x4FF, 1) + bytes(4 * 512) + clients.two.first(
        0x504, 1
    )


def test_background_populate_is_polled_and_received_again(clients: ClientGuest) -> None:
    """IMMED, then RECEIVE ROD TOKEN INFORMATION as often as wanted; the token is good."""
    node = clients.one.node
    out = clients.run(f"ddptctl --pt=0x80,8 --immed --list-id=5 {node}")
    assert "Started ODX Populate Token command in immediate mode" in out
    for _ in range(2):
        out = clients.run(f"ddptctl --poll --list-id=5 --rtf=c.rt {node}")
        assert re.search(r"completed without errors\s+transfer count of 8 \[0x8\]", out)
    assert "completed without errors" in clients.run(f"ddptctl --receive --list-id=5 {node}")
    clients.run(f"ddptctl --wut=0x580,8 --rtf=c.rt {clients.two.node}")
    assert clients.two.now(0x580, 8) == clients.one.first(0x80, 8)


def test_background_write_is_polled(clients: ClientGuest, token: str) -> None:
    """IMMED of WRITE USING TOKEN."""
    clients.run(f"ddptctl --wut=0x600,12 --immed --list-id=7 --rtf={token} {clients.two.node}")
    out = clients.run(f"ddptctl --poll --list-id=7 {clients.two.node}")
    assert re.search(r"completed without errors\s+transfer count of 12 \[0xc\]", out)
    assert clients.two.now(0x600, 12) == usual(clients)


def test_running_copy_is_seen_and_aborted(clients: ClientGuest) -> None:
    """In progress; its list identifier is taken; after the abort it is terminated, and gone for a second abort."""
    clients.put("zero.rt", ZERO_TOKEN)
    for identifier in range(0x60, 0x60 + ATTEMPTS):
        where = f"--list-id={identifier} {clients.vast.node}"
        begun, seen, taken, aborted, ended = clients.each(
            f"ddptctl --wut=0,0x80000000 --immed --rtf=zero.rt {where}",
            f"ddptctl --receive {where}",
            f"ddptctl --pt=0,8 {where}",
            f"ddptctl --abort {where}",
            f"ddptctl --receive {where}",
        )
        if "completed without errors" not in ended[1]:  # else the guest was too slow for this server
            break
    assert (begun[0], taken[0], aborted) == (0, 105, (0, "")), (begun, taken, aborted)
    assert "in progress in background" in seen[1]
    assert "Operation terminated" in ended[1]
    clients.run(f"ddptctl --abort {where}", status=ILLEGAL_REQUEST)


def test_unknown_list_identifier(clients: ClientGuest) -> None:
    """24/00."""
    clients.run(f"ddptctl --receive --list-id=4711 {clients.one.node}", status=ILLEGAL_REQUEST)


def test_management_tokens_are_listed(clients: ClientGuest, token: str) -> None:
    """REPORT ALL ROD TOKENS names the token by its identifier."""
    identifier = clients.get(token)[8:16].hex()
    out = clients.run(f"ddptctl --all-toks {clients.one.node}")
    count = re.search(r"Number of managed ROD Token headers returned: (\d+)", out)
    assert count is not None
    assert int(count[1]) == out.count("Copy manager ROD Token identifier:") >= 1
    assert f"0x{identifier}" in out


def test_limits_are_decoded(clients: ClientGuest) -> None:
    """Page 8Fh and the 3PC bit by a second decoder."""
    out = clients.run(f"ddptctl --info {clients.one.node}")
    for words in (
        "num_blocks=32768 [0x8000], block_size=512",
        "3PC (third party copy) bit set",
        "Maximum Range Descriptors: 256",
        "Maximum Inactivity Timeout: 600 seconds",
        "Default Inactivity Timeout: 60 seconds",
        "Optimal Transfer Count: 131072",
        "point in time copy - persistent [0x800002]",
    ):
        assert words in out


def test_token_is_decoded(clients: ClientGuest, token: str) -> None:
    """The fields of a token by a second decoder."""
    out = clients.run(f"ddptctl --info --rtf={token}")
    assert "ROD type: point in time copy - default [0x800000]" in out
    assert f"Number of bytes represented: {12 * 512} " in out
    assert "block size: 512 [0x200] bytes" in out


def test_whole_copy_by_ddpt(clients: ClientGuest) -> None:
    """POPULATE TOKEN and WRITE USING TOKEN with DEL_TKN by one program (its own statistics are garbage)."""
    source, target = clients.one, clients.two
    clients.run(
        f"ddpt if={source.node} of={target.node} bs=512 iflag=odx oflag=odx "
        "skip=0x2000,64,0x3000,32 seek=0x2000,16,0x2100,80"
    )
    moved = source.first(0x2000, 64) + source.first(0x3000, 32)
    assert target.now(0x2000, 16) + target.now(0x2100, 80) == moved


def test_copy_by_ddpt_in_two_steps(clients: ClientGuest) -> None:
    """The token goes through a file; the second step finds the size in the token."""
    clients.run(f"ddpt if={clients.one.node} bs=512 iflag=odx skip=32,64 rtf=e.rt")
    out = clients.run(f"ddpt of={clients.two.node} bs=512 oflag=odx rtf=e.rt seek=0x700,64")
    assert "64+0 records out" in out
    assert clients.two.now(0x700, 64) == clients.one.first(32, 64)
