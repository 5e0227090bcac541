"""What is to be recorded: `--trace` as a frozen value.

Imports `server/options.py` and the names of `trace/schema.py`. Next: `server/tracing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from qemu_odx.server.options import ConfigError, check_keys, get, parse_size, split_options
from qemu_odx.trace.schema import EVENTS

Data = Literal["off", "on", "full"]
TRACE_KEYS: Final = ("file", "events", "data", "initial")
INITIAL: Final = 64 << 20
"""Bytes of a disk's content that go into a trace at most."""


@dataclass(frozen=True, slots=True)
class TraceConfig:
    """What is to be recorded.

    Attributes:
        path: the file; an old one is replaced.
        events: kinds of record, of `trace/schema.EVENTS`.
        data: with the data of requests: `on` all but the blocks that are read, `full` these too.
        initial: bytes of a disk's content to be recorded at most, when the server starts.
    """

    path: Path
    events: frozenset[str] = frozenset(EVENTS)
    data: Data = "off"
    initial: int = INITIAL


def parse_trace(text: str) -> TraceConfig:
    """`FILE[,events=request+token][,data=on|full][,initial=SIZE]`; a comma in FILE is written twice.

    Raises:
        ConfigError: one sentence with the cure.
    """
    options = split_options(text if text.startswith("file=") else f"file={text}")
    try:
        check_keys(options, TRACE_KEYS, ("file",))
        return TraceConfig(
            Path(options["file"]),
            get(options, "events", _events, frozenset(EVENTS)),
            get(options, "data", _data, "off"),
            get(options, "initial", parse_size, INITIAL),
        )
    except ConfigError as error:
        raise ConfigError(f"--trace {text}: {error}") from error


def _events(text: str) -> frozenset[str]:
    names = frozenset(text.split("+"))
    if unknown := sorted(names - set(EVENTS)):
        raise ConfigError(
            f"'{unknown[0]}' is none; there are {', '.join(EVENTS)}, several with + between them"
        )
    return names


def _data(text: str) -> Data:
    if text not in {"off", "on", "full"}:
        raise ConfigError(f"'{text}' is neither 'off' nor 'on' nor 'full'")
    return text  # type: ignore[return-value]  # one of the three
