"""The vhost-user session as a table: what is offered, answered, acknowledged and refused."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.vhost_user import (
    U64,
    ConfigSpace,
    Feature,
    Inflight,
    MemoryRegion,
    Request,
    VringAddress,
    VringState,
    pack_memory_table,
)

if TYPE_CHECKING:
    from conftest import FakeDevice, Talk

ACK, NACK = U64.pack(0), U64.pack(1)


def number(sent: list[tuple[int, bytes, int]]) -> int:
    """The number in the only reply."""
    ((_, payload, _),) = sent
    return int(U64.unpack(payload)[0])


# -- negotiation -----------------------------------------------------------------------------------


def test_features_offered(talk: Talk) -> None:
    """VERSION_1, EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES, LOG_ALL and the device's own: nothing else."""
    expected = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30 | 1 << 26 | 1 << 9
    assert number(talk.say(Request.GET_FEATURES)) == expected


def test_protocol_features_offered_with_a_configuration_space(talk: Talk) -> None:
    """MQ, LOG_SHMFD, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS."""
    assert number(talk.say(Request.GET_PROTOCOL_FEATURES)) == 0xB22B


def test_protocol_features_offered_without_one(scsi_talk: Talk) -> None:
    """QEMU warns about CONFIG on vhost-user-scsi, and the back end request socket has no use there."""
    assert number(scsi_talk.say(Request.GET_PROTOCOL_FEATURES)) == 0xB00B


def test_features_never_offered_are_tolerated(scsi_talk: Talk) -> None:
    """QEMU gives vhost-user-scsi CHANGE (2) and VERSION_1 whatever was offered."""
    scsi_talk.negotiate(0x140000004)
    assert not scsi_talk.link.dropped
    assert ("set_features", 0x140000004) in scsi_talk.device.calls


def test_protocol_features_never_offered_are_a_fault(talk: Talk) -> None:
    """Postcopy is not there: nobody may believe it is."""
    talk.say(Request.SET_PROTOCOL_FEATURES, U64.pack(1 << 8))
    assert talk.link.dropped == ["SET_PROTOCOL_FEATURES: the bits 0x100 were not offered"]


def test_queues_and_slots(ready: Talk) -> None:
    """All queues of the device; as many slots as QEMU 10.0 can use."""
    assert number(ready.say(Request.GET_QUEUE_NUM)) == 2
    assert number(ready.say(Request.GET_MAX_MEM_SLOTS)) == 512


# -- the acknowledgement rule ----------------------------------------------------------------------


def test_no_acknowledgement_unless_asked(ready: Talk) -> None:
    """Without need_reply nothing is sent."""
    assert ready.say(Request.SET_OWNER) == []


def test_acknowledgement_when_asked(ready: Talk) -> None:
    """With it, a zero."""
    assert ready.say(Request.SET_OWNER, ack=True) == [(Request.SET_OWNER, ACK, 0)]


def test_no_acknowledgement_before_it_is_negotiated(talk: Talk) -> None:
    """need_reply means nothing without REPLY_ACK."""
    assert talk.say(Request.SET_OWNER, ack=True) == []


@pytest.mark.parametrize(
    "request_id", [Request.GET_FEATURES, Request.GET_QUEUE_NUM, Request.GET_MAX_MEM_SLOTS]
)
def test_never_a_second_reply(ready: Talk, request_id: int) -> None:
    """A request with a reply of its own gets just that, need_reply or not."""
    assert len(ready.say(request_id, ack=True)) == 1


def test_get_vring_base_gets_one_reply_even_with_need_reply(ready: Talk) -> None:
    """Also when the reply comes later."""
    ready.start()
    assert ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack(), ack=True) == [
        (Request.GET_VRING_BASE, VringState(0, 7).pack(), 0)
    ]


def test_refusal_by_acknowledgement_keeps_the_connection(ready: Talk) -> None:
    """The front end asked, so it is told."""
    payload = VringState(0, 100).pack()
    assert ready.say(Request.SET_VRING_NUM, payload, ack=True) == [(Request.SET_VRING_NUM, NACK, 0)]
    assert not ready.link.dropped


