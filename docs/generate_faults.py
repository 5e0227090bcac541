"""Writes `docs/faults/`: one page per fault, from the table of actions, the Windows model and `fault_texts.py`.

    .venv/bin/python docs/generate_faults.py [--check]

With `--check` nothing is written; exit status 1 if a page is missing, left over or out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fault_texts import TEXTS

from qemu_odx.faults.actions import ACTIONS, ActionKind
from qemu_odx.faults.operations import DISK_OPERATIONS, GROUPS
from qemu_odx.faults.senses import SENSES
from qemu_odx.windows.port import Completion
from qemu_odx.windows.sense_rules import rule_for
from qemu_odx.wire.scsi.sense import Status

FOLDER = Path(__file__).parent / "faults"
BY_HAND = {"guest-control.md"}
"""Pages that nobody generates."""
KEYS = {
    "sense": "a sense code by name or as KEY/ASC/ASCQ in hexadecimal",
    "key": "another sense key for it, by name",
    "information": "the INFORMATION field",
    "when": "`before` (default) or `after` the request is executed",
    "status": "the status, by name",
    "blocks": "how many blocks of the disk are done; sectors of 512 bytes over virtio-blk",
    "way": "`in` (default): towards the guest; `out`: towards the disk",
    "byte": "which byte of the data",
    "bit": "which bit of it, 0 the lowest",
    "seconds": "how long, such as 0.25",
    "errno": "EIO (default), ENOSPC, EDQUOT, EROFS, ETIMEDOUT or ENODEV",
    "bytes": "how many bytes reach the disk",
    "report": "`error` (default) or `ok`",
}


def page(name: str, kind: ActionKind) -> str:
    """The text of one page."""
    text = TEXTS[name]
    options = [
        f"| `{key}=` | {KEYS[key]} | {'required' if key in kind.required else ''} |" for key in kind.options
    ]
    levels = ", ".join(sorted(level.value for level in kind.levels))
    means = kind.only or kind.operations or "every request there"
    parts = [
        f"# {name}",
        kind.summary,
        f"Happens to: {levels}{' (way=out: disk)' if name == 'bit-flip' else ''}. Without `op=`: {means}.",
        *(["| key | meaning | |\n|---|---|---|\n" + "\n".join(options)] if options else []),
        "## On the wire",
        text.wire,
        "## What Linux makes of it",
        text.linux,
        "## What Windows makes of it",
        text.windows,
        *([windows_table()] if name == "sense" else []),
        "## Examples",
        "\n".join(
            f'    --fault "action={name},{rule}"'
            if "sense=" not in rule and "action=" not in rule
            else f'    --fault "{rule}"'
            for rule in text.rules
        ),
    ]
    return "\n\n".join(parts) + "\n"


def windows_table() -> str:
    """Every named sense code, and what the model of the class driver does with it."""
    rows = []
    for name, value in SENSES.items():
        rule = rule_for(Completion(Status.CHECK_CONDITION, value.fixed()))
        assert rule is not None, name  # noqa: S101 - a CHECK CONDITION is never nothing
        again = {None: "no", 0: "at once"}.get(rule.retry, f"after {rule.retry} s")
        rows.append(f"| `{name}` | {value.name} | {rule.status.label} | {again} | {rule.effect} |")
    head = "| name | sense | NTSTATUS | tried again | besides |\n|---|---|---|---|---|"
    return (
        "From the model of the class driver (`qemu_odx/windows/sense_rules.py`):\n\n"
        + head
        + "\n"
        + "\n".join(rows)
    )


def index() -> str:
    """The page about rules, with the list of all others."""
    actions = "\n".join(f"| [{name}]({name}.md) | {kind.summary} |" for name, kind in ACTIONS.items())
    groups = "\n".join(f"| `{name}` | {', '.join(sorted(names))} |" for name, names in GROUPS.items())
    text = (FOLDER.parent / "fault_index.txt").read_text()
    return (
        text.replace("@ACTIONS@", actions)
        .replace("@GROUPS@", groups)
        .replace("@DISK@", ", ".join(f"`{name}`" for name in DISK_OPERATIONS))
    )


def pages() -> dict[str, str]:
    """All generated pages, by file name."""
    return {"README.md": index()} | {f"{name}.md": page(name, kind) for name, kind in ACTIONS.items()}


def main() -> int:
    """Write or check."""
    made = pages()
    there = {path.name: path.read_text() for path in FOLDER.glob("*.md") if path.name not in BY_HAND}
    if "--check" in sys.argv:
        return 0 if there == made else 1
    FOLDER.mkdir(exist_ok=True)
    for name in there.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
