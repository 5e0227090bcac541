"""Serves the metrics over HTTP, from a thread of its own, one scraper after another.

Imports `prometheus_client` and `families.py`. The thread waits for the event loop to collect, so numbers are never
read while they change; the loop waits for nobody.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

from qemu_odx.server.metrics.address import Address
from qemu_odx.server.metrics.families import Tally, families
from qemu_odx.server.options import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from qemu_odx.server.backend import Backend

_PATIENCE = 5.0
"""Seconds that a scraper may take to say what it wants, and to read it."""


class _FromTheLoop(Collector):
    """Collects on the event loop, for another thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._tally = Tally(backend)

    def collect(self) -> Iterable[Metric]:
        """All families, or none if the loop does not get to it: a scrape must not wait for ever."""
        ready = threading.Event()
        found: list[Metric] = []

        def on_the_loop() -> None:
            try:
                found.extend(families(self._backend, self._tally))
            finally:
                ready.set()

        self._backend.loop.call_soon(on_the_loop)
        ready.wait(_PATIENCE)
        return found


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, *_: object) -> None:
        """Scrapes are no news."""


class _Server(WSGIServer):
    def server_bind(self) -> None:
        """Without a look-up of the host's name."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def handle_error(self, *_: Any) -> None:
        """A scraper that left, or took too long."""


class MetricsEndpoint:
    """The running endpoint.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, wanted: Address, backend: Backend) -> None:
        registry = CollectorRegistry()
        self._server = _listen(wanted)
        registry.register(_FromTheLoop(backend))
        self._server.set_app(make_wsgi_app(registry))
        self.address = Address(wanted.host, self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="odx-metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Listen no more; a scrape under way is given up."""
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        self._server.server_close()


def _listen(wanted: Address) -> WSGIServer:
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    kind = type("_FamilyServer", (_Server,), {"address_family": family})
    try:
        made: WSGIServer = kind((wanted.host, wanted.port), _Handler)
    except OSError as error:
        raise ConfigError(
            f"--metrics {wanted.host}:{wanted.port}: cannot listen here: {error.strerror}: choose another port"
        ) from error
    return made
