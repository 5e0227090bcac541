"""`python -m qemu_odx` is `qemu-odx`."""

from __future__ import annotations

from qemu_odx.cli.main import main

if __name__ == "__main__":
    main()
