"""io_uring: transfers that the kernel does beside the event loop, without a thread of ours.

Imports nothing of ours. `server/workers.py` uses it for what must come from the disk or is too long for the loop; a
worker thread's hand-over costs ten times as much. Two rings in memory shared with the kernel, spoken to by three
system calls; as x86 keeps the order of stores, a plain store of an index publishes what was stored before it.
Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2); linux/io_uring.h for numbers and layouts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SETUP, _ENTER, _REGISTER = 425, 426, 427  # the same numbers on every architecture
_OFF_RINGS, _OFF_ENTRIES = 0, 0x10000000  # IORING_OFF_SQ_RING, IORING_OFF_SQES
_FEATURES: Final = 1 | 1 << 2  # IORING_FEAT_SINGLE_MMAP, IORING_FEAT_SUBMIT_STABLE
_REGISTER_EVENTFD: Final = 4
_READV, _WRITEV, _READ, _WRITE = 1, 2, 22, 23  # IORING_OP_*
_ASYNC: Final = 1 << 4  # IOSQE_ASYNC: by a thread of the kernel from the start
_PARAMS: Final = Struct("=4xI4x8xI16x10I10I")
"""struct io_uring_params from cq_entries on: features, then offsets of the two rings."""
_ENTRY: Final = Struct("=BBHiQQIIQ24x")
"""struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data."""
_RESULT: Final = Struct("=QiI")
"""struct io_uring_cqe: user_data, res, flags."""
_VECTOR: Final = Struct("@PN")
"""struct iovec."""

MAX_BUFFERS: Final = 64
"""Buffers of one transfer: finding the address of one takes most of a microsecond."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall


class Uring:
    """One io_uring, used by one thread.

    Attributes:
        eventfd: readable when there is something to `reap`.
        queued: what `submit` has not handed over yet.

    Raises:
        OSError: the kernel has none for us (it is old, or a policy forbids it).
    """

    def __init__(self, entries: int = 256) -> None:
        params = ctypes.create_string_buffer(120)
        self._fd = _call(_SETUP, entries, params)
        try:
            self._map(params.raw)
            self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self._fd)
            raise
        _call(_REGISTER, self._fd, _REGISTER_EVENTFD, ctypes.byref(ctypes.c_int(self.eventfd)), 1)
        self._running: dict[int, tuple[Callable[[int], None], object]] = {}
        self._number = 0
        self.queued = 0

    def _map(self, raw: bytes) -> None:
        entries, features, *offsets = _PARAMS.unpack(raw)
        if features & _FEATURES != _FEATURES:
            raise OSError(errno.ENOSYS, "io_uring is too old")
        sq, cq = offsets[:10], offsets[10:]
        self._limit = entries // 2  # of entries in the completion ring: it never overflows
        size = max(cq[5] + entries * _RESULT.size, sq[6] + entries * 2)
        self._rings = mmap.mmap(self._fd, size, offset=_OFF_RINGS)
        self._longs = memoryview(self._rings)[: size // 4 * 4].cast("I")
        self._sq_tail, self._sq_mask = sq[1] // 4, self._longs[sq[2] // 4]
        self._sq_array = sq[6] // 4
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        self._cq_mask, self._results = self._longs[cq[2] // 4], cq[5]
        self._entries = mmap.mmap(self._fd, (self._sq_mask + 1) * _ENTRY.size, offset=_OFF_ENTRIES)

    @property
    def in_flight(self) -> int:
        """Transfers whose `done` has not been called."""
        return len(self._running)

    def transfer(
        self,
        fd: int,
        *,
        write: bool,
        offset: int,
        buffers: Sequence[memoryview | bytes],
        thread: bool,
        done: Callable[[int], None],
    ) -> bool:
        """Queue a transfer; its result is the bytes moved, or a negative errno. False: there is no room for it.

        Args:
            fd: the file.
            write: to the file, or from it.
            offset: in the file.
            buffers: writable memory views, which stay in use until the end.
            thread: by a thread of the kernel: for what is long, to have it beside ours.
            done: what `reap` returns with the result.
        """
        if len(self._running) >= self._limit or len(buffers) > MAX_BUFFERS or self.queued > self._sq_mask:
            return False
        try:
            pointers = [
                ctypes.c_char.from_buffer(buffer) for buffer in buffers
            ]  # these keep the memory mapped
        except TypeError:  # read-only, so not guest memory: rare
            return False
        vectors = [
            (ctypes.addressof(pointer), len(buffer))
            for pointer, buffer in zip(pointers, buffers, strict=True)
        ]
        keep: object = pointers
        if len(vectors) == 1:
            opcode, (address, length) = (_WRITE if write else _READ), vectors[0]
        else:
            packed = ctypes.create_string_buffer(b"".join(_VECTOR.pack(*vector) for vector in vectors))
            opcode, address, length = (_WRITEV if write else _READV), ctypes.addressof(packed), len(vectors)
            keep = pointers, packed
        self._number = number = self._number + 1
        self._running[number] = done, keep
        tail = self._longs[self._sq_tail]
        slot = tail & self._sq_mask
        flags = _ASYNC if thread else 0
        _ENTRY.pack_into(
            self._entries, slot * _ENTRY.size, opcode, flags, 0, fd, offset, address, length, 0, number
        )
        self._longs[self._sq_array + slot] = slot
        self._longs[self._sq_tail] = tail + 1 & 0xFFFFFFFF
        self.queued += 1
        return True

    def submit(self) -> bool:
        """Hand what was queued to the kernel; False: it lacks memory just now, try again in a while."""
        while self.queued:
            try:
                self.queued -= _call(_ENTER, self._fd, self.queued, 0, 0, None, 0)
            except OSError as error:
                if error.errno in {errno.EAGAIN, errno.EBUSY}:
                    return False
                if error.errno != errno.EINTR:
                    raise
        return True

    def reap(self) -> list[tuple[Callable[[int], None], int]]:
        """The transfers that have ended: `done` of each, and what to call it with."""
        longs = self._longs
        head = longs[self._cq_head]
        ended = []
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.eventfd)
        while head != longs[self._cq_tail]:
            number, result, _ = _RESULT.unpack_from(
                self._rings, self._results + (head & self._cq_mask) * _RESULT.size
            )
            head = head + 1 & 0xFFFFFFFF
            ended.append((self._running.pop(number)[0], result))
        longs[self._cq_head] = head
        return ended

    def close(self) -> None:
        """Give everything back; nothing may be in flight."""
        os.close(self.eventfd)
        os.close(self._fd)


def _call(number: int, *arguments: object) -> int:
    """A system call.

    Raises:
        OSError: it failed.
    """
    result: int = _syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
