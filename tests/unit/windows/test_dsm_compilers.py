"""The structures held against two strangers: a C compiler with Microsoft's names (mingw-w64), and .NET (mono)."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from qemu_odx.wire.dsm import codes
from qemu_odx.wire.dsm.codes import ControlCode, DsmAction
from qemu_odx.wire.dsm.ntstatus import NtStatus, Win32
from qemu_odx.wire.dsm.structures import RECORDS, TOKEN_ID_LENGTH, TOKEN_SIZE, TOKEN_TYPE_ZERO_DATA

if TYPE_CHECKING:
    from pathlib import Path

    from qemu_odx.wire.dsm.record import Field, Record

COMPILER = "x86_64-w64-mingw32-gcc"
HEAD = """\
#define WIN32_NO_STATUS
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#undef WIN32_NO_STATUS
typedef LONG NTSTATUS;
#include <ntstatus.h>
#include <stddef.h>
#include <devioctl.h>
#include <ntddstor.h>
"""
OF_NTIFS = [record for record in RECORDS if record.C_NAME.startswith("FSCTL_")]
"""Not in mingw's headers: declared here by their fields, so that the compiler places those."""


def declared(row: Field) -> str:
    """A field as C declares it."""
    if row.kind.size == TOKEN_SIZE:
        return f"STORAGE_OFFLOAD_TOKEN {row.c_name};"
    name, bracket, rest = row.kind.name.partition("[")
    return f"{name} {row.c_name}{bracket}{rest};"


def declaration(record: type[Record]) -> str:
    """A structure as C declares it."""
    fields = " ".join(declared(row) for row in record.table())
    return f"typedef struct {{ {fields} }} {record.C_NAME};"


def assertions(record: type[Record]) -> list[str]:
    """Size, alignment, and each field's place and size."""
    name = record.C_NAME
    lines = [
        f'_Static_assert(sizeof({name}) == {record.SIZE}, "size of {name}");',
        f'_Static_assert(_Alignof({name}) == {record.ALIGN}, "alignment of {name}");',
    ]
    for row in record.table():
        place = f"{name}.{row.c_name}"
        lines.append(f'_Static_assert(offsetof({name}, {row.c_name}) == {row.offset}, "{place}");')
        member = f"(({name} *)0)->{row.c_name}"
        lines.append(f'_Static_assert(sizeof({member}) == {row.kind.size}, "size of {place}");')
    return lines


def constants() -> list[str]:
    """Numbers that the headers have under a name of their own."""
    pairs = {
        "IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES": ControlCode.IOCTL_STORAGE_MANAGE_DATA_SET_ATTRIBUTES,
        "IOCTL_STORAGE_QUERY_PROPERTY": ControlCode.IOCTL_STORAGE_QUERY_PROPERTY,
        "StorageDeviceCopyOffloadProperty": codes.COPY_OFFLOAD_PROPERTY,
        "DeviceDsmActionFlag_NonDestructive": codes.NON_DESTRUCTIVE,
        "DeviceDsmAction_Trim": DsmAction.TRIM,
        "DeviceDsmAction_Notification": DsmAction.NOTIFICATION,
        "DeviceDsmAction_OffloadRead": DsmAction.OFFLOAD_READ,
        "DeviceDsmAction_OffloadWrite": DsmAction.OFFLOAD_WRITE,
        "DeviceDsmAction_Allocation": DsmAction.ALLOCATION,
        "DeviceDsmAction_Repair": DsmAction.REPAIR,
        "DeviceDsmAction_Scrub": DsmAction.SCRUB,
        "DEVICE_DSM_FLAG_ENTIRE_DATA_SET_RANGE": codes.DsmFlag.ENTIRE_DATA_SET_RANGE,
        "STORAGE_OFFLOAD_MAX_TOKEN_LENGTH": TOKEN_SIZE,
        "STORAGE_OFFLOAD_TOKEN_ID_LENGTH": TOKEN_ID_LENGTH,
        "STORAGE_OFFLOAD_TOKEN_TYPE_ZERO_DATA": TOKEN_TYPE_ZERO_DATA,
        "STORAGE_OFFLOAD_READ_RANGE_TRUNCATED": codes.ReadFlag.RANGE_TRUNCATED,
        "STORAGE_OFFLOAD_WRITE_RANGE_TRUNCATED": codes.WriteFlag.RANGE_TRUNCATED,
        "STORAGE_OFFLOAD_TOKEN_INVALID": codes.WriteFlag.TOKEN_INVALID,
        "PropertyStandardQuery": codes.QueryType.STANDARD,
        "PropertyExistsQuery": codes.QueryType.EXISTS,
    }
    lines = [f'_Static_assert({name} == {int(value):#x}, "{name}");' for name, value in pairs.items()]
    named = {f"STATUS_{item.name}": item for item in NtStatus} | {f"ERROR_{i.name}": i for i in Win32}
    for name, value in named.items():
        check = f'_Static_assert((ULONG){name} == {int(value):#x}, "{name}");'
        lines.append(f"#ifdef {name}\n{check}\nenum {{ seen_{name} }};\n#endif")
    return lines


