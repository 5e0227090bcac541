"""Would Windows switch ODX on for a disk, with which limits and commands, and if not, which byte is to blame.

`opening.py` reaches the disk, `advice.py` looks for what works against it, `copy_plan.py` tries a copy on a perfect
target of the same limits, `report.py` puts all of it into words and JSON.
"""
