"""The seam between a vhost-user session and the device model behind it.

Imports only `virtio/memory.py`. A session (`vhost/`) owns sockets, file descriptors and mappings; a device
(`virtio/blk.py`, `virtio/scsi.py`) owns queues and requests and knows nothing of sockets.
All calls come from the event loop's thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from qemu_odx.virtio.memory import GuestMemory
    from qemu_odx.virtio.meter import Meter


class Pollable(Protocol):
    """A queue that can be looked at instead of waiting for its kick.

    Attributes:
        emptied: when it was emptied last, for who looks at it; 0 at first.
    """

    emptied: float

    def pending(self) -> bool:
        """True if there is something to take."""

    def arm(self) -> bool:
        """Ask for a kick again; True if something came meanwhile."""


class Begun(Protocol):
    """Where the express lane of a queue says what it has only begun."""

    def begin(self, head: int) -> None:
        """The request at this head is in work; the lane itself will `end` it, later."""

    def end(self, head: int, written: int) -> None:
        """It is done, its status stored, `written` bytes in its buffers."""


@dataclass(slots=True)
class Ring:
    """A started split virtqueue, as the front end described it.

    Attributes:
        size: entries, a power of 2 up to 32768, already checked.
        desc: descriptor table, 16 * size bytes of shared memory, writable view.
        avail: available ring, 6 + 2 * size bytes.
        used: used ring, 6 + 8 * size bytes.
        next_avail: index of the next available entry to take (SET_VRING_BASE).
        event_idx: VIRTIO_F_EVENT_IDX was acknowledged.
        memory: translates guest physical addresses of descriptors.
        call: signals the guest (writes the call eventfd; does nothing while there is none).
        error: the ring is broken, for this reason: logs it, and signals the error eventfd.
        inflight: this queue's part of the in-flight area, or None.
        again: asks the session to `kick` this queue once more after it served the others (never from inside
            the call); None lets a busy queue run until it is empty.
        poll: looks at the queue for a while, kicks it if there is something, and arms it in the end; False: not
            now. None: kicks only.
        later: runs a callback when all else that is due now has been done; None: completions outside of a batch
            are published one by one.
        used_log_gpa: guest physical address of the used ring for the dirty log; the session may set it while
            the ring runs.
    """

    size: int
    desc: memoryview
    avail: memoryview
    used: memoryview
    next_avail: int
    event_idx: bool
    memory: GuestMemory
    call: Callable[[], None]
    error: Callable[[str], None]
    inflight: memoryview | None = None
    again: Callable[[], None] | None = None
    poll: Callable[[Pollable], bool] | None = None
    later: Callable[[Callable[[], None]], None] | None = None
    used_log_gpa: int | None = None


class Load(NamedTuple):
    """How much a queue has to do.

    Attributes:
        in_flight: requests taken and not yet completed.
        taken: requests taken since it was started.
        completed: requests completed since it was started.
    """

    in_flight: int
    taken: int
    completed: int


NO_LOAD = Load(0, 0, 0)
"""Of a queue that is not started."""


class Device(Protocol):
    """A virtio device model behind one front-end connection."""

    @property
    def queue_count(self) -> int:
        """Queues it serves, control and event queues included (GET_QUEUE_NUM)."""

    @property
    def features(self) -> int:
        """Device-specific virtio feature bits it offers (transport bits are the session's)."""

    def config(self) -> bytes | None:
        """The whole device configuration space, or None if QEMU owns it (scsi)."""

    def write_config(self, offset: int, data: bytes) -> None:
        """The guest changed its configuration space (blk: `wce`). Raises ValueError if refused."""

    def kept(self) -> bytes:
        """What the driver changed and a successor in another process must know, at most 63 bytes; it may be empty."""

    def restore(self, kept: bytes | None) -> None:
        """What a predecessor kept; None: there was one and nothing is known of it, so be careful."""

    def set_features(self, features: int) -> None:
        """All feature bits the guest acknowledged. Bits never offered may be among them: ignore those."""

    def start_queue(self, index: int, ring: Ring) -> None:
        """The ring is ready and enabled: resubmit what was in flight, then process what is there."""

    def kick(self, index: int) -> None:
        """The guest (or the session) says that there may be new entries."""

    def stop_queue(self, index: int, stopped: Callable[[int], None]) -> None:
        """Take no more entries; once nothing is in flight, call `stopped(next_avail)` (may be at once)."""

    def measure(self, meters: Callable[[int], Meter]) -> None:
        """Measure every queue that is started from now on; `meters` gives its meter, by index."""

    def queue_load(self, index: int) -> Load:
        """What a queue has to do now."""

    def resized(self, disk_name: str) -> None:
        """One of its disks may show another size: tell the driver, unless the configuration space says it."""

    def reset(self) -> None:
        """Device reset by the driver (RESET_DEVICE, which not every front end sends): forget per-driver state."""

    def disconnected(self) -> None:
        """The front end is gone and every queue is stopped."""
