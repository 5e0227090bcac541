"""Can libvirt be reached: the Python binding, and a daemon for the user and for the system.

May import: doctor/{finding,host}. Asked in a process of its own, which cannot hang this one, and without starting
a daemon.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Answer, Host

URIS = ("qemu:///session", "qemu:///system")
SECONDS = 60.0
NO_BINDING = 3
ASK = f"""
import sys
try:
    import libvirt
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or {NO_BINDING})
libvirt.registerErrorHandler(lambda *_: None, None)
try:
    version = libvirt.openReadOnly(sys.argv[1]).getLibVersion()
except libvirt.libvirtError as error:
    sys.exit(str(error))
print(f"{{version // 1000000}}.{{version // 1000 % 1000}}.{{version % 1000}}")
"""


def check_libvirt(host: Host) -> Iterator[Finding]:
    """One finding for the binding, one for each daemon; one of them is enough."""
    answers = {uri: _ask(host, uri) for uri in URIS}
    if any(answer.code == NO_BINDING for answer in answers.values()):
        cure = "nothing has to be done without --machine libvirt; else: pip install 'qemu_odx[libvirt]'"
        yield Finding("libvirt", "binding", Level.NOTE, answers[URIS[0]].err.strip(), cure, "libvirt")
        return
    yield Finding("libvirt", "binding", Level.OK, "installed", feature="libvirt")
    enough = any(answer.code == 0 for answer in answers.values())
    for uri, answer in answers.items():
        if answer.code == 0:
            yield Finding("libvirt", uri, Level.OK, f"version {answer.out.strip()}", feature="libvirt")
        else:
            said = (answer.err.strip().splitlines() or ["no answer"])[-1]
            needed = "" if enough else "libvirt"
            yield Finding("libvirt", uri, Level.NOTE, f"not reachable: {said}", _cure(uri), needed)


def _ask(host: Host, uri: str) -> Answer:
    """Through env(1): a question must not start the daemon it asks for."""
    return host.run(["env", "LIBVIRT_AUTOSTART=0", sys.executable, "-c", ASK, uri], SECONDS)


def _cure(uri: str) -> str:
    if uri.endswith("session"):
        return "install libvirt-daemon and libvirt-daemon-driver-qemu; the first client starts it"
    return "start libvirtd, and join the group libvirt"
