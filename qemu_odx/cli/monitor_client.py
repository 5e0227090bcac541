"""A connection to the monitor of a running server, for the thin clients among the subcommands.

Imports `qemu.qmp`. Used by every subcommand that looks at or steers a running server:

    @click.command("list")
    @monitor_options
    def list_(monitor: str, *, as_json: bool) -> None:
        with MonitorClient(monitor) as server:
            disks = server.execute("query-odx-disks")

Exit codes: 0 done, 1 the server refused (its sentence on stderr), 2 wrong usage, 3 no server listens.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import socket
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import rich_click as click
from qemu.qmp import ExecuteError, QMPClient, QMPError

from qemu_odx.cli.failing import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

VARIABLE = "QEMU_ODX_MONITOR"
UNREACHABLE = 3
"""Exit code: no server listens."""
_CONNECT_SECONDS = 60.0


class MonitorFailure(Exception):  # noqa: N818 - the server refused: that is no error of ours
    """The server refused a command: its own sentence.

    Attributes:
        message: the sentence.
        error_class: of the QMP error, empty if there was none.
        exit_code: of a command that ends with it.
    """

    exit_code = 1

    def __init__(self, message: str, error_class: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.error_class = error_class


class NoServerError(MonitorFailure):
    """No server can be reached."""

    exit_code = UNREACHABLE


def monitor_options(function: F) -> F:
    """The options of every thin client: `monitor`, where the server listens, and `as_json`.

    A command that fails ends with one sentence on stderr and the exit code of the failure; with --json also with an
    object on stdout.
    """

    @functools.wraps(function)
    def checked(*args: object, **options: object) -> object:
        try:
            return function(*args, **options)
        except MonitorFailure as error:
            fail(error, error.exit_code, **{"class": error.error_class})

    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
    monitor = click.option(
        "--monitor",
        metavar="PATH",
        envvar=VARIABLE,
        required=True,
        show_envvar=True,
        help="The monitor's socket of a running 'qemu-odx serve --monitor PATH'.",
    )
    return cast("F", monitor(as_json(checked)))


def print_json(value: object) -> None:
    """JSON on stdout, indented."""
    click.echo(json.dumps(value, indent=2))


def tell(text: str, value: object, *, as_json: bool) -> None:
    """What was done, in words or as JSON."""
    if as_json:
        print_json(value)
    else:
        click.echo(text)


class MonitorClient:
    """A negotiated QMP connection for code that is not asynchronous.

    Args:
        path: the monitor's socket.

    Raises:
        NoServerError: nobody listens there, or it is no monitor.
    """

    def __init__(self, path: str) -> None:
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # what goes wrong is raised, and said once
        self._path = path
        connection = _connected(path)
        # Ctrl-C ends what runs in it as a cancellation: no task of the library is torn in the middle.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._closed = False
        self._client = QMPClient("qemu-odx")
        try:
            self._run(asyncio.wait_for(self._client.connect(connection), _CONNECT_SECONDS))
        except BaseException as error:
            connection.close()
            self._runner.close()
            if isinstance(error, TimeoutError | NoServerError):
                raise NoServerError(f"who listens at {path} sends no greeting: is it a monitor?") from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """Run a command; what it returns. Arguments that are None are left out.

        Raises:
            MonitorFailure: the server refused it.
            NoServerError: the server went away.
        """
        given = {name: value for name, value in (arguments or {}).items() if value is not None}
        return self._run(self._client.execute(command, given))

    def next_event(self, seconds: float) -> dict[str, Any] | None:
        """The next event, None if none comes within some seconds. Raises NoServerError."""
        try:
            return dict(self._run(asyncio.wait_for(self._client.events.get(), seconds)))
        except TimeoutError:
            return None

    def close(self) -> None:
        """Leave; the server goes on. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            self._runner.run(self._client.disconnect())
        except (QMPError, EOFError, OSError):
            pass  # the server left first
        finally:
            self._runner.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self._runner.run(work)
        except ExecuteError as error:
            raise MonitorFailure(str(error), error.error_class) from error
        except TimeoutError:
            raise
        except (QMPError, EOFError, OSError) as error:
            raise NoServerError(f"the server at {self._path} went away: see its log") from error


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except PermissionError as error:
        connection.close()
        raise NoServerError(f"{path} is private to the user who runs the server: be that user") from error
    except OSError as error:
        connection.close()
        raise NoServerError(
            f"no server listens at {path}: start one with qemu-odx serve --monitor {path}"
        ) from error
    return connection
