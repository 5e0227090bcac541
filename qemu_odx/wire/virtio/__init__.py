"""Bytes of virtio: rings, block and SCSI requests, feature bits."""
