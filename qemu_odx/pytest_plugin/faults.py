"""Faults for tests: rules of the test's own server, by its monitor.

May import: testing. The rules are those of `qemu-odx serve --fault` (docs/faults).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from qemu_odx.pytest_plugin.server import OdxServer


class OdxFault:
    """Called with a rule, it adds that rule and returns its name; as `odx_fault.rule(...)`, for a block only."""

    def __init__(self, server: OdxServer) -> None:
        self._server = server
        self._faults = server.faults

    def __call__(self, rule: str) -> str:
        """Add a rule such as `op=WRITE USING TOKEN,count=1,sense=token-expired`; its name.

        Raises:
            LabError: it is no rule; the text says why.
        """
        return self._faults.add(rule)

    def rule(self, text: str) -> AbstractContextManager[str]:
        """A rule for the time of a block; gone afterwards, with all that it held released."""
        return self._faults.rule(text)

    def release(self, name: str) -> None:
        """Put a rule out of force, and let everything go on that it holds."""
        self._faults.release(name)

    def fired(self, name: str) -> int:
        """How often a rule has fired. Raises KeyError if there is none of that name."""
        return int(self._faults.find(name)["fired"])

    def list(self) -> list[dict[str, Any]]:
        """Every rule, as `query-odx-faults` tells it."""
        return self._faults.list()

    def clear(self) -> None:
        """Remove every rule, and let everything go on that is held."""
        self._server.let_go()
