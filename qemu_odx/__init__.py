"""Virtual disks for QEMU guests that speak ODX, and a lab that proves what they promise."""

__version__ = "0.1.0"
