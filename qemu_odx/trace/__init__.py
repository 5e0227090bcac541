"""Traces: everything an export sees and does, as JSON lines and as text. Imports `tap`, `tokens` and `wire` only."""
