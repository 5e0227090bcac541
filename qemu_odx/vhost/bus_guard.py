"""Surviving SIGBUS: guest memory whose file was made shorter under us.

Imports nothing of ours. A front end owns the files that we map; memory-backend-memfd of QEMU seals its file against
shrinking, memory-backend-file cannot, and even a sealed page may lack a huge page or room on its file system when it
is touched. System calls then fail with EFAULT, but a load or store of our own raises SIGBUS, which ends a process.

So every shared mapping is announced here (`vhost/shared.py` does), and SIGBUS has a handler of 150 bytes of machine
code: Python cannot run at such a moment. It puts a private page of zeros where the page is missing, counts that in
the mapping's slot, and writes an eventfd; the load or store is repeated and the event loop calls `report`, which
ends the connection concerned. Any other SIGBUS ends the process as ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import mmap
import os
import platform
import signal
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

LISTING: Final = """\
53                      push rbx
837e0802                cmp dword ptr [rsi+8], 2
7572                    jne fatal
4c8b4610                mov r8, [rsi+16]
488d1d2e100000          lea rbx, [rip+data+64]
8b0df80f0000            mov ecx, [rip+data+16]
                    next:
ffc9                    dec ecx
785d                    js fatal
4c3b03                  cmp r8, [rbx]
7206                    jb skip
4c3b4308                cmp r8, [rbx+8]
7206                    jb found
                    skip:
4883c320                add rbx, 32
ebeb                    jmp next
                    found:
488b7310                mov rsi, [rbx+16]
4889f7                  mov rdi, rsi
48f7df                  neg rdi
4c21c7                  and rdi, r8
ba03000000              mov edx, 3
41ba32000000            mov r10d, 0x32
49c7c0ffffffff          mov r8, -1
4531c9                  xor r9d, r9d
b809000000              mov eax, 9
0f05                    syscall
4839f8                  cmp rax, rdi
751e                    jne fatal
ff4318                  inc dword ptr [rbx+24]
8b3da40f0000            mov edi, [rip+data+8]
488d35950f0000          lea rsi, [rip+data]
ba08000000              mov edx, 8
b801000000              mov eax, 1
0f05                    syscall
5b                      pop rbx
c3                      ret
                    fatal:
bf07000000              mov edi, 7
488d359b0f0000          lea rsi, [rip+data+32]
31d2                    xor edx, edx
41ba08000000            mov r10d, 8
b80d000000              mov eax, 13
0f05                    syscall
5b                      pop rbx
c3                      ret
"""
"""The handler, void (int, siginfo_t *, void *): bytes and their meaning, System V calling convention, x86-64.

If si_code is BUS_ADRERR: find the slot with start <= si_addr < end; mmap(si_addr & -page, page, PROT_READ|PROT_WRITE,
MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS, -1, 0); count; write(eventfd, one, 8). Else, and if that fails:
rt_sigaction(SIGBUS, default, NULL, 8), so that the repeated access ends the process.
"""

_HEX_COLUMN: Final = 16
_CODE: Final = bytes.fromhex("".join(line[:_HEX_COLUMN] for line in LISTING.splitlines()))
_CODE_SIZE: Final = 4096
"""`data` begins here: u64 one; u32 eventfd; at 16 u32 slots in use; at 32 an all-zero kernel sigaction (SIG_DFL)."""
_SLOTS_AT: Final = 64
"""Then the slots: u64 start, u64 end (0: slot is free), u64 page, u32 missing pages met, u32 unused."""
_SLOT_SIZE: Final = 32
MAX_SLOTS: Final = 16384
"""Mappings of all exports together: 32 exports with every memory slot in use."""
_PROT_READ_EXEC: Final = 5


class _SigAction(ctypes.Structure):
    """struct sigaction of the C library, x86-64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_SA_SIGINFO: Final = 4


@dataclass(slots=True)
class _Mapping:
    lost: Callable[[], None]
    reported: bool = False


class BusGuard:
    """The handler and its table of mappings.

    Raises:
        OSError: the system does not let us have executable memory of our own.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._pages = mmap.mmap(-1, _CODE_SIZE + _SLOTS_AT + MAX_SLOTS * _SLOT_SIZE, flags=mmap.MAP_PRIVATE)
        self._pages[: len(_CODE)] = _CODE
        data = memoryview(self._pages)[_CODE_SIZE:]
        self._words, self._quads = data.cast("I"), data.cast("Q")
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._quads[0], self._words[2] = 1, self._eventfd
        self._mappings: dict[int, _Mapping] = {}
        self._free: list[int] = []
        self._install(address_of(self._pages))

    def fileno(self) -> int:
        """For the event loop: readable once a page was missing; then call `report`."""
        return self._eventfd

    def protect(self, pages: mmap.mmap, page_size: int, lost: Callable[[], None]) -> None:
        """Guard a mapping until it goes away.

        Args:
            pages: the mapping; its start and length are multiples of `page_size`, but for the end of its last page.
            page_size: of the mapping: that of a huge page on hugetlbfs.
            lost: called by `report`, once, when pages of it were missing.

        Raises:
            OSError: there are too many mappings.
        """
        slot = self._free.pop() if self._free else len(self._mappings)
        if slot == MAX_SLOTS:
            raise OSError(f"more than {MAX_SLOTS} shared mappings")
        self._mappings[slot] = _Mapping(lost)
        self._fill(slot, address_of(pages), len(pages), page_size)
        # Views of requests in flight outlive the region: only the end of the mapping itself frees the slot.
        weakref.finalize(pages, self._release, slot).atexit = False

    def report(self) -> None:
        """Call `lost` of each mapping that met a missing page since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        for slot, mapping in list(self._mappings.items()):
            if self._words[_word(slot) + 6] and not mapping.reported:
                mapping.reported = True
                mapping.lost()

    def _fill(self, slot: int, start: int, length: int, page_size: int) -> None:
        """The end comes last: it makes the slot valid."""
        quad = _word(slot) // 2
        self._words[_word(slot) + 6] = 0
        self._quads[quad], self._quads[quad + 2] = start, page_size
        self._quads[quad + 1] = -(-(start + length) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._words[4] = max(self._words[4], slot + 1)

    def _release(self, slot: int) -> None:
        self._quads[_word(slot) // 2 + 1] = 0
        del self._mappings[slot]
        self._free.append(slot)

    def _install(self, address: int) -> None:
        if self._libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(_CODE_SIZE), _PROT_READ_EXEC):
            raise OSError(ctypes.get_errno(), "memory cannot be made executable")
        action = _SigAction(handler=address, flags=_SA_SIGINFO)
        if self._libc.sigaction(signal.SIGBUS, ctypes.byref(action), None):
            raise OSError(ctypes.get_errno(), "SIGBUS cannot be handled")


def _word(slot: int) -> int:
    """Where a slot begins in 32-bit words of `data`."""
    return (_SLOTS_AT + slot * _SLOT_SIZE) // 4


def address_of(pages: mmap.mmap) -> int:
    """The address of a mapping's first byte."""
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


@functools.cache
def bus_guard() -> BusGuard | None:
    """The one guard of this process, or None where there cannot be one: then memory must be sealed."""
    if platform.machine() != "x86_64":
        return None
    try:
        return BusGuard()
    except OSError as error:
        log.warning("guest memory that is not sealed against shrinking will be refused: %s", error.strerror)
        return None
