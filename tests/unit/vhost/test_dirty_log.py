"""The dirty log: which bits are set, when, and that nobody else's are lost."""

from __future__ import annotations

import logging
import mmap
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest

from qemu_odx.vhost import dirty_log
from qemu_odx.vhost.dirty_log import DirtyLog
from qemu_odx.vhost.message import RefusedError
from qemu_odx.wire.vhost_user import U64, Feature, LogBase, Request, VringAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Talk

PAGES = 8 * 4096


def never() -> None:
    """No memory is lost here."""
    raise AssertionError


@pytest.fixture
def bitmap() -> Iterator[tuple[int, mmap.mmap]]:
    """A log file of one page, and its bytes."""
    fd = os.memfd_create("log")
    os.ftruncate(fd, 4096)
    with mmap.mmap(fd, 4096) as pages:
        yield fd, pages
    os.close(fd)


def dirty(pages: mmap.mmap) -> set[int]:
    """The pages that are marked."""
    bytes_set = [(at, byte) for at, byte in enumerate(bytes(pages)) if byte]
    return {8 * at + bit for at, byte in bytes_set for bit in range(8) if byte >> bit & 1}


def test_every_page_that_is_touched_and_no_other(bitmap: tuple[int, mmap.mmap]) -> None:
    """Against the plain definition, for many ranges."""
    fd, pages = bitmap
    log = DirtyLog(LogBase(4096, 0), fd, never)
    chance = random.Random(4)
    for _ in range(200):
        gpa = chance.randrange(PAGES * 4096)
        length = min(chance.choice([1, 2, 512, 4096, 4097, 70_000, 1 << 20]), PAGES * 4096 - gpa)
        log.mark(gpa, length)
        assert dirty(pages) == set(range(gpa // 4096, (gpa + length - 1) // 4096 + 1))
        pages[:] = bytes(4096)


def test_a_log_at_an_offset(bitmap: tuple[int, mmap.mmap]) -> None:
    """Bytes before it stay as they are."""
    fd, pages = bitmap
    DirtyLog(LogBase(96, 4000), fd, never).mark(4096 * 9, 1)
    assert dirty(pages) == {4000 * 8 + 9}


def test_pages_beyond_the_log_are_left_out(bitmap: tuple[int, mmap.mmap]) -> None:
    """A front end whose log is too small for its memory loses bits, we write nowhere else."""
    fd, pages = bitmap
    log = DirtyLog(LogBase(2, 0), fd, never)
    log.mark(4096 * 15, 4096 * 100)
    log.mark(1 << 63, 1 << 40)
    assert dirty(pages) == {15}


def test_nothing_written_nothing_marked(bitmap: tuple[int, mmap.mmap]) -> None:
    """An empty range has no page."""
    fd, pages = bitmap
    DirtyLog(LogBase(4096, 0), fd, never).mark(0, 0)
    assert dirty(pages) == set()


def test_bits_of_others_are_kept(bitmap: tuple[int, mmap.mmap]) -> None:
    """Two back ends of one guest mark different bits of the same bytes at the same time."""
    fd, pages = bitmap
    logs = [DirtyLog(LogBase(4096, 0), fd, never) for _ in range(4)]

    def mark(which: int) -> None:
        for page in range(which, 4096, 4):
            logs[which].mark(4096 * page, 1)

    threads = [threading.Thread(target=mark, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dirty(pages) == set(range(4096))


def test_a_log_longer_than_its_file_is_refused(bitmap: tuple[int, mmap.mmap]) -> None:
    """Its pages are not there."""
    with pytest.raises(RefusedError, match="the dirty log is larger than its file of 4096 bytes"):
        DirtyLog(LogBase(4097, 0), bitmap[0], never)


def test_without_libatomic_nothing_is_offered(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """QEMU then refuses to migrate and says why; our log names the cure, once."""
    missing = dirty_log.atomic_or.__wrapped__
    dirty_log.atomic_or.cache_clear()
    monkeypatch.setattr("ctypes.PyDLL", lambda _: (_ for _ in ()).throw(OSError("no such library")))
    caplog.set_level(logging.WARNING)
    try:
        assert missing() is None
        assert caplog.messages == [
            "guests cannot be migrated live: install libatomic (Debian package libatomic1)"
        ]
        features = talk.session.offered_features
        protocol = talk.session.offered_protocol_features
    finally:
        dirty_log.atomic_or.cache_clear()
    assert not features & Feature.LOG_ALL
    assert protocol == 0xB229


# -- in a session ----------------------------------------------------------------------------------


def test_logging_is_on_with_both_log_and_feature(ready: Talk, bitmap: tuple[int, mmap.mmap]) -> None:
    """In either order, and off again without the feature: while a ring runs."""
    fd, pages = bitmap
    ready.start()
    memory = ready.session.memory
    assert memory.mark_written is None
    ((_, payload, _),) = ready.say(Request.SET_LOG_BASE, LogBase(4096, 0).pack(), [fd])
    assert payload == U64.pack(0)
    assert memory.mark_written is None or ready.session.features & Feature.LOG_ALL
    on, off = ready.session.offered_features, ready.session.offered_features & ~Feature.LOG_ALL
    ready.say(Request.SET_FEATURES, U64.pack(off))
    assert memory.mark_written is None
    assert ready.say(Request.SET_FEATURES, U64.pack(on), ack=True)[0][1] == U64.pack(0)
    assert memory.mark_written is not None
    memory.mark_written(4096, 1)
    assert dirty(pages) == {1}
    ready.say(Request.SET_FEATURES, U64.pack(off))
    assert memory.mark_written is None
    assert ready.device.calls.count(("start", 0)) == 1


def test_the_used_ring_is_logged_when_its_address_says_so(ready: Talk) -> None:
    """SET_VRING_ADDR with the log flag while the ring runs, and without it again; and at a start."""
    ready.start()
    address = ready.address()
    place = (address.descriptor, address.used, address.available)
    logged = VringAddress(0, 1, *place, 0x1234).pack()
    ring = ready.device.rings[0]
    assert ring.used_log_gpa is None
    ready.say(Request.SET_VRING_ADDR, logged)
    assert ring.used_log_gpa == 0x1234
    ready.say(Request.SET_VRING_ADDR, VringAddress(0, 0, *place, 0x1234).pack())
    assert ring.used_log_gpa is None
    ready.describe_ring(1)
    ready.say(Request.SET_VRING_ADDR, VringAddress(1, 1, *place, 0x2000).pack())
    ready.start_described(1)
    assert ready.device.rings[1].used_log_gpa == 0x2000


def test_a_new_log_takes_over(ready: Talk, bitmap: tuple[int, mmap.mmap]) -> None:
    """When memory grows QEMU makes a larger one and drops the old."""
    fd, pages = bitmap
    ready.say(Request.SET_LOG_BASE, LogBase(8, 0).pack(), [fd])
    ready.say(Request.SET_LOG_BASE, LogBase(16, 8).pack(), [fd])
    mark = ready.session.memory.mark_written
    assert mark is not None
    mark(0, 1)
    assert dirty(pages) == {64}
