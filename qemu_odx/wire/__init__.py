"""Bytes to values and back: pure, standard library only, imports nothing of ours."""
