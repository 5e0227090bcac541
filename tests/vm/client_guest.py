"""A guest with independent SCSI clients, on disks whose every byte the host can look at.

May import the lab. What a client says it did is compared with the image files themselves.
"""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qemu_odx.lab.accelerator import choose_accelerator
from qemu_odx.lab.backend import Backend, DiskSpec, ScsiExport, serve_command
from qemu_odx.lab.guest import Guest
from qemu_odx.lab.qemu import GuestSpec
from qemu_odx.lab.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from qemu_odx.lab.image import Image
    from qemu_odx.lab.ssh import Completed

MIB = 1 << 20
SIZE = 16 * MIB
"""Below 65536 blocks of 512 bytes: libiscsi's tests would send more at once than an sg node takes."""
VAST = 1 << 40
FOLDER = "/tmp/clients"  # noqa: S108 - in the guest
AWAIT_NODES = "for i in $(seq 1200); do set -- /dev/sg*; [ $# = {count} ] && break; sleep 0.1; done"
TELL_NODES = (
    "for node in /sys/class/scsi_generic/sg*; do device=$(readlink -f $node/device); "
    "echo ${node##*/} ${device##*/} $(grep -o 'odx-[a-z0-9]*' $device/vpd_pg80); done"
)
"""For each: its name, its address (host:channel:target:unit) and its serial number, as Linux knows them."""


@dataclass(frozen=True)
class Unit:
    """A logical unit, the guest's node for it once there is a guest, and the file behind it."""

    name: str
    image: Path
    size: int = SIZE
    options: Mapping[str, str] = field(default_factory=dict)
    node: str = ""

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return int(self.options.get("block-size", "512"))

    @property
    def serial(self) -> str:
        """Its serial number."""
        return f"odx-{self.name}"

    def fill(self) -> None:
        """Write the content it starts with."""
        blocks = range(self.size // self.block_size)
        self.image.write_bytes(b"".join(self._block(number) for number in blocks))

    def _block(self, number: int) -> bytes:
        return f"{self.name} {number:08}".encode().ljust(self.block_size, b".")

    def first(self, lba: int, blocks: int) -> bytes:
        """What these blocks held at the start."""
        return b"".join(self._block(number) for number in range(lba, lba + blocks))

    def now(self, lba: int, blocks: int) -> bytes:
        """What these blocks hold now, read on the host."""
        with self.image.open("rb") as file:
            file.seek(lba * self.block_size)
            return file.read(blocks * self.block_size)


@dataclass(frozen=True)
class ClientGuest:
    """The guest.

    Attributes:
        one: where copies come from.
        two: where they go.
        large: blocks of 4096 bytes.
        vast: 1 TiB of nothing, for copies that take a while.
        scratch: 512 byte blocks on a medium of 4096, for tests that do what they want to a disk.
        protected: its image is read-only.
        kit: more disks for such tests, the last one with blocks of 4096 bytes.
        second_path: node of `scratch` behind another controller.
    """

    guest: Guest
    backend: Backend
    one: Unit
    two: Unit
    large: Unit
    vast: Unit
    scratch: Unit
    protected: Unit
    kit: tuple[Unit, ...]
    second_path: str

    def complete(self, command: str, *, seconds: float = 240.0) -> Completed:
        """Run a shell command in the guest's scratch folder."""
        done = self.guest.shell.run(f"cd {FOLDER} && {command}", seconds=seconds)
        self.backend.check()
        return done

    def run(self, command: str, *, status: int = 0) -> str:
        """What a command prints; it must end with that exit status."""
        done = self.complete(command)
        output = done.stdout + done.stderr
        assert done.status == status, f"{command}: exit status {done.status}, {status} expected\n{output}"
        return output

    def each(self, *commands: str) -> list[tuple[int, str]]:
        """Exit status and output of commands that are run one right after the other."""
        line = "; ".join(f"{command} 2>&1; printf '\\nexit %d\\n' $?" for command in commands)
        *parts, _ = re.split(r"\nexit (\d+)\n", self.complete(line).stdout)
        return [(int(status), output) for output, status in zip(parts[::2], parts[1::2], strict=True)]

    def put(self, name: str, content: bytes) -> None:
        """Make a small file in the guest's scratch folder."""
        octal = "".join(f"\\{byte:03o}" for byte in content)
        self.run(f"printf '{octal}' > {name}")

    def get(self, name: str) -> bytes:
        """The content of a file in the guest's scratch folder."""
        return bytes.fromhex(self.run(f"od -v -A n -t x1 {name}").replace("\n", " "))


@contextmanager
def client_guest(image: Image) -> Iterator[ClientGuest]:
    """Boot it on fresh disks; at the end guest and disk server must go well."""
    with RunFolder() as run, ExitStack() as stack:
        units = _units(run.path)
        disks = [DiskSpec(unit.name, unit.image, unit.size, unit.serial, unit.options) for unit in units]
        exports = [
            ScsiExport(run.path / "scsi.sock", tuple(unit.name for unit in units)),
            ScsiExport(run.path / "second.sock", ("scratch",)),
        ]
        backend = Backend(serve_command(disks, exports), run.path / "serve.log")
        stack.callback(backend.stop)
        spec = GuestSpec(image, choose_accelerator(), tuple(export.socket for export in exports))
        guest = Guest(spec, run.path)
        stack.callback(guest.kill)
        guest.shell.run(f"mkdir {FOLDER}", seconds=120)
        nodes = _nodes(guest, len(units) + 1)
        units = [replace(unit, node=nodes[unit.serial][0]) for unit in units]
        (second_path,) = nodes["odx-scratch"][1:]
        yield ClientGuest(guest, backend, *units[:6], tuple(units[6:]), second_path)
        guest.power_off()
        assert backend.stop() == 0


def _units(folder: Path) -> list[Unit]:
    kinds: dict[str, dict[str, str]] = {
        "one": {},
        "two": {},
        "large": {"block-size": "4096"},
        "vast": {},
        "scratch": {"physical-block-size": "4096"},
        "protected": {"readonly": "on"},
        "kit1": {},
        "kit2": {},
        "kit3": {"block-size": "4096"},
    }
    units = [
        Unit(name, folder / f"{name}.img", VAST if name == "vast" else SIZE, options)
        for name, options in kinds.items()
    ]
    for unit in units:
        if unit.name in {"one", "two", "large", "protected"}:
            unit.fill()
    return units


def _nodes(guest: Guest, count: int) -> dict[str, list[str]]:
    """The nodes by serial number, whatever their order; of two, that behind the controller with all units first."""
    told = guest.shell.run(f"{AWAIT_NODES.format(count=count)}; {TELL_NODES}", seconds=240).stdout
    rows = [line.split() for line in told.splitlines()]
    on_host = Counter(address.partition(":")[0] for _, address, _ in rows)
    nodes: dict[str, list[str]] = {}
    for name, _, serial in sorted(rows, key=lambda row: -on_host[row[1].partition(":")[0]]):
        nodes.setdefault(serial, []).append(f"/dev/{name}")
    return nodes
