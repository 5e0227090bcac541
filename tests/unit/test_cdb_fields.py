"""CDBs in words: every command of the table, with a CDB that is no longer than it must be."""

from __future__ import annotations

import pytest

from qemu_odx.wire.scsi import opcodes
from qemu_odx.wire.scsi.describe import cdb_fields
from qemu_odx.wire.scsi.opcodes import OPERATIONS, Operation


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_cdb_of_its_own_length(operation: Operation) -> None:
    """Guests send six bytes where six are enough; one byte less is no such command."""
    cdb = bytearray(range(1, operation.length + 1))
    cdb[0] = operation.opcode
    if operation.service_action is not None:
        cdb[1] = operation.service_action
    found = opcodes.find(bytes(cdb))
    assert found is not None
    assert isinstance(cdb_fields(bytes(cdb)), dict)
    assert cdb_fields(bytes(cdb[:-1])) == {}


@pytest.mark.parametrize(
    ("cdb", "fields"),
    [
        ("03 00 00 00 12 00", {"allocation_length": 0x12}),
        ("a0 00 00 00 00 00 01020304 00 00", {"allocation_length": 0x01020304}),
    ],
)
def test_the_length_is_read_where_it_is(cdb: str, fields: dict[str, int]) -> None:
    """By the length of the CDB: REQUEST SENSE, REPORT LUNS."""
    found = cdb_fields(bytes.fromhex(cdb))
    assert {key: found[key] for key in fields} == fields
