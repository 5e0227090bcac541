"""A Windows image from the user's own installation medium: unattended, step by step, down to a golden qcow2.

May import: the lab. Written from documents and from the sources of tools that do the same, and checked without a
medium; it has not been run with a real one.
"""