def test_refusal_without_acknowledgement_ends_the_connection(ready: Talk) -> None:
    """It did not ask: going on would hide the fault."""
    ready.say(Request.SET_VRING_NUM, VringState(0, 100).pack())
    assert ready.link.dropped == [
        "SET_VRING_NUM: queue 0 of 100 entries (a power of 2 up to 32768 is needed)"
    ]


# -- configuration space ---------------------------------------------------------------------------


def test_get_config_returns_what_was_asked(ready: Talk) -> None:
    """Same head, same size, the bytes from the offset on."""
    wanted = ConfigSpace(8, 4, 0, bytes(4))
    ((_, payload, _),) = ready.say(Request.GET_CONFIG, wanted.pack())
    assert payload == ConfigSpace(8, 4, 0, bytes([8, 9, 10, 11])).pack()


def test_get_config_beyond_the_device_reads_zeros(ready: Talk) -> None:
    """A newer front end asks for more fields than we have."""
    ((_, payload, _),) = ready.say(Request.GET_CONFIG, ConfigSpace(0, 96, 0, bytes(96)).pack())
    assert payload[12:] == bytes(range(60)) + bytes(36)


def test_set_config_reaches_the_device(ready: Talk) -> None:
    """The write cache byte."""
    assert ready.say(Request.SET_CONFIG, ConfigSpace(32, 1, 0, b"\1").pack(), ack=True)[0][1] == ACK
    assert ("write_config", 32, b"\1") in ready.device.calls


def test_set_config_refused_by_the_device(ready: Talk) -> None:
    """Capacity is not the guest's to change."""
    assert ready.say(Request.SET_CONFIG, ConfigSpace(0, 1, 0, b"\1").pack(), ack=True)[0][1] == NACK


def test_config_change_is_announced_without_need_reply(ready: Talk) -> None:
    """QEMU would acknowledge only after its own GET_CONFIG: waiting for that is a deadlock."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ready.say(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()], ack=True)
        ready.session.config_changed()
        assert ours.recv(100) == bytes.fromhex("020000000100000000000000")


def test_config_change_is_announced_after_a_reconnect(ready: Talk) -> None:
    """A front end that never read the configuration keeps an old one: tell it once the ring runs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ready.say(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        with pytest.raises(BlockingIOError):
            ours.recv(100)
        ready.start(0)
        ready.start(1)
        assert len(ours.recv(100)) == 12


def test_backend_socket_that_is_none_is_refused(ready: Talk) -> None:
    """An eventfd in its place."""
    assert ready.say(Request.SET_BACKEND_REQ_FD, b"", [ready.kick], ack=True)[0][1] == NACK


# -- rings -----------------------------------------------------------------------------------------


def test_a_ring_starts_when_kicked_and_enabled(ready: Talk) -> None:
    """Not before both, in whatever order."""
    ready.describe_ring()
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    assert ("start", 0) not in ready.device.calls
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert ready.device.calls[-1] == ("start", 0)


def test_a_ring_may_be_enabled_first(ready: Talk) -> None:
    """The kick then starts it."""
    ready.describe_ring()
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert ("start", 0) not in ready.device.calls
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    assert ready.device.calls[-1] == ("start", 0)


def test_without_protocol_features_rings_are_born_enabled(talk: Talk) -> None:
    """There is no SET_VRING_ENABLE then."""
    talk.say(Request.SET_FEATURES, U64.pack(Feature.VERSION_1))
    region = talk.ram.regions[0]
    table = pack_memory_table((MemoryRegion(region.gpa, region.size, region.uva, region.offset),))
    talk.say(Request.SET_MEM_TABLE, table, [talk.ram.fd])
    talk.describe_ring()
    talk.say(Request.SET_VRING_KICK, U64.pack(0), [talk.kick])
    assert talk.device.calls[-1] == ("start", 0)


def test_the_ring_has_what_the_messages_said(ready: Talk) -> None:
    """Size, base, event index, and the three parts at front-end addresses."""
    ready.start(base=42)
    ring = ready.device.rings[0]
    assert (ring.size, ring.next_avail, ring.event_idx) == (128, 42, True)
    ready.ram.write(ready.ram.base + 0x1000, b"avail")
    ready.ram.write(ready.ram.base + 0x2000, b"used")
    assert bytes(ring.avail[:5]) == b"avail"
    assert bytes(ring.used[:4]) == b"used"
    assert (len(ring.desc), len(ring.avail), len(ring.used)) == (2048, 262, 1030)


def test_an_enabled_queue_without_an_address_is_left_alone(ready: Talk) -> None:
    """QEMU enables every queue, set up or not."""
    ready.start(0)
    assert ready.say(Request.SET_VRING_ENABLE, VringState(1, 1).pack(), ack=True)[0][1] == ACK
    assert list(ready.device.rings) == [0]


def test_a_kick_before_enable_is_not_lost(ready: Talk) -> None:
    """The first request can come before SET_VRING_ENABLE: its kick waits in the descriptor."""
    ready.describe_ring()
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    os.eventfd_write(ready.kick, 1)
    assert not ready.link.watched
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    (on_kick,) = ready.link.watched.values()
    on_kick()
    assert ready.device.calls[-2:] == [("start", 0), ("kick", 0)]


def test_a_kick_is_taken_once(ready: Talk) -> None:
    """The event descriptor is read, or the loop would spin."""
    ready.start()
    os.eventfd_write(ready.kick, 3)
    (on_kick,) = ready.link.watched.values()
    on_kick()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ready.kick)


