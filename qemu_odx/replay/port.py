"""What a replay asks of the device it runs on. Implemented by `ours.py` and `sg.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from qemu_odx.replay.script import Step


class ReplayError(Exception):
    """The replay cannot go on, in one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended.

    Attributes:
        status: by name, as in a trace.
        sense: sense data.
        data: data-in.
    """

    status: str
    sense: bytes = b""
    data: bytes = b""


class ReplayDevice(Protocol):
    """Carries out the steps of a script.

    Attributes:
        same_device: it is the program that recorded: whatever it says of itself is compared too.
    """

    same_device: bool

    def passed(self, clock: float) -> None:
        """So late it was when the next step began."""

    def run(self, step: Step, data_out: bytes) -> Ending | None:
        """Do a request again; None: that is not possible here."""

    def end_token(self, token: bytes, cause: str) -> bool:
        """End a token's life as the host did; False: that is not possible here."""

    def close(self) -> None:
        """Give everything back."""
