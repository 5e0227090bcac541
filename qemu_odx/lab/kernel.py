"""The uncompressed kernel inside a Debian or Ubuntu `vmlinuz`: QEMU enters it directly, by PVH.

Imports nothing of ours. That saves the guest the unpacking, which under TCG costs up to a second.
"""

from __future__ import annotations

import lzma
import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Offsets of the x86 boot header: Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
SETUP_SECTORS = 0x1F1
PAYLOAD = 0x248  # payload_offset and payload_length, 32 bits each
SECTOR = 512
SIZE_TRAILER = 4  # the build appends the unpacked size to formats that do not carry it

LZ4_LEGACY = bytes.fromhex("02214c18")
ZSTD = bytes.fromhex("28b52ffd")
XZ = bytes.fromhex("fd377a58")
GZIP = bytes.fromhex("1f8b")
ELF = b"\x7fELF"


def unpack_kernel(vmlinuz: Path, target: Path) -> bool:
    """Write the ELF kernel inside `vmlinuz` to `target`; False if its packing is unknown."""
    kernel = _unpack(_payload(vmlinuz.read_bytes()))
    if not kernel.startswith(ELF):
        return False
    target.write_bytes(kernel)
    return True


def _payload(image: bytes) -> bytes:
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = (image[SETUP_SECTORS] + 1) * SECTOR + offset
    return image[start : start + length]


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(LZ4_LEGACY):
        return _by_program("lz4", payload[:-SIZE_TRAILER])
    if payload.startswith(ZSTD):
        return _by_program("zstd", payload[:-SIZE_TRAILER])
    if payload.startswith(XZ):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(GZIP):
        return zlib.decompressobj(wbits=31).decompress(payload)
    return b""


def _by_program(program: str, packed: bytes) -> bytes:
    try:
        return subprocess.run([program, "-dc"], input=packed, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""
