"""What this machine lacks: a skip that says so, or a failure where the user wants to be sure that tests run.

May import: the lab's errors.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from qemu_odx.lab.errors import LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def skipped_if_missing(*, require: bool) -> Iterator[None]:
    """Turn a `LabError` from looking for something into a skip with its cause and cure; a failure if `require`.

    Raises:
        UsageError: what is looked for is on no machine; a slip of the pen must not skip every test.
    """
    try:
        yield
    except UsageError:
        raise
    except LabError as error:
        reason = f"qemu-odx: {error}"
        if require:
            pytest.fail(f"{reason} (--odx-require)", pytrace=False)
        pytest.skip(reason)
