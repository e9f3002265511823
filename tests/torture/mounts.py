"""Small file systems of a test's own: mounted where only one forked process sees them."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_USERS = 0x20000, 0x10000000
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 16384, 1 << 18


def _call(name: str, *args: object) -> None:
    if getattr(_libc, name)(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def own_mounts() -> None:
    """From here on what this process mounts is its own.  Without root, inside a user namespace."""
    uid, gid = os.getuid(), os.getgid()
    _call("unshare", _NEW_MOUNTS | (_NEW_USERS if uid else 0))
    if uid:
        Path("/proc/self/setgroups").write_text("deny", encoding="utf-8")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="utf-8")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="utf-8")
    _call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


def mount_memory(folder: Path, options: str) -> None:
    """A file system in RAM, e.g. of `size=2m`."""
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options.encode())


def mount_layers(folder: Path, lower: Path, upper: Path, work: Path) -> None:
    """What a container sees: the files of an image, and over them what it writes itself."""
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    _call("mount", b"overlay", os.fsencode(folder), b"overlay", 0, options.encode())


def make_read_only(folder: Path) -> None:
    _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", _REMOUNT | _READ_ONLY, None)


def need_own_mounts() -> None:
    """Skip the test where the kernel does not let us."""
    pid = os.fork()
    if pid == 0:
        try:
            own_mounts()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EPERM)
        finally:
            os._exit(errno.EPERM)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        pytest.skip(f"no mounts of one's own here: {os.strerror(code)}")
