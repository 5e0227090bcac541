"""Fixtures for pytest: a disk server, disks, a guest, tokens (`docs/pytest.md`).

`plugin.py` is what pytest loads at every start, so it imports pytest only; a fixture imports the rest.
"""
