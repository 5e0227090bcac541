"""Labs with several disks, exports and guests as data: `odx.toml`, or options of the command line."""
