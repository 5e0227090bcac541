"""The plug-in is tested as its users have it: in a pytest of its own, loaded by its entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from platformdirs import user_cache_path

from qemu_odx.lab.image import ensure_image

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE = user_cache_path()
"""Before pytester gives its pytest another home: images are not built twice."""


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run a test file in a pytest of its own, with further arguments."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))

    def run(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_inner=text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=250)

    return run


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest image is in the user's cache, so that no inner pytest builds it; pytester has another home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE))
    ensure_image()
