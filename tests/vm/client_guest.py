"""A guest with independent SCSI clients, on disks whose every byte the host can look at.

May import the lab. What a client says it did is compared with the image files themselves.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
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
AWAIT_NODES = "for i in $(seq 200); do [ -c {last} ] && break; sleep 0.1; done"


@dataclass(frozen=True)
class Unit:
    """A logical unit as the guest names it, and the file behind it."""

    number: int
    name: str
    image: Path
    size: int = SIZE
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def block_size(self) -> int:
        """Bytes of a logical block."""
        return int(self.options.get("block-size", "512"))

    @property
    def node(self) -> str:
        """Its node in the guest: sg nodes are numbered in the order in which Linux finds the units."""
        return f"/dev/sg{self.number}"

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

    @property
    def second_path(self) -> str:
        """Node of `scratch` behind another controller, found after those of the first."""
        return f"/dev/sg{self.kit[-1].number + 1}"

    def complete(self, command: str, *, seconds: float = 120.0) -> Completed:
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
        clients = ClientGuest(guest, backend, *units[:6], tuple(units[6:]))
        _prepare(clients, units)
        yield clients
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
        Unit(number, name, folder / f"{name}.img", VAST if name == "vast" else SIZE, options)
        for number, (name, options) in enumerate(kinds.items())
    ]
    for unit in units:
        if unit.name in {"one", "two", "large", "protected"}:
            unit.fill()
    return units


def _prepare(clients: ClientGuest, units: list[Unit]) -> None:
    """Wait for the nodes, and make sure that each is the unit we take it for."""
    clients.guest.shell.run(f"mkdir {FOLDER}; {AWAIT_NODES.format(last=clients.second_path)}", seconds=60)
    for unit in units:
        assert unit.serial in clients.run(f"sg_vpd -p sn {unit.node}")
    assert clients.scratch.serial in clients.run(f"sg_vpd -p sn {clients.second_path}")
