"""The whole build with real media, a real qemu-img, a scripted machine and a scripted ssh server; and the command."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import paramiko
import pytest
from click.testing import CliRunner
from scripted_windows import ScriptedMachine, script_of, ssh_server
from windows_media import SERVER_2022, SERVER_2025, openssh_zip, virtio_iso, windows_iso

from qemu_odx.cli.main import main
from qemu_odx.lab import catalogue
from qemu_odx.lab.disk_image import DiskImage
from qemu_odx.lab.errors import LabError, UsageError
from qemu_odx.lab.phases import Silent
from qemu_odx.lab.qemu import GuestSpec, qemu_command
from qemu_odx.lab.system_disk import SystemDisk
from qemu_odx.lab.windows_image import build as module
from qemu_odx.lab.windows_image import install
from qemu_odx.lab.windows_image.build import WindowsBuild, Wishes
from qemu_odx.lab.windows_image.golden import find_golden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from qemu_odx.lab.machine import Machine

INSTALLATION = ["LAB:step drivers", "LAB:installed", "off"]
FIRST_LOGIN = ["LAB:ssh-ready"]
GOOD = [INSTALLATION, FIRST_LOGIN]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of the test's own; firmware, should the host have none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("qemu-img", "wimlib-imagex"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path / "firmware"
    folder.mkdir()
    for name in ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.setattr("qemu_odx.lab.disk_image.FIRMWARE_FOLDERS", (folder,))
    monkeypatch.setattr(module, "SMALLEST_DISK", "16M")
    monkeypatch.setattr(install, "POLL_SECONDS", 0.01)  # each look at a machine is a step of its script
    return tmp_path / "cache" / "qemu-odx" / "images"


class Host:
    """Makes scripted machines, one after the other, and plays their ssh servers."""

    def __init__(self, *scripts: list[str]) -> None:
        self.scripts = list(scripts)
        self.specs: list[GuestSpec] = []
        self.sent: list[str] = []
        self.machines: list[ScriptedMachine] = []
        self._stack = ExitStack()

    def make(self, spec: GuestSpec, folder: Path) -> Machine:
        """A machine on real overlays."""
        assert isinstance(spec.image, DiskImage)
        SystemDisk(spec.image, folder)
        self.specs.append(spec)
        key_file = spec.image.disk.parent / "id_ed25519"
        key = paramiko.PKey.from_path(key_file).get_base64()
        port = self._stack.enter_context(ssh_server(key, self._answer))
        machine = ScriptedMachine(self.scripts.pop(0), ssh_port=port)
        self.machines.append(machine)
        return machine  # type: ignore[return-value]

    def _answer(self, command: str) -> tuple[int, str]:
        script = script_of(command)
        self.sent.append(script)
        if "shutdown.exe" in script:
            self.machines[-1].switch_off()
        return 0, "\r\nMicrosoft Windows [Version 10.0.26100.1]\r\n"

    def close(self) -> None:
        """End the servers."""
        self._stack.close()


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Hosts that are closed at the end."""
    made: list[Host] = []
    yield made
    for host in made:
        host.close()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Windows Server 2025, which brings its own sshd, and its drivers; nobody writes to them."""
    folder = tmp_path_factory.mktemp("media")
    return windows_iso(folder, {"Windows Server 2025": SERVER_2025}), virtio_iso(folder, "2k25")


@pytest.fixture
def wishes(media: tuple[Path, Path]) -> Wishes:
    """For that medium."""
    return Wishes(*media, hours=0.1)


def build(wishes: Wishes, hosts: list[Host], *scripts: list[str]) -> Host:
    """Run a build on scripted machines."""
    host = Host(*scripts)
    hosts.append(host)
    WindowsBuild(wishes, Silent(), host.make).run()
    return host


def test_golden_image(wishes: Wishes, hosts: list[Host], cache: Path) -> None:
    """Read-only disk, variables, key, facts; the answer disc, which holds the password, is gone."""
    host = build(wishes, hosts, *GOOD)
    golden = find_golden()
    assert {path.name for path in golden.folder.iterdir()} == {
        *("system.qcow2", "variables.fd", "id_ed25519", "image.json"),
    }
    assert (golden.folder / "system.qcow2").stat().st_mode & 0o777 == 0o444
    assert (golden.folder / "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert golden.facts["version"] == "Microsoft Windows [Version 10.0.26100.1]"
    assert golden.facts["release"] == "server2025"
    assert set(golden.facts["media_sha256"]) == {"windows.iso", "virtio-win.iso"}
    assert golden.adapter.login.private_key == golden.folder / "id_ed25519"
    assert "cmd.exe" in host.sent[0]
    assert not (cache / "golden" / "windows.building").exists()


def test_machine_of_the_installation(wishes: Wishes, hosts: list[Host]) -> None:
    """AHCI, e1000e, UEFI, three CDs, and no device under test."""
    host = build(wishes, hosts, *GOOD)
    first, second = (spec.image for spec in host.specs)
    assert isinstance(first, DiskImage)
    assert isinstance(second, DiskImage)
    assert (first.disk_bus, first.network, first.system) == ("ahci", "e1000e", "windows")
    assert [path.name for path in first.cdroms] == ["windows.iso", "virtio-win.iso", "answers.iso"]
    assert second.cdroms == ()
    assert not host.specs[0].scsi_sockets
    assert not host.specs[0].blk_sockets


def test_failed_installation_begins_anew_and_the_rest_goes_on(
    wishes: Wishes, hosts: list[Host], cache: Path
) -> None:
    """The second run checks no medium again, and installs on a fresh disk; evidence is there until it is well."""
    with pytest.raises(LabError, match=r"step install .*no disk found") as caught:
        build(wishes, hosts, ["LAB:failed no disk found"])
    assert caught.value.logs == cache / "golden" / "windows.building" / "failed"
    assert (cache / "golden" / "windows.building" / "failed" / "screen.png").exists()
    with pytest.raises(LabError, match="no Windows image called windows"):
        find_golden()
    key = (cache / "golden" / "windows.building" / "id_ed25519").read_bytes()
    build(wishes, hosts, *GOOD)
    assert (find_golden().folder / "id_ed25519").read_bytes() == key


def test_failed_check_does_not_install_again(wishes: Wishes, hosts: list[Host]) -> None:
    """An hour is not spent twice."""
    with pytest.raises(LabError, match="step check"):
        build(wishes, hosts, INSTALLATION, ["off"])
    host = build(wishes, hosts, FIRST_LOGIN)
    assert len(host.specs) == 1


def test_finished_image_is_not_built_over(wishes: Wishes, hosts: list[Host]) -> None:
    """Remove it, or choose another name."""
    build(wishes, hosts, *GOOD)
    with pytest.raises(LabError, match="an image called windows already"):
        build(wishes, hosts, *GOOD)


@pytest.mark.parametrize("name", ["../../x", "linux", "wine", "a b", ".a", "win.img", "x" * 33])
def test_names_that_an_image_cannot_have(wishes: Wishes, hosts: list[Host], cache: Path, name: str) -> None:
    """A path, another image's, what --image and odx.toml would take for a file; nothing is left."""
    with pytest.raises(UsageError, match=r"no name|another image's name"):
        build(replace(wishes, name=name), hosts)
    assert list(cache.parent.rglob("*.building")) == []


