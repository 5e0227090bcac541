"""The vector format as others write it: other words for events, repetitions, notes, what is left open."""

from __future__ import annotations

from typing import Any

import pytest

from qemu_odx.testing.conformance.compare import as_good
from qemu_odx.testing.conformance.replay import replay

PT = {
    "cdb": "83100000000000000007000000200000",
    "data_out": "001e000000000000000000000000001000000000000000100000000400000000",
    "status": "GOOD",
}
RRTI = {"cdb": "84070000000700000000000004000000"}
UNKNOWN = {"status": "CHECK CONDITION", "sense": {"key": 5, "asc": 0x24, "ascq": 0}}
WRITE_PROTECTED = {"status": "CHECK CONDITION", "sense": {"key": 7, "asc": 0x27, "ascq": 0}}
WRITE = {"cdb": "2a00000000100000010000", "data_out": "41" * 512}


def _replay(*steps: dict[str, Any], **more: Any) -> str:
    """Why the vector failed, nothing if it did not."""
    return replay({"id": "v", "steps": list(steps), **more}).why


@pytest.mark.parametrize(
    "name", ["nexus_loss", "nexus loss", "I_T nexus loss", "I_T NEXUS LOSS", "nexus-lost"]
)
def test_words_for_nexus_loss(name: str) -> None:
    """Results are dropped, whatever the event is called."""
    assert not _replay(PT, {"event": name, "nexus": "I0"}, {**RRTI, **UNKNOWN})


@pytest.mark.parametrize("name", ["lu_reset", "LU reset", "logical unit reset", "reset"])
def test_words_for_a_reset(name: str) -> None:
    """Results are dropped, whatever the event is called."""
    assert not _replay(PT, {"event": name, "lun": 0}, {**RRTI, **UNKNOWN})


def test_a_unit_attention_may_be_expected() -> None:
    """A vector may look at the unit attention itself, or leave it to the initiator."""
    told = {"status": "CHECK CONDITION", "sense": {"key": 6, "asc": 0x29, "ascq": 7}}
    loss = {"event": "nexus_loss"}
    assert not _replay(PT, loss, {**RRTI, **told}, {**RRTI, **UNKNOWN})
    assert "UNIT ATTENTION" not in _replay(PT, loss, {**RRTI, **UNKNOWN})


@pytest.mark.parametrize("name", ["write_protect", "write protect", "read-only"])
def test_words_for_write_protection(name: str) -> None:
    """A write is refused afterwards."""
    assert not _replay({"event": name, "lun": 0}, {**WRITE, "lun": 0, **WRITE_PROTECTED})


@pytest.mark.parametrize("more", [{"seconds": 61}, {"s": 61}, {"ms": 61_000}, {"by": 61}])
def test_ways_to_move_the_clock(more: dict[str, int]) -> None:
    """A token is dead afterwards: REPORT ALL ROD TOKENS has none."""
    none = {"cdb": "84080000000000000000000004000000", "status": "GOOD", "data_in": "0000000400000000"}
    assert not _replay(PT, {"event": "advance", **more}, none)
    assert _replay(PT, {"event": "advance", "seconds": 59}, none)


def test_an_event_without_its_number() -> None:
    """It says which one is missing."""
    assert "lacks a number: give it as 'seconds'" in _replay({"event": "advance"})


def test_an_unknown_event() -> None:
    """It names those that are known."""
    assert "unknown event 'earthquake': use one of advance, background" in _replay({"event": "earthquake"})


def test_writes_past_every_nexus() -> None:
    """The event "write" changes the disk; check_data takes bytes, or the first ones."""
    place = {"lun": 0, "lba": 16, "blocks": 1}
    write = {"event": "write", "lun": 0, "lba": 16, "data": "5a" * 512}
    assert not _replay(write, {"check_data": {**place, "data": "5a" * 512}})
    assert not _replay(write, {"check_data": {**place, "first16": "5a" * 16}})
    assert "expected other content, found" in _replay(write, {"check_data": {**place, "first16": "00"}})
    assert "nothing to compare with" in _replay({"check_data": place})


@pytest.mark.parametrize(
    "words", ["the step above for LIST IDENTIFIER 8 to 10", {"from": 8, "to": 10}, "3 more times", 3]
)
def test_ways_to_repeat(words: Any) -> None:
    """The step above is done again, with other list identifiers where they are given."""
    listed = {"cdb": "84080000000000000000000000080000", "status": "GOOD", "data_in_len": 8}
    four = {**listed, "cdb": "84080000000000000000000004000000", "data_in_len": 8 + 4 * 96}
    assert not _replay(PT, {"repeat": words}, four)


def test_a_repetition_that_cannot_be_read() -> None:
    """It says how to write one."""
    assert "write LIST IDENTIFIER N to M, or N times" in _replay(PT, {"repeat": "often"})
    assert "no step above to repeat" in _replay({"repeat": 3})