def test_a_kick_that_somebody_else_took_does_not_block(talk: Talk) -> None:
    """The front end may have read it while it replaced the descriptor: ours is made non-blocking."""
    os.set_blocking(talk.kick, True)
    talk.negotiate()
    talk.share_memory()
    talk.start()
    (on_kick,) = talk.link.watched.values()
    on_kick()
    assert talk.device.calls[-1] == ("kick", 0)


def test_the_guest_is_signalled_once_at_start(ready: Talk) -> None:
    """A completion of an earlier life may have lost its interrupt."""
    ready.start()
    assert os.eventfd_read(ready.call) == 1


def test_a_new_call_descriptor_is_signalled(ready: Talk) -> None:
    """What went to the old one may not have been seen (vhost-user-scsi sets it after the start)."""
    ready.start()
    ready.signalled()
    ready.say(Request.SET_VRING_CALL, U64.pack(0), [ready.call])
    assert ready.signalled()


def test_a_new_kick_descriptor_scans_the_ring(ready: Talk) -> None:
    """A kick on the old one may be lost."""
    ready.start()
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    assert ready.device.calls[-1] == ("kick", 0)
    assert len(ready.link.watched) == 1


def test_again_kicks_later_and_only_a_running_ring(ready: Talk) -> None:
    """A busy queue asks for another turn."""
    ready.start()
    again = ready.device.rings[0].again
    assert again is not None
    again()
    assert ready.device.calls[-1] == ("start", 0)
    ready.link.soon.pop()()
    assert ready.device.calls[-1] == ("kick", 0)
    again()
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 0).pack())
    ready.link.soon.pop()()
    assert ready.device.calls[-1] == ("stop", 0)


def test_disable_stops_and_enable_goes_on_from_there(ready: Talk) -> None:
    """The next available index survives."""
    ready.start()
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 0).pack())
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert ready.device.rings[0].next_avail == 7


def test_enable_while_draining_starts_after_the_drain(ready: Talk) -> None:
    """Never two lives of one ring at a time."""
    ready.start()
    ready.device.slow = True
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 0).pack())
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert not ready.device.rings
    ready.device.drained(0, 99)
    assert ready.device.rings[0].next_avail == 99


