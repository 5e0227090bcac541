"""Command handlers, one file per family. Each file exports `HANDLERS`: command name to handler."""
