"""Structures as tables of fields: a dataclass whose fields say where they are in memory.

Imports nothing of ours. Next: `structures.py`. The layout is data, so that tests can draw it, check it for gaps and
overlaps and hold it against what a C compiler and .NET make of the same structure.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

if TYPE_CHECKING:
    from typing import Self

    Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Kind:
    """A field's type.

    Attributes:
        name: as C writes it.
        size: bytes.
        align: natural alignment in bytes.
        order: byte order of a number, None for plain bytes.
        signed: a number with a sign.
    """

    name: str
    size: int
    align: int
    order: Literal["little", "big"] | None = "little"
    signed: bool = False


U16 = Kind("USHORT", 2, 2)
U32 = Kind("ULONG", 4, 4)
U64 = Kind("ULONGLONG", 8, 8)
I64 = Kind("LONGLONG", 8, 8, signed=True)
BE16 = Kind("UCHAR[2]", 2, 1, "big")
BE32 = Kind("UCHAR[4]", 4, 1, "big")


def array(size: int, of: Kind | None = None) -> Kind:
    """Plain bytes, `size` in all; `of` gives the element type and with it the alignment."""
    if of is None:
        return Kind(f"UCHAR[{size}]", size, 1, None)
    return Kind(f"{of.name}[{size // of.size}]", size, of.align, None)


@dataclass(frozen=True, slots=True)
class Field:
    """A row of a structure's table."""

    name: str
    c_name: str
    offset: int
    kind: Kind

    @property
    def end(self) -> int:
        """The offset after the field."""
        return self.offset + self.kind.size


def at(offset: int, kind: Kind, c_name: str) -> Any:
    """A field of a `Record`: offset in bytes, type, name in Microsoft's headers. Zero unless given."""
    empty: int | bytes = bytes(kind.size) if kind.order is None else 0
    return dataclasses.field(default=cast("Any", empty), metadata={"place": (offset, kind, c_name)})


class Record:
    """A structure in memory; subclasses are frozen dataclasses made of `at` fields."""

    __slots__ = ()
    C_NAME: ClassVar[str]
    SIZE: ClassVar[int]
    ALIGN: ClassVar[int]
    SOURCE: ClassVar[str]

    @classmethod
    def table(cls) -> tuple[Field, ...]:
        """The fields, in memory order."""
        return _table(cast("Any", cls))

    @classmethod
    def parse(cls, data: Buffer, start: int = 0) -> Self:
        """Cut the structure out of `data` from `start` on.

        Raises:
            ValueError: `data` ends before the structure does.
        """
        raw = bytes(data[start : start + cls.SIZE])
        if start < 0 or len(raw) < cls.SIZE:
            raise ValueError(f"{cls.C_NAME} needs {cls.SIZE} bytes from {start} on, {len(raw)} are there")
        return cls(**{row.name: _value(raw[row.offset : row.end], row.kind) for row in cls.table()})

    def packed(self) -> bytes:
        """The bytes; padding is zero.

        Raises:
            ValueError: a value does not fit its field.
        """
        data = bytearray(self.SIZE)
        for row in self.table():
            data[row.offset : row.end] = _bytes(getattr(self, row.name), row)
        return bytes(data)


@cache
def _table(record: type[Record]) -> tuple[Field, ...]:
    rows = []
    for item in dataclasses.fields(cast("Any", record)):
        offset, kind, c_name = item.metadata["place"]
        rows.append(Field(item.name, c_name, offset, kind))
    return tuple(rows)


def _value(raw: bytes, kind: Kind) -> int | bytes:
    return raw if kind.order is None else int.from_bytes(raw, kind.order, signed=kind.signed)


def _bytes(value: int | bytes, row: Field) -> bytes:
    if isinstance(value, bytes):
        if len(value) != row.kind.size:
            raise ValueError(f"{row.c_name} holds {row.kind.size} bytes, not {len(value)}")
        return value
    try:
        return value.to_bytes(row.kind.size, row.kind.order or "little", signed=row.kind.signed)
    except OverflowError as error:
        raise ValueError(f"{row.c_name}: {value} does not fit {row.kind.size} bytes") from error
