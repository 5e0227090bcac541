"""Guests of tests in this folder that are not those of the plug-in (`odx_guest`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from client_guest import ClientGuest, client_guest

from qemu_odx.lab.image import Image, ensure_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.pytest_plugin.options import OdxOptions


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder boots a guest; under TCG on a busy machine that takes its time."""
    for item in items:
        if "tests/vm/" in item.path.as_posix():
            item.add_marker(pytest.mark.vm)
            if item.get_closest_marker("timeout") is None:  # a test's own would hide its module's
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def odx_options(odx_options: OdxOptions) -> OdxOptions:
    """Our own tests are never skipped for want of a guest."""
    return replace(odx_options, require=True)


@pytest.fixture(scope="session")
def image() -> Image:
    """The cached Linux guest image."""
    return ensure_image()


@pytest.fixture(scope="session")
def clients() -> Iterator[ClientGuest]:
    """One guest with independent SCSI clients for the session."""
    with client_guest(ensure_image("linux-clients")) as booted:
        yield booted
