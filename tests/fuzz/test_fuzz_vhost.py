"""The fuzz targets of queue and session: half a minute of new inputs, the kept ones, and the proof that those see."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ring_play
import session_play

from qemu_odx.vhost.message import Message
from qemu_odx.vhost.requests import Row
from qemu_odx.vhost.session import Session
from qemu_odx.virtio.chain import Chain
from qemu_odx.virtio.queue import SplitQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FOLDER = Path(__file__).parent
PLAYS = {"queue": ring_play.play, "session": session_play.play}
SECONDS = 30
OPTIONS = (f"-max_total_time={SECONDS}", "-seed=1", "-len_control=0", "-print_final_stats=1")
SAME = {**os.environ, "PYTHONHASHSEED": "0"}
"""With the seed: each run tries the same new inputs, as far as it comes. Other ones are tried by hand, for longer."""


def inputs(name: str) -> list[Path]:
    """What was kept."""
    return sorted((FOLDER / "corpus" / name).iterdir())


def play_all(name: str) -> None:
    """Every kept input; the first one that fails is named."""
    for path in inputs(name):
        try:
            PLAYS[name](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"input {path}: {error!r}") from error


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLAYS)
def test_kept_inputs_hold(name: str) -> None:
    """Every input that once reached new code or found a fault."""
    assert len(inputs(name)) > 100
    play_all(name)


def _unlogged(patch: pytest.MonkeyPatch) -> None:
    """Data that a device wrote is not marked."""
    patch.setattr(Chain, "_log", lambda *_: None)


def _twice(patch: pytest.MonkeyPatch) -> None:
    """The same head may be in flight twice."""
    patch.setattr(SplitQueue, "_without_repeats", lambda _, heads: heads)


def _wild_heads(patch: pytest.MonkeyPatch) -> None:
    """Heads beyond the table are followed."""
    patch.setattr(SplitQueue, "_up_to_bad", lambda _, heads: heads)


def _still_running(patch: pytest.MonkeyPatch) -> None:
    """A stop is reported before the requests in flight have ended."""

    def stop(queue: SplitQueue, stopped: Callable[[int], None]) -> None:
        stopped(queue.next_avail)

    patch.setattr(SplitQueue, "stop", stop)


def _kept_descriptors(patch: pytest.MonkeyPatch) -> None:
    """What came with a message and was not taken stays open."""
    patch.setattr(Message, "close", lambda _: None)


def _any_form(patch: pytest.MonkeyPatch) -> None:
    """Sizes and numbers of descriptors are not looked at."""
    patch.setattr(Row, "check", lambda *_: None)


def _kept_memory(patch: pytest.MonkeyPatch) -> None:
    """A session that ends forgets nothing, and says so at once."""
    patch.setattr(Session, "_release", lambda _, closed: closed())


def _answers_twice(patch: pytest.MonkeyPatch) -> None:
    """A request with a reply of its own gets an acknowledgement as well."""
    finish = Session.finish

    def finish_twice(session: Session, reply: object) -> None:
        message = session._pending
        finish(session, reply)  # type: ignore[arg-type]  # handed through
        session._pending = message
        finish(session, None)

    patch.setattr(Session, "finish", finish_twice)


DAMAGE: dict[str, Iterable[Callable[[pytest.MonkeyPatch], None]]] = {
    "queue": (_unlogged, _twice, _wild_heads, _still_running),
    "session": (_kept_descriptors, _any_form, _kept_memory, _answers_twice),
}


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # what was broken leaks
@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, all_of_it in DAMAGE.items() for damage in all_of_it]
)
def test_kept_inputs_see_a_broken_back_end(
    monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Some kept input fails on each of these."""
    damage(monkeypatch)
    with pytest.raises(AssertionError, match="input"):
        play_all(name)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or processor"
)
def test_half_a_minute_of_new_inputs(tmp_path: Path) -> None:
    """See `ring_play.py` and `session_play.py` for what must hold. Both in the same time."""
    running = {name: start(tmp_path, name) for name in PLAYS}
    for process in running.values():
        process.wait()
    for name, process in running.items():
        said = (tmp_path / f"{name}.log").read_text()
        failing = [path.read_bytes().hex() for path in (tmp_path / name).iterdir() if path.is_file()]
        assert process.returncode == 0, f"{said[-2000:]}\nfailing input, as hex: {failing}"
        assert int(said.split("stat::number_of_executed_units:")[1].split()[0]) > len(inputs(name))


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    """A fuzzer that has a folder and a log of its own."""
    own = folder / name
    (own / "new").mkdir(parents=True)
    command = [sys.executable, FOLDER / f"fuzz_{name}.py", *OPTIONS, f"-artifact_prefix={own}/"]
    command += [own / "new", FOLDER / "corpus" / name]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=own, env=SAME)