def test_get_vring_base_waits_for_the_drain(ready: Talk) -> None:
    """The reply promises that nothing touches the guest's memory any more."""
    ready.start()
    ready.device.slow = True
    assert ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack()) == []
    assert ready.session.busy
    ready.device.drained(0, 1234)
    assert ready.link.sent[-1] == (Request.GET_VRING_BASE, VringState(0, 1234).pack(), 0)
    assert not ready.session.busy


def test_get_vring_base_of_a_ring_that_never_ran(ready: Talk) -> None:
    """The base it was given comes back."""
    ready.describe_ring(base=5)
    ((_, payload, _),) = ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack())
    assert payload == VringState(0, 5).pack()


def test_after_get_vring_base_a_new_kick_descriptor_is_needed(ready: Talk) -> None:
    """The ring is stopped, not merely disabled."""
    ready.start()
    ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack())
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert not ready.device.rings
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    assert list(ready.device.rings) == [0]


def test_restart_with_other_features_and_size(ready: Talk) -> None:
    """The firmware's driver, then the system's."""
    ready.start()
    ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack())
    ready.say(Request.SET_FEATURES, U64.pack(Feature.VERSION_1 | Feature.PROTOCOL_FEATURES))
    ready.say(Request.SET_VRING_NUM, VringState(0, 16).pack())
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    assert (ready.device.rings[0].size, ready.device.rings[0].event_idx) == (16, False)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"descriptor": 0x1000}, "descriptor table of queue 0 at 0x1000 (2048 bytes) is not in shared"),
        ({"descriptor": 0x7F00_000F_F810}, "descriptor table of queue 0 at 0x7f00000ff810"),
        ({"available": 0x7F00_0010_0000}, "available ring of queue 0"),
        ({"used": 0xFFFF_FFFF_FFFF_FFF0}, "used ring of queue 0"),
        ({"descriptor": 0x7F00_0000_0008}, "is not aligned to 16 bytes"),
        ({"available": 0x7F00_0000_1001}, "is not aligned to 2 bytes"),
        ({"used": 0x7F00_0000_2002}, "is not aligned to 4 bytes"),
    ],
)
def test_ring_addresses_are_judged(ready: Talk, part: dict[str, int], text: str) -> None:
    """They come from the guest: outside memory, over its end, or crooked."""
    ready.describe_ring()
    good = ready.address()
    fields = {
        name: getattr(good, name) for name in ("index", "flags", "descriptor", "used", "available", "log")
    }
    ready.say(Request.SET_VRING_ADDR, VringAddress(**{**fields, **part}).pack())
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack())
    assert len(ready.link.dropped) == 1
    assert text in ready.link.dropped[0]
    assert not ready.device.rings


def test_a_ring_without_an_address_cannot_start(ready: Talk) -> None:
    """Kicked and enabled out of the blue."""
    ready.say(Request.SET_VRING_KICK, U64.pack(0), [ready.kick])
    sent = ready.say(Request.SET_VRING_ENABLE, VringState(0, 1).pack(), ack=True)
    assert sent[0][1] == NACK


# -- in-flight area --------------------------------------------------------------------------------


def test_inflight_area_is_made_to_measure_and_sealed(ready: Talk) -> None:
    """Two queues of 128 and what the device keeps: 4288 bytes, and nobody can shrink it under us."""
    ((_, payload, fds),) = ready.say(Request.GET_INFLIGHT_FD, Inflight(0, 0, 2, 128).pack())
    assert (Inflight.unpack(payload), fds) == (Inflight(4288, 0, 2, 128), 1)
    assert os.fstat(ready.link.fds[0]).st_size == 4288
    with pytest.raises(PermissionError):
        os.ftruncate(ready.link.fds[0], 0)


def test_inflight_area_reaches_each_ring(ready: Talk) -> None:
    """Each queue has a part of its own, and what was there before is there again."""
    ((_, payload, _),) = ready.say(Request.GET_INFLIGHT_FD, Inflight(0, 0, 2, 128).pack())
    ready.say(Request.SET_INFLIGHT_FD, payload, [ready.link.fds[0]])
    os.pwrite(ready.link.fds[0], b"old", 2112)
    ready.start(0)
    ready.start(1)
    parts = [ready.device.rings[index].inflight for index in (0, 1)]
    assert all(part is not None and len(part) == 2112 for part in parts)
    assert parts[1] is not None
    assert bytes(parts[1][:3]) == b"old"


