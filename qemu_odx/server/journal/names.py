"""How nexuses and tokens are written in the database.

Imports `target/port`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.target.port import LoginNexus

if TYPE_CHECKING:
    from collections.abc import Hashable


def name_of(nexus: Hashable) -> str:
    """A nexus as text."""
    if isinstance(nexus, LoginNexus):
        return f"login:{nexus.life}:{nexus.port}"
    return f"name:{nexus}"


def nexus_of(name: str) -> Hashable:
    """The nexus that `name_of` wrote; of those that are no logins, their names."""
    kind, _, rest = name.partition(":")
    if kind != "login":
        return rest
    life, _, port = rest.partition(":")
    return LoginNexus(port, int(life))


def identifier_name(identifier: int) -> bytes:
    """A COPY MANAGER ROD TOKEN IDENTIFIER, which has more bits than SQLite's integers."""
    return identifier.to_bytes(8, "big")


def source_name(source: tuple[str, int] | None) -> str | None:
    """A snapshot by the name of its disk and its number."""
    return f"{source[1]}:{source[0]}" if source else None


def source_of(name: str) -> tuple[str, int]:
    """What `source_name` wrote."""
    number, _, disk = name.partition(":")
    return disk, int(number)
