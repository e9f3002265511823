"""Which promises of a store its file system keeps: each is tried, in a folder that is removed again."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featurestore.cli.checkup import Check, note, ok, problem
from featurestore.cli.output import size_text
from featurestore.storage.durable import fsync_dir
from featurestore.storage.reader import NETWORK

LOW_SPACE = 5 << 30  # bytes; features of a large dataset are 0.5 to 5 GB
SKEW_S = 1.0
FULL = (errno.ENOSPC, errno.EDQUOT)


def check_location(store: Path) -> Iterator[Check]:
    """Where the store is, or would be, and what its file system does with the calls that a commit makes."""
    place = next(folder for folder in (store, *store.parents) if folder.is_dir())
    kind, mount = mount_of(place)
    where = f"{store} is on {kind} (mounted at {mount})"
    if kind.startswith(NETWORK):
        advice = "see docs/cluster.md: rows are read without a map, and locks may hold on one host only"
        yield note("location", f"{where}, a network file system", advice)
    elif kind in ("tmpfs", "ramfs"):
        yield note("location", f"{where}, which is memory", "nothing there survives a restart of the machine")
    else:
        yield ok("location", where)
    yield _space(place)
    data, housekeeping = store / "data", store / ".fstore"
    if data.exists() and housekeeping.exists() and data.stat().st_dev != housekeeping.stat().st_dev:
        yield problem(
            "one file system",
            f"{data} and {housekeeping} are on different ones",
            "a commit cannot rename: mount both as one",
        )
    try:
        with _folder(place) as folder:
            for name, probe in PROBES:
                try:
                    yield probe(name, folder)
                except OSError as error:
                    if error.errno in FULL:  # says nothing about what was tried
                        raise
                    yield problem(
                        name, f"{error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})", ADVICE[name]
                    )
    except OSError as error:
        cannot = "features can be read here, but misses cannot be kept"
        if error.errno in FULL:
            yield problem("writable", f"{place}: {error.strerror}", f"{cannot}: free some space, and run doctor again")
        else:
            yield note("writable", f"{place}: {error.strerror}", cannot)


@contextmanager
def _folder(place: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".fstore-doctor-", dir=place))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def mount_of(path: Path) -> tuple[str, str]:
    """(kind of file system, mount point), as far as the system tells."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return "a file system of unknown kind", "?"
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = [(fields[fields.index("-") + 1], fields[4]) for fields in mounts if fields[2] == wanted]
    real = os.path.realpath(path)
    above = [each for each in found if real == each[1] or real.startswith(each[1].rstrip("/") + "/")] or found
    return max(above, key=lambda each: len(each[1]), default=("a file system of unknown kind", "?"))


def _space(place: Path) -> Check:
    free = shutil.disk_usage(place).free
    status = os.statvfs(place)
    text = f"{size_text(free)} free"
    if status.f_files and status.f_favail < 10_000:
        return problem("space", f"{text}, but only {status.f_favail:,} files more", "a segment takes three files")
    if free < LOW_SPACE:
        return note("space", text, "(8, 768) float32 takes 25 KB a sample")
    return ok("space", text)


def _rename(name: str, folder: Path) -> Check:
    staged, visible, new = folder / "staged", folder / "visible", folder / "new"
    for each in (staged, visible):
        each.mkdir()
        for number in range(32):
            (each / f"file{number}").write_bytes(b"x")
    try:
        os.rename(staged, visible)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return problem(name, "a rename replaced a folder that was there", ADVICE[name])
    with _least_seen(new) as seen:
        try:
            os.rename(staged, new)
        except OSError as error:
            if staged.exists() or not new.exists():
                raise
            advice = "a commit looks again and is not lost, but a server that does not answer is worth a look"
            return note(name, f"done, but reported as failed: {error.strerror}", advice)
    if staged.exists() or len(os.listdir(new)) != 32:
        return problem(name, "a renamed folder is not where it should be", ADVICE[name])
    if min(seen, default=32) < 32:
        return problem(name, f"a folder of 32 files was seen with {min(seen)} while it was renamed", ADVICE[name])
    return ok(name, "a folder moves in one step and never replaces another")


