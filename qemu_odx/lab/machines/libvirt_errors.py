"""libvirt, imported when it is wanted, and its errors in the lab's words.

May import: errors. Used by `libvirt.py`; the extra `libvirt` brings the library.
"""

from __future__ import annotations

import importlib
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qemu_odx.lab.errors import LabError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def libvirt_module(name: str = "libvirt") -> Any:
    """The module `libvirt` or `libvirt_qemu`. Raises MissingError if it is not installed."""
    try:
        module: Any = importlib.import_module(name)
    except ImportError as error:
        raise MissingError(
            "the Python package libvirt-python is not installed",
            "pip install 'qemu-odx[libvirt]' (it is compiled: Debian packages libvirt-dev, pkg-config, gcc)",
        ) from error
    if name == "libvirt":
        module.registerErrorHandler(_silent, None)  # its errors arrive as exceptions too
    return module


def _silent(_context: object, _error: object) -> None:
    pass


@contextmanager
def in_lab_words(
    doing: str,
    cure: str = "see the log of the domain in libvirt's log folder",
    kind: type[LabError] = LabError,
) -> Iterator[None]:
    """Turn an error of libvirt inside into a LabError, or one of that kind."""
    libvirt = libvirt_module()
    try:
        yield
    except libvirt.libvirtError as error:
        raise kind(f"libvirt cannot {doing}: {error}", cure) from error


class Call:
    """Work on a thread of its own, for libvirt's calls have no time limit: a call that hangs is left behind there."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Begin it."""
        self._work = work
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name="libvirt call")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            self._failed.append(error)

    @property
    def under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self._thread.is_alive()

    def within(self, seconds: float) -> bool:
        """Wait for its end and raise what it raised; False if it is not done after so many seconds."""
        self._thread.join(seconds)
        if self._failed:
            raise self._failed[0]
        return not self.under_way


def monitor_command(domain: Any, command: str, arguments: dict[str, object]) -> Any:
    """Run a QMP command of the domain's QEMU. Raises LabError if it is refused."""
    words = json.dumps({"execute": command, "arguments": arguments})
    with in_lab_words(f"ask QEMU for {command}"):
        answer = json.loads(libvirt_module("libvirt_qemu").qemuMonitorCommand(domain, words, 0))
    if "error" in answer:
        raise LabError(f"QEMU refused a command ({answer['error']['desc']})", "check QEMU's version")
    return answer["return"]
