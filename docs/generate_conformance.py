"""Writes the table of checks into `docs/conformance.md`, from the checks themselves.

    .venv/bin/python docs/generate_conformance.py [--check]

With `--check` nothing is written; exit status 1 if the table is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.testing.conformance.checks import FAMILIES

if TYPE_CHECKING:
    from qemu_odx.testing.conformance.checks.family import Check, Family

PAGE = Path(__file__).with_name("conformance.md")
START, END = "<!-- checks: written by docs/generate_conformance.py -->\n", "<!-- end of checks -->\n"


def section(family: Family) -> str:
    """The table of one family."""
    rows = "".join(row(check) for check in family.checks)
    return f"### {family.name}\n\n| check | clause | proves | needs |\n|---|---|---|---|\n{rows}\n"


def row(check: Check) -> str:
    """The row of one check."""
    needs = ", ".join([*check.needs, *(["--destroy-data"] if check.destructive else [])])
    return f"| `{check.name}` | {check.clause} | {check.title} | {needs} |\n"


def renewed(page: str) -> str:
    """The page with the table as it must be."""
    head, _, rest = page.partition(START)
    return head + START + "\n" + "".join(map(section, FAMILIES)) + END + rest.partition(END)[2]


def main() -> int:
    """Write, or check."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = renewed(page)
    if "--check" in sys.argv[1:]:
        return int(page != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
