"""Device side of virtio: guest memory, split queues, virtio-blk, virtio-scsi and the mailbox."""
