"""How a run ended, and the exit code that says so.

Imports nothing of ours. The codes are documented in `docs/cli.md` and shown by `qemu-odx help exit-codes`.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command.

    `run` and `exec` end with the code of what ran in the guest, so ours are large, in the manner of timeout(1) (124)
    and env(1) (125). 128 and more: a signal, as in a shell.
    """

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    ENVIRONMENT = 121
    CRASHED = 122
    TIMED_OUT = 124
    LAB_FAILED = 125


MEANINGS = {
    ExitCode.OK: "all went well",
    ExitCode.FAILED: "it was done, and the answer is no; or it could not be done: one sentence on stderr says why",
    ExitCode.USAGE: "wrong usage, or a lab's file that is not right",
    ExitCode.NO_SERVER: "no server listens at --monitor",
    ExitCode.ENVIRONMENT: "this machine lacks something that the run needs: qemu-odx doctor tells what",
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
