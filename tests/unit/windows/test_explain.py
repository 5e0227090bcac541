"""`explain` on our own pages, whole and with single bytes broken: it names the byte, and only those that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from windows_machine import Altered

from qemu_odx.windows.explain import copy_plan
from qemu_odx.windows.explain.copy_plan import COPY_BYTES
from qemu_odx.windows.explain.opening import looking_only
from qemu_odx.windows.explain.report import Explanation, as_lines, as_object, explain
from qemu_odx.windows.port import Completion
from qemu_odx.wire.scsi.sense import INVALID_FIELD_IN_CDB, Status

if TYPE_CHECKING:
    from windows_machine import Machine

MIB = 1 << 20
ENOUGH = 500
"""Commands after which a plan is given up: more than a copy by our disk's own limits takes."""
PAGE_00, PAGE_8F, PAGE_B0 = (bytes((0x12, 1, code)) for code in (0x00, 0x8F, 0xB0))
MODE, STANDARD, CAPACITY = b"\x1a", b"\x12\x00", b"\x9e"
LOOKED_AT = {2, 3, 4, 5, 6, 7}
"""Bytes of page 8Fh that decide; the limits behind them are taken as they are."""
REFUSED = Completion(Status.CHECK_CONDITION, INVALID_FIELD_IN_CDB.fixed())


