"""News of the server: who wants to know subscribes; with nobody there, telling costs one look at an empty list.

Imports nothing of ours. Told by `server/`; heard by `server/monitor/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Events:
    """A list of listeners. All on the event loop's thread."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[object], None]] = []

    def __bool__(self) -> bool:
        """True if anybody listens: make no event otherwise."""
        return bool(self._listeners)

    def subscribe(self, listener: Callable[[object], None]) -> Callable[[], None]:
        """Call `listener` with every event from now on; what is returned ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: object) -> None:
        """Something has happened."""
        for listener in tuple(self._listeners):
            listener(event)
