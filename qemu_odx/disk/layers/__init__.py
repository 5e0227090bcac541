"""Disk layers: disks around other disks, for looking closely at what happens or for breaking it on purpose.

May import the rest of `disk`. `layer.py` is the base, `table.py` has the layers by name.
"""
