"""Traces that somebody else has made, or damaged: one sentence, exit code 3, and never a traceback."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from qemu_odx.cli.replay import replay
from qemu_odx.cli.trace import trace
from qemu_odx.testing.tap_bench import TapBench
from qemu_odx.trace.describe import nexus_name
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink
from qemu_odx.wire.scsi.token_lists import Range
from qemu_odx.wire.virtio.blk import RequestType

if TYPE_CHECKING:
    from pathlib import Path

HEAD = {
    "fresh": True,
    "exports": [
        {"id": "s.sock", "type": "vhost-user-scsi", "luns": {"0": "d0"}},
        {"id": "b.sock", "type": "vhost-user-blk", "disk": "d0"},
    ],
    "disks": [{"id": "d0", "size": 4096 * 512, "block_size": 512}],
}


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """A sound trace."""
    bench = TapBench()
    nexuses = {"s.sock": [nexus_name(nexus) for nexus in bench.target.nexuses()]}
    made = Recorder(Sink(tmp_path / "sound"), bench.clock, data=True, head=HEAD | {"nexuses": nexuses})
    bench.scsi.add(made)
    bench.blk.add(made)
    token = bench.initiator.token(0, [Range(0, 8)])
    bench.initiator.write_token(0, token, [Range(100, 8)])
    bench.initiator.write(0, 0, 1, bytes(512))
    bench.initiator.read(0, 0, 1)
    bench.post(RequestType.OUT, 20, b"\xee" * 512)
    bench.post(RequestType.IN, 20, room=512)
    made.close()
    bench.close()
    return (tmp_path / "sound").read_text().splitlines()


WRONG: tuple[Any, ...] = (None, -1, 1 << 70, "x", [], {}, [[1]], True, 1.5)


def spoil(record: Any, chance: random.Random) -> Any:
    """One value somewhere is another, or gone."""
    if isinstance(record, dict) and record:
        name = chance.choice(sorted(record))
        changed = dict(record)
        if chance.random() < 0.2:
            del changed[name]
        elif isinstance(record[name], dict | list) and chance.random() < 0.7:
            changed[name] = spoil(record[name], chance)
        else:
            changed[name] = chance.choice(WRONG)
        return changed
    if isinstance(record, list) and record:
        place = chance.randrange(len(record))
        return [*record[:place], spoil(record[place], chance), *record[place + 1 :]]
    return chance.choice(WRONG)


@pytest.mark.parametrize("seed", range(40))
def test_a_spoilt_record(lines: list[str], tmp_path: Path, seed: int) -> None:
    """Whatever is wrong, each command ends by itself with a code of its own."""
    chance = random.Random(seed)
    place = chance.randrange(len(lines))
    lines[place] = json.dumps(spoil(json.loads(lines[place]), chance))
    path = tmp_path / "spoilt"
    path.write_text("\n".join(lines) + "\n")
    for command, codes in (("show", {0, 1}), ("stats", {0, 1}), ("timeline", {0, 1})):
        result = CliRunner().invoke(trace, [command, str(path)])
        assert result.exit_code in codes, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
    result = CliRunner().invoke(replay, [str(path)])
    assert result.exit_code in {0, 1, 3}, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_sound_one_is_the_same(lines: list[str], tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    path = tmp_path / "again"
    path.write_text("\n".join(lines) + "\n")
    result = CliRunner().invoke(replay, [str(path)])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "SAME: 7 requests replayed, 7 compared")
