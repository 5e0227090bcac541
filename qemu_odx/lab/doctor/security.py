"""What keeps a QEMU from a socket or a builder from its work though the file rights allow it.

May import: doctor/{finding,host}. libvirt labels no vhost-user socket, so it is the user's task.
"""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING

from qemu_odx.lab.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qemu_odx.lab.doctor.host import Host

ABSTRACTION = "/etc/apparmor.d/local/abstractions/libvirt-qemu"


def check_security(host: Host) -> Iterator[Finding]:
    """AppArmor, SELinux, user namespaces, io_uring."""
    yield _apparmor(host)
    yield _selinux(host)
    yield _namespaces(host)
    yield _io_uring(host)


def _apparmor(host: Host) -> Finding:
    if host.read("/sys/module/apparmor/parameters/enabled") != "Y":
        return Finding("security", "AppArmor", Level.OK, "not active")
    cure = (
        f"for guests of libvirt add the line '/tmp/qemu-odx-*/** rw,' to {ABSTRACTION}, "
        "or <seclabel type='none' model='apparmor'/> to the domain"
    )
    return Finding("security", "AppArmor", Level.NOTE, "active: it knows no vhost-user disk sockets", cure)


def _selinux(host: Host) -> Finding:
    if host.read("/sys/fs/selinux/enforce") != "1":
        return Finding("security", "SELinux", Level.OK, "not enforcing")
    cure = "for guests of libvirt add <seclabel type='none' model='selinux'/> to the domain"
    return Finding(
        "security", "SELinux", Level.NOTE, "enforcing: QEMU of libvirt may not connect to our sockets", cure
    )


def _namespaces(host: Host) -> Finding:
    """Who is not root builds images in a user namespace."""
    if host.user == 0:
        return Finding("security", "user namespaces", Level.OK, "not needed by root")
    if host.read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        cure = "sudo sysctl kernel.unprivileged_userns_clone=1, or build the image as root"
        return Finding(
            "security", "user namespaces", Level.ERROR, "forbidden, so no image can be built", cure
        )
    if host.which("newuidmap") is None:
        return Finding(
            "security", "user namespaces", Level.ERROR, "newuidmap is missing", "install package uidmap"
        )
    user = getpass.getuser()
    if not any(
        line.split(":")[0] in {user, str(host.user)} for line in host.read("/etc/subuid").splitlines()
    ):
        cure = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
        return Finding(
            "security", "user namespaces", Level.ERROR, f"/etc/subuid has no line for {user}", cure
        )
    return Finding("security", "user namespaces", Level.OK, "allowed")


def _io_uring(host: Host) -> Finding:
    forbidden = host.read("/proc/sys/kernel/io_uring_disabled") == "2"
    if forbidden:
        cure = "nothing has to be done; sudo sysctl kernel.io_uring_disabled=0 makes reads past the cache quicker"
        return Finding("security", "io_uring", Level.NOTE, "switched off: reads go to worker threads", cure)
    return Finding("security", "io_uring", Level.OK, "not switched off")
