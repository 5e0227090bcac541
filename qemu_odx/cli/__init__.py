"""The command line: `qemu-odx` and its subcommands."""
