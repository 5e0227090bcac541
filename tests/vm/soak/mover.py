"""In the guest, through a live migration: verified load all the while, tokens made before and used after.

Standard library, the guest scripts in the folder that is the first argument, `soak_agent.py` beside this file. The
others are the name of the guest, the folder where it tells what it has done as files of JSON, and its doors.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from soak_agent import MIB, Agent

TOLD = Path(sys.argv[3])
PATIENCE = 600
"""Seconds that tokens may lie unused on the way, which a slow host makes long."""


def tell(name: str, what: object) -> None:
    """A file that appears when it is complete."""
    unfinished = TOLD / f"{name}.unfinished"
    unfinished.write_text(json.dumps(what))
    unfinished.rename(TOLD / name)


def move(agent: Agent) -> dict[str, object]:
    """Tokens by every door, the journey, their use by every door; what was wrong."""
    doors = [door for door in (False, True) if (agent.blk if door else agent.scsi)]
    made = [
        (door, agent.populate((4 + 4 * door) * MIB, by_mailbox=door, inactivity_timeout=PATIENCE))
        for door in doors
    ]
    tell("before", agent.counts())
    while not (TOLD / "go").exists():
        time.sleep(0.05)
    arrived = agent.counts()
    wrong = []
    for maker, token in made:
        for user in doors:
            found = agent.write(token["token"], by_mailbox=user)
            if found["sha256"] != token["sha256"]:
                wrong.append(
                    f"made by {'mailbox' if maker else 'scsi'}, used by {'mailbox' if user else 'scsi'}"
                )
    fresh = agent.populate(12 * MIB, by_mailbox=doors[0])
    if agent.write(fresh["token"], by_mailbox=doors[-1])["sha256"] != fresh["sha256"]:
        wrong.append("made and used over there")
    while not (
        (now := agent.counts())["errors"] or all(now[kind] > arrived[kind] for kind in ("read", "write"))
    ):
        time.sleep(0.05)
    return {"wrong": wrong, "uses": len(made) * len(doors), "arrived": arrived, **agent.finish()}


try:
    tell("after", move(Agent(sys.argv[2], tuple(sys.argv[4:]))))
except Exception:  # noqa: BLE001 - told to the host
    tell("after", {"wrong": [traceback.format_exc()], "errors": []})