@contextmanager
def _least_seen(folder: Path) -> Iterator[list[int]]:
    """How many files a folder had each time it was looked at inside `with`: a rename may be a copy in many steps."""
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(1e-4):  # a thread that never pauses keeps the renaming one out for minutes on some kernels
            with suppress(FileNotFoundError):
                seen.append(len(os.listdir(folder)))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def _map(name: str, folder: Path) -> Check:
    written = os.urandom(3 * mmap.PAGESIZE // 2)
    (folder / "mapped").write_bytes(written)
    with open(folder / "mapped", "rb", buffering=0) as file:
        if os.pread(file.fileno(), len(written), 0) != written:
            return problem(name, "a file has other bytes than were written", ADVICE[name])
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                same = view[:] == written
        except OSError as error:
            return note(name, f"not possible: {error.strerror}", "rows are read with pread, which takes longer")
    if not same:
        return problem(name, "a map of a file shows other bytes than a read of it", ADVICE[name])
    return ok(name, "of a file shows what a read of it shows")


def _fsync(name: str, folder: Path) -> Check:
    times = []
    for number in range(5):
        with open(folder / f"synced{number}", "xb") as file:
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    fsync_dir(folder)
    took_ms = statistics.median(times) * 1e3
    if took_ms < 0.02:
        return note(
            name,
            f"done in {took_ms:.3f} ms, faster than any disk",
            "it may not reach one: a power cut could cost acknowledged samples",
        )
    return ok(name, f"of files and folders, {took_ms:.1f} ms")


def _exclusive(name: str, folder: Path) -> Check:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(folder / "once", flags))
    try:
        os.close(os.open(folder / "once", flags))
    except FileExistsError:
        return ok(name, "a file is created once")
    return problem(name, "a file that was there was created again", ADVICE[name])


def _flock(name: str, folder: Path) -> Check:
    import fcntl  # not on every platform

    child = "import fcntl,sys; fcntl.flock(open(sys.argv[1], 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    with open(folder / "lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = subprocess.run([sys.executable, "-c", child, str(folder / "lock")], capture_output=True, check=False)
    if done.returncode == 0:
        return problem(name, "two processes held one lock", ADVICE[name])
    return ok(name, "keeps a second process of this host out; other hosts were not tried")


def _mtime(name: str, folder: Path) -> Check:
    seen = []
    for number in range(3):
        (folder / f"entry{number}").mkdir()
        seen.append(folder.stat().st_mtime_ns)
        time.sleep(0.011)  # longer than a tick of the kernel's clock
    skew_s = time.time() - seen[-1] / 1e9 - 0.011
    if abs(skew_s) > SKEW_S:
        what = f"the clock of the file system is {abs(skew_s):.1f} s {'behind' if skew_s > 0 else 'ahead'}"
        return problem(name, what, ADVICE[name])
    if len(set(seen)) < 3:
        return note(
            name, "of a folder changes once in a while, not with every entry", "new samples of others may show 2 s late"
        )
    return ok(name, "of a folder changes with every entry")


def _case(name: str, folder: Path) -> Check:
    (folder / "case").mkdir()
    if (folder / "CASE").exists():
        return note(name, "names that differ only in case are one", "keys that differ only in case are refused anyway")
    return ok(name, "names that differ in case differ")


def _hard_link(name: str, folder: Path) -> Check:
    (folder / "original").write_bytes(b"x")
    try:
        os.link(folder / "original", folder / "link")
    except OSError as error:
        return note(
            name, f"not possible: {error.strerror}", "a store needs none; `cp -al` cannot make a snapshot of it"
        )
    return ok(name, "`cp -al` makes a snapshot of a store that takes no space")


PROBES: tuple[tuple[str, Callable[[str, Path], Check]], ...] = (
    ("rename", _rename),
    ("fsync", _fsync),
    ("exclusive creation", _exclusive),
    ("flock", _flock),
    ("map", _map),
    ("mtime", _mtime),
    ("case", _case),
    ("hard links", _hard_link),
)
ADVICE = {
    "rename": "a commit would not appear at once or not at all: do not keep a store here",
    "fsync": "what was acknowledged may be lost in a power cut: do not keep a store here, or keep its source",
    "exclusive creation": "two writers could write one file: do not keep a store here",
    "flock": "processes may compute the same sample twice, never store a wrong one; run compact, rm and gc from one "
    "process at a time",
    "map": "rows would fail their checksums: do not keep a store here",
    "mtime": "set the clocks right: a reader may overlook what others store until it is opened anew, and gc counts "
    "its grace wrongly",
    "case": "",
    "hard links": "",
}
