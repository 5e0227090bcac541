"""The kinds of machines: QEMU as a process of the lab, and a domain of libvirt.

May import: the lab below `live.py`.
"""
