"""Copies that a kill breaks off, commands that are sent again, and what initiators are told of a restart."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from life import SIZE, Killed, Life

from qemu_odx.testing.initiator import Initiator
from qemu_odx.testing.runner import HeldRunner
from qemu_odx.tokens.token import Fault
from qemu_odx.wire.scsi.token_lists import Range, TokenInformation

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.testing.initiator import Answer

BLOCKS = SIZE // 512
MIB = 1 << 20
OLD, NEW = b"o" * SIZE, b"n" * SIZE
TERMINATED, DONE, FAILED = 0x60, 0x01, 0x02
RESET = (6, 0x29, 0)
PARTS = bytes((number % 251) + 1 for number in range(SIZE // 4096))
STAMP = b"a stamp"


def outcome(life: Life, identifier: int) -> TokenInformation:
    """The result of a copy."""
    return TokenInformation.parse(life.initiator.information(1, identifier).data)


@pytest.fixture
def held(tmp_path: Path) -> tuple[Life, bytes]:
    """A life whose copies wait, and a token of all of d0, which was overwritten since."""
    runner = HeldRunner()
    life = Life(tmp_path, runner=runner)
    life.disks[0].write(0, [OLD])
    identifier = next(life.initiator.identifiers)
    life.initiator.populate(0, [Range(0, BLOCKS)], identifier=identifier, immediate=True)
    runner.run_all()
    token = TokenInformation.parse(life.initiator.information(0, identifier).data).token
    assert token
    life.disks[0].write(0, [NEW])
    return life, token


def test_a_background_copy_goes_on(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """From the count that was told: what the guest has done to those blocks since is not undone."""
    life, token = held
    answer = life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    assert answer.good
    (operation,) = life.manager.operations.all_running()
    operation.count = MIB // 512
    assert outcome(life, 77).status.count == MIB // 512
    life.disks[1].write(0, [b"g" * MIB])
    life.kill()
    life = Life(tmp_path)
    assert life.contents(1) == b"g" * MIB + OLD[MIB:]
    assert (outcome(life, 77).status.status, outcome(life, 77).status.count) == (DONE, BLOCKS)
    life.end()


def test_a_background_copy_goes_on_after_an_orderly_end(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """It stops at its next step and goes on in the successor, without a word."""
    life, token = held
    life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    life.manager.pause()
    assert isinstance(life.runner, HeldRunner)
    life.runner.run_all()
    assert life.contents(1) == bytes(SIZE)
    life.end()
    life = Life(tmp_path)
    assert life.contents(1) == OLD
    assert outcome(life, 77).status.status == DONE
    life.end()


def test_a_background_copy_whose_token_is_cancelled(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """Its result says so."""
    life, token = held
    life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    life.kill()
    (tmp_path / ".d0.img.odx-old").unlink()
    life = Life(tmp_path)
    assert life.contents(1) == bytes(SIZE)
    status = outcome(life, 77).status
    assert (status.status, status.sense[2] & 0x0F, status.sense[12:14]) == (FAILED, 5, b"\x23\x08")
    life.end()


def test_a_token_that_was_revoked_while_a_copy_ran(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """In the next process too, the copy goes on to its end, and nobody else may use the token."""
    life, token = held
    life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    (live,) = life.manager.tokens
    life.manager.tokens.kill(live, Fault.REVOKED)
    life.kill()
    runner = HeldRunner()
    life = Life(tmp_path, runner=runner)
    assert life.initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 6)
    runner.run_all()
    assert (life.contents(1), outcome(life, 77).status.status) == (OLD, DONE)
    assert len(life.manager.tokens) == 0
    life.kill()
    life = Life(tmp_path)
    assert life.initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 6)
    life.end()


def test_a_stopped_copy_stays_stopped(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """Killed while the abort waited: the copy is over, and the abort, sent again, is answered well. Once."""
    life, token = held
    life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    abort = bytes((0x83, 0x1C)) + (77).to_bytes(4, "big") + bytes(10)
    with pytest.raises(ValueError, match="not enough values"):  # no answer yet
        life.carry(1, abort, b"", STAMP)
    life.kill()
    life = Life(tmp_path)
    assert outcome(life, 77).status.status == TERMINATED
    assert life.carry(1, abort, b"", STAMP).good
    assert life.carry(1, abort, b"", b"another").fault == (5, 0x24, 0)
    assert life.contents(1) == bytes(SIZE)
    life.end()


def test_a_reset_unit_stays_reset(held: tuple[Life, bytes], tmp_path: Path) -> None:
    """Its copy does not come back in another process."""
    life, token = held
    life.initiator.write_token(1, token, [Range(0, BLOCKS)], identifier=77, immediate=True)
    life.target.reset_lun(1, lambda _done: None)
    life.kill()
    life = Life(tmp_path)
    assert life.initiator.information(1, 77).fault == (5, 0x24, 0)
    assert life.contents(1) == bytes(SIZE)
    life.end()


def test_what_was_answered_is_answered_again(tmp_path: Path) -> None:
    """POPULATE TOKEN and WRITE USING TOKEN that had ended, the second with the end of its token."""
    life = Life(tmp_path)
    life.disks[0].write(0, [OLD])
    sent: list[tuple[int, bytes, bytes]] = []
    carry = life.initiator.carry

    def send(lun: int, cdb: bytes, data_out: bytes) -> Answer:
        sent.append((lun, cdb, data_out))
        return (
            life.carry(lun, cdb, data_out, b"%d" % len(sent)) if cdb[0] == 0x83 else carry(lun, cdb, data_out)
        )

    life.initiator.carry = send
    token = life.initiator.token(0, [Range(0, 8)])
    assert life.initiator.write_token(1, token, [Range(0, 8)], delete=True).good
    life.kill()
    life = Life(tmp_path)
    for number, (lun, cdb, data_out) in enumerate(sent, 1):
        if cdb[0] == 0x83:
            assert life.carry(lun, cdb, data_out, b"%d" % number).good
    assert len(life.manager.tokens) == 0
    assert life.initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 9)
    life.end()


@pytest.mark.parametrize("policy", ["copy-before-write", "reflink"])
def test_a_token_from_first_to_last(tmp_path: Path, policy: str, request: pytest.FixtureRequest) -> None:
    """Made, written over, used and deleted: killed at every step of the journal, and each command sent again."""
    base = (
        tmp_path if policy == "copy-before-write" else request.getfixturevalue("xfs") / "from first to last"
    )
    deaths = 0
    for fuse in range(200):
        folder = base / str(fuse)
        folder.mkdir(parents=True)
        life = Life(folder, policy=policy)
        life.disks[0].write(0, [OLD])
        life.fuse = fuse

        def insist(lun: int, cdb: bytes, data_out: bytes) -> Answer:
            nonlocal life, deaths, stamp
            stamp += 1
            while True:
                try:
                    return life.carry(lun, cdb, data_out, b"%d" % stamp)
                except Killed:
                    deaths += 1
                    life = Life(folder, policy=policy)  # noqa: B023 - called in this turn only

        stamp = 0
        initiator = Initiator(insist)
        token = initiator.token(0, [Range(0, BLOCKS)])
        assert initiator.write(0, 0, 1024, NEW[: 512 << 10]).good
        assert initiator.write_token(1, token, [Range(0, BLOCKS)], delete=True).good, fuse
        assert life.contents(1) == OLD, fuse
        assert initiator.write_token(1, token, [Range(0, 8)]).fault == (5, 0x23, 9)
        assert len(life.manager.tokens) == 0
        assert not life.state.store.rows("SELECT note FROM copies WHERE NOT ended")
        alive = life.fuse is not None
        life.fuse = None
        life.end()
        assert not list(folder.glob(".*.odx-old"))
        for path in folder.glob("*.img"):
            path.unlink()
        if alive:
            break
    assert deaths > 15


# -- EXTENDED COPY that writes what it reads -------------------------------------------------------


def extended_copy(life: Life, segments: list[tuple[int, int, int]]) -> bytes:
    """The parameter list of an EXTENDED COPY(LID1) inside unit 0: source, destination, blocks of each (SPC-4 6.4)."""
    page = life.initiator.command(0, "12018300ff00").data
    name = page.partition(bytes.fromhex("01030010"))[2][:16]
    cscd = bytes((0xE4, 0, 0, 0, 1, 3, 0, 16)) + name + bytes(5) + (512).to_bytes(3, "big")
    parts = [
        bytes.fromhex("0200001800000000")
        + bytes(2)
        + blocks.to_bytes(2, "big")
        + source.to_bytes(8, "big")
        + destination.to_bytes(8, "big")
        for source, destination, blocks in segments
    ]
    described = b"".join(parts)
    head = (
        bytes((1, 0)) + len(cscd).to_bytes(2, "big") + bytes(4) + len(described).to_bytes(4, "big") + bytes(4)
    )
    return head + cscd + described


@pytest.mark.parametrize("policy", ["copy-before-write", "reflink"])
def test_a_tangled_extended_copy(tmp_path: Path, policy: str, request: pytest.FixtureRequest) -> None:
    """Killed at every step of the journal: it goes on from the segment that it was at, and from its old data."""
    base = tmp_path if policy == "copy-before-write" else request.getfixturevalue("xfs") / "tangled"
    before = b"".join(bytes((part,)) * 4096 for part in PARTS)
    segments = [(0, 8, 256), (8, 0, 256), (100, 116, 600)]  # each onto its own source, and the one before
    expected = bytearray(before)
    for source, destination, blocks in segments:
        expected[destination * 512 : (destination + blocks) * 512] = expected[
            source * 512 : (source + blocks) * 512
        ]
    deaths = 0
    for fuse in range(200):
        folder = base / str(fuse)
        folder.mkdir(parents=True)
        life = Life(folder, policy=policy)
        life.disks[0].write(0, [before])
        data = extended_copy(life, segments)
        cdb = bytes((0x83, 0)) + bytes(8) + len(data).to_bytes(4, "big") + bytes(2)
        life.fuse = fuse
        try:
            answer = life.carry(0, cdb, data, STAMP)
        except Killed:
            deaths += 1
            life = Life(folder, policy=policy)
            answer = life.carry(0, cdb, data, STAMP)
        assert answer.good, (fuse, answer)
        assert life.contents(0) == expected, fuse
        died, life.fuse = life.fuse is None, None
        life.end()
        assert not list(folder.glob(".*.odx-old"))
        for path in folder.glob("*.img"):
            path.unlink()
        if not died:
            break
    assert deaths > 20


# -- what initiators are told ----------------------------------------------------------------------


def quiet(life: Life) -> None:
    """A second passes in which nothing happens."""
    life.manager.settle()


def told(life: Life) -> tuple[int, int, int] | None:
    """What a new life tells the initiator of before, if anything."""
    return life.first.fault


@pytest.mark.parametrize("how", ["kill", "end"])
def test_a_quiet_initiator_hears_nothing(tmp_path: Path, how: str) -> None:
    """Of any number of restarts."""
    life = Life(tmp_path)
    assert told(life) == RESET
    quiet(life)
    for _ in range(3):
        getattr(life, how)()
        life = Life(tmp_path)
        assert told(life) is None
    life.end()


@pytest.mark.parametrize(
    ("cdb", "data_out"),
    [
        ("1510000018", "the caching page"),
        ("5f00000000000000180000", "00" * 8 + "0000000000000001" + "00" * 8),
        ("16", ""),
        ("1b", ""),
        ("1e00000001", ""),
    ],
    ids=["mode select", "register", "reserve", "stop", "prevent removal"],
)
def test_who_loses_something_is_told(tmp_path: Path, cdb: str, data_out: str) -> None:
    """What the process knew and no journal has, right from the command on."""
    life = Life(tmp_path)
    quiet(life)
    if data_out == "the caching page":
        page = bytearray(life.initiator.command(0, "1a080800c0").data[4:])
        page[2] &= ~0x04
        data_out = (bytes(4) + page).hex()
    assert life.initiator.command(0, cdb, bytes.fromhex(data_out)).good
    life.kill()
    life = Life(tmp_path)
    assert told(life) == RESET
    life.end()


def test_a_pending_attention_is_not_lost_in_silence(tmp_path: Path) -> None:
    """Who has not been told of a new size is told that there was a restart."""
    life = Life(tmp_path)
    quiet(life)
    life.disks[0].resize(SIZE * 2)
    life.target.resized(life.disks[0])
    quiet(life)
    life.kill()
    os.truncate(tmp_path / "d0.img", SIZE)
    life = Life(tmp_path)
    assert told(life) == RESET
    life.end()


def test_an_attention_of_a_unit_that_came_later(tmp_path: Path) -> None:
    """Units that are added while guests use others are no exception."""
    life = Life(tmp_path)
    life.target.remove(1, lambda _done: None)
    life.target.add(1, life.disks[1])
    for lun in (0, 1):
        assert life.initiator.command(lun, "00").fault
    while life.initiator.command(0, "00").fault:
        pass
    quiet(life)
    life.target.reset_lun(1, lambda _done: None)
    life.kill()
    life = Life(tmp_path)
    assert told(life) == RESET
    life.end()
