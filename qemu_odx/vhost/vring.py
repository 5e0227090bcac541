"""One virtqueue as the front end describes it: its descriptors, and when the device may run it.

Imports `wire`, `vhost/message.py` and the seam `virtio/port.py`. Owned by `vhost/session.py`; next: the
device's `start_queue`. The life of a ring (vhost-user specification, "Ring states") is this table:

    state     kicked and enabled        otherwise
    IDLE      start_queue -> RUNNING    -
    RUNNING   -                         stop_queue -> DRAINING
    DRAINING  (once drained: IDLE, and the table again)
"""

from __future__ import annotations

import contextlib
import logging
import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qemu_odx.vhost.mapping import ring_view
from qemu_odx.vhost.message import RefusedError
from qemu_odx.virtio.port import Ring
from qemu_odx.wire.vhost_user import MAX_RING, VRING_LOG, VringAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.vhost.inflight import InflightArea
    from qemu_odx.virtio.memory import GuestMemory
    from qemu_odx.virtio.port import Device, Pollable

log = logging.getLogger(__name__)


class Watcher(Protocol):
    """What a session needs of the event loop."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `fd` is readable."""

    def unwatch(self, fd: int) -> None:
        """Stop that, before `fd` is closed."""

    def poll(self, queue: Pollable, serve: Callable[[], None]) -> bool:
        """Look at a queue for a while, calling `serve` if there is something, then arm it; False: not now."""

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when all else that is due now has been done."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` after the other descriptors had their turn."""

    def broken(self, index: int, reason: str) -> None:
        """A ring is out of service."""


class State(Enum):
    """Where a ring is in its life."""

    IDLE = "idle"
    RUNNING = "running"
    DRAINING = "draining"