@pytest.mark.parametrize(
    "area",
    [Inflight(4224, 0, 2, 0), Inflight(4224, 0, 0, 128), Inflight(100, 0, 2, 128), Inflight(4224, 1, 2, 128)],
)
def test_inflight_area_that_cannot_be_is_refused(ready: Talk, area: Inflight) -> None:
    """No queues, no entries, too small for its queues, or beyond its file."""
    ready.say(Request.GET_INFLIGHT_FD, Inflight(0, 0, 2, 128).pack())
    sent = ready.say(Request.SET_INFLIGHT_FD, area.pack(), [ready.link.fds[0]], ack=True)
    assert sent == [(Request.SET_INFLIGHT_FD, NACK, 0)]


# -- reset and end ---------------------------------------------------------------------------------


def test_reset_device_drains_first(ready: Talk) -> None:
    """Then resets, then acknowledges if asked."""
    ready.start(0)
    ready.start(1)
    ready.device.slow = True
    assert ready.say(Request.RESET_DEVICE, ack=True) == []
    ready.device.drained(0, 0)
    assert "reset" not in ready.device.calls
    ready.device.drained(1, 0)
    assert ready.device.calls[-1] == "reset"
    assert ready.link.sent[-1] == (Request.RESET_DEVICE, ACK, 0)


def test_reset_device_without_acknowledgement_lets_the_next_message_in(ready: Talk) -> None:
    """No reply is sent, but the session is no longer busy."""
    before = ready.link.resumed
    ready.say(Request.RESET_DEVICE)
    assert not ready.session.busy
    assert ready.link.resumed == before + 1


def test_close_waits_for_the_drain(ready: Talk) -> None:
    """The device hears of it when nothing is in flight; then everything is given back."""
    ready.start()
    ready.device.slow = True
    ready.close()
    assert not ready.closed
    assert "disconnected" not in ready.device.calls
    ready.device.drained(0, 0)
    assert ready.closed
    assert ready.device.calls[-1] == "disconnected"


def test_close_while_a_reply_is_pending(ready: Talk) -> None:
    """The front end went away during GET_VRING_BASE: nothing is sent to nobody."""
    ready.start()
    ready.device.slow = True
    ready.say(Request.GET_VRING_BASE, VringState(0, 0).pack())
    sent = len(ready.link.sent)
    ready.close()
    ready.device.drained(0, 0)
    assert ready.closed
    assert len(ready.link.sent) == sent


# -- faults ----------------------------------------------------------------------------------------

