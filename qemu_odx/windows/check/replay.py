"""Replays Windows vectors against the model: every command, every byte, every status.

Imports the other modules of `check` and the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.windows.check.judge import judge_request, judge_start
from qemu_odx.windows.check.scene import driver_of, ordinary_disk, request_of
from qemu_odx.windows.check.script import MismatchError, StartScript
from qemu_odx.windows.discovery import discover
from qemu_odx.windows.driver import NotModelledError
from qemu_odx.windows.offload_write import UndefinedError
from qemu_odx.windows.packets import Packets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qemu_odx.windows.check.vector_file import Vector


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a vector; `why` names the first difference, or what of a good one could not be judged."""

    name: str
    ok: bool
    why: str = ""


def replay(vector: Vector) -> Verdict:
    """Run one vector. A model that breaks fails its vector, and no other."""
    try:
        told = _start(vector) if vector.code is None else _request(vector)
    except (MismatchError, NotModelledError, UndefinedError) as error:
        return Verdict(vector.name, ok=False, why=str(error))
    except Exception as error:  # noqa: BLE001 - a vector of any maker must not end the run
        return Verdict(vector.name, ok=False, why=f"the vector or the model broke: {error!r}")
    return Verdict(vector.name, ok=True, why=told)


def _request(vector: Vector) -> str:
    driver, script = driver_of(vector)
    end = driver.control(request_of(vector))
    script.finish()
    return judge_request(vector, end, script.sent)


def _start(vector: Vector) -> str:
    if not vector.steps:
        raise MismatchError("neither a control code nor steps: it proves nothing")
    script = StartScript(vector.steps, ordinary_disk(vector))
    known = discover(Packets(script, lambda _: None))
    script.finish()
    return judge_start(vector, known, script.sent)


def as_object(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All verdicts, for JSON."""
    passed = sum(item.ok for item in verdicts)
    listed = [{"name": item.name, "ok": item.ok, "why": item.why} for item in verdicts]
    return {"vectors": listed, "passed": passed, "failed": len(verdicts) - passed}
