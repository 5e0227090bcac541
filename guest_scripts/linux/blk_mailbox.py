"""SCSI commands over a virtio-blk disk, by the mailbox in its sectors: for its users the same as `sg.ScsiDisk`.

Standard library only. Uses `disks.py` to get past the page cache and `sg.py` for sense data. The protocol is
`docs/mailbox.md` of qemu_odx, version 1; the disk server must have been told `mailbox=on`.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from itertools import count
from zlib import crc32

from disks import DirectDisk, DiskError
from sg import UNIT_ATTENTION, ScsiError, command_error

DEFAULT_OFFSET = 524288
HEAD_SIZE = 128
SLOTS = 16
SLOT = 16384
AREA = 8192  # of a request, and of the response behind it
HEADER = 96
MAX_DATA = AREA - HEADER
HEAD = struct.Struct("<16s8I")
GEOMETRY = (1, SLOTS, SLOT, SLOT, AREA, MAX_DATA, MAX_DATA)  # version and sizes, in their order in the head
REQUEST = struct.Struct("<4sHHQQIIII8x32s16x")
RESPONSE = struct.Struct("<4sHHQQ6I32s16x")
SLOT_TAKEN = 6
RESULTS = (
    "executed",
    "bad magic",
    "bad version",
    "bad length",
    "bad checksum",
    "bad sequence",
    "slot taken",
    "bad user",
)


@dataclass(frozen=True)
class Response:
    """The end of a command: result of the mailbox, SCSI status, sense data, data-in."""

    result: int
    status: int
    sense: bytes
    data: bytes


class MailboxDisk:
    """A virtio-blk disk with a mailbox.

    Attributes:
        ring_bytes: bytes of pages that crossed the ring so far.
    """

    def __init__(self, node: str, offset: int = DEFAULT_OFFSET) -> None:
        """Open the disk. Raises DiskError if there is no mailbox at this place."""
        self.node = node
        self._disk = DirectDisk(node)
        self._offset = offset
        self._user = int.from_bytes(os.urandom(8), "little") or 1
        self._sequences = count(1)
        self._check_head()
        self._slots = sorted(range(SLOTS), key=lambda slot: any(self._load(slot)))  # never used ones first
        self._disk.ring_bytes = 0

    @property
    def ring_bytes(self) -> int:
        """Bytes of pages that crossed the ring."""
        return self._disk.ring_bytes

    @ring_bytes.setter
    def ring_bytes(self, value: int) -> None:
        self._disk.ring_bytes = value

    def _check_head(self) -> None:
        page = mmap.mmap(-1, mmap.PAGESIZE)
        self._disk.read(self._offset, page)
        magic, *geometry, _ = HEAD.unpack_from(page)
        (checksum,) = struct.unpack_from("<I", page, HEAD_SIZE - 4)
        sound = magic == b"QEMU-ODX-MAILBOX" and checksum == crc32(page[: HEAD_SIZE - 4])
        if not sound or tuple(geometry) != GEOMETRY:
            raise DiskError(
                f"{self.node} has no mailbox at byte {self._offset}: export it with mailbox=on, or name its place"
            )

    def read(self, cdb: bytes, length: int) -> bytes:
        """Issue a command that returns at most `length` bytes; what came."""
        return self._issue(cdb, b"", min(length, MAX_DATA))

    def write(self, cdb: bytes, parameters: bytes) -> None:
        """Issue a command that sends `parameters`, at most 8096 bytes."""
        self._issue(cdb, parameters, 0)

    def _issue(self, cdb: bytes, data_out: bytes, wanted: int) -> bytes:
        """Run one command, once more after a unit attention."""
        try:
            return self._issue_once(cdb, data_out, wanted)
        except ScsiError as error:
            if error.key != UNIT_ATTENTION:
                raise
            return self._issue_once(cdb, data_out, wanted)

    def _issue_once(self, cdb: bytes, data_out: bytes, wanted: int) -> bytes:
        name = f"command {cdb[0]:02X}h/{cdb[1] & 0x1F:02X}h in the mailbox of {self.node}"
        response = self._exchange(cdb, data_out, wanted)
        if response.result:
            raise ScsiError(f"{name} was not executed: {RESULTS[response.result]}")
        if response.status:
            raise command_error(name, response.status, response.sense)
        return response.data

    def _exchange(self, cdb: bytes, data_out: bytes, wanted: int) -> Response:
        """Send a request in a slot that nobody else uses, and take its response."""
        for _ in range(SLOTS):
            sequence = next(self._sequences)
            self._store(self._slots[0], self._request(sequence, cdb, data_out, wanted))
            response = self._response(sequence)
            if response.result != SLOT_TAKEN:
                return response
            self._slots.append(self._slots.pop(0))
        return response

    def _request(self, sequence: int, cdb: bytes, data_out: bytes, wanted: int) -> bytes:
        def header(checksum: int) -> bytes:
            lengths = (len(cdb), len(data_out), wanted)
            return REQUEST.pack(b"ODXQ", 1, HEADER, sequence, self._user, *lengths, checksum, cdb)

        return header(crc32(header(0) + data_out)) + data_out

    def _response(self, sequence: int) -> Response:
        page = self._load(self._slots[0])
        magic, version, header, *identity, result, status, sense, length, _, checksum, padded = (
            RESPONSE.unpack_from(page)
        )
        if (magic, version, header, *identity) != (b"ODXA", 1, HEADER, sequence, self._user):
            raise ScsiError(
                f"somebody else uses the mailbox of {self.node}, and our answer is lost: try again"
            )
        if checksum != crc32(page[:44] + bytes(4) + page[48 : HEADER + length]):
            raise ScsiError(f"a response in the mailbox of {self.node} is damaged")
        return Response(result, status, padded[:sense], page[HEADER : HEADER + length])

    def _place(self, slot: int) -> int:
        return self._offset + SLOT * (slot + 1)

    def _store(self, slot: int, request: bytes) -> None:
        """One write from the first byte of the slot on; it completes when the command has."""
        page = mmap.mmap(-1, -(-len(request) // mmap.PAGESIZE) * mmap.PAGESIZE)
        page[: len(request)] = request
        self._disk.write(self._place(slot), page)

    def _load(self, slot: int) -> bytes:
        page = mmap.mmap(-1, AREA)
        self._disk.read(self._place(slot) + AREA, page)
        return page[:]

    def close(self) -> None:
        """Close the node."""
        self._disk.close()
