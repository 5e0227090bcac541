"""The plug-in as pytest loads it: options, markers, fixtures.

Imports pytest and its own options only: it is loaded at every start of pytest, also where no test is for us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qemu_odx.pytest_plugin.options import OdxOptions, add_options, read_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.pytest_plugin.disks import OdxDisk
    from qemu_odx.pytest_plugin.faults import OdxFault
    from qemu_odx.pytest_plugin.guests import GuestPool, OdxGuest
    from qemu_odx.pytest_plugin.server import OdxServer
    from qemu_odx.pytest_plugin.tokens import OdxTokens

MARKERS = (
    "odx_disk(name, size='64M', blk=False, mailbox=False, **options): a disk of the test; blk: virtio-blk too",
    "odx_server(*arguments): more arguments for the test's qemu-odx serve",
    "odx_guest(image=None, fresh=None, memory_mib=None, cpus=2): what the test's guest is like",
)
REPORTS = pytest.StashKey[dict[str, pytest.TestReport]]()
OPTIONS = pytest.StashKey[OdxOptions]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, all with one prefix."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Markers, and an early end for options that cannot be."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        config.stash[OPTIONS] = read_options(config)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Remember how each part of a test went: artefacts are kept by that."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    item.stash.setdefault(REPORTS, {})[report.when] = report
    return report  # type: ignore[return-value]


@pytest.fixture(scope="session")
def odx_options(pytestconfig: pytest.Config) -> OdxOptions:
    """The options of this run."""
    return pytestconfig.stash[OPTIONS]


@pytest.fixture
def odx_server(
    request: pytest.FixtureRequest, odx_options: OdxOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OdxServer]:
    """A disk server of the test's own, with the disks that its `odx_disk` markers say; one of 64 MiB without any."""
    from qemu_odx.pytest_plugin.artifacts import Artifacts
    from qemu_odx.pytest_plugin.server import server_for

    artifacts = Artifacts(request.node, odx_options, tmp_path_factory)
    with server_for(request.node, artifacts) as server:
        yield server


@pytest.fixture
def odx_disks(odx_server: OdxServer) -> tuple[OdxDisk, ...]:
    """The test's disks, in the order of its markers."""
    return odx_server.disks


@pytest.fixture
def odx_disk(odx_disks: tuple[OdxDisk, ...]) -> OdxDisk:
    """The test's first disk."""
    return odx_disks[0]


@pytest.fixture
def odx_tokens(odx_server: OdxServer) -> OdxTokens:
    """Make, write, list and revoke tokens from the host's side."""
    from qemu_odx.pytest_plugin.tokens import OdxTokens

    return OdxTokens(odx_server)


@pytest.fixture
def odx_fault(odx_server: OdxServer) -> OdxFault:
    """Break requests on purpose; behind the test every rule is gone and nothing is held."""
    from qemu_odx.pytest_plugin.faults import OdxFault

    return OdxFault(odx_server)


@pytest.fixture(scope="session")
def odx_guests(odx_options: OdxOptions) -> Iterator[GuestPool]:
    """The guests that tests share."""
    from qemu_odx.pytest_plugin.guests import GuestPool

    with GuestPool(odx_options) as pool:
        yield pool


@pytest.fixture
def odx_guest(
    request: pytest.FixtureRequest, odx_server: OdxServer, odx_guests: GuestPool
) -> Iterator[OdxGuest]:
    """A guest with the test's disks in it; the disks are taken out again behind the test."""
    with odx_guests.lend(request.node, odx_server) as guest:
        yield guest
