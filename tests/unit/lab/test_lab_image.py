"""The image recipe, its key, the package sources, and the unpacking of kernels."""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import zlib
from pathlib import Path

import pytest

from qemu_odx.lab import apt, image, paths, recipe
from qemu_odx.lab.errors import LabError
from qemu_odx.lab.kernel import unpack_kernel
from qemu_odx.lab.paths import data_folder
from qemu_odx.lab.recipe import Host, load_recipe

HOST = Host("debian", "bookworm", "x86_64")
ELF = b"\x7fELF" + bytes(range(256)) * 8


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipes that a test may change."""
    copy = tmp_path / "vm_images"
    shutil.copytree(data_folder("vm_images"), copy)
    monkeypatch.setattr(recipe, "data_folder", lambda _: copy)
    return copy


def test_same_recipe_has_the_same_key(recipes: Path) -> None:
    """The cache is found again."""
    assert load_recipe("linux", HOST).key == load_recipe("linux", HOST).key


def test_key_follows_the_recipe_files(recipes: Path) -> None:
    """Another init makes another image."""
    before = load_recipe("linux", HOST).key
    with (recipes / "linux" / "lab-init").open("a") as script:
        script.write("# changed\n")
    assert load_recipe("linux", HOST).key != before


def test_key_follows_the_packages(recipes: Path) -> None:
    """Another list of packages makes another image."""
    before = load_recipe("linux", HOST).key
    table = (recipes / "images.toml").read_text()
    (recipes / "images.toml").write_text(table.replace('"sg3-utils"', '"sg3-utils", "fio"'))
    assert load_recipe("linux", HOST).key != before


@pytest.mark.parametrize("other", [Host("debian", "trixie", "x86_64"), Host("debian", "bookworm", "aarch64")])
def test_key_follows_the_host(recipes: Path, other: Host) -> None:
    """Another release or architecture makes another image."""
    assert load_recipe("linux", other).key != load_recipe("linux", HOST).key


def test_recipe_that_extends_another_brings_both(recipes: Path) -> None:
    """Packages, modules and files of both, and a key that follows either."""
    base, extended = load_recipe("linux", HOST), load_recipe("linux-clients", HOST)
    assert set(base.packages) < set(extended.packages)
    assert extended.boot_modules == base.boot_modules
    assert [path.name for path in extended.files()] == [*(path.name for path in base.files()), "build-ddpt"]
    for changed in (recipes / "linux" / "init", recipes / "linux-clients" / "build-ddpt"):
        before = load_recipe("linux-clients", HOST).key
        changed.write_text("another")
        assert load_recipe("linux-clients", HOST).key != before


def test_source_packages_are_fetched_before_the_recipe_runs() -> None:
    """By the new tree's own apt settings; a recipe without any asks for none."""
    commands = {
        name: " ".join(image.mmdebstrap_command(load_recipe(name, HOST), HOST, Path("/b")))
        for name in ("linux", "linux-clients")
    }
    assert "apt-get" not in commands["linux"]
    assert re.search(r"apt-get .*source ddpt .*/odx/recipe/customize", commands["linux-clients"])


def test_unknown_recipe_is_refused() -> None:
    """The error says which there are: there may be no checkout to look into."""
    with pytest.raises(LabError, match=r"no image recipe called beos; choose from: linux, .*wine"):
        load_recipe("beos", HOST)


@pytest.mark.parametrize("distribution", ["debian", "ubuntu"])
def test_each_distribution_has_a_kernel(distribution: str) -> None:
    """The guest is made of the host distribution's packages, its kernel included."""
    packages = load_recipe("linux", Host(distribution, "any", "x86_64")).packages
    assert any(name.startswith("linux-image") for name in packages)


def fake_apt(monkeypatch: pytest.MonkeyPatch, *targets: str) -> None:
    """Let apt name these index targets."""
    monkeypatch.setattr(apt, "_output", lambda _: list(targets))


def test_sources_are_the_hosts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirror, release and component as the host has them; other vendors and releases are left out."""
    fake_apt(
        monkeypatch,
        "Debian http://mirror.example/debian/ stable bookworm main",
        "Debian http://mirror.example/debian/ stable-updates bookworm-updates main",
        "Debian http://mirror.example/debian/ bookworm bookworm non-free",
        "Debian http://mirror.example/debian/ sid sid main",
        "Vendor https://vendor.example/apt bookworm bookworm main",
    )
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert apt.source_lines(HOST).splitlines() == [
        f"deb {keyring} http://mirror.example/debian/ stable main",
        f"deb {keyring} http://mirror.example/debian/ stable-updates main",
    ]


def test_source_packages_come_from_the_same_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source of binary packages with its source packages, when asked for."""
    fake_apt(monkeypatch, "Debian http://mirror.example/debian/ stable bookworm main")
    lines = apt.source_lines(HOST, ("deb", "deb-src")).splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["deb", "deb-src"]
    assert len({line.split(" ", 1)[1] for line in lines}) == 1


