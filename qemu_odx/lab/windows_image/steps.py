"""Long work in steps that are remembered: after a crash or Ctrl-C the next run goes on where the last one was.

May import: errors. Used by `build.py`. A step that was interrupted is done again from its beginning.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from qemu_odx.lab.phases import Observer

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a step may take.

    Attributes:
        end: when it is over, on `time.monotonic`.
        seconds: how long that was from the step's beginning.
        reason: what it most likely means if the time is over.
    """

    end: float
    seconds: float
    reason: str

    @property
    def left(self) -> float:
        """Seconds that are left, at least one."""
        return max(self.end - time.monotonic(), 1.0)

    def check(self) -> None:
        """Raise LabError if the time is over."""
        if time.monotonic() > self.end:
            raise LabError(f"it took longer than {self.seconds:.0f} s", self.reason)


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        name: one word, kept in the state file.
        title: for people, what is done.
        seconds: how long it may take.
        reason: what to look at if it takes longer.
        work: does it; is given the results of the steps before and its deadline, and returns its own, for JSON.
    """

    name: str
    title: str
    seconds: float
    reason: str
    work: Callable[[Results, Deadline], dict[str, Any]]


class StateFile:
    """What has been done, for one set of wishes: with others the work begins anew."""

    def __init__(self, path: Path, wishes: Mapping[str, Any]) -> None:
        self._path = path
        self._wishes = json.loads(json.dumps(wishes))
        self.done: Results = self._read()

    def _read(self) -> Results:
        try:
            state = json.loads(self._path.read_text())
            same = state["wishes"] == self._wishes
            done: Results = state["done"] if same else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return done

    def add(self, name: str, result: dict[str, Any]) -> None:
        """A step is done. Written beside and renamed: a reader finds the old state or the new one."""
        self.done[name] = result
        scratch = self._path.with_suffix(".new")
        scratch.write_text(json.dumps({"wishes": self._wishes, "done": self.done}, indent=1))
        scratch.replace(self._path)


def run_steps(steps: Sequence[Step], state: StateFile, observer: Observer) -> Results:
    """Do the steps that are not done yet, one after the other; the results of all.

    Raises:
        LabError: one failed; its cause names the step.
    """
    for step in steps:
        if step.name in state.done:
            continue
        observer.phase_began(step.name)
        observer.detail(step.title)
        started = time.monotonic()
        deadline = Deadline(started + step.seconds, step.seconds, step.reason)
        try:
            result = step.work(state.done, deadline)
        except LabError as error:
            error.cause = f"step {step.name} ({step.title}) failed: {error.cause}"
            error.args = (f"{error.cause}; {error.cure}",)
            raise
        state.add(step.name, json.loads(json.dumps(result)))
        observer.phase_ended(step.name, time.monotonic() - started)
    return state.done
