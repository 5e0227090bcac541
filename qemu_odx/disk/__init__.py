"""Disks: image files and block devices of the host, with point-in-time snapshots and copies."""