@pytest.fixture(scope="module")
def compiler() -> str:
    """The cross compiler, or a skip that names its package."""
    found = shutil.which(COMPILER)
    if found is None:
        pytest.skip(f"{COMPILER} is not installed (package gcc-mingw-w64-x86-64-win32)")
    return found


def compiled(compiler: str, folder: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Compile, and link nothing."""
    source = folder / "check.c"
    source.write_text(HEAD + "\n".join(lines) + "\n")
    command = [compiler, "-std=gnu11", "-fsyntax-only", str(source)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)


def everything() -> list[str]:
    """All declarations and assertions."""
    lines = [declaration(record) for record in OF_NTIFS]
    for record in RECORDS:
        lines += assertions(record)
    return lines + constants()


def test_the_compiler_sees_the_same_structures(compiler: str, tmp_path: Path) -> None:
    """Sizes, alignments, offsets, codes, flags and statuses as Microsoft's headers give them."""
    done = compiled(compiler, tmp_path, everything())
    assert done.returncode == 0, done.stderr


def test_the_compiler_objects_to_a_wrong_offset(compiler: str, tmp_path: Path) -> None:
    """The check can fail: one offset made wrong is named."""
    lines = [
        line.replace("TokenOffset) == 8", "TokenOffset) == 12") if "TokenOffset" in line else line
        for line in everything()
    ]
    done = compiled(compiler, tmp_path, lines)
    assert done.returncode != 0
    assert "DEVICE_DSM_OFFLOAD_WRITE_PARAMETERS.TokenOffset" in done.stderr


def test_the_headers_know_most_of_the_statuses(compiler: str, tmp_path: Path) -> None:
    """A name that no header has is not checked; there must be few of those."""
    names = [f"STATUS_{item.name}" for item in NtStatus] + [f"ERROR_{item.name}" for item in Win32]
    lines = [f"#ifndef {name}\n#warning missing {name}\n#endif" for name in names]
    missing = re.findall(r"#warning missing (\w+)", compiled(compiler, tmp_path, lines).stderr)
    assert len(set(missing)) < len(names) / 2, missing


CSHARP_TYPES = {
    "USHORT": "ushort",
    "ULONG": "uint",
    "ULONGLONG": "ulong",
    "LONGLONG": "long",
    "UCHAR": "byte",
}


def csharp(record: type[Record]) -> str:
    """A structure as C# declares it for DeviceIoControl."""
    fields = []
    for row in record.table():
        if row.kind.size == TOKEN_SIZE:
            fields.append(f"public STORAGE_OFFLOAD_TOKEN {row.c_name};")
            continue
        name, bracket, rest = row.kind.name.partition("[")
        kind, count = CSHARP_TYPES[name], rest.rstrip("]")
        array = f"[MarshalAs(UnmanagedType.ByValArray, SizeConst = {count})] public {kind}[] {row.c_name};"
        fields.append(array if bracket else f"public {kind} {row.c_name};")
    body = " ".join(fields)
    return f"[StructLayout(LayoutKind.Sequential)] public struct {record.C_NAME} {{ {body} }}"


def csharp_program() -> str:
    """Prints what .NET makes of every structure."""
    lines = [
        f'Console.WriteLine("{r.C_NAME} " + Marshal.SizeOf(typeof({r.C_NAME})));'
        + "".join(
            f'Console.WriteLine("{r.C_NAME}.{row.c_name} "'
            f' + Marshal.OffsetOf(typeof({r.C_NAME}), "{row.c_name}"));'
            for row in r.table()
        )
        for r in RECORDS
    ]
    structures = "\n".join(csharp(record) for record in RECORDS)
    main = "public static class Program { public static void Main() {\n" + "\n".join(lines) + "\n} }"
    return f"using System; using System.Runtime.InteropServices;\n{structures}\n{main}\n"


def test_dotnet_marshals_the_same_structures(tmp_path: Path) -> None:
    """Marshal.SizeOf and Marshal.OffsetOf of plain C# declarations, as a PowerShell script would have them."""
    if shutil.which("mcs") is None or shutil.which("mono") is None:
        pytest.skip("no C# here (packages mono-mcs and mono-runtime)")
    source, program = tmp_path / "check.cs", tmp_path / "check.exe"
    source.write_text(csharp_program())
    subprocess.run(
        ["mcs", "-langversion:5", "-platform:x64", f"-out:{program}", source], check=True, timeout=100
    )
    done = subprocess.run(["mono", program], check=True, capture_output=True, text=True, timeout=100)
    seen = dict(line.split() for line in done.stdout.splitlines())
    expected = {record.C_NAME: str(record.SIZE) for record in RECORDS} | {
        f"{record.C_NAME}.{row.c_name}": str(row.offset) for record in RECORDS for row in record.table()
    }
    assert seen == expected
