"""The faults of a server: watching exactly while it must, from whatever thread; disks that can break or cannot."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from qemu_odx.disk.layers.faults import FaultLayer
from qemu_odx.disk.memory import memory_disk
from qemu_odx.faults.errors import FaultRuleError
from qemu_odx.faults.event import Event, Level
from qemu_odx.server.events import Events
from qemu_odx.server.faulting.decide import flip
from qemu_odx.server.faulting.door import Door
from qemu_odx.server.faulting.faults import Faults
from qemu_odx.server.faulting.guest import GuestControl
from qemu_odx.tap.gate import Gate
from qemu_odx.target.manager import CopyManager
from qemu_odx.testing.runner import InlineRunner

if TYPE_CHECKING:
    from collections.abc import Callable


class Rig:
    """Faults with one door, and what they asked for later."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.manager = CopyManager(InlineRunner())
        self.events = Events()
        self.faults = Faults(lambda: 1.5, self.soon.append, self.manager, self.events)
        self.gate = Gate("s")
        door = Door(frozenset({"s"}), lambda _name: 512)
        self.faults.add_door("e", self.gate, door, lambda: None)


@pytest.fixture
def rig() -> Rig:
    """Nothing armed."""
    return Rig()


def test_the_gate_is_watched_exactly_while_a_rule_for_it_is_armed(rig: Rig) -> None:
    """Otherwise every request keeps its express lane."""
    assert rig.gate.taps == ()
    rig.faults.add("name=a,action=stall,armed=off")
    assert rig.gate.taps == ()
    rig.faults.arm("a")
    rig.faults.add("name=b,sense=3/11/00")
    assert len(rig.gate.taps) == 1
    rig.faults.release("a")
    assert len(rig.gate.taps) == 1
    rig.faults.remove("b")
    assert rig.gate.taps == ()
    rig.faults.arm("a")
    rig.faults.remove_door("e")
    assert rig.gate.taps == ()


def test_a_rule_for_disks_leaves_the_doors_alone(rig: Rig) -> None:
    """It needs a disk with the layer, by name or any; the disk alone is watched."""
    with pytest.raises(FaultRuleError, match="no disk has a layer for that"):
        rig.faults.add("action=disk-error")
    layer = FaultLayer(memory_disk("d0", 1 << 16, 512))
    rig.faults.add_disk(layer)
    with pytest.raises(FaultRuleError, match="disk d1 has no layer for that"):
        rig.faults.add("action=disk-error,disk=d1")
    rig.faults.add("name=a,action=disk-error,disk=d0,op=disk-read,count=1")
    assert rig.gate.taps == ()
    with pytest.raises(OSError, match="EIO by a fault rule"):
        layer.read(0, [memoryview(bytearray(512))])
    assert [(item.state, item.last, item.last_event) for item in rig.faults.list()] == [
        ("spent", 1.5, "disk-read on d0")
    ]
    layer.read(0, [memoryview(bytearray(512))])
    rig.faults.remove_disk("d0")
    with pytest.raises(FaultRuleError, match="no disk has a layer"):
        rig.faults.add("action=disk-error")
    layer.close()


def test_a_rule_that_is_spent_on_a_worker_is_seen_to_on_the_loop(rig: Rig) -> None:
    """Gates are the loop's."""
    layer = FaultLayer(memory_disk("d0", 1 << 16, 512))
    rig.faults.add_disk(layer)
    rig.faults.add("action=disk-error,op=disk-flush,count=1")
    seen: list[object] = []
    rig.events.subscribe(seen.append)
    failed: list[OSError] = []

    def flush() -> None:
        try:
            layer.flush()
        except OSError as error:
            failed.append(error)

    worker = threading.Thread(target=flush)
    worker.start()
    worker.join()
    assert (len(failed), seen) == (1, [])
    while rig.soon:
        rig.soon.pop(0)()
    assert [(item.fault, item.request, item.state) for item in seen] == [  # type: ignore[attr-defined]
        ("disk-error-1", "disk-flush on d0", "spent")
    ]
    layer.close()


def test_guest_control_does_the_lines_before_the_one_that_fails(rig: Rig) -> None:
    """And says which was wrong; text that is none is refused."""
    control = GuestControl(rig.faults)
    assert not control.command(b"add name=a,action=stall\n\nexplode\nadd name=b,action=stall\n")
    assert [item.name for item in rig.faults.list()] == ["a"]
    assert b"'explode' is not one of add, arm, release, remove" in control.report()
    assert not control.command(b"\xff\xfe")
    assert control.command(b"release a\0\0")
    assert b'"error": ""' in control.report()


@pytest.mark.parametrize(
    ("rule", "length", "wanted"),
    [
        ("byte=5,bit=0", 8, b"\0\0\0\0\0\1\0\0"),
        ("byte=3,bit=7", 8, b"\0\0\0\x80\0\0\0\0"),
        ("byte=5,bit=0", 5, bytes(8)),
        ("bit=0", 0, bytes(8)),
    ],
)
def test_bits_flip_where_they_are_told_to(rig: Rig, rule: str, length: int, wanted: bytes) -> None:
    """Across buffers, and only in what was transferred."""
    rig.faults.add(f"action=bit-flip,{rule},op=READ(16)")
    (hit,) = rig.faults.book.hits(Event(Level.SCSI, "READ(16)", "d0"))
    data = bytearray(8)
    flip(hit, [memoryview(data)[:4], memoryview(data)[4:]], length)
    assert bytes(data) == wanted
