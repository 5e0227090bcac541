"""`odx.toml` and `--disk`: what they mean, and errors with file, line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qemu_odx.cli import config as command
from qemu_odx.cli.config import check_option
from qemu_odx.cli.main import main
from qemu_odx.lab.config.load import load_lab
from qemu_odx.lab.config.model import BLK, SCSI, Guest, disk_argument, export_argument
from qemu_odx.lab.config.options import DEFAULT_DISKS, LabOptionError, disks_and_exports, split
from qemu_odx.lab.config.positions import positions
from qemu_odx.lab.config.table import LabFileError
from qemu_odx.lab.session.machines import memory_of
from qemu_odx.server.config import parse_config

WHOLE = """\
# two guests that share a disk
[lab]
machine = "qemu"
accelerator = "tcg"

[disk.d0]
size = "256M"
serial = "odx-source"

[disk.d1]
path = "images/d1.img"
size = 268435456
block-size = 4096
readonly = false

[export.first]
disks = ["d0", "d1"]
num-queues = 2

[export.second]
type = "vhost-user-scsi"
lun0 = "d1"
lun5 = "d0"

[export.plain]
type = "vhost-user-blk"
disk = "d1"

[guest.a]
exports = ["first", "plain"]
memory = "1G"

[guest.b]
image = "mine.qcow2"
os = "windows"
user = "Administrator"
key = "id"
exports = ["second"]
"""


def written(tmp_path: Path, text: str) -> Path:
    """A lab's file, and beside it the files of the user's that it may name."""
    (tmp_path / "images").mkdir(exist_ok=True)
    for name in ("mine.qcow2", "id", "win.qcow2", "id_ed25519", "images/b.img"):
        (tmp_path / name).touch()
    file = tmp_path / "odx.toml"
    file.write_text(text)
    return file


def test_whole_file(tmp_path: Path) -> None:
    """Every section, relative paths against the file's folder."""
    lab = load_lab(written(tmp_path, WHOLE), check_option)
    assert [disk.name for disk in lab.disks] == ["d0", "d1"]
    assert lab.disks[0].path is None
    assert lab.disks[1].path == tmp_path / "images/d1.img"
    assert lab.export("first").disks == {0: "d0", 1: "d1"}
    assert lab.export("second").disks == {0: "d1", 5: "d0"}
    assert lab.export("plain").kind == BLK
    one, two = lab.guests
    assert (one.image, one.memory, one.exports) == ("linux", 1 << 30, ("first", "plain"))
    assert (two.image, two.system, two.user) == (str(tmp_path / "mine.qcow2"), "windows", "Administrator")
    assert two.private_key == tmp_path / "id"
    assert (lab.machine, lab.accelerator) == ("qemu", "tcg")


def test_server_takes_what_it_means(tmp_path: Path) -> None:
    """The arguments made of it are accepted together."""
    lab = load_lab(written(tmp_path, WHOLE), check_option)
    disks = [disk_argument(disk, disk.path or tmp_path / f"a,b{disk.name}") for disk in lab.disks]
    exports = [export_argument(export, tmp_path / export.name) for export in lab.exports]
    config = parse_config(disks, exports)
    assert config.disks[0].path.endswith("a,bd0")
    assert config.disks[1].block_size == 4096
    assert config.exports[1].disks == ("d1", "d0")


def test_each_guest_has_its_own_tokens(tmp_path: Path) -> None:
    """By default; a group that is written down stays, and a lab with one guest needs none."""
    lab = load_lab(written(tmp_path, WHOLE), check_option)
    assert [export.options.get("group") for export in lab.exports] == ["a", "b", "a"]
    together = WHOLE.replace('lun5 = "d0"', 'lun5 = "d0"\ngroup = "a"')
    lab = load_lab(written(tmp_path, together), check_option)
    assert [export.options.get("group") for export in lab.exports] == ["a", "a", "a"]
    alone = WHOLE.partition("[guest.b]")[0]
    lab = load_lab(written(tmp_path, alone), check_option)
    assert [export.options.get("group") for export in lab.exports] == [None, None, None]


def test_short_file_is_filled_in(tmp_path: Path) -> None:
    """One line is a lab: all disks on one SCSI device of one Linux guest."""
    lab = load_lab(written(tmp_path, '[disk]\na = {size = "1M"}\nb.size = "2M"\n'), check_option)
    (export,), (guest,) = lab.exports, lab.guests
    assert (export.kind, export.disks) == (SCSI, {0: "a", 1: "b"})
    assert (guest.image, guest.exports) == ("linux", (export.name,))
    assert lab.disks[0].options["serial"] == "odx-a"