def test_begun_image_is_listed_and_removed(wishes: Wishes, hosts: list[Host], cache: Path) -> None:
    """It takes gigabytes, and has a name of the user's."""
    with pytest.raises(LabError, match="step install"):
        build(replace(wishes, name="mine"), hosts, ["LAB:failed no disk found"])
    entry = catalogue.find_entry("mine")
    assert not entry.built
    assert entry.build_command == "qemu-odx image build windows --as mine"
    assert catalogue.remove("mine") == [cache / "golden" / "mine.building"]
    assert catalogue.find_entry("windows").build_command == "qemu-odx image build windows"


def test_release_without_sshd_wants_a_package(tmp_path: Path, hosts: list[Host]) -> None:
    """Before anything is started."""
    iso = windows_iso(tmp_path, {"Windows Server 2022": SERVER_2022})
    wishes = Wishes(iso, virtio_iso(tmp_path, "2k22"))
    with pytest.raises(LabError, match=r"step media .*server2022 brings no OpenSSH server.*--openssh"):
        build(wishes, hosts)
    build(Wishes(iso, wishes.virtio_iso, openssh_zip=openssh_zip(tmp_path)), hosts, *GOOD)
    assert find_golden().facts["release"] == "server2022"


def test_catalogue_verifies_and_removes(wishes: Wishes, hosts: list[Host], cache: Path) -> None:
    """A byte that changed is found."""
    build(wishes, hosts, *GOOD)
    entry = catalogue.find_entry("windows")
    assert entry.built
    assert catalogue.verify(entry) == []
    variables = cache / "golden" / "windows" / "variables.fd"
    content = bytearray(variables.read_bytes())
    content[3] ^= 1
    variables.write_bytes(content)
    assert catalogue.verify(entry) == ["variables.fd has other content than when it was built"]
    variables.write_bytes(content[:-1])
    assert "bytes instead of" in catalogue.verify(entry)[0]
    variables.unlink()
    assert catalogue.verify(entry) == ["variables.fd is missing"]
    assert catalogue.remove("windows") == [cache / "golden" / "windows"]
    with pytest.raises(LabError, match="nothing to remove"):
        catalogue.remove("windows")


