"""Taps: who watches the requests of an export, and may decide what becomes of them. Imports `wire` only."""
