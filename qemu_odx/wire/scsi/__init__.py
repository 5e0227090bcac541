"""SCSI structures: sense data, CDBs, VPD pages, token parameter lists, ROD tokens."""
