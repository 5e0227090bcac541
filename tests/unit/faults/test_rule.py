"""What rules may say, and what is answered to those that may not."""

from __future__ import annotations

import errno

import pytest
from rules import rule

from qemu_odx.faults.actions import ACTIONS
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.match import When
from qemu_odx.faults.senses import SENSES
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi.sense import Key, Status


def test_everything_at_once() -> None:
    """Each key ends up where it belongs."""
    made = rule(
        "name=one,op=WRITE USING TOKEN+read,disk=d0,export=s.sock,cdb=83 11,mask=ff1f,lba=100-199,after=1,nth=2,"
        "count=3,probability=0.5,seed=7,armed=off,action=sense,sense=token-expired,information=5,when=after"
    )
    assert {"WRITE USING TOKEN", "READ(16)", "READ(6)"} <= made.match.operations
    assert "WRITE(16)" not in made.match.operations
    assert (made.match.disk, made.match.export, made.match.lba) == ("d0", "s.sock", (100, 199))
    assert (made.match.cdb, made.match.mask) == (b"\x83\x11", b"\xff\x1f")
    assert made.when == When(after=1, nth=2, every=1, count=3, probability=0.5, seed=7)
    assert made.action.sense is not None
    assert (made.action.sense.key, made.action.sense.asc, made.action.sense.ascq) == (5, 0x23, 7)
    assert (made.action.sense.information, made.action.after) == (5, True)
    assert (made.name, made.armed) == ("one", False)
    assert made.text.startswith("op=WRITE USING TOKEN+read,disk=d0")


def test_every_token_cause_has_its_name() -> None:
    """All of 23h, from the registry's causes and the standard's table, each by name."""
    by_name = {sense.ascq: name for name, sense in SENSES.items() if sense.asc == 0x23}
    assert sorted(by_name) == list(range(0x0B))
    for cause in Fault:
        made = rule(f"action=sense,sense={by_name[cause.value]}").action.sense
        assert made is not None
        assert (made.key, made.asc, made.ascq) == (Key.ILLEGAL_REQUEST, 0x23, cause.value)


@pytest.mark.parametrize("text", ["3/11/00", "3h/11h/0h", "unrecovered-read-error", "Unrecovered Read Error"])
def test_ways_to_write_a_sense_code(text: str) -> None:
    """By number, or by the standard's words."""
    made = rule(f"sense={text}").action.sense
    assert made is not None
    assert (made.key, made.asc, made.ascq) == (3, 0x11, 0)


def test_a_sense_key_of_its_own() -> None:
    """What EXTENDED COPY tells by COPY ABORTED, Windows wants by ILLEGAL REQUEST."""
    made = rule("sense=unreachable-copy-target,key=illegal-request").action.sense
    assert made is not None
    assert (made.key, made.asc, made.ascq) == (5, 8, 4)


def test_words_of_actions() -> None:
    """Status words, errno names, directions."""
    assert rule("action=status,status=TASK SET FULL").action.status == Status.TASK_SET_FULL
    assert rule("action=blk-status,status=unsupp").action.status == 2
    assert rule("action=disk-error,errno=ENODEV").action.error == errno.ENODEV
    assert rule("action=disk-error").action.error == errno.EIO
    assert rule("action=bit-flip,way=out,bit=3").match.operations == {"disk-write"}
    assert rule("action=torn-write,bytes=512,report=ok").action.silent
    assert rule("action=delay,seconds=0.25").action.seconds == 0.25


def test_without_op_an_action_means_what_it_can_do() -> None:
    """No action is tried on requests for which it means nothing."""
    assert "WRITE USING TOKEN" in rule("action=partial,blocks=1").match.operations
    assert rule("action=short-read,blocks=1").match.operations >= {"IN", "READ(10)"}
    assert not rule("sense=token-expired").match.operations
    assert rule("action=disk-error,op=read").match.operations == {"disk-read"}
    assert rule("sense=3/11/00,op=read+INQUIRY").match.operations > {"INQUIRY", "READ(10)"}
    assert "IN" not in rule("sense=3/11/00,op=read").match.operations


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("op=read", "'action=' is missing; actions are sense, status"),
        ("action=explode", "'explode' is no action; actions are sense"),
        ("action=sense", "action=sense needs 'sense='"),
        (
            "sense=token-expird",
            "no sense code: write KEY/ASC/ASCQ in hexadecimal (3/11/00) or a name such as",
        ),
        ("sense=3/11/00,key=sesame", "'sesame' is no sense key; there are no-sense"),
        ("action=delay", "action=delay needs 'seconds='"),
        ("action=delay,seconds=-1", "seconds: '-1' is no number of seconds"),
        (
            "action=delay,seconds=1,sense=3/11/00",
            "unknown key 'sense'; with action=delay known keys are name",
        ),
        ("action=stall,op=wrote", "op: 'wrote' is no operation; "),
        ("action=stall,op=token+populate", "did you mean POPULATE TOKEN?"),
        ("action=stall,name=a b", "name: 'a b' may hold letters"),
        ("action=stall,lba=9-3", "lba: '9-3' ends before it begins"),
        ("action=stall,lba=x", "lba: 'x' is no number"),
        ("action=stall,lba=99999999999999999999", "lba: '99999999999999999999' is no number"),
        ("action=stall,nth=0", "nth: it is counted from 1"),
        ("action=stall,every=0", "every: it is counted from 1"),
        ("action=stall,probability=1.5", "probability: '1.5' is no probability"),
        ("action=stall,cdb=zz", "cdb: 'zz' is not made of bytes"),
        ("action=stall,cdb=8311,mask=ff", "mask: it has 1 bytes, and cdb= has 2"),
        ("action=stall,when=later", "when: 'later' is not one of before, after"),
        ("action=stall,armed=maybe", "armed: 'maybe' is not one of on, off"),
        ("action=status,status=angry", "status: 'angry' is not one of good, condition-met, busy"),
        ("action=status,status=check-condition", "status: 'check-condition' is not one of"),
        ("action=blk-status,status=busy", "status: 'busy' is not one of ioerr, unsupp"),
        ("action=partial,blocks=1,key=illegal-request", "'key=' changes the sense key of 'sense='"),
        ("sense=3/11/00,information=4294967296", "information: '4294967296' does not fit into 32 bits"),
        ("action=disk-error,errno=E2BIG", "errno: 'E2BIG' is not one of EIO"),
        ("action=disk-error,op=INQUIRY", "op: action=disk-error can happen to what is met at the disk level"),
        (
            "action=partial,blocks=1,op=WRITE SAME(16)",
            "can happen to read+WRITE(6)+WRITE(10)+WRITE(12)+WRITE(16)+OUT+token, and 'WRITE SAME(16)' is none",
        ),
        ("action=bit-flip,way=out,op=read", "can happen to disk-write, and 'read' is none of it"),
        ("action=bit-flip,bit=8", "bit: '8' is not one of 0, 1"),
    ],
)
def test_wrong_rules_are_told_why(text: str, told: str) -> None:
    """One sentence with the key and the cure."""
    with pytest.raises(FaultRuleError) as caught:
        rule(text)
    assert told in str(caught.value)


def test_the_table_of_actions_is_sound() -> None:
    """Every option that is required is known; every default of operations can be parsed."""
    for name, kind in ACTIONS.items():
        assert set(kind.required) <= set(kind.options), name
        assert kind.levels, name
        assert kind.summary.endswith("."), name
