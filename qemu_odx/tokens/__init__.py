"""What a ROD token means: minting, checking, life, and the copy operations behind list identifiers.

Sans-IO: the clock and the randomness are handed in. Imports only `wire`. Never imports `disk`: what a token
stands for is an opaque payload, joined to disks in `target/execute.py`.
"""
