"""Faults put into force: hooks at the gates of exports and at the disks, and the ways to arm and release rules.

May import `faults/`, `tap/`, `disk/layers/`, `target/` and `server/options.py`.
"""
