"""The SCSI fuzz target: half a minute of new inputs, the kept ones, and the proof that those see a broken target."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from scsi_sequences import play

from qemu_odx.disk.before_write import BeforeWrite
from qemu_odx.tap.gate import Gate
from qemu_odx.target.commands import write_token
from qemu_odx.target.tasks import Entry
from qemu_odx.tokens import registry
from qemu_odx.trace.recorder import Recorder
from qemu_odx.trace.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
INPUTS = sorted((FOLDER / "corpus" / "scsi").iterdir())
SECONDS = 30
OPTIONS = (f"-max_total_time={SECONDS}", "-seed=1", "-len_control=0", "-print_final_stats=1")
SAME = {**os.environ, "PYTHONHASHSEED": "0"}
"""With the seed: each run tries the same new inputs, as far as it comes. Other ones are tried by hand, for longer."""


def play_all() -> None:
    """Every kept input; the first one that fails is named."""
    for path in INPUTS:
        try:
            play(path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


@pytest.mark.timeout(300)
def test_kept_inputs_hold() -> None:
    """Every input that once reached new code or found a fault."""
    assert len(INPUTS) > 200
    play_all()


@pytest.mark.timeout(300)
def test_kept_inputs_hold_while_they_are_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every command passes a gate with a recorder, which fails at none of them."""
    recorder = Recorder(Sink(Path(os.devnull)), lambda: 0.0, data=True, full=True)
    init = Gate.__init__

    def recorded(gate: Gate, *given: Any, **options: Any) -> None:
        init(gate, *given, **options)
        gate.add(recorder, last=True)

    monkeypatch.setattr(Gate, "__init__", recorded)
    play_all()
    recorder.close()
    assert recorder.sink.records > 10 * len(INPUTS)
    assert caplog.text == ""


def _data_of_now(patch: pytest.MonkeyPatch) -> None:
    """Nothing is saved before a write, so that a token gives what is there when it is used."""
    patch.setattr(BeforeWrite, "due", lambda *_: ())


def _half_checked(patch: pytest.MonkeyPatch) -> None:
    """A token is known by its identifier alone."""
    patch.setattr(registry, "hmac", SimpleNamespace(compare_digest=lambda *_: True))


def _other_offset(patch: pytest.MonkeyPatch) -> None:
    """OFFSET INTO ROD counts twice."""
    copy_rod = write_token.copy_rod
    patch.setattr(write_token, "copy_rod", lambda source, offset, *rest: copy_rod(source, 2 * offset, *rest))


def _hasty(patch: pytest.MonkeyPatch) -> None:
    """The first block is written before the command has been looked at."""
    checked = write_token._checked

    def write_first(request: Any, *rest: Any) -> Any:
        disk = request.unit.disk
        if not disk.readonly:
            disk.write(0, [b"!" * disk.block_size])
        return checked(request, *rest)

    patch.setattr(write_token, "_checked", write_first)


def _talkative(patch: pytest.MonkeyPatch) -> None:
    """Commands that fail are answered twice."""
    finish = Entry.finish

    def finish_twice(entry: Entry, reply: Any) -> None:
        finish(entry, reply)
        if reply.sense:
            entry.task.done(reply)

    patch.setattr(Entry, "finish", finish_twice)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", [_data_of_now, _half_checked, _other_offset, _hasty, _talkative])
def test_kept_inputs_see_a_broken_target(
    monkeypatch: pytest.MonkeyPatch, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Some kept input fails on each of these."""
    damage(monkeypatch)
    with pytest.raises(AssertionError):
        play_all()


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or processor"
)
def test_half_a_minute_of_new_inputs(tmp_path: Path) -> None:
    """No exception, no task without exactly one answer, no moved byte of a refused command, no late byte."""
    new = tmp_path / "new"
    new.mkdir()
    command = [sys.executable, FOLDER / "fuzz_scsi.py", *OPTIONS, f"-artifact_prefix={tmp_path}/"]
    command += [new, FOLDER / "corpus" / "scsi"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=SAME)
    failing = [path.read_bytes().hex() for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}\nfailing input, as hex: {failing}"
    assert int(done.stderr.split("stat::number_of_executed_units:")[1].split()[0]) > len(INPUTS)
