"""What is particular to a guest, as data: who logs in, what tells that it is ready, which words make it do things.

May import: errors, image, ssh (its `Login`). `live.py` does the work; an adapter touches nothing itself.
"""
