"""Replay: a recorded session run again without a guest, and compared.

May import `trace`, `testing` and what is below them. `run.py` has the loop, `script.py` what is run.
"""
