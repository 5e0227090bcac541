"""The steps of a copy."""

from __future__ import annotations

import os

from qemu_odx.disk.memory import memory_disk
from qemu_odx.disk.port import Extent
from qemu_odx.target.copying import STEP, copy_rod
from qemu_odx.tokens.operations import Operation, OperationStatus


def test_a_copy_that_goes_on_says_what_was_there_before() -> None:
    """The steps that are left out count as written, but not as written now."""
    source, destination = memory_disk("s", 3 * STEP), memory_disk("d", 3 * STEP)
    data = os.urandom(3 * STEP)
    source.write(0, [data])
    snapshot = source.snapshot([Extent(0, 3 * STEP)])
    operation = Operation("nexus", 1, 0, 0x11, OperationStatus.BACKGROUND)
    result = copy_rod(snapshot, 0, destination, [Extent(0, 3 * STEP)], operation, start=STEP)
    assert (operation.before, operation.done, result.copied) == (STEP, 2 * STEP, 3 * STEP)
    found = bytearray(3 * STEP)
    destination.read(0, [memoryview(found)])
    assert found == bytes(STEP) + data[STEP:]
    snapshot.release()
    source.close()
    destination.close()
