"""What would go wrong on this machine, and the cure, before anything is started: `qemu-odx doctor`."""