@pytest.fixture(autouse=True)
def short_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long ones are given up sooner than for users."""
    monkeypatch.setattr(copy_plan, "_MOST_COMMANDS", ENOUGH)


def broken(machine: Machine, head: bytes, **bytes_at: int) -> Explanation:
    """Our disk with some bytes of one answer changed: b4=0x01 is byte 4."""
    changes = {int(name[1:]): value for name, value in bytes_at.items()}
    return explain(looking_only(Altered(machine.carrier(), {head: changes})))


def test_our_disk_has_odx_and_nothing_against_it(machine: Machine) -> None:
    """On, no advice, and the limits in bytes."""
    told = explain(looking_only(machine.carrier()))
    assert told.on
    assert told.advice == ()
    told_json = as_object(told, "us")
    assert told_json["odx"] is True
    assert told_json["blame"] is None
    assert told_json["commands"]["write_using_token"] == {"range_descriptors": 64, "bytes": 64 * MIB}
    assert told_json["commands"]["populate_token_with_time_to_live"]["bytes"] == 1 << 40
    assert told_json["pages"]["VPD 00h"] == "000000070080838fb0b1b2"


def test_a_copy_of_10_gib_is_cut_at_the_optimum(machine: Machine) -> None:
    """160 tokens and 160 writes of 64 MiB."""
    plan = as_object(explain(looking_only(machine.carrier())), "us")["copy"]
    assert plan["finished"]
    assert plan["bytes"] == COPY_BYTES
    assert plan["populate_token"] == {"count": 160, "bytes": [{"size": 64 * MIB, "times": 160}]}
    assert plan["write_using_token"] == {"count": 160, "bytes": [{"size": 64 * MIB, "times": 160}]}
    assert plan["scsi_commands"] == 480


def test_without_an_optimum_a_token_is_as_large_as_the_file(machine: Machine) -> None:
    """OPTIMAL TRANSFER COUNT 0: one token, 40 requests of CopyFile, writes of 64 MiB."""
    told = broken(machine, PAGE_8F, **{f"b{at}": 0 for at in range(32, 40)})
    assert told.plan is not None
    assert told.plan.tokens == (COPY_BYTES,)
    assert told.plan.requests == 40
    assert told.plan.writes == (64 * MIB,) * 160


def test_tiny_limits_end_the_plan_unfinished(machine: Machine) -> None:
    """A token of one block: the plan is given up instead of running for ever, and the words say so."""
    nothing = {f"b{at}": 0 for at in range(24, 31)} | {"b31": 1}
    told = broken(machine, PAGE_8F, **nothing)
    assert told.plan is not None
    assert not told.plan.finished
    assert any("no further than" in line for line in as_lines(told, "us"))


@pytest.mark.parametrize("byte", range(40))
def test_every_byte_of_page_8f(machine: Machine, byte: int) -> None:
    """Of the head and the first descriptor, exactly the bytes Windows looks at switch ODX off, and are named."""
    told = broken(machine, PAGE_8F, **{f"b{byte}": 0x00 if byte in {2, 7} else 0x17})
    if byte in {2, 3}:  # PAGE LENGTH 0234h becomes 0034h or 0217h: long enough
        assert told.on
    elif byte in LOOKED_AT:
        assert told.blame is not None
        assert (told.blame.page, told.blame.byte) == ("VPD 8Fh", byte)
        assert f"byte {byte}" in "\n".join(as_lines(told, "us"))
        assert as_object(told, "us")["blame"]["byte"] == byte
    else:
        assert told.on


@pytest.mark.parametrize(("high", "low", "byte"), [(0, 0x23, 3), (0, 0, 3)])
def test_a_page_8f_that_is_too_short(machine: Machine, high: int, low: int, byte: int) -> None:
    """PAGE LENGTH below 24h."""
    told = broken(machine, PAGE_8F, b2=high, b3=low)
    assert told.blame is not None
    assert (told.blame.page, told.blame.byte) == ("VPD 8Fh", byte)


@pytest.mark.parametrize(
    ("byte", "value"), [(4, 1), (5, 0), (6, 0x80), (7, 0x83), (8, 0), (9, 0xB0), (10, 0xB1)]
)
def test_every_code_of_page_00(machine: Machine, byte: int, value: int) -> None:
    """A list that does not ascend strictly from 00h is given up at the byte that is named."""
    told = broken(machine, PAGE_00, **{f"b{byte}": value})
    assert told.blame is not None
    assert (told.blame.page, told.blame.byte) == ("VPD 00h", byte)
    assert not told.on


def test_a_count_too_large_is_blamed_on_the_first_zero(machine: Machine) -> None:
    """Windows reads on into zeros, and those do not ascend."""
    told = broken(machine, PAGE_00, b3=8)
    assert told.blame is not None
    assert (told.blame.byte, told.blame.found) == (11, "00h")


def test_a_list_without_8f_is_told(machine: Machine) -> None:
    """The page may be there: unlisted it is never read."""
    told = broken(machine, PAGE_00, b7=0x90)
    assert told.blame is not None
    assert told.blame.wanted == "8Fh in the list"


@pytest.mark.parametrize(
    ("head", "page"),
    [(PAGE_00, "VPD 00h"), (PAGE_8F, "VPD 8Fh"), (STANDARD, "INQUIRY"), (CAPACITY, "READ CAPACITY")],
)
def test_a_refused_command_is_blamed(machine: Machine, head: bytes, page: str) -> None:
    """No byte, but the page and what came instead."""
    told = explain(looking_only(Altered(machine.carrier(), answers={head: REFUSED})))
    assert told.blame is not None
    assert (told.blame.page, told.blame.byte) == (page, None if head != STANDARD else 0)


def test_another_kind_of_device_is_no_disk(machine: Machine) -> None:
    """Peripheral type 05h."""
    told = broken(machine, STANDARD, b0=5)
    assert told.blame is not None
    assert (told.blame.page, told.blame.found) == ("INQUIRY", "05h")


ADVICE = {
    "finite transfer length": (PAGE_B0, {"b11": 8}, "VPD B0h", 8),
    "page b0 too short": (PAGE_B0, {"b3": 4}, "VPD B0h", None),
    "page b0 not listed": (PAGE_00, {"b3": 4}, "VPD B0h", None),
    "qerr": (MODE, {"b15": 0x12}, "control mode page", 3),
    "few ranges": (PAGE_8F, {"b14": 0, "b15": 3}, "VPD 8Fh", 14),
    "token smaller than optimum": (PAGE_8F, {"b27": 0, "b28": 0, "b29": 1}, "VPD 8Fh", 24),
    "small pieces": (PAGE_8F, {"b37": 0, "b38": 1}, "VPD 8Fh", 32),
    "large pieces": (PAGE_8F, {"b36": 0xFF}, "VPD 8Fh", 32),
    "short life": (PAGE_8F, {"b23": 3}, "VPD 8Fh", 20),
}


@pytest.mark.parametrize("name", list(ADVICE))
def test_what_works_against_odx_is_told(machine: Machine, name: str) -> None:
    """ODX stays on; page and byte of what hurts are named."""
    head, changes, page, byte = ADVICE[name]
    told = broken(machine, head, **changes)
    assert told.on
    assert (page, byte) in {(item.page, item.byte) for item in told.advice}
    assert "But:" in as_lines(told, "us")


def test_nothing_is_changed_on_the_disk(machine: Machine) -> None:
    """QERR is told, not cleared; only commands that ask reach the disk."""
    told = broken(machine, MODE, b15=0x12)
    assert told.known.qerr == 1
    assert {cdb[0] for _, cdb in machine.sent} <= {0x12, 0x1A, 0x9E}