def test_values_as_the_server_has_them(tmp_path: Path) -> None:
    """Lists are joined, truth is on or off."""
    text = '[disk.d0]\nsize = 4096\nlayers = ["one", "two"]\nreadonly = true\n'
    options = load_lab(written(tmp_path, text)).disks[0].options
    assert options == {"serial": "odx-d0", "size": "4096", "layers": "one+two", "readonly": "on"}


DISK = '[disk.d0]\nsize = "1M"\n'

WRONG = {
    "syntax": ("[disk.d0]\nsize =\n", 2, "", "Invalid value"),
    "section": (f"{DISK}[gest.a]\n", 3, "gest", "unknown key"),
    "section-cure": (f"{DISK}[gest.a]\n", 3, "gest", "did you mean 'guest'"),
    "lab key": (f'[lab]\nmachin = "qemu"\n{DISK}', 2, "lab.machin", "did you mean 'machine'"),
    "machine": (f'[lab]\nmachine = "xen"\n{DISK}', 2, "lab.machine", "take one of qemu, libvirt"),
    "text": (f"[lab]\nuri = 5\n{DISK}", 2, "lab.uri", "put it in quotes"),
    "no disk": ("", 0, "", "there is no disk"),
    "no size": ("\n[disk.d0]\nserial = 'x'\n", 2, "disk.d0", "neither path nor size"),
    "bad size": ('[disk.d0]\n# it is large\nsize = "1X"\n', 3, "disk.d0.size", "is no size"),
    "unknown option first": ('[disk.d0]\nsise = "1M"\n', 2, "disk.d0.sise", "unknown key 'sise'"),
    "no file": ('[disk.d0]\npath = "none.img"\n', 2, "disk.d0.path", "add size to have it made"),
    "unknown option": (f"{DISK}sise = 3\n", 3, "disk.d0.sise", "unknown key 'sise'"),
    "option's type": (f"{DISK}serial = {{a = 1}}\n", 3, "disk.d0.serial", "neither text, number"),
    "disk's name": ('[disk."a b"]\nsize = "1M"\n', 1, "disk.a b", "is no name"),
    "disk is no table": ("[disk]\nd0 = 3\n", 2, "disk.d0", "write [disk.d0]"),
    "disks are no table": ("disk = 3\n", 1, "disk", "write [disk.NAME]"),
    "id": (f'{DISK}id = "d1"\n', 3, "disk.d0.id", "is the table's name"),
    "kind": (f'{DISK}[export.e]\ntype = "nvme"\n', 4, "export.e.type", "vhost-user-scsi"),
    "socket": (f'{DISK}[export.e]\nsocket = "s"\n', 4, "export.e.socket", "the lab makes the sockets"),
    "no such disk": (f'{DISK}[export.e]\ndisks = [\n  "d0", "d1",\n]\n', 4, "export.e.disks", "no 'd1'"),
    "no disks": (f"{DISK}[export.e]\ndisks = []\n", 4, "export.e.disks", "is empty"),
    "twice": (f'{DISK}[export.e]\ndisks = ["d0", "d0"]\n', 4, "export.e.disks", "names one twice"),
    "both": (f'{DISK}[export.e]\ndisks = ["d0"]\nlun0 = "d0"\n', 4, "export.e.disks", "exclude"),
    "no lun0": (f'{DISK}[export.e]\nlun1 = "d0"\n', 3, "export.e", "lun0"),
    "blk": (f'{DISK}[export.e]\ntype = "vhost-user-blk"\n', 3, "export.e.disk", "is missing"),
    "queues": (f"{DISK}[export.e]\nnum-queues = 0\n", 4, "export.e.num-queues", "'0' is not a number"),
    "image": (f'{DISK}[guest.g]\nimage = "linucks"\n', 4, "guest.g.image", "choose from: linux, "),
    "image file": (f'{DISK}[guest.g]\nimage = "a.img"\n', 4, "guest.g.image", "there is no file /"),
    "key": (f'{DISK}[guest.g]\nimage = "mine.qcow2"\nkey = "x"\n', 5, "guest.g.key", "no file /"),
    "user of ours": (f'{DISK}[guest.g]\nuser = "joe"\n', 4, "guest.g.user", "of a disk image only"),
    "guest key": (f"{DISK}[guest.g]\nram = 1\n", 4, "guest.g.ram", "unknown key"),
    "memory": (f'{DISK}[guest.g]\nmemory = "much"\n', 4, "guest.g.memory", "is no size"),
    "cpus": (f"{DISK}[guest.g]\ncpus = 0\n", 4, "guest.g.cpus", "from 1 to 255"),
    "true is no number": (f"{DISK}[guest.g]\ncpus = true\n", 4, "guest.g.cpus", "from 1 to 255"),
    "export": (f'{DISK}[guest.g]\nexports = ["scsy"]\n', 4, "guest.g.exports", "take one of scsi"),
    "exports": (f'{DISK}[guest.g]\nexports = "scsi"\n', 4, "guest.g.exports", "no list of texts"),
    "shared": (
        f'{DISK}[guest.g]\nexports = ["scsi"]\n[guest.h]\nexports = ["scsi"]\n',
        6,
        "guest.h.exports",
        "one guest at a time",
    ),
    "fault": (f"{DISK}[fault]\na = 1\n", 3, "fault", "write [[fault]]"),
}


