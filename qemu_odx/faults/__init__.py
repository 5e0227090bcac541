"""Faults on purpose: rules that say which requests go wrong, how, and when.

Pure: imports `wire` alone; has no clock, no thread and no file. `server/options.py` cuts a rule's text into options,
`rule.py` makes a rule of them, `book.py` keeps the rules and decides; the hooks that obey are in `virtio/`,
`target/` and `disk/layers/`.
"""
