"""Talks to the driver's core (core_talk.c) and hands its SCSI packets to whoever is the disk."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from qemu_odx.windows.port import Delivery
from qemu_odx.windows.request import IoStatus
from qemu_odx.wire.dsm.codes import ControlCode
from qemu_odx.wire.dsm.ntstatus import NtStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qemu_odx.windows.driver import ClassDriver
    from qemu_odx.windows.port import Carrier
    from qemu_odx.windows.request import Request


HERE = Path(__file__).parent
DRIVER = HERE.parents[1] / "guest_scripts" / "windows" / "driver"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZERS]


def compiled(folder: Path, source: str, *flags: str) -> Path:
    """A program made of the core and a file of this folder."""
    program = folder / Path(source).stem
    core = sorted(str(path) for path in DRIVER.glob("odx_*.c"))
    subprocess.run(["gcc", *FLAGS, *flags, f"-I{DRIVER}", *core, HERE / source, "-o", program], check=True)
    return program


def _hex(data: bytes) -> str:
    return data.hex() or "-"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


class Core:
    """The program; one request at a time."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> list[str]:
        assert self._process.stdout is not None
        words = self._process.stdout.readline().split()
        assert words, "a sanitizer ended the core"
        return words

    def control(self, driver: ClassDriver, carry: Carrier, request: Request) -> IoStatus:
        """A request to the core, with the disk and the surroundings of a model's driver."""
        self._set_disk(driver)
        self._say(f"identifier {driver.environment.identifiers.upcoming}")
        if request.code == ControlCode.IOCTL_STORAGE_QUERY_PROPERTY:
            self._say(f"property {request.room} {_hex(request.data)}")
        else:
            allowed, level = int(request.kernel), int(not request.raised)
            self._say(f"dsm {allowed} {level} {request.room} {_hex(request.data)}")
        words = self._serve(carry, driver.environment.clock, driver.environment.wait)
        return IoStatus(NtStatus(int(words[1], 16)), int(words[2]), _bytes(words[3]))

    def discover(self, carry: Carrier) -> tuple[int, ...]:
        """What it knows of a disk after it has asked it, as numbers in the order of `set_disk`."""
        self._say("disk 0 0 0 0 0 0 0 0 0 0 0 2097152")
        self._say("discover")
        return tuple(int(word) for word in self._serve(carry, lambda: 0.0, lambda _: None)[1:])

    def _set_disk(self, driver: ClassDriver) -> None:
        volume, known = driver.volume, driver.volume.known
        numbers = [volume.block_size, volume.size, int(known.on and volume.is_disk), *[0] * 8]
        if known.limits is not None:
            limits = known.limits
            numbers[3:6] = [limits.max_ranges, limits.max_inactivity, limits.default_inactivity]
            numbers[6:8] = [limits.max_token_blocks, limits.optimal_blocks]
        if known.block_limits is not None:
            block = known.block_limits
            numbers[8:] = [block.max_transfer, block.optimal_transfer, block.granularity]
        self._say(" ".join(["disk", *map(str, numbers), str(driver.environment.adapter_bytes)]))

    def _serve(self, carry: Carrier, clock: Callable[[], float], wait: Callable[[float], None]) -> list[str]:
        """Answer packets until the request has ended; its last line."""
        while (words := self._hear())[0] in {"packet", "pause"}:
            if words[0] == "pause":
                wait(int(words[1]) / 1000)
                continue
            began = clock()
            done = carry(_bytes(words[1]), _bytes(words[2]))
            assert done.delivery is Delivery.DONE
            taken = round((clock() - began) * 1000)
            self._say(f"done {done.status} {_hex(done.sense)} {_hex(done.data)} {taken}")
        return words
