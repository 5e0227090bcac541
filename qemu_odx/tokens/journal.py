"""What tokens and copy operations note for a successor in another process: the port behind which a journal stands.

Imports the rest of `tokens`. `registry.py` and `operations.py` note, `server/journal/copies.py` is a journal.
None of the methods raises: a journal that fails takes care itself that no successor believes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from qemu_odx.tokens.operations import Operation
    from qemu_odx.tokens.token import Token, Tombstone

P = TypeVar("P")


class TokenJournal(Protocol[P]):
    """The journal of a registry."""

    def minted(self, token: Token[P]) -> None:
        """A token that is about to be given out. Its payload has been noted before."""

    def used(self, token: Token[P]) -> None:
        """A token has another deadline."""

    def doomed(self, identifier: int, grave: Tombstone) -> None:
        """A token takes no new copies, and dies once those on it have ended."""

    def buried(self, identifier: int, grave: Tombstone) -> None:
        """A token has died. Its payload is given back after."""

    def forgotten(self, identifier: int) -> None:
        """A tombstone is gone."""


class OperationJournal(Protocol):
    """The journal of an operation table."""

    def begun(self, operation: Operation) -> None:
        """A copy is about to begin; what was under its list identifier is forgotten."""

    def progressed(self, operation: Operation) -> None:
        """A copy's count is about to be told, or so much need not be copied again."""

    def stopping(self, operation: Operation) -> None:
        """A copy is told to stop: it is never to go on."""

    def ended(self, operation: Operation) -> None:
        """A copy has ended; its result and its answer are kept."""

    def dropped(self, operation: Operation) -> None:
        """A copy's result is gone."""

    def results_dropped(self, nexus: Hashable, lun: int | None) -> None:
        """So are all results of a nexus, or those of one of its logical units; running copies go on."""
