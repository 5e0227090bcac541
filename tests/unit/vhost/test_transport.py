"""Cutting the stream of a front end into messages."""

from __future__ import annotations

import gc
import os
import socket
from typing import TYPE_CHECKING

import pytest

from qemu_odx.vhost.message import ProtocolError
from qemu_odx.vhost.transport import Channel, HangupError
from qemu_odx.wire.vhost_user import HEADER, Request

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGE = HEADER.pack(Request.SET_VRING_KICK, 0x1, 8) + bytes(8)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Channel]]:
    """A front end's socket and our channel."""
    gc.collect()  # descriptors are counted: what others left is to go before
    theirs, ours = socket.socketpair()
    channel = Channel(ours)
    yield theirs, channel
    theirs.close()
    channel.close()


def open_fds() -> int:
    """Descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # the listing itself needs one either way


def test_a_message_in_single_bytes(pair: tuple[socket.socket, Channel]) -> None:
    """Nothing comes out before the last byte is in."""
    theirs, channel = pair
    for byte in MESSAGE[:-1]:
        theirs.send(bytes([byte]))
        assert channel.receive() is None
    theirs.send(MESSAGE[-1:])
    message = channel.receive()
    assert message is not None
    assert (message.request, message.flags, message.payload) == (Request.SET_VRING_KICK, 1, bytes(8))


def test_descriptors_stay_with_their_message(pair: tuple[socket.socket, Channel]) -> None:
    """The kernel joins a send without descriptors with the next one that has some: we must not."""
    theirs, channel = pair
    theirs.send(MESSAGE)
    socket.send_fds(theirs, [MESSAGE], [0])
    first, second = channel.receive(), channel.receive()
    assert first is not None
    assert second is not None
    assert (len(first.fds), len(second.fds)) == (0, 1)
    second.close()


def test_descriptors_that_come_with_the_payload_count(pair: tuple[socket.socket, Channel]) -> None:
    """A header alone, then the payload with a descriptor."""
    theirs, channel = pair
    theirs.send(MESSAGE[:12])
    assert channel.receive() is None
    socket.send_fds(theirs, [MESSAGE[12:]], [0])
    message = channel.receive()
    assert message is not None
    assert len(message.fds) == 1
    message.close()


def test_descriptors_of_an_unfinished_message_are_closed(pair: tuple[socket.socket, Channel]) -> None:
    """Half a message and then the end of the connection."""
    theirs, channel = pair
    before = open_fds()
    socket.send_fds(theirs, [MESSAGE[:5]], [0, 1, 2])
    assert channel.receive() is None
    assert open_fds() == before + 3
    channel.close()
    assert open_fds() == before - 1


def test_nine_descriptors_are_refused_and_none_leaks(pair: tuple[socket.socket, Channel]) -> None:
    """No message has more than eight."""
    theirs, channel = pair
    before = open_fds()
    socket.send_fds(theirs, [MESSAGE], [0] * 9)
    with pytest.raises(ProtocolError, match="more than 8 file descriptors"):
        channel.receive()
    channel.close()
    assert open_fds() == before - 1


def test_a_hundred_descriptors_are_refused_and_none_leaks(pair: tuple[socket.socket, Channel]) -> None:
    """More than the ancillary buffer holds: the kernel drops what does not fit."""
    theirs, channel = pair
    before = open_fds()
    socket.send_fds(theirs, [MESSAGE], [0] * 100)
    with pytest.raises(ProtocolError, match="more than 8 file descriptors"):
        channel.receive()
    channel.close()
    assert open_fds() == before - 1


@pytest.mark.parametrize(("flags", "size"), [(0x2, 0), (0x5, 0), (0x0, 8), (0x1, 4097), (0x1, 0xFFFFFFFF)])
def test_a_header_that_cannot_be_followed_ends_it(
    pair: tuple[socket.socket, Channel], flags: int, size: int
) -> None:
    """Another version, or a payload that would only fill memory: judged before any payload is read."""
    theirs, channel = pair
    theirs.send(HEADER.pack(Request.GET_FEATURES, flags, size))
    with pytest.raises(ProtocolError, match="GET_FEATURES"):
        channel.receive()


def test_the_end_of_the_connection(pair: tuple[socket.socket, Channel]) -> None:
    """A hang-up is no protocol error, and can be seen without reading."""
    theirs, channel = pair
    assert not channel.hung_up()
    theirs.close()
    assert channel.hung_up()
    with pytest.raises(HangupError):
        channel.receive()


def test_what_was_said_before_the_end_is_still_heard(pair: tuple[socket.socket, Channel]) -> None:
    """A message and then the end: the message first."""
    theirs, channel = pair
    theirs.send(MESSAGE)
    theirs.close()
    assert not channel.hung_up()
    assert channel.receive() is not None


def test_a_front_end_that_does_not_read_is_given_up(pair: tuple[socket.socket, Channel]) -> None:
    """Replies are not stored without limit."""
    _, channel = pair

    def flood() -> None:
        for _ in range(100_000):
            channel.send(Request.GET_CONFIG, bytes(268))

    with pytest.raises(ProtocolError, match="does not read"):
        flood()


def test_descriptors_are_not_inherited(pair: tuple[socket.socket, Channel]) -> None:
    """Programs that we may start get none of them."""
    theirs, channel = pair
    socket.send_fds(theirs, [MESSAGE], [0])
    message = channel.receive()
    assert message is not None
    assert not os.get_inheritable(message.fds[0])
    message.close()
