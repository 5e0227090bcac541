"""Windows' IOCTL and FSCTL structures of offloaded data transfer, their codes and their status values.

`record.py` makes a structure from a table of fields, `structures.py` has the tables, `codes.py` the control codes and
flags, `ntstatus.py` the status values, `build.py` whole input buffers. Imports nothing of ours.
"""
