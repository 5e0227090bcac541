"""virtio-blk as bytes: requests, status, configuration space, feature bits.

Pure. Next: `virtio/blk.py`. Clauses: VIRTIO 1.2, 5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

SECTOR: Final = 512
"""Unit of sector numbers and capacity, whatever the block size (5.2.4)."""

F_SEG_MAX: Final = 1 << 2
F_RO: Final = 1 << 5
F_BLK_SIZE: Final = 1 << 6
F_FLUSH: Final = 1 << 9
F_TOPOLOGY: Final = 1 << 10
F_CONFIG_WCE: Final = 1 << 11
F_MQ: Final = 1 << 12
F_DISCARD: Final = 1 << 13
F_WRITE_ZEROES: Final = 1 << 14

FEATURE_NAMES: Final = {
    1: "SIZE_MAX",
    2: "SEG_MAX",
    4: "GEOMETRY",
    5: "RO",
    6: "BLK_SIZE",
    7: "SCSI",
    9: "FLUSH",
    10: "TOPOLOGY",
    11: "CONFIG_WCE",
    12: "MQ",
    13: "DISCARD",
    14: "WRITE_ZEROES",
    15: "LIFETIME",
    16: "SECURE_ERASE",
    17: "ZONED",
}
"""Bit number to name (5.2.3)."""


class RequestType(IntEnum):
    """struct virtio_blk_req, `type` (5.2.6)."""

    IN = 0
    OUT = 1
    SCSI_CMD = 2
    FLUSH = 4
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14


class Status(IntEnum):
    """The last byte of every request (5.2.6)."""

    OK = 0
    IOERR = 1
    UNSUPP = 2


HEADER: Final = Struct("<IIQ")
"""type, reserved (once I/O priority), sector (5.2.6)."""
HEADER_SIZE: Final = 16
ID_SIZE: Final = 20
"""Serial number of GET_ID, padded with NUL, not terminated (5.2.6)."""
SEGMENT: Final = Struct("<QII")
"""struct virtio_blk_discard_write_zeroes: sector, sectors, flags (5.2.6)."""
SEGMENT_SIZE: Final = 16
SEGMENT_F_UNMAP: Final = 1
"""The device may free the space of a WRITE_ZEROES; forbidden with DISCARD (5.2.6.2)."""

PACKET_SENSE: Final = 96
"""Most sense data of a SCSI packet request (5.2.6.5)."""
PACKET: Final = Struct(f"<{PACKET_SENSE}sIIII")
"""What follows data-in: sense, errors, data_len, sense_len, residual (struct virtio_scsi_inhdr, 5.2.6.5)."""
PACKET_END: Final = PACKET_SENSE + 16

_CONFIG: Final = Struct("<QIIHBBIBBHIBBHIIIIIB3x")
CONFIG_SIZE: Final = 60
"""struct virtio_blk_config up to write_zeroes_may_unmap and its padding (5.2.4)."""
CONFIG_WCE_OFFSET: Final = 32
"""`writeback`, the only field that a driver may write (5.2.5)."""


@dataclass(frozen=True, slots=True)
class BlkConfig:
    """The configuration space of a block device (5.2.4).

    Attributes:
        capacity: sectors of 512 bytes.
        seg_max: data segments a request may have.
        blk_size: logical block size in bytes.
        physical_block_exp: log2 of logical blocks in a physical one.
        min_io_size: best smallest transfer, in logical blocks.
        opt_io_size: best transfer, in logical blocks; 0: not said.
        wce: 1 with a writeback cache, 0 with write-through.
        num_queues: request queues (QEMU shows the guest its own number).
        max_discard_sectors: longest segment of a DISCARD.
        max_discard_seg: most segments of a DISCARD.
        discard_sector_alignment: granularity of freeing space, in sectors.
        max_write_zeroes_sectors: longest segment of a WRITE_ZEROES.
        max_write_zeroes_seg: most segments of a WRITE_ZEROES.
        write_zeroes_may_unmap: 1 if WRITE_ZEROES with unmap frees space.
    """

    capacity: int
    seg_max: int
    blk_size: int
    physical_block_exp: int
    min_io_size: int
    opt_io_size: int
    wce: int
    num_queues: int
    max_discard_sectors: int
    max_discard_seg: int
    discard_sector_alignment: int
    max_write_zeroes_sectors: int
    max_write_zeroes_seg: int
    write_zeroes_may_unmap: int

    def pack(self) -> bytes:
        """The 60 bytes; size_max, geometry and alignment_offset are 0."""
        return _CONFIG.pack(
            *(self.capacity, 0, self.seg_max, 0, 0, 0, self.blk_size, self.physical_block_exp, 0),
            *(self.min_io_size, self.opt_io_size, self.wce, 0, self.num_queues),
            *(self.max_discard_sectors, self.max_discard_seg, self.discard_sector_alignment),
            *(self.max_write_zeroes_sectors, self.max_write_zeroes_seg, self.write_zeroes_may_unmap),
        )
