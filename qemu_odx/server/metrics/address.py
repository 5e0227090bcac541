"""Where the metrics are served: a loopback address and nowhere else.

Imports `server/options.py` for its error. Next: `server/metrics/endpoint.py`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from qemu_odx.server.options import ConfigError, parse_number

_MOST = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of this machine's own, and a TCP port; port 0: any that is free."""

    host: str
    port: int

    def url(self) -> str:
        """Where a browser or Prometheus looks."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"


def parse_address(text: str) -> Address:
    """`127.0.0.1:9101` or `[::1]:9101`.

    Raises:
        ConfigError: it is no such thing, or others could reach it.
    """
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ConfigError(f"--metrics {text}: write an IP address and a port: 127.0.0.1:9101") from None
    if not address.is_loopback:
        raise ConfigError(
            f"--metrics {text}: {address} can be reached by others: take 127.0.0.1 or [::1], and a proxy that asks "
            "who they are"
        )
    try:
        return Address(str(address), parse_number(port, least=0, most=_MOST))
    except ConfigError as error:
        raise ConfigError(f"--metrics {text}: {error}") from error
