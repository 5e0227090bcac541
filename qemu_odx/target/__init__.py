"""SCSI logical units: CDB to plan to reply. Imports `tokens`, `disk/port`, `wire`."""