def test_golden_image_boots_like_this(wishes: Wishes, hosts: list[Host], tmp_path: Path) -> None:
    """Its own variables, its disk below an overlay."""
    build(wishes, hosts, *GOOD)
    image = find_golden().disk_image
    work = tmp_path / "run"
    work.mkdir()
    files = SystemDisk(image, work).files
    command = qemu_command(GuestSpec(image, "tcg", display=True), 3, work / "serial.log", files)
    assert files.disk == work / "system0.qcow2"
    assert any(f"unit=1,file={work / 'variables.fd'}" in word for word in command)
    assert (work / "variables.fd").read_bytes() == (find_golden().folder / "variables.fd").read_bytes()
    assert str(image.disk) not in command


def run(*words: str) -> tuple[int, str]:
    """The command's exit code and what it prints."""
    done = CliRunner().invoke(main, ["image", *words])
    return done.exit_code, done.output


def test_list_as_json() -> None:
    """Each image that has a recipe, with its digest."""
    code, output = run("list", "--json")
    images = {image["name"]: image for image in json.loads(output)["images"]}
    assert code == 0
    assert {"linux", "linux-clients", "wine", "windows"} <= set(images)
    assert len(images["linux"]["digest"]) == 16
    assert not images["linux"]["built"]
    assert images["windows"]["kind"] == "windows"


def test_list_for_people() -> None:
    """What is not there says how to get it."""
    code, output = run("list")
    assert code == 0
    assert "not built: qemu-odx image build linux" in output


def test_usage() -> None:
    """Exit code 2, and what is missing."""
    code, output = run("build", "windows")
    assert code == 2
    assert "windows needs --iso FILE" in output
    code, output = run("build", "linux", "--iso", "x.iso")
    assert code == 2
    assert "--iso is for windows only" in output


@pytest.mark.parametrize(
    "words",
    [
        ("build", "beos"),
        ("verify", "beos"),
        ("verify", "linux"),
        ("remove", "beos"),
        ("remove", "linux"),
        ("build", "windows", "--iso", "nowhere.iso", "--virtio-iso", "nowhere.iso"),
    ],
)
def test_what_cannot_be_done(words: tuple[str, ...]) -> None:
    """Exit code 1 and one sentence."""
    code, output = run(*words)
    assert code == 1
    assert output.startswith(f"qemu-odx image {words[0]}: ")
    assert "Traceback" not in output


def test_verify_and_remove(wishes: Wishes, hosts: list[Host], cache: Path) -> None:
    """As a user does."""
    build(wishes, hosts, *GOOD)
    assert run("verify") == (0, "windows: as it was built\n")
    (cache / "golden" / "windows" / "variables.fd").write_bytes(b"x")
    code, output = run("verify", "windows", "--json")
    assert code == 1
    assert json.loads(output)["ok"] is False
    code, output = run("remove", "windows", "--json")
    assert code == 0
    assert json.loads(output)["removed"] == [str(cache / "golden" / "windows")]
