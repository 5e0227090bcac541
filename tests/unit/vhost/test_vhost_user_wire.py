"""Layouts of the vhost-user protocol, against bytes that QEMU 7.2.22 sent (Debian, x86-64, recorded)."""

from __future__ import annotations

import pytest

from qemu_odx.wire.vhost_user import (
    HEADER,
    ConfigSpace,
    Inflight,
    MemoryRegion,
    ProtocolFeature,
    Request,
    VringAddress,
    VringState,
    WireError,
    pack_memory_table,
    request_name,
    unpack_memory_table,
)

# Recorded from vhost-user-blk-pci with num-queues=2 and 64 MiB of RAM, at DRIVER_OK.
GET_INFLIGHT_FD = "000000000000000000000000000000000200800000000000"
SET_INFLIGHT_FD = "801000000000000000000000000000000200800000000000"
ADD_MEM_REG = "0000000000000000000000000000000000000c000000000000f0ffab7e7f00000000000000000000"
ADD_MEM_REG_AT_OFFSET = "000000000000000000000e0000000000000001000000000000f00dac7e7f000000000e0000000000"
SET_VRING_NUM = "0000000080000000"
SET_VRING_ADDR = "0100000000000000c00320ac7e7f0000500820ac7e7f0000c00720ac7e7f00005018200000000000"
SET_CONFIG_WCE = "20000000010000000000000000"
GET_CONFIG = "0000000039000000" + "00" * 61


def test_header_is_three_words() -> None:
    """Request, flags, size: 12 bytes in host order."""
    assert HEADER.pack(Request.GET_CONFIG, 0x1, 69) == bytes.fromhex("180000000100000045000000")


def test_inflight_has_24_bytes() -> None:
    """QEMU sends the C structure with its 4 bytes of padding."""
    wanted = Inflight.unpack(bytes.fromhex(GET_INFLIGHT_FD))
    assert wanted == Inflight(0, 0, num_queues=2, queue_size=128)
    assert wanted.pack().hex() == GET_INFLIGHT_FD


def test_inflight_area_of_two_queues_of_128() -> None:
    """The answer that QEMU stores and sends back: 2 x 2112 bytes."""
    assert Inflight.unpack(bytes.fromhex(SET_INFLIGHT_FD)) == Inflight(4224, 0, 2, 128)


def test_single_memory_region_begins_with_padding() -> None:
    """ADD_MEM_REG: 8 bytes nobody reads, then the region."""
    region = MemoryRegion.unpack_single(bytes.fromhex(ADD_MEM_REG))
    assert region == MemoryRegion(0, 0xC0000, 0x7F7EABFFF000, 0)
    assert region.pack_single().hex() == ADD_MEM_REG


def test_memory_region_inside_its_file() -> None:
    """The last word is the offset into the descriptor."""
    region = MemoryRegion.unpack_single(bytes.fromhex(ADD_MEM_REG_AT_OFFSET))
    assert (region.guest_address, region.mmap_offset) == (0xE0000, 0xE0000)


def test_vring_state() -> None:
    """Index, then number."""
    assert VringState.unpack(bytes.fromhex(SET_VRING_NUM)) == VringState(index=0, num=128)


def test_vring_address_order_is_descriptor_used_available_log() -> None:
    """The used ring comes before the available ring; the log address is guest physical."""
    address = VringAddress.unpack(bytes.fromhex(SET_VRING_ADDR))
    assert address == VringAddress(
        index=1,
        flags=0,
        descriptor=0x7F7EAC2003C0,
        used=0x7F7EAC200850,
        available=0x7F7EAC2007C0,
        log=0x201850,
    )
    assert address.pack().hex() == SET_VRING_ADDR


def test_config_space_write() -> None:
    """The guest switches the write cache: one byte at 32."""
    assert ConfigSpace.unpack(bytes.fromhex(SET_CONFIG_WCE)) == ConfigSpace(32, 1, 0, b"\0")


def test_config_space_request_carries_its_room() -> None:
    """GET_CONFIG brings as many bytes as it wants back."""
    wanted = ConfigSpace.unpack(bytes.fromhex(GET_CONFIG))
    assert (wanted.offset, wanted.size, len(wanted.data)) == (0, 57, 57)


def test_config_space_that_lies_about_its_size_is_refused() -> None:
    """57 bytes announced, 56 there."""
    with pytest.raises(WireError, match="57 bytes in 56"):
        ConfigSpace.unpack(bytes.fromhex(GET_CONFIG)[:-1])


def test_memory_table_round_trip() -> None:
    """Count, padding, regions of 32 bytes (specification, "Multiple Memory regions description")."""
    regions = (MemoryRegion(0, 0x1000, 0x7000, 0), MemoryRegion(0x2000, 0x1000, 0x9000, 0x1000))
    payload = pack_memory_table(regions)
    assert payload[:8] == bytes.fromhex("0200000000000000")
    assert len(payload) == 8 + 2 * 32
    assert unpack_memory_table(payload) == regions


@pytest.mark.parametrize("count", [0, 2, 9, 0xFFFFFFFF])
def test_memory_table_with_a_wrong_count_is_refused(count: int) -> None:
    """One region in the bytes, another number in the head."""
    payload = bytearray(pack_memory_table((MemoryRegion(0, 1, 2, 3),)))
    payload[:4] = count.to_bytes(4, "little")
    with pytest.raises(WireError):
        unpack_memory_table(bytes(payload))


@pytest.mark.parametrize(
    ("bit", "mask"), [("MQ", 0x1), ("REPLY_ACK", 0x8), ("CONFIG", 0x200), ("INFLIGHT_SHMFD", 0x1000)]
)
def test_protocol_feature_masks(bit: str, mask: int) -> None:
    """Bit numbers of the specification, "Protocol features"."""
    assert ProtocolFeature[bit].mask == mask


def test_unknown_requests_have_a_name_too() -> None:
    """For the log line."""
    assert request_name(18) == "SET_VRING_ENABLE"
    assert request_name(99) == "request 99"