@pytest.mark.parametrize(("text", "line", "key", "said"), WRONG.values(), ids=WRONG)
def test_errors_have_file_line_and_key(tmp_path: Path, text: str, line: int, key: str, said: str) -> None:
    """And a cure."""
    file = written(tmp_path, text)
    with pytest.raises(LabFileError) as caught:
        load_lab(file, check_option)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{file}:{line}: " if line else f"{file}: ")
    assert caught.value.cure


def test_windows_has_enough_memory(tmp_path: Path) -> None:
    """It does not start with what the lab's Linux needs; what the file says counts."""
    text = f'{DISK}[guest.g]\nimage = "win.qcow2"\nos = "windows"\n'
    for more, mebibytes in (("", 4096), ('memory = "2G"\n', 2048)):
        (guest,) = load_lab(written(tmp_path, text + more), check_option).guests
        assert memory_of(guest) == mebibytes << 20
    assert memory_of(Guest("g", "windows", ())) == 4096 << 20
    assert memory_of(Guest("g", "linux", ())) == 512 << 20
    out = CliRunner().invoke(command.config, ["show", str(written(tmp_path, text)), "--json"]).stdout
    assert json.loads(out)["guests"][0]["memory"] == 4096 << 20


def test_any_file_can_be_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called, and wherever the user is."""
    (tmp_path / "disk.vhd").touch()
    monkeypatch.chdir(tmp_path)
    written(tmp_path, f'{DISK}[guest.g]\nimage = "disk.vhd"\n')
    (guest,) = load_lab(Path("odx.toml"), check_option).guests
    assert guest.image == str(tmp_path / "disk.vhd")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """None, a folder, another encoding."""
    (tmp_path / "latin").write_bytes(b"# \xe4\n")
    for name in ("none.toml", ".", "latin"):
        with pytest.raises(LabFileError):
            load_lab(tmp_path / name)


def test_faults_become_rules(tmp_path: Path) -> None:
    """Each entry is one rule; what the server says of it points to its line."""
    text = f'{DISK}[[fault]]\nop = "write"\naction = "a,b"\n\n[[fault]]\nop = "rite"\n'
    assert load_lab(written(tmp_path, text)).faults == ("op=write,action=a,,b", "op=rite")

    def check(option: str, value: str) -> None:
        if option == "--fault" and "rite" in value.split("op=w"):
            return
        if value == "op=rite":
            raise ValueError("op: 'rite' is unknown; take write")

    with pytest.raises(LabFileError, match="take write") as caught:
        load_lab(written(tmp_path, text), check)
    assert (caught.value.line, caught.value.key) == (8, "fault.1.op")


def test_rule_in_the_documentation_is_one(tmp_path: Path) -> None:
    """The real parser takes it, and points to the key that is wrong."""
    text = f'{DISK}[[fault]]\nop = "WRITE USING TOKEN"\nnth = 2\nsense = "token-expired"\n'
    (rule,) = load_lab(written(tmp_path, text), check_option).faults
    assert rule == "op=WRITE USING TOKEN,nth=2,sense=token-expired"
    with pytest.raises(LabFileError) as caught:
        load_lab(written(tmp_path, text.replace("nth = 2", "nth = 0")), check_option)
    assert (caught.value.line, caught.value.key) == (5, "fault.0.nth")


def test_file_in_the_documentation_is_right(tmp_path: Path) -> None:
    """As printed in docs/cli.md; the layers are the server's."""
    page = (Path(__file__).parents[3] / "docs/cli.md").read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    lab = load_lab(written(tmp_path, example), check_option)
    assert [guest.name for guest in lab.guests] == ["one", "two"]
    assert len(lab.faults) == 1


