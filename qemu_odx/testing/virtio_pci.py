"""The guest's side of a virtio-pci device in a `QtestMachine`: PCI set-up, registers, queues, interrupts.

May import anything but `lab` and `cli`. Clauses: virtio 1.2, 4.1 (virtio over PCI); PCI 3.0, 6.1, 6.7, 6.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qemu_odx.testing.driver import DriverQueue
from qemu_odx.testing.qtest import QtestMachine, poll
from qemu_odx.wire.virtio.features import F_EVENT_IDX, F_VERSION_1
from qemu_odx.wire.virtio.ring import avail_size, used_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIG_ADDRESS, _CONFIG_DATA = 0xCF8, 0xCFC
_COMMAND, _BARS, _CAPABILITIES = 0x04, 0x10, 0x34
_MEMORY_AND_MASTER: Final = 0x7
_CAP_MSIX, _CAP_VENDOR = 0x11, 0x09
_MSIX_ENABLE: Final = 1 << 31
_COMMON, _NOTIFY, _ISR, _DEVICE = 1, 2, 3, 4
"""cfg_type of a virtio PCI capability (4.1.4)."""
_BAR_BASE, _BARS_OF_A_SLOT, _BAR_STEP = 0xF000_0000, 0x10_0000, 0x1_0000

# struct virtio_pci_common_cfg (4.1.4.3): offset and access of each register used here.
_FEATURE_SELECT, _FEATURE = 0, 4
_DRIVER_FEATURE_SELECT, _DRIVER_FEATURE = 8, 12
_CONFIG_VECTOR, _STATUS, _GENERATION = 16, 20, 21
_QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_VECTOR, _QUEUE_ENABLE, _QUEUE_NOTIFY_OFF = 22, 24, 26, 28, 30
_QUEUE_DESC, _QUEUE_DRIVER, _QUEUE_DEVICE = 32, 40, 48

_ACKNOWLEDGE, _DRIVER, _FEATURES_OK, _DRIVER_OK = 1, 2, 8, 4
_READY = _ACKNOWLEDGE | _DRIVER | _FEATURES_OK
_MARK: Final = 0x0DD_BA11


class VirtioPci:
    """A modern virtio device at a slot of the root bus, found and mapped.

    Attributes:
        device_id: PCI vendor in the low half, device in the high half.
        features: features acknowledged by `start`.
    """

    def __init__(self, machine: QtestMachine, slot: int) -> None:
        self._machine = machine
        self._slot = slot
        self.device_id = self._read_pci(0)
        self.features = 0
        self._places: dict[int, int] = {}
        self._notify_multiplier = 0
        self._vectors: dict[int, int] = {}
        self._msix_table = 0
        self._write_pci(_COMMAND, _MEMORY_AND_MASTER)
        bars = self._place_bars()
        for pointer in self._capabilities():
            self._note(pointer, bars)

    # -- driver --------------------------------------------------------------------------------

    def start(self, *, queues: int = 1, size: int = 128, accept: int = (1 << 64) - 1) -> list[DriverQueue]:
        """Initialise the device as a driver does (3.1), up to DRIVER_OK; the queues, each with a vector."""
        self.status = 0
        self.status = _ACKNOWLEDGE | _DRIVER
        self.features = self.device_features() & accept | F_VERSION_1
        for half in range(2):
            self._write("l", _COMMON, _DRIVER_FEATURE_SELECT, half)
            self._write("l", _COMMON, _DRIVER_FEATURE, self.features >> 32 * half & 0xFFFF_FFFF)
        self.status = _READY
        if not self.status & _FEATURES_OK:
            raise AssertionError(f"the device refused the features {self.features:#x}")
        made = [self._queue(index, size) for index in range(queues)]
        self.status = _READY | _DRIVER_OK
        return made

    def reset(self) -> None:
        """Write 0 to the status and wait until it reads so (4.1.4.3.2)."""
        self.status = 0
        poll(lambda: self.status == 0, "device reset")

    @property
    def status(self) -> int:
        """device_status."""
        return self._read("b", _COMMON, _STATUS)

    @status.setter
    def status(self, value: int) -> None:
        self._write("b", _COMMON, _STATUS, value)

    def device_features(self) -> int:
        """What the guest is offered."""
        value = 0
        for half in range(2):
            self._write("l", _COMMON, _FEATURE_SELECT, half)
            value |= self._read("l", _COMMON, _FEATURE) << 32 * half
        return value

    def config(self, length: int) -> bytes:
        """The first bytes of the device's configuration space."""
        return bytes(self._read("b", _DEVICE, offset) for offset in range(length))

    def write_config(self, offset: int, value: int) -> None:
        """Write one byte of the device's configuration space."""
        self._write("b", _DEVICE, offset, value)

    def notify(self, index: int) -> None:
        """Kick a queue, whether it exists or not."""
        self._write("w", _COMMON, _QUEUE_SELECT, index)
        offset = self._read("w", _COMMON, _QUEUE_NOTIFY_OFF) * self._notify_multiplier
        self._write("w", _NOTIFY, offset, index)

    def interrupted(self, index: int) -> bool:
        """True if the interrupt of the queue (or other MSI-X entry) came since the last call."""
        word = self._machine.ram.view(self._vectors[index], 4)
        came = bytes(word) != bytes(4)
        word[:] = bytes(4)
        return came

    def watch_config(self, entry: int) -> None:
        """Point the configuration's interrupt at an MSI-X entry that no queue has; see `interrupted`."""
        self._write("w", _COMMON, _CONFIG_VECTOR, self._vector(entry))

    def _queue(self, index: int, size: int) -> DriverQueue:
        queue = DriverQueue(
            self._machine.ram,
            size,
            kick=lambda: self.notify(index),
            event_idx=bool(self.features & F_EVENT_IDX),
        )
        parts = ((queue.avail_gpa, avail_size(size)), (queue.used_gpa, used_size(size)))
        for gpa, length in parts:  # What lay in this memory before would be taken for requests.
            self._machine.ram.write(gpa, bytes(length))
        queue.arm_interrupt()

        def wait() -> None:
            queue.arm_interrupt()
            poll(lambda: queue.used_pending() > 0, f"completion in queue {index}")

        queue.wait = wait
        self._write("w", _COMMON, _QUEUE_SELECT, index)
        self._write("w", _COMMON, _QUEUE_SIZE, size)
        self._write("w", _COMMON, _QUEUE_VECTOR, self._vector(index))
        places = (
            (_QUEUE_DESC, queue.desc_gpa),
            (_QUEUE_DRIVER, queue.avail_gpa),
            (_QUEUE_DEVICE, queue.used_gpa),
        )
        for register, address in places:
            self._write("l", _COMMON, register, address & 0xFFFF_FFFF)
            self._write("l", _COMMON, register + 4, address >> 32)
        self._write("w", _COMMON, _QUEUE_ENABLE, 1)
        return queue

    def _vector(self, index: int) -> int:
        """Point a queue's MSI-X entry at a word of RAM: the interrupt is a store that can be looked for."""
        if index not in self._vectors:
            self._vectors[index] = self._machine.ram.allocate(4, 4)
            self._machine.ram.write(self._vectors[index], bytes(4))
        entry = self._msix_table + 16 * index
        for offset, value in ((0, self._vectors[index]), (4, 0), (8, _MARK), (12, 0)):
            self._machine.command(f"writel {entry + offset:#x} {value:#x}")
        return index

    # -- PCI -----------------------------------------------------------------------------------

    def _place_bars(self) -> dict[int, int]:
        """Give every memory BAR an address."""
        bars, number = {}, 0
        while number < 6:
            register = _BARS + 4 * number
            kind = self._read_pci(register)
            address = _BAR_BASE + _BARS_OF_A_SLOT * self._slot + _BAR_STEP * number
            bars[number] = address
            self._write_pci(register, address)
            if kind & 0x6 == 0x4:  # 64 bits: the next register is its upper half
                number += 1
                self._write_pci(_BARS + 4 * number, 0)
            number += 1
        return bars

    def _capabilities(self) -> Iterator[int]:
        pointer = self._read_pci(_CAPABILITIES) & 0xFC
        while pointer:
            yield pointer
            pointer = self._read_pci(pointer) >> 8 & 0xFC

    def _note(self, pointer: int, bars: dict[int, int]) -> None:
        head = self._read_pci(pointer)
        if head & 0xFF == _CAP_MSIX:
            table = self._read_pci(pointer + 4)
            self._msix_table = bars[table & 7] + (table & ~7)
            self._write_pci(pointer, head | _MSIX_ENABLE)
        elif head & 0xFF == _CAP_VENDOR and head >> 24 in {_COMMON, _NOTIFY, _ISR, _DEVICE}:
            bar = self._read_pci(pointer + 4) & 0xFF
            self._places[head >> 24] = bars[bar] + self._read_pci(pointer + 8)
            if head >> 24 == _NOTIFY:
                self._notify_multiplier = self._read_pci(pointer + 16)

    def _read_pci(self, register: int) -> int:
        self._select(register)
        return int(self._machine.command(f"inl {_CONFIG_DATA:#x}")[0], 16)

    def _write_pci(self, register: int, value: int) -> None:
        self._select(register)
        self._machine.command(f"outl {_CONFIG_DATA:#x} {value:#x}")

    def _select(self, register: int) -> None:
        self._machine.command(f"outl {_CONFIG_ADDRESS:#x} {1 << 31 | self._slot << 11 | register:#x}")

    def _read(self, width: str, structure: int, offset: int) -> int:
        return int(self._machine.command(f"read{width} {self._places[structure] + offset:#x}")[0], 16)

    def _write(self, width: str, structure: int, offset: int, value: int) -> None:
        self._machine.command(f"write{width} {self._places[structure] + offset:#x} {value:#x}")
