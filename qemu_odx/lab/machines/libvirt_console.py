"""What a domain writes to its serial port, kept in a file: read from libvirt's own stream, so it works for any URI.

May import nothing of ours. Used by `libvirt.py`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 4096
END_SECONDS = 10.0


class ConsoleReader:
    """Copies the console of a domain to the end of a log, until the domain ends."""

    def __init__(self, libvirt: Any, uri: str, domain: str, log: Path) -> None:
        """Open it; the domain should be paused, so that nothing is lost. Raises libvirt's error.

        By a connection of its own: a thread that waits for a stream can keep another from ever getting its answer
        (measured with libvirt 9.0: virDomainResume waited in virNetClientSendWithReply for good).
        """
        self._error = libvirt.libvirtError
        self._connection = libvirt.open(uri)
        self._stream = self._connection.newStream(0)
        found = self._connection.lookupByName(domain)
        found.openConsole(None, self._stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        self._log = log
        self._thread = threading.Thread(target=self._copy, daemon=True, name="libvirt console")
        self._thread.start()

    def _copy(self) -> None:
        with self._log.open("ab", buffering=0) as log, suppress(self._error):
            while data := self._stream.recv(CHUNK):
                log.write(data)

    def finish(self) -> None:
        """The domain has ended: wait until its last words are in the log."""
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            with suppress(self._error):
                self._connection.close()
