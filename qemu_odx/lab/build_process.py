"""A program that builds an image: ended with all that it started, its scratch files and mounts gone with it.

Imports nothing of ours. Used by `image.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAUNCHER = ("setpriv", "--pdeathsig", "TERM", "--")
OWN_MOUNTS = ("unshare", "--mount", "--")
"""What root mounts in the new tree is never seen outside, so the tree can be removed whatever happened in it."""
SCRATCH = "qemu-odx-build-"


@contextmanager
def build_process(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a builder; standard input and error are pipes.

    If the block is left by an exception, the builder and everything it started is ended by SIGTERM, and what does not
    end with it by SIGKILL.
    """
    with ExitStack() as stack:
        environment = dict(os.environ)
        mounts: Sequence[str] = ()
        if os.geteuid() == 0:  # others work in a user namespace, in which these folders would not be theirs
            folder = tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
            environment["TMPDIR"] = stack.enter_context(folder)
            mounts = OWN_MOUNTS if can_unshare() else ()
        process = stack.enter_context(
            subprocess.Popen(
                [*LAUNCHER, *mounts, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
                process_group=0,
            )
        )
        try:
            yield process
        except BaseException:
            _signal(process, signal.SIGTERM)
            process.wait()
            _signal(process, signal.SIGKILL)
            raise


def can_unshare() -> bool:
    """Whether we may have mounts of our own; in most containers not even root may."""
    return subprocess.run([*OWN_MOUNTS, "true"], capture_output=True, check=False).returncode == 0


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