def test_positions() -> None:
    """Dotted and quoted keys, arrays of tables, texts of several lines."""
    found = positions('a.b = 1\n["x y"]\nz = """\nq = 1\n"""\nq = 2\n[[f]]\n[[f]]\nk = 1\n')
    assert found["a", "b"] == 1
    assert found["x y",] == 2
    assert found["x y", "q"] == 6
    assert found["f", 1, "k"] == 9


def test_disk_options(tmp_path: Path) -> None:
    """Disks on either bus or both; a path is relative to where the user is."""
    (tmp_path / "b.img").touch()
    options = ["size=1M,bus=scsi+blk,mailbox=on", "id=b,path=b.img,serial=it", "size=1M,bus=blk"]
    disks, exports = disks_and_exports(options, tmp_path, check_option)
    assert [disk.name for disk in disks] == ["d0", "b", "d2"]
    assert [disk.path for disk in disks] == [None, tmp_path / "b.img", None]
    assert [disk.options["serial"] for disk in disks] == ["odx-d0", "it", "odx-d2"]
    assert [(export.name, export.kind) for export in exports] == [
        ("scsi", SCSI),
        ("blk-d0", BLK),
        ("blk-d2", BLK),
    ]
    assert exports[0].disks == {0: "d0", 1: "b"}
    assert exports[1].options == {"mailbox": "on"}


def test_disks_nobody_asked_for(tmp_path: Path) -> None:
    """Source and destination, both on both buses."""
    disks, exports = disks_and_exports(DEFAULT_DISKS, tmp_path, check_option)
    assert [disk.options["serial"] for disk in disks] == ["odx-source", "odx-destination"]
    assert [export.name for export in exports] == ["scsi", "blk-source", "blk-destination"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("size", "write key=value"),
        ("size=1X", "is no size"),
        ("serial=x", "neither path= nor size="),
        ("path=none.img", "none.img; add size= to have it made"),
        ("size=1M,bus=ide", "take scsi or blk"),
        ("size=1M,colour=red", "unknown key 'colour'"),
        ("size=1M,bus=blk,mailbox=7", "no place for a mailbox"),
        ("size=1M,id=d1", "two disks have id=d1"),
    ],
)
def test_wrong_disk_options(tmp_path: Path, option: str, said: str) -> None:
    """The option is quoted."""
    with pytest.raises(LabOptionError, match=f"--disk .*{said}"):
        disks_and_exports(["size=1M", "size=1M", option], tmp_path, check_option)


def test_commas_are_doubled() -> None:
    """As for the server."""
    assert split("path=a,,b,size=1") == {"path": "a,b", "size": "1"}


def test_check_command(tmp_path: Path) -> None:
    """Right: exit code 0; wrong: 2, with the place on stderr and an object on stdout."""
    file = str(written(tmp_path, WHOLE))
    done = CliRunner().invoke(command.config, ["check", file])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "2 disks, 3 exports, 2 guests" in done.stdout
    written(tmp_path, '[disk.d0]\nsize = "1X"\n')
    done = CliRunner().invoke(main, ["config", "check", file, "--json"])
    assert done.exit_code == 2
    told = json.loads(done.stdout)
    (error,) = told["errors"]
    assert told["error"] in done.stderr
    assert (error["file"], error["line"], error["key"]) == (file, 2, "disk.d0.size")
    assert done.stderr.startswith(f"qemu-odx config check: {file}:2: disk.d0.size: '1X' is no size; ")


def test_show_command(tmp_path: Path) -> None:
    """What the server and the guests get, for people and programs."""
    file = str(written(tmp_path, WHOLE))
    out = CliRunner().invoke(command.config, ["show", file]).stdout
    assert "--export type=vhost-user-blk,socket=RUN/plain.sock,id=plain,disk=d1" in out
    assert "guest a: linux, 1024 MiB, 2 cpus, first, plain" in out
    found = json.loads(CliRunner().invoke(command.config, ["show", file, "--json"]).stdout)
    assert found["exports"][1]["disks"] == {"0": "d1", "5": "d0"}
    assert found["guests"][1]["image"].endswith("mine.qcow2")
