"""The recorder: hears of everything that exports, tokens and copies do, and writes it down.

Imports `describe`, `messages`, `sink`, `schema`. `server/tracing.py` attaches it to a running server. What it hears:

- requests: it is a tap (`taken`, `ended`). One record at the end of each, and one for each that is still open when
  the recording ends;
- vhost-user messages (`message`), what a rule of a fault injector has done (`fault`);
- tokens and copies, as observer of `tokens/registry` and `tokens/operations`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from qemu_odx.tap.exchange import Outcome
from qemu_odx.tap.gate import TURNS
from qemu_odx.trace import describe, messages
from qemu_odx.trace.schema import EVENTS, HEAD, TAIL, VERSION
from qemu_odx.wire.names import name_of
from qemu_odx.wire.scsi.describe import COPY_STATUS
from qemu_odx.wire.scsi.rod_token import RodType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qemu_odx.tap.exchange import Exchange
    from qemu_odx.tokens.operations import Operation
    from qemu_odx.tokens.token import Fault, Token
    from qemu_odx.trace.schema import Record
    from qemu_odx.trace.sink import Sink


class Recorder:
    """Writes records to a sink; all calls come on the event loop's thread.

    Args:
        sink: where they go; `close` closes it.
        clock: the server's, which is `mono` in every record: virtual if the server's is.
        events: those that are wanted, of `schema.EVENTS`.
        data: record the data of requests, tokens and all, so that they can be replayed.
        full: record blocks that were read too, and not only their hash.
        head: what the head of the file says of the server: exports, disks.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        sink: Sink,
        clock: Callable[[], float],
        *,
        events: Iterable[str] = EVENTS,
        data: bool = False,
        full: bool = False,
        head: dict[str, Any] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.sink = sink
        self.events = frozenset(events)
        self.data = data or full
        self.full = full
        self._clock = clock
        self._wall = wall
        self._open: dict[Exchange, None] = {}
        mode = "full" if full else "on" if data else "off"
        about = {"version": VERSION, "pid": os.getpid(), "events": sorted(self.events), "data": mode}
        self._write({"event": HEAD, **about, **(head or {})})

    def close(self) -> None:
        """Write what is still open, and the end; then close the sink, which may wait for the host."""
        self.end()
        self.sink.close()

    def end(self) -> None:
        """Write what is still open, and the end."""
        for exchange in tuple(self._open):
            nothing = Outcome(0, executed=exchange.started is not None)
            record = describe.request(exchange, nothing, data=False, full=False)
            self._write(record | {"status": "open"})
        self._open.clear()
        self._write({"event": TAIL, "records": self.sink.records, "dropped": self.sink.dropped})

    def note(self, event: str, **members: Any) -> None:
        """Any other record: `export`, `disk`."""
        if event in self.events:
            self._write({"event": event, **members})

    # -- requests: see `tap/gate.Tap` --------------------------------------------------------------

    def taken(self, exchange: Exchange) -> None:
        """Remember it until it ends; no decision."""
        if "request" in self.events:
            self._open[exchange] = None

    def ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """Write it down."""
        if exchange in self._open:
            del self._open[exchange]
            record = describe.request(exchange, outcome, data=self.data, full=self.full)
            self._write(record)

    # -- faults ------------------------------------------------------------------------------------

    def fault(self, rule: str, action: str, exchange: Exchange | None = None, **more: Any) -> None:
        """A rule has fired: its name, what it does in words, and the request that it hit, if it hit one."""
        if "fault" in self.events:
            hit = (
                {"export": exchange.export, "n": exchange.number, "name": exchange.operation}
                if exchange
                else {}
            )
            self._write({"event": "fault", "rule": rule, "action": action, **hit, **more})

    # -- vhost-user messages: see `vhost/message.Watch` ---------------------------------------------

    def message(
        self, export: str, device: str, request: int, payload: bytes, fds: int, *, reply: bool, **more: Any
    ) -> None:
        """A message came in or an answer went out; `device` is "blk" or "scsi"."""
        if "message" in self.events:
            self._write(
                messages.message(request, payload, fds, device=device, reply=reply)
                | {"export": export, **more}
            )

    # -- tokens and copies -------------------------------------------------------------------------

    def minted(self, token: Token[Any]) -> None:
        """See `tokens/registry`."""
        self._token(
            token,
            "minted",
            bytes=token.length,
            rod_type=name_of(RodType, token.rod_type, 8),
            inactivity_timeout=token.inactivity_timeout,
        )

    def token_ended(self, token: Token[Any], cause: Fault, reason: str | None = None) -> None:
        """See `tokens/registry`; `reason` is why its old data could not be kept, if it died of that."""
        more = {"reason": reason} if reason else {}
        self._token(token, "ended", cause=cause.name.lower().replace("_", " "), turn=TURNS.given, **more)

    def copy(self, what: str, operation: Operation) -> None:
        """A copy operation "began" or "ended"."""
        if "copy" in self.events:
            self._write(
                {
                    "event": "copy",
                    "what": what,
                    "list_identifier": operation.list_identifier,
                    "nexus": describe.nexus_name(operation.nexus),
                    "lun": operation.lun,
                    "name": _COPY_NAMES.get(operation.service_action, f"83h/{operation.service_action:02X}h"),
                    "disks": sorted(map(str, operation.disks)),
                    "status": COPY_STATUS.get(operation.status, f"{operation.status:02X}h"),
                    "count": operation.count,
                }
            )

    def _token(self, token: Token[Any], what: str, **more: Any) -> None:
        if "token" in self.events:
            head = {"event": "token", "what": what, "token": f"{token.identifier:016x}"}
            self._write({**head, "disk": str(token.creator), **more})

    def _write(self, record: Record) -> None:
        record["mono"], record["wall"] = self._clock(), self._wall()
        self.sink.write(record)


_COPY_NAMES = {
    0x00: "EXTENDED COPY(LID1)",
    0x01: "EXTENDED COPY(LID4)",
    0x10: "POPULATE TOKEN",
    0x11: "WRITE USING TOKEN",
}