def test_a_note_allows_another_sense() -> None:
    """A note that calls another code as good is believed; one that only mentions a code is not."""
    bad = {"cdb": "83120000000000000000000000000000", "status": "CHECK CONDITION"}
    sense = {"sense": {"key": 5, "asc": 0x20, "ascq": 0}}
    assert "expected" in _replay({**bad, **sense})
    assert not _replay({**bad, **sense}, note="24h/00h is as good an answer")
    assert as_good("INVALID FIELD at byte 1; 20h/00h is common too") == {(0x20, 0)}
    assert as_good("24/00 would be wrong. Others are as good") == set()


def test_sense_by_its_bytes_alone() -> None:
    """Fixed-format bytes without key and codes are an expectation too."""
    fixed = "700005000000000a00000000240000000000"
    assert not _replay({**RRTI, "status": 2, "sense": {"fixed": fixed}})
    other = fixed.replace("2400", "2600")
    assert "expected ILLEGAL REQUEST 26/00" in _replay({**RRTI, "sense": {"fixed": other}})


def test_one_of_several_senses() -> None:
    """A list of senses: any of them will do."""
    several = [{"key": 5, "asc": 0x26, "ascq": 0}, {"key": 5, "asc": 0x24, "ascq": 0}]
    assert not _replay({**RRTI, "status": "CHECK_CONDITION", "sense": several})
    assert _replay({**RRTI, "sense": several[:1]})


def test_information_in_fixed_bytes_counts() -> None:
    """A count in the bytes is compared as well."""
    unknown = {**RRTI, "status": "CHECK CONDITION"}
    fixed = "f0000500000004" + "0a00000000240000000000"
    assert "INFORMATION None, expected 4" in _replay({**unknown, "sense": {"fixed": fixed}})


def test_a_wrong_field_pointer_is_seen() -> None:
    """A pointer need not be there, but must not be wrong."""
    sense = {"key": 5, "asc": 0x24, "ascq": 0, "sks_optional": {"in_cdb": True, "byte": 6}}
    assert "field pointer at byte 2, expected byte 6" in _replay({**RRTI, "sense": sense})


def test_captured_steps_without_a_status() -> None:
    """What an initiator sent is sent; nothing is expected of the answer, and nexus and LUN have defaults."""
    assert not _replay({"do": "INQUIRY", "cdb": "120000002400"}, RRTI, {"cdb": "ff"}, later_key={"a": 1})


def test_a_changed_token() -> None:
    """`then_set` may be one change or several, `save` one place or several."""
    take = {**RRTI, "status": "GOOD", "save": [{"name": "T", "offset": 38, "length": 512}]}
    changes = [{"offset_in_token": 6, "hex": "01f0"}, {"offset_in_token": 0, "hex": "00"}]
    put = {"name": "T", "offset": 16, "length": 512, "then_set": changes}
    write = {
        "cdb": "83110000000000000008000002280000",
        "data_out": "0226" + "00" * 532 + "0010" + "00000000000001900000000100000000",
        "data_out_token": put,
    }
    fault = {"status": "CHECK CONDITION", "sense": {"key": 5, "asc": 0x23, "ascq": 0x0A}}
    assert not _replay(PT, take, {**write, **fault})
    assert "no step above saved 'T'" in _replay({**write, **fault})


def test_tokens_that_end_by_an_event() -> None:
    """Revoked by the administrator, or cancelled with their logical unit, which is then no longer there."""
    none = {
        "cdb": "84080000000000000000000004000000",
        "lun": 1,
        "status": "GOOD",
        "data_in": "0000000400000000",
    }
    gone = {"cdb": "00", "lun": 0, "status": "CHECK CONDITION", "sense": {"key": 5, "asc": 0x25, "ascq": 0}}
    changed = {"cdb": "00", "lun": 1}  # takes the unit attention
    assert not _replay(PT, {"event": "revoke"}, none)
    assert not _replay(PT, {"event": "remove_lu", "lun": 0}, gone, changed, none)


def test_a_target_of_its_own() -> None:
    """A vector may describe its own target."""
    own = {"lus": [{"lun": 3, "blocks": 100, "block_size": 4096}]}
    capacity = {"cdb": "25000000000000000000", "lun": 3, "status": "GOOD", "data_in": "0000006300001000"}
    assert not _replay(capacity, reference_target=own)


def test_data_of_another_length_is_a_mismatch() -> None:
    """Not an error of ours."""
    step = {"cdb": "25000000000000000000", "status": "GOOD", "data_in": "00"}
    assert "8 bytes of data-in, expected 1" in _replay(step)


def test_a_vector_without_steps_proves_nothing() -> None:
    """So it fails, as does a step without anything to do."""
    assert "no steps" in _replay()
    assert "nothing to do" in _replay({"do": "wonder"})


def test_a_step_that_lacks_something() -> None:
    """It says what."""
    assert "lacks or misnames something: KeyError('name')" in _replay({**RRTI, "save": {"offset": 3}})