class Vring:
    """One virtqueue: what the messages said, and its state."""

    def __init__(self, index: int, device: Device, watcher: Watcher) -> None:
        self.index = index
        self.size = 0
        self.base = 0
        self._address: VringAddress | None = None
        self._ring: Ring | None = None
        self.kicked = False
        self.enabled = False
        self.state = State.IDLE
        self._device = device
        self._watcher = watcher
        self._kick_fd = self._call_fd = self._error_fd = -1
        self._waiting: list[Callable[[], None]] = []

    def set_size(self, size: int) -> None:
        """SET_VRING_NUM."""
        if not 0 < size <= MAX_RING or size & (size - 1):
            raise RefusedError(
                f"queue {self.index} of {size} entries (a power of 2 up to {MAX_RING} is needed)"
            )
        self.size = size

    def set_address(self, address: VringAddress) -> None:
        """SET_VRING_ADDR: places count from the next start on, the wish for a dirty log at once."""
        self._address = address
        if self._ring is not None:
            self._ring.used_log_gpa = _log_address(address)

    def set_kick(self, fd: int) -> None:
        """SET_VRING_KICK: take over the descriptor; the ring is started by it."""
        self._check(fd, "kick")
        if self.state is State.RUNNING:
            self._unwatch()
        _close(self._kick_fd)
        self._kick_fd = fd
        self.kicked = True
        if self.state is State.RUNNING:
            self._watch()
            self._device.kick(self.index)

    def set_call(self, fd: int) -> None:
        """SET_VRING_CALL: take over the descriptor, -1 for none."""
        self._check(fd, "call")
        _close(self._call_fd)
        self._call_fd = fd
        # A completion may have gone to the descriptor that was just replaced.
        if self.state is State.RUNNING:
            self._call()

    def set_error(self, fd: int) -> None:
        """SET_VRING_ERR: take over the descriptor, -1 for none."""
        self._check(fd, "error")
        _close(self._error_fd)
        self._error_fd = fd

    def settle(self, memory: GuestMemory, inflight: InflightArea | None, *, event_idx: bool) -> None:
        """Start or stop the ring if what the messages said asks for it.

        Raises:
            RefusedError: it cannot be started as described.
        """
        wanted = self.kicked and self.enabled
        if wanted and self.state is State.IDLE:
            self._start(self._make_ring(memory, inflight, event_idx=event_idx))
        elif not wanted and self.state is State.RUNNING:
            self._stop()

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` once nothing of this ring is in flight, perhaps now."""
        if self.state is State.IDLE:
            then()
        else:
            self._waiting.append(then)

    def close_kick(self) -> None:
        """The ring is stopped (GET_VRING_BASE): the next start brings a new kick descriptor."""
        _close(self._kick_fd)
        self._kick_fd = -1

    def close(self) -> None:
        """Close every descriptor of an idle ring."""
        self.close_kick()
        _close(self._call_fd)
        _close(self._error_fd)
        self._call_fd = self._error_fd = -1

    def _make_ring(self, memory: GuestMemory, inflight: InflightArea | None, *, event_idx: bool) -> Ring:
        """The ring's three parts found in guest memory (split virtqueue layout, virtio 1.2, 2.7)."""
        address = self._address
        if address is None or not self.size:
            raise RefusedError(f"queue {self.index} was started without a size or an address")
        part = f"of queue {self.index}"
        return Ring(
            size=self.size,
            desc=ring_view(memory, address.descriptor, 16 * self.size, 16, f"descriptor table {part}"),
            avail=ring_view(memory, address.available, 6 + 2 * self.size, 2, f"available ring {part}"),
            used=ring_view(memory, address.used, 6 + 8 * self.size, 4, f"used ring {part}"),
            next_avail=self.base,
            event_idx=event_idx,
            memory=memory,
            call=self._call,
            error=self._error,
            inflight=inflight.part(self.index, self.size) if inflight else None,
            again=self._again,
            poll=self._poll,
            later=self._watcher.at_turn_end,
            used_log_gpa=_log_address(address),
        )

    def _start(self, ring: Ring) -> None:
        self.state = State.RUNNING
        self._ring = ring
        self._watch()
        self._device.start_queue(self.index, ring)
        # A completion of an earlier life of this ring may never have been announced.
        self._call()

    def _stop(self) -> None:
        self.state = State.DRAINING
        self._unwatch()
        self._device.stop_queue(self.index, self._stopped)

    def _stopped(self, next_avail: int) -> None:
        self.base = next_avail
        self.state = State.IDLE
        self._ring = None
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def _watch(self) -> None:
        self._watcher.watch(self._kick_fd, self._on_kick)

    def _unwatch(self) -> None:
        self._watcher.unwatch(self._kick_fd)

    def _on_kick(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._kick_fd)
        self._device.kick(self.index)

    def _again(self) -> None:
        self._watcher.call_soon(self._kick_again)

    def _kick_again(self) -> None:
        if self.state is State.RUNNING:
            self._device.kick(self.index)

    def _poll(self, queue: Pollable) -> bool:
        return self._watcher.poll(queue, self._kick_again)

    def _call(self) -> None:
        _signal(self._call_fd)

    def _error(self, reason: str) -> None:
        self._watcher.broken(self.index, reason)
        _signal(self._error_fd)

    def _check(self, fd: int, what: str) -> None:
        """Take only an event descriptor, and make it non-blocking: nothing else is safe to read and write."""
        if fd == -1:
            return
        if not is_eventfd(fd):
            os.close(fd)
            raise RefusedError(f"the {what} descriptor of queue {self.index} is no eventfd")
        os.set_blocking(fd, False)


def _log_address(address: VringAddress) -> int | None:
    """Where the used ring is, if writes to it are to be logged."""
    return address.log if address.flags & VRING_LOG else None


def is_eventfd(fd: int) -> bool:
    """True if a descriptor is an eventfd."""
    return str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("anon_inode:[eventfd")


def _signal(fd: int) -> None:
    """Write an eventfd; a full counter is as good as a written one."""
    if fd != -1:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(fd, 1)


def _close(fd: int) -> None:
    if fd != -1:
        os.close(fd)