def test_sources_before_the_first_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without package lists apt knows neither origin nor codename; the release named is enough."""
    fake_apt(monkeypatch, "$(ORIGIN) http://mirror.example/debian/ bookworm $(CODENAME) main")
    assert "http://mirror.example/debian/ bookworm main" in apt.source_lines(HOST)


def test_no_sources_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without its distribution's sources cannot build the guest."""
    fake_apt(monkeypatch)
    with pytest.raises(LabError, match=r"no source of debian bookworm.*sources\.list"):
        apt.source_lines(HOST)


def test_build_without_network_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real build from a mirror that is not there fails in words, and leaves nothing behind."""
    monkeypatch.setattr(image, "images_folder", lambda: tmp_path / "images")
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    monkeypatch.setattr(
        apt, "source_lines", lambda *_: f"deb {keyring} http://127.0.0.1:9/debian bookworm main\n"
    )
    monkeypatch.setattr(apt, "apt_settings", lambda: ['Acquire::Retries "0";'])  # it would wait seven seconds
    with pytest.raises(LabError, match=r"cannot fetch Debian packages: .*check the network and /etc/apt/"):
        image.ensure_image()
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["lock"]


def test_failed_build_keeps_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that fails after the fetching says where its log is, and caches nothing."""
    monkeypatch.setattr(image, "images_folder", lambda: tmp_path / "images")
    script = "echo 'I: extracting archives...' >&2; echo 'E: no space left' >&2; exit 1"
    monkeypatch.setattr(image, "mmdebstrap_command", lambda *_: ["sh", "-c", script])
    (tmp_path / "images" / "building-killed").mkdir(parents=True)
    with pytest.raises(
        LabError, match=r"cannot build the guest image: no space left; see .*failed-build\.log"
    ):
        image.ensure_image()
    assert "no space left" in (tmp_path / "images" / "failed-build.log").read_text()
    assert {path.name for path in (tmp_path / "images").iterdir()} == {"lock", "failed-build.log"}


def test_missing_builder_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are looked for before anything is made."""
    monkeypatch.setattr(image, "images_folder", lambda: tmp_path / "images")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"needs mmdebstrap, mkfs\.erofs.*\./odx setup"):
        image.ensure_image()
    assert not (tmp_path / "images").exists()


def vmlinuz(payload: bytes) -> bytes:
    """A kernel image with one setup sector and this payload at offset 16 of the protected-mode part."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload


@pytest.mark.parametrize("packed", [lzma.compress(ELF), zlib.compress(ELF, wbits=31)])
def test_kernel_is_unpacked(tmp_path: Path, packed: bytes) -> None:
    """The ELF file comes out, whatever the size that trails it."""
    (tmp_path / "vmlinuz").write_bytes(vmlinuz(packed + struct.pack("<I", len(ELF))))
    assert unpack_kernel(tmp_path / "vmlinuz", tmp_path / "vmlinux")
    assert (tmp_path / "vmlinux").read_bytes() == ELF


def test_unknown_packing_leaves_the_kernel_alone(tmp_path: Path) -> None:
    """QEMU boots the packed kernel as well, only later."""
    (tmp_path / "vmlinuz").write_bytes(vmlinuz(b"some other packing"))
    assert not unpack_kernel(tmp_path / "vmlinuz", tmp_path / "vmlinux")
    assert not (tmp_path / "vmlinux").exists()


@pytest.mark.parametrize("scheme", ["the interpreter's", "the user's"])
def test_recipes_are_found_where_pip_puts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """Debian's pip installs below /usr/local and not where the interpreter is; `--user` below ~/.local."""
    places = {None: str(tmp_path / "the interpreter's"), "posix_user": str(tmp_path / "the user's")}
    monkeypatch.setattr(paths.sysconfig, "get_path", lambda _, scheme=None: places[scheme])
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "site/qemu_odx/lab/paths.py"))
    recipes = tmp_path / scheme / "share/qemu-odx/vm_images"
    recipes.mkdir(parents=True)
    assert paths.data_folder("vm_images") == recipes
    with pytest.raises(LabError, match="no folder guest_scripts"):
        paths.data_folder("guest_scripts")
