"""io_uring: reads that the kernel does beside the event loop, without a thread of ours.

Imports nothing of ours. `server/workers.py` uses it for reads that must come from the disk, a hand-over to a worker
thread costs ten times as much; and for long reads, which threads of the kernel's copy without our interpreter. Two
rings in memory shared with the kernel, spoken to by three system calls; as x86 keeps the order of stores, a plain
store of an index publishes what was stored before it.
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
_READV, _READ = 1, 22  # IORING_OP_*
_ASYNC: Final = 1 << 4  # IOSQE_ASYNC
_PARAMS: Final = Struct("=4xI4x8xI16x10I10I")
"""struct io_uring_params from cq_entries on: features, then offsets of the two rings."""
_ENTRY: Final = Struct("=BBHiQQIIQ24x")
"""struct io_uring_sqe: opcode, flags, ioprio, fd, off, addr, len, rw_flags, user_data."""
_RESULT: Final = Struct("=Qi4x")
"""struct io_uring_cqe: user_data, res."""
_VECTOR: Final = Struct("@PN")
"""struct iovec."""

_MASK: Final = 0xFFFFFFFF

MAX_BUFFERS: Final = 64
"""Buffers of one read: finding the address of one takes most of a microsecond."""

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_Byte, _address_of = ctypes.c_char, ctypes.addressof


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
        self._kept: list[object] = []  # until the kernel has copied it: up to `submit`
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
        array = sq[6] // 4
        for slot in range(self._sq_mask + 1):  # entry `n` is always handed over in place `n`
            self._longs[array + slot] = slot
        self._cq_head, self._cq_tail = cq[0] // 4, cq[1] // 4
        self._cq_mask, self._results = self._longs[cq[2] // 4], cq[5]
        self._entries = mmap.mmap(self._fd, (self._sq_mask + 1) * _ENTRY.size, offset=_OFF_ENTRIES)

    @property
    def in_flight(self) -> int:
        """Reads whose `done` has not been called."""
        return len(self._running)

    def read(
        self, fd: int, offset: int, into: Sequence[memoryview], done: Callable[[int], None], *, apart: bool
    ) -> bool:
        """Queue a read; its result is the bytes read, or a negative errno. False: there is no room for it.

        Args:
            fd: the file.
            offset: in the file.
            into: buffers, which stay in use until the end.
            done: what `reap` returns with the result.
            apart: a thread of the kernel's is to copy, even what the page cache has; else `submit` does that.
        """
        if len(self._running) >= self._limit or len(into) > MAX_BUFFERS or self.queued > self._sq_mask:
            return False
        if len(into) == 1:
            pointer = _Byte.from_buffer(into[0])  # keeps the memory mapped
            kept: object = pointer
            address, length, opcode = _address_of(pointer), len(into[0]), _READ
        else:
            pointers = [_Byte.from_buffer(buffer) for buffer in into]
            vectors = bytearray().join(map(_VECTOR.pack, map(_address_of, pointers), map(len, into)))
            self._kept.append(vectors)
            address, length, opcode = _address_of(_Byte.from_buffer(vectors)), len(pointers), _READV
            kept = pointers
        self._number = number = self._number + 1
        self._running[number] = done, kept
        longs, tail = self._longs, self._sq_tail
        at = longs[tail]
        flags = _ASYNC if apart else 0
        place = (at & self._sq_mask) * _ENTRY.size
        _ENTRY.pack_into(self._entries, place, opcode, flags, 0, fd, offset, address, length, 0, number)
        longs[tail] = (at + 1) & _MASK
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
        self._kept.clear()
        return True

    def reap(self) -> list[tuple[Callable[[int], None], int]]:
        """The reads that have ended: `done` of each, and what to call it with."""
        longs = self._longs
        head = longs[self._cq_head]
        ended = []
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.eventfd)
        while head != longs[self._cq_tail]:
            number, result = _RESULT.unpack_from(
                self._rings, self._results + (head & self._cq_mask) * _RESULT.size
            )
            head = (head + 1) & _MASK
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
