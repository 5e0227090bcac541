"""The driver's core, compiled natively with AddressSanitizer and UBSan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core import Core, compiled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core as a program to talk to."""
    return compiled(tmp_path_factory.mktemp("talk"), "core_talk.c")


@pytest.fixture
def core(talk: Path) -> Iterator[Core]:
    """A running core; a finding of a sanitizer ends it and fails the test."""
    with Core(talk) as running:
        yield running
