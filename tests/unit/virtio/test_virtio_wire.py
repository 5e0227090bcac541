"""Layouts against bytes made by gcc from Linux 6.1's own headers (linux/virtio_ring.h, _blk.h, _scsi.h)."""

from __future__ import annotations

import pytest

from qemu_odx.wire.virtio import blk, features, ring, scsi

_SENSE = bytes([0x70]) + bytes(94) + bytes([0xEE])


def test_descriptor() -> None:
    """As Linux' struct vring_desc."""
    packed = ring.DESCRIPTOR.pack(0x1122334455667788, 0x99AABBCC, ring.F_NEXT | ring.F_WRITE, 0x0102)
    assert packed.hex() == "8877665544332211ccbbaa9903000201"


@pytest.mark.parametrize(
    ("entries", "used_event", "avail_event"), [(2, 8, 20), (128, 260, 1028)], ids=["2 entries", "128 entries"]
)
def test_ring_events(entries: int, used_event: int, avail_event: int) -> None:
    """vring_used_event and vring_avail_event, as byte offsets in their rings."""
    assert ring.used_event_word(entries) * 2 == used_event == ring.avail_size(entries) - 2
    assert ring.avail_event_word(entries) * 2 == avail_event == ring.used_size(entries) - 2


@pytest.mark.parametrize(
    ("event", "new", "old", "needed"),
    [(0, 1, 0, 1), (5, 6, 5, 1), (5, 5, 5, 0), (0xFFFF, 0, 0xFFFF, 1), (0xFFFE, 1, 0xFFFF, 0), (3, 10, 2, 1)],
)
def test_needs_event(event: int, new: int, old: int, needed: int) -> None:
    """vring_need_event, across the wrap too."""
    assert ring.needs_event(event, new, old) == needed


def test_blk_header() -> None:
    """As Linux' struct virtio_blk_outhdr."""
    packed = blk.HEADER.pack(blk.RequestType.WRITE_ZEROES, 0, 0x1122334455667788)
    assert packed.hex() == "0d000000000000008877665544332211"
    assert len(packed) == blk.HEADER_SIZE


def test_blk_segment() -> None:
    """As Linux' struct virtio_blk_discard_write_zeroes."""
    packed = blk.SEGMENT.pack(0x1122334455667788, 0x99AABBCC, blk.SEGMENT_F_UNMAP)
    assert packed.hex() == "8877665544332211ccbbaa9901000000"
    assert len(packed) == blk.SEGMENT_SIZE


def test_blk_config() -> None:
    """As Linux' struct virtio_blk_config up to the secure erase fields."""
    config = blk.BlkConfig(
        capacity=0x1122334455667788,
        seg_max=254,
        blk_size=4096,
        physical_block_exp=3,
        min_io_size=8,
        opt_io_size=0x01020304,
        wce=1,
        num_queues=0x0506,
        max_discard_sectors=0x0708090A,
        max_discard_seg=0x0B0C0D0E,
        discard_sector_alignment=0x0F101112,
        max_write_zeroes_sectors=0x13141516,
        max_write_zeroes_seg=0x1718191A,
        write_zeroes_may_unmap=1,
    ).pack()
    assert config.hex() == (
        "887766554433221100000000fe00000000000000001000000300080004030201"
        "010006050a0908070e0d0c0b1211100f161514131a19181701000000"
    )
    assert len(config) == blk.CONFIG_SIZE
    assert config[blk.CONFIG_WCE_OFFSET] == 1


def test_scsi_command() -> None:
    """As Linux' struct virtio_scsi_cmd_req."""
    cdb = bytes(range(0x80, 0xA0))
    packed = scsi.COMMAND.pack(bytes.fromhex("0100400300000000"), 0x1122334455667788, 1, 2, 3, cdb)
    assert packed.hex() == "01004003000000008877665544332211010203" + cdb.hex()
    assert len(packed) == scsi.COMMAND_SIZE


def test_scsi_response() -> None:
    """As Linux' struct virtio_scsi_cmd_resp."""
    packed = scsi.RESPONSE.pack(18, 0x01020304, 0x0506, 2, scsi.Response.FAILURE, _SENSE)
    assert packed.hex() == "120000000403020106050209" + _SENSE.hex()
    assert len(packed) == scsi.RESPONSE_SIZE


def test_scsi_task_management() -> None:
    """As Linux' struct virtio_scsi_ctrl_tmf_req."""
    lun = bytes.fromhex("0100000300000000")
    packed = scsi.TMF.pack(scsi.Control.TMF, scsi.TaskManagement.LOGICAL_UNIT_RESET, lun, 0x1122334455667788)
    assert packed.hex() == "000000000500000001000003000000008877665544332211"
    assert len(packed) == scsi.TMF_SIZE


def test_scsi_notification_response() -> None:
    """As Linux' struct virtio_scsi_ctrl_an_resp."""
    assert scsi.AN_RESPONSE.pack(0x01020304, scsi.Response.FAILURE).hex() == "0403020109"


def test_scsi_event() -> None:
    """As Linux' struct virtio_scsi_event: missed events, and capacity data changed (2A/09)."""
    event = scsi.EVENTS_MISSED | scsi.Event.PARAM_CHANGE
    packed = scsi.EVENT.pack(event, scsi.encode_lun(0, 3), scsi.param_change(0x2A, 0x09))
    assert packed.hex() == "0300008001000003000000002a090000"
    assert len(packed) == scsi.EVENT_SIZE


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("0100400300000000", scsi.Address(0, 3)),
        ("0105412c00000000", scsi.Address(5, 0x12C)),
        ("0100000300000000", scsi.Address(0, 3)),
        ("01007fff00000000", scsi.Address(0, 0x3FFF)),
        ("c101000000000000", scsi.Address(0, 0, well_known=True)),
        ("0000400300000000", None),
        ("0100800300000000", None),
        ("0100c10100000000", None),
        ("0100010300000000", None),
    ],
    ids=[
        "Linux",
        "Linux, above 255",
        "Windows",
        "highest",
        "REPORT LUNS unit",
        "no 01h",
        "logical",
        "extended",
        "bus",
    ],
)
def test_lun_field(field: str, address: scsi.Address | None) -> None:
    """The forms of Linux, SeaBIOS and Windows name a unit, others none."""
    assert scsi.decode_lun(bytes.fromhex(field)) == address


@pytest.mark.parametrize("lun", [0, 255, 256, scsi.MAX_LUN])
def test_event_lun_is_understood(lun: int) -> None:
    """What an event says can be read back, in the form that REPORT LUNS uses."""
    field = scsi.encode_lun(7, lun)
    assert scsi.decode_lun(field) == (7, lun, False)
    assert (field[2] == 0) == (lun < 256)


def test_feature_names() -> None:
    """Known bits by name, unknown ones by number."""
    bits = features.F_VERSION_1 | features.F_EVENT_IDX | blk.F_FLUSH | 1 << 50
    assert features.feature_names(bits, blk.FEATURE_NAMES) == ["FLUSH", "EVENT_IDX", "VERSION_1", "bit 50"]
