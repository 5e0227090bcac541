"""The behavioural checks, family by family; nothing here but `bench` and `wire` is imported: it goes into guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.checks import (
    abort,
    discovery,
    errors,
    expiry,
    isolation,
    limits,
    populate,
    windows,
    write,
)

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.checks.family import Check, Family

FAMILIES: tuple[Family, ...] = tuple(
    module.FAMILY
    for module in (discovery, populate, write, limits, errors, expiry, isolation, abort, windows)
)


def all_checks() -> list[Check]:
    """Every check, in the order in which they are run."""
    return [check for family in FAMILIES for check in family.checks]
