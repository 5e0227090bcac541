"""Bytes cut into JSON objects."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_odx.server.monitor.json_stream import MAX_DEPTH, MAX_OBJECT, JsonError, JsonStream, TooLongError

SCALARS = st.none() | st.booleans() | st.integers(-9, 1 << 60) | st.text(max_size=9)
OBJECTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


def taken(stream: JsonStream) -> list[dict[str, object] | JsonError]:
    """All that is there."""
    return list(iter(stream.take, None))  # type: ignore[arg-type]  # None is the end


@given(
    st.lists(OBJECTS, max_size=4),
    st.sampled_from(["", "\n", "\r\n", " \t "]),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_objects_come_out_as_they_went_in_wherever_the_bytes_are_cut(
    objects: list[dict[str, object]], between: str, indent: int | None, ascii_only: bool, lengths: list[int]
) -> None:
    """With and without lines, spread over lines, in pieces of any length."""
    text = between.join(json.dumps(item, indent=indent, ensure_ascii=ascii_only) for item in objects)
    raw = text.encode()
    stream, found = JsonStream(), []
    for length in itertools.cycle(lengths):
        if not raw:
            break
        stream.feed(raw[:length])
        raw = raw[length:]
        found += taken(stream)
    assert found == objects


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"hello", None),  # nothing ends it yet
        (b"hello\n", "no JSON"),
        (b"}\n", "no JSON"),
        (b"]]\n", "no JSON"),
        (b"[1, 2]\n", "a JSON object is expected"),
        (b'{"a": NaN}\n', "NaN is no number"),
        (b'{"a": 1, "a": 2}\n', "twice"),
        (b'{"a": "\xff"}\n', "no UTF-8"),
        (b'{"a": "new\nline"}\n', "no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}\n", "no JSON"),
        (b"\xff\xfe\x00\n", "no UTF-8"),
        (b"[" * (MAX_DEPTH + 1) + b"\n", "brackets inside of each other"),
        (b"[" * 500_000 + b"\n", "brackets inside of each other"),
        (b'{"a":' * 500 + b'"x\\"' + b"}" * 900 + b"\n", "brackets inside of each other"),
    ],
)
def test_after_nonsense_comes_sense(line: bytes, said: str | None) -> None:
    """One sentence, and from the next line on all is well."""
    stream = JsonStream()
    stream.feed(line)
    first = stream.take()
    assert (said is None) == (first is None)
    if said:
        assert isinstance(first, JsonError)
        assert said in str(first)
        stream.feed(b'\n{"b": 1}')
        assert taken(stream)[-1] == {"b": 1}


def test_an_object_without_end_is_given_up() -> None:
    """Before it takes much memory."""
    stream = JsonStream()
    stream.feed(b'{"a": "')
    for _ in range(MAX_OBJECT >> 16):
        assert stream.take() is None
        stream.feed(b"x" * (1 << 16))
    assert isinstance(stream.take(), TooLongError)
    assert len(stream._data) == 0


def test_deep_nonsense_without_a_line_takes_no_memory() -> None:
    """It is forgotten as it comes."""
    stream = JsonStream()
    for _ in range(40):
        stream.feed(b"[" * (1 << 16))
        assert stream.take() is None
        assert len(stream._data) == 0


@given(st.binary())
def test_any_bytes_at_all(data: bytes) -> None:
    """Objects or sentences, never an exception, and an end."""
    stream = JsonStream()
    stream.feed(data)
    assert all(isinstance(item, dict | JsonError) for item in taken(stream))
