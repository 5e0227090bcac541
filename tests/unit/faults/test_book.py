"""Which requests rules hit, in which turn, and what the book says of it."""

from __future__ import annotations

import pytest
from rules import blk, rule, scsi

from qemu_odx.faults.book import FaultBook, UnknownRuleError
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.event import Event, Level


@pytest.fixture
def book() -> FaultBook:
    """An empty book; it is always ten o'clock."""
    return FaultBook(lambda: 10.0)


def hit(book: FaultBook, event: Event) -> list[str]:
    """Names of the rules that hit."""
    return [item.entry.name for item in book.hits(event)]


def turns(book: FaultBook, count: int = 20) -> list[int]:
    """Which of so many reads are hit, counted from 1."""
    return [number for number in range(1, count + 1) if hit(book, scsi("READ(16)", (0, 1)))]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("op=read", {"read at 10", "blk read at 10"}),
        ("op=READ(16)", {"read at 10"}),
        ("op=token", {"populate 5+2 and 50+1", "write token 0+0"}),
        ("lba=10", {"read at 10", "blk read at 10"}),
        ("lba=0-9", {"populate 5+2 and 50+1"}),
        ("lba=50", {"populate 5+2 and 50+1"}),
        ("lba=12-49", set()),
        ("lba=0", set()),
        ("disk=d1", set()),
        ("export=b.sock", {"blk read at 10", "flush"}),
        ("export=e0,op=READ(16)", {"read at 10"}),
        ("export=/run/s.sock,op=READ(16)", {"read at 10"}),
        ("export=/run/b.sock", set()),
        ("cdb=83", {"populate 5+2 and 50+1", "write token 0+0"}),
        ("cdb=8311", {"write token 0+0"}),
        ("cdb=8301,mask=ff01", {"write token 0+0"}),
        ("cdb=0011,mask=00ff", {"write token 0+0"}),
        (
            "op=read+flush+token",
            {"read at 10", "blk read at 10", "flush", "populate 5+2 and 50+1", "write token 0+0"},
        ),
        ("op=reset", {"unit reset"}),
    ],
)
def test_what_matches(book: FaultBook, text: str, wanted: set[str]) -> None:
    """By operation, place, disk, export and CDB; and the end of a range is not in it."""
    book.add(rule(f"action=stall,{text}"))
    requests = {
        "read at 10": scsi("READ(16)", (10, 2), cdb="88000000000000000a0000000200"),
        "blk read at 10": blk("IN", (10, 2)),
        "flush": blk("FLUSH"),
        "populate 5+2 and 50+1": scsi("POPULATE TOKEN", (5, 2), (50, 1), cdb="8310"),
        "write token 0+0": scsi("WRITE USING TOKEN", (0, 0), cdb="8311"),
        "unit reset": Event(Level.CONTROL, "LOGICAL UNIT RESET", "d0"),
    }
    assert {name for name, event in requests.items() if hit(book, event)} == wanted


def test_blocks_are_those_of_the_disk(book: FaultBook) -> None:
    """lba=3 of a disk of 4096-byte blocks are bytes 12288 to 16383."""
    book.add(rule("action=disk-error,lba=3"))
    for offset, is_hit in ((12287, True), (12288, True), (16383, True), (16384, False), (12286, False)):
        event = Event(Level.DISK, "disk-read", "d0", block_size=4096, find_runs=lambda at=offset: [(at, 2)])
        assert bool(hit(book, event)) is is_hit


def test_an_action_is_not_tried_where_it_means_nothing(book: FaultBook) -> None:
    """Sense data are SCSI's, an errno is the disk's, task management has to be named."""
    book.add(rule("name=sense,sense=3/11/00"))
    book.add(rule("name=disk,action=disk-error"))
    book.add(rule("name=all,action=stall"))
    assert hit(book, scsi("READ(16)")) == ["sense", "all"]
    assert hit(book, blk("IN")) == ["all"]
    assert hit(book, Event(Level.DISK, "disk-read", "d0")) == ["disk"]
    assert hit(book, Event(Level.CONTROL, "ABORT TASK", "d0")) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nth=3", [3]),
        ("after=10,count=2", [11, 12]),
        ("every=5", [5, 10, 15, 20]),
        ("after=2,every=5", [7, 12, 17]),
        ("after=2,nth=3", [5]),
        ("count=1", [1]),
        ("after=25", []),
        ("probability=0", []),
    ],
)
def test_turns(book: FaultBook, text: str, wanted: list[int]) -> None:
    """Which of twenty."""
    book.add(rule(f"op=read,action=stall,{text}"))
    assert turns(book) == wanted


def test_chance_is_the_same_each_time(book: FaultBook) -> None:
    """By its seed; arming a rule again begins anew; another seed is another choice."""
    book.add(rule("name=a,action=stall,probability=0.3,seed=1"))
    first = turns(book, 200)
    assert 30 < len(first) < 90
    book.arm("a")
    assert turns(book, 200) == first
    book.remove("a")
    book.add(rule("name=a,action=stall,probability=0.3,seed=2"))
    assert turns(book, 200) != first


def test_rules_stack_and_count_apart(book: FaultBook) -> None:
    """Each counts what it matches, whatever the others do; the order is that of the book."""
    book.add(rule("name=slow,action=delay,seconds=1,every=2"))
    book.add(rule("name=bad,sense=3/11/00,op=read,nth=2"))
    assert [hit(book, scsi("READ(16)")) for _ in range(4)] == [[], ["slow", "bad"], [], ["slow"]]


def test_a_rules_life(book: FaultBook) -> None:
    """Off, armed, spent, armed again, removed; and who listens is told each time."""
    told: list[int] = []
    book.changed.append(lambda: told.append(1))
    entry = book.add(rule("name=a,action=stall,count=1,armed=off"))
    assert (entry.state, hit(book, scsi("READ(16)")), entry.turns.seen) == ("off", [], 0)
    book.arm("a")
    assert (entry.state, book.armed_at(Level.SCSI), book.armed_at(Level.DISK)) == ("armed", True, False)
    assert hit(book, scsi("READ(16)")) == ["a"]
    assert (entry.state, entry.fired, entry.last, entry.last_event) == ("spent", 1, 10.0, "READ(16) on d0")
    assert hit(book, scsi("READ(16)")) == []
    assert not book.armed_at(Level.SCSI)
    book.arm("a")
    assert hit(book, scsi("READ(16)")) == ["a"]
    assert (entry.fired, entry.turns.hits) == (2, 1)
    book.arm("a")
    book.disarm("a")
    assert entry.state == "off"
    book.remove("a")
    assert list(book) == []
    assert len(told) >= 8


def test_names(book: FaultBook) -> None:
    """Given or made; never twice; unknown ones are told which there are."""
    assert book.add(rule("action=stall")).name == "stall-1"
    assert book.add(rule("action=stall")).name == "stall-2"
    book.add(rule("action=stall,name=mine"))
    with pytest.raises(FaultRuleError, match="there is a fault rule 'mine' already"):
        book.add(rule("action=stall,name=mine"))
    for change in (book.arm, book.disarm, book.remove, book.find):
        with pytest.raises(UnknownRuleError, match="no fault rule 'his'; there are: stall-1, stall-2, mine"):
            change("his")
