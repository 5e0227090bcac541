"""The driver's core on the vectors of Windows' class driver: the same CDBs, lists, output, NTSTATUS, Information."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qemu_odx.windows.check.judge import judge_request
from qemu_odx.windows.check.scene import driver_of, request_of
from qemu_odx.windows.check.script import completion
from qemu_odx.windows.check.vector_file import load
from qemu_odx.windows.commands import ListIdentifiers
from qemu_odx.windows.port import Completion, Delivery

if TYPE_CHECKING:
    from core import Core

    from qemu_odx.windows.check.vector_file import Vector

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = ("windows-odx-vectors.json", "own-windows-vectors.json")
READ_CAPACITY = 0x9E
MEDIUM_ERROR = Completion(2, bytes((0x70, 0, 3, *bytes(15))))
REQUESTS = [vector for name in FILES for vector in load(VECTORS / name) if vector.code is not None]


def beyond_the_core(vector: Vector) -> str:
    """Why the core cannot meet this vector, empty if it must."""
    driver, _ = driver_of(vector)
    answers = [completion(step) for step in vector.steps]
    if any(answer.residual or answer.delivery is not Delivery.DONE for answer in answers):
        return "the mailbox has no residual counts and no SRB errors"
    if driver.environment.out_of_memory:
        return "memory is the driver's, not the core's"
    if driver.environment.identifiers.maximum != ListIdentifiers().maximum:
        return "the counter of list identifiers is the driver's, which does not read this registry value"
    return ""


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector.name)
def test_vector(core: Core, vector: Vector) -> None:
    """To the byte."""
    if reason := beyond_the_core(vector):
        pytest.skip(reason)
    driver, script = driver_of(vector)

    def carry(cdb: bytes, data_out: bytes) -> Completion:
        unknown = cdb[0] == READ_CAPACITY and not vector.steps  # the model's own disk answers this by itself
        return MEDIUM_ERROR if unknown else script(cdb, data_out)

    end = core.control(driver, carry, request_of(vector))
    script.finish()
    judge_request(vector, end, script.sent)
