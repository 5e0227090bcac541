"""The journal of a server: what tokens, snapshots and copies need to outlive its process, in one SQLite file.

`folder.py` is the state folder, its lock and what may be believed of it; `store.py` the database; `disks.py`,
`copies.py`, `swaps.py` and `slots.py` implement the ports of `disk/journal.py`, `tokens/journal.py`,
`target/swaps.py` and `virtio/mailbox.py`.
"""
