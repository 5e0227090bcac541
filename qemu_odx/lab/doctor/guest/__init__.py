"""What a guest sees of ODX, layer by layer: `qemu-odx doctor --guest`."""
