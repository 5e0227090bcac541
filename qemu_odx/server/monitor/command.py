"""One command or event of the monitor: its types come from the annotations of its handler or class.

Imports `schema.py` and `errors.py`. The tables are in `server/monitor/table.py`.
"""

from __future__ import annotations

import inspect
import sys
import typing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from qemu_odx.server.monitor import schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.server.monitor.errors import MonitorError
    from qemu_odx.server.monitor.schema import Members

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """The answer of a handler that has to wait.

    Args:
        begin: is given a function, and calls it once on the event loop with the result or a `MonitorError`.
    """

    begin: Callable[[Callable[[T | MonitorError], None]], None]


@dataclass(frozen=True)
class Command:
    """A command.

    Args:
        name: its name.
        handler: called on the event loop with the backend and, by name, the arguments; raises `MonitorError`. Its
            annotations are the schema; its docstring, with an example, is the page in `docs/monitor.md`.
        boxed: members that the handler takes as one mapping instead, by their names in QMP.
    """

    name: str
    handler: Callable[..., Any]
    boxed: Callable[[], Members] | None = field(default=None, compare=False)

    @cached_property
    def arguments(self) -> Members:
        """The arguments it takes."""
        if self.boxed:
            return self.boxed()
        _, *parameters = inspect.signature(self.handler).parameters.values()
        return {
            schema.wire_name(item.name): schema.member(
                self._evaluate(item.annotation), optional=item.default is not inspect.Parameter.empty
            )
            for item in parameters
        }

    @cached_property
    def returns(self) -> object:
        """The type of what it returns, None for nothing."""
        found = self._evaluate(inspect.signature(self.handler).return_annotation)
        if typing.get_origin(found) is Later:
            found = typing.get_args(found)[0]
        return None if found is type(None) else found

    def call(self, backend: object, arguments: dict[str, object]) -> object:
        """Check the arguments and call the handler; its result, or a `Later`.

        Raises:
            MonitorError: the arguments are wrong, or it cannot be done.
        """
        schema.check_members(self.arguments, arguments)
        if self.boxed:
            return self.handler(backend, arguments)
        names = {schema.wire_name(name): name for name in inspect.signature(self.handler).parameters}
        return self.handler(backend, **{names[name]: value for name, value in arguments.items()})

    def _evaluate(self, annotation: Any) -> object:
        if not isinstance(annotation, str):
            return annotation
        return eval(annotation, vars(sys.modules[self.handler.__module__]))  # noqa: S307  # our own source


@dataclass(frozen=True, slots=True)
class EventType:
    """An event: its name, and the dataclass that is its data."""

    name: str
    data: type