FAULTS = {
    "unknown request": (99, b"", 0, "this back end does not know"),
    "deprecated request": (Request.RESET_OWNER, b"", 0, "this back end does not know"),
    "postcopy, which is not offered": (Request.POSTCOPY_ADVISE, b"", 0, "this back end does not know"),
    "log of nothing": (Request.SET_LOG_BASE, bytes(16), 1, "a dirty log of no bytes"),
    "log without a descriptor": (Request.SET_LOG_BASE, U64.pack(1) * 2, 0, "0 file descriptors, not 1"),
    "log that is no file": (Request.SET_LOG_BASE, U64.pack(1) * 2, 1, "no memory file"),
    "payload too short": (Request.SET_FEATURES, bytes(7), 0, "a payload of 7 bytes, not 8"),
    "payload too long": (Request.GET_FEATURES, bytes(8), 0, "a payload of 8 bytes, not 0"),
    "inflight without its padding": (Request.GET_INFLIGHT_FD, bytes(20), 0, "20 bytes, not 24"),
    "memory region without its padding": (Request.ADD_MEM_REG, bytes(32), 1, "32 bytes, not 40"),
    "a descriptor too many": (Request.SET_OWNER, b"", 1, "1 file descriptors, not 0"),
    "a descriptor missing": (Request.ADD_MEM_REG, bytes(40), 0, "0 file descriptors, not 1"),
    "kick with two descriptors": (Request.SET_VRING_KICK, U64.pack(0), 2, "2 file descriptors, not 0 to 1"),
    "kick without its descriptor": (Request.SET_VRING_KICK, U64.pack(0), 0, "contradicts"),
    "call with flag and descriptor": (Request.SET_VRING_CALL, U64.pack(0x100), 1, "contradicts"),
    "polled ring": (Request.SET_VRING_KICK, U64.pack(0x100), 0, "polling is not supported"),
    "no such queue": (Request.SET_VRING_NUM, VringState(2, 128).pack(), 0, "no queue 2"),
    "no such queue at a descriptor": (Request.SET_VRING_CALL, U64.pack(200), 1, "no queue 200"),
    "queue size 0": (Request.SET_VRING_NUM, VringState(0, 0).pack(), 0, "of 0 entries"),
    "queue size no power of 2": (Request.SET_VRING_NUM, VringState(0, 3).pack(), 0, "of 3 entries"),
    "queue size beyond virtio": (Request.SET_VRING_NUM, VringState(0, 65536).pack(), 0, "of 65536 entries"),
    "base of 17 bits": (Request.SET_VRING_BASE, VringState(0, 65536).pack(), 0, "more than 16 bits"),
    "config size that lies": (Request.GET_CONFIG, ConfigSpace(0, 9, 0, bytes(8)).pack(), 0, "9 bytes in 8"),
    "config out of range": (Request.GET_CONFIG, ConfigSpace(250, 8, 0, bytes(8)).pack(), 0, "256 at most"),
    "memory table that lies": (Request.SET_MEM_TABLE, b"\2" + bytes(39), 1, "a table of 2 regions"),
    "memory table without descriptors": (
        Request.SET_MEM_TABLE,
        pack_memory_table((MemoryRegion(0, 4096, 0, 0),)),
        0,
        "1 regions with 0 file descriptors",
    ),
    "memory that is no file": (
        Request.ADD_MEM_REG,
        MemoryRegion(1 << 40, 4096, 1 << 41, 0).pack_single(),
        1,
        "comes with a descriptor that is no memory file",
    ),
    "region that is not there": (
        Request.REM_MEM_REG,
        MemoryRegion(1 << 40, 4096, 1 << 41, 0).pack_single(),
        0,
        "no memory region",
    ),
    "in-flight area for too many queues": (
        Request.GET_INFLIGHT_FD,
        Inflight(0, 0, 3, 128).pack(),
        0,
        "3 queues of 2",
    ),
}


@pytest.mark.parametrize(("request_id", "payload", "fds", "text"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_and_ends_the_connection(
    ready: Talk, request_id: int, payload: bytes, fds: int, text: str
) -> None:
    """One reason, which says what is wrong; the descriptors that came are closed (see the fixture)."""
    assert ready.say(request_id, payload, [ready.kick] * fds) == []
    assert len(ready.link.dropped) == 1
    assert text in ready.link.dropped[0]


def test_a_request_that_was_not_negotiated_is_a_fault(talk: Talk) -> None:
    """Nothing works by accident."""
    talk.say(Request.GET_QUEUE_NUM)
    assert talk.link.dropped == ["GET_QUEUE_NUM: the protocol feature MQ was not negotiated"]


def test_configuration_requests_are_a_fault_for_scsi(scsi_talk: Talk) -> None:
    """Its configuration space is the front end's."""
    scsi_talk.negotiate()
    scsi_talk.say(Request.GET_CONFIG, ConfigSpace(0, 4, 0, bytes(4)).pack())
    assert "CONFIG was not negotiated" in scsi_talk.link.dropped[0]


@pytest.mark.parametrize("what", [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR])
def test_only_event_descriptors_are_taken(ready: Talk, device: FakeDevice, what: int) -> None:
    """A file in its place would never wake us, or block us for ever."""
    assert ready.say(what, U64.pack(0), [ready.ram.fd], ack=True)[0][1] == NACK
