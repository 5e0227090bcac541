"""How a run ended, and the exit code that says so.

May import: errors. The codes are documented in `docs/cli.md` and shown by `qemu-odx help exit-codes`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from qemu_odx.lab.errors import EndedError, LabError, LateError, MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


class ExitCode(IntEnum):
    """Exit codes of every command.

    `run` and `exec` end with the code of what ran in the guest, so ours are large, in the manner of timeout(1) (124)
    and env(1) (125). 128 and more: a signal, as in a shell.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    CORRUPT = 4
    ENVIRONMENT = 121
    CRASHED = 122
    TIMED_OUT = 124
    LAB_FAILED = 125


CODES: Mapping[type[LabError], ExitCode] = {
    UsageError: ExitCode.USAGE,
    MissingError: ExitCode.ENVIRONMENT,
    EndedError: ExitCode.CRASHED,
    LateError: ExitCode.TIMED_OUT,
}


def code_of(error: LabError, otherwise: int) -> int:
    """The code of a command that ends with this error: that of its kind, if its kind has one."""
    return next((code for kind, code in CODES.items() if isinstance(error, kind)), otherwise)


MEANINGS = {
    ExitCode.OK: "all went well",
    ExitCode.FAILED: "it was done, and the answer is no; or it could not be done: one sentence on stderr says why",
    ExitCode.USAGE: "wrong usage, or a lab's file that is not right; of conform and windows: an input that is not",
    ExitCode.NO_SERVER: "no server listens at --monitor; of replay: it cannot be done; of serve: the power was cut",
    ExitCode.CORRUPT: "of corruption: a block is wrong",
    ExitCode.ENVIRONMENT: "this machine lacks something that is needed: qemu-odx doctor tells what",
    ExitCode.CRASHED: "guest or disk server ended by itself, or the guest panicked",
    ExitCode.TIMED_OUT: "the guest, or the script in it, was not done in time",
    ExitCode.LAB_FAILED: "the lab failed in another way before the script could end",
}
OTHERS = {
    "1 to 120": "of run and exec: what the script or command in the guest ended with",
    "130": "Ctrl-C: everything was cleaned up",
    "129, 143": "SIGHUP, SIGTERM: everything was cleaned up",
}


def table() -> list[tuple[str, str]]:
    """Every code and its meaning, for people."""
    return [*((str(int(code)), words) for code, words in MEANINGS.items()), *OTHERS.items()]
