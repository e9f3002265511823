"""Single flight: who waits for whom, what happens where no lock can be had."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from featurestore.errors import ReadOnlyError, StoreError
from featurestore.storage.locks import BUCKETS, Locks, bucket_of

SPAWN = multiprocessing.get_context("spawn")
FAR = 20.0  # seconds; only reached when a test fails


def hold_elsewhere(folder: Path, ids: list[str], pipe: Connection) -> None:
    locks = Locks(folder)
    with locks.hold(ids) if ids else locks.recipe():
        pipe.send("held")
        pipe.recv()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[list[Connection]]:
    """Pipes to processes that hold locks until told otherwise; filled by `occupy`."""
    pipes: list[Connection] = []
    yield pipes
    for pipe in pipes:
        if not pipe.closed:
            pipe.send("release")


def occupy(pipes: list[Connection], folder: Path, ids: list[str]) -> Connection:
    """Hold the locks of these ids, or that of the recipe, in another process."""
    here, there = SPAWN.Pipe()
    SPAWN.Process(target=hold_elsewhere, args=(folder, ids, there), daemon=True).start()
    assert here.recv() == "held"
    pipes.append(here)
    return here


def ids_in(bucket: int, count: int) -> list[str]:
    found = []
    for number in range(10**6):
        if bucket_of(f"s{number}") == bucket:
            found.append(f"s{number}")
            if len(found) == count:
                break
    return found


def test_the_bucket_is_the_crc32c_of_the_id() -> None:
    for id in ("sample_00000001", "é", "-x/../y"):
        assert bucket_of(id) == crc32c(id.encode()) % 4096 < BUCKETS
    assert bucket_of("sample_00000001") == 3553


def test_nothing_is_made_before_a_lock_is_needed(tmp_path: Path) -> None:
    locks = Locks(tmp_path / "deep" / "locks")
    assert not (tmp_path / "deep").exists()
    with locks.hold(["a"]):
        assert [path.name for path in locks.folder.iterdir()] == [f"{bucket_of('a'):04d}.lock"]
    assert list(locks.folder.iterdir())  # never removed: two holders could be the result


def test_another_process_waits_and_goes_on_when_the_holder_is_done(tmp_path: Path, elsewhere: list[Connection]) -> None:
    pipe = occupy(elsewhere, tmp_path, ["a"])
    threading.Timer(0.3, lambda: (pipe.send("release"), pipe.close())).start()
    start = time.monotonic()
    with Locks(tmp_path).hold(["a", "b", "c"], FAR):
        waited = time.monotonic() - start
    assert 0.2 < waited < FAR / 2


def test_threads_of_one_process_wait_for_each_other(tmp_path: Path) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        with Locks(tmp_path).hold(["a"], FAR):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_ids_of_one_bucket_share_its_lock(tmp_path: Path) -> None:
    first, second = ids_in(77, 2)
    locks = Locks(tmp_path)
    with locks.hold([first, second, first]):
        assert [path.name for path in tmp_path.iterdir()] == ["0077.lock"]
        assert locks.try_hold(77) is None
    lock = locks.try_hold(77)
    assert lock is not None
    lock.release()


def test_two_callers_with_the_same_ids_in_another_order_do_not_wait_in_a_ring(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(20)]
    start = time.monotonic()

    def work(mine: list[str]) -> None:
        for _ in range(10):
            with Locks(tmp_path).hold(mine, FAR):
                pass

    threads = [threading.Thread(target=work, args=(mine,)) for mine in (ids, ids[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < FAR


def test_a_lock_that_stays_held_is_named_and_done_without(
    tmp_path: Path, elsewhere: list[Connection], caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"s{number}" for number in range(8)]
    occupy(elsewhere, tmp_path, ids)
    start = time.monotonic()
    with Locks(tmp_path).hold(ids, 0.2):
        # The time is for all of them together, not for each.
        assert time.monotonic() - start < 1.0
    assert len(caplog.records) == 8
    text = caplog.records[0].getMessage()
    assert caplog.records[0].levelno == logging.WARNING
    assert "lock is still held" in text
    assert f"{min(map(bucket_of, ids)):04d}.lock" in text
    assert "going on without it after 0.2 s, at worst the same work is done twice" in text


def test_where_nothing_can_be_locked_the_work_is_done_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "locks").write_text("a file where the directory should be")
    locks = Locks(tmp_path / "locks")
    with locks.hold(["a"]):
        pass
    assert "cannot be locked (File exists)" in caplog.text
    with pytest.raises(OSError, match="cannot be locked"):
        locks.try_hold(1)


def test_the_lock_of_a_recipe_is_never_done_without(tmp_path: Path, elsewhere: list[Connection]) -> None:
    """Two replacements at once would bring back what one of them deleted."""
    pipe = occupy(elsewhere, tmp_path / "locks", [])
    locks = Locks(tmp_path / "locks")
    with pytest.raises(StoreError, match=r"lock is still held: nothing was changed.*recipe\.lock"):
        with locks.recipe(0.1):
            pytest.fail("inside")
    pipe.send("release")
    pipe.close()
    with locks.recipe(FAR):
        assert locks._acquire("0001", 0)
    with locks.recipe(FAR):  # released by the one before
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"nothing was changed: cannot be locked \(File exists\)"):
        with Locks(tmp_path / "file").recipe():
            pytest.fail("inside")


def test_a_directory_of_another_user_is_to_be_made_writable_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody holds that lock: to try again later, or to end who holds it, would be wrong advice."""

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # root, who may run this, is refused nothing
    with pytest.raises(ReadOnlyError) as caught:
        with Locks(tmp_path / "locks").recipe():
            pytest.fail("inside")
    assert "nothing was changed: cannot be locked (Permission denied); make the directory writable" in str(caught.value)
    with Locks(tmp_path / "locks").hold(["a"]):
        pass
    assert "going on without it, at worst" in caplog.text


def test_a_lock_is_released_when_the_work_fails(tmp_path: Path) -> None:
    locks = Locks(tmp_path)
    for held in (locks.hold(["a"]), locks.recipe()):
        with pytest.raises(ZeroDivisionError), held:
            raise ZeroDivisionError
    with locks.hold(["a"], 0), locks.recipe(0):
        pass


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with Locks(tmp_path).hold(["a"]):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    lock = Locks(tmp_path).try_hold(bucket_of("a"))
    assert lock is not None
    lock.release()


def test_a_lock_file_honours_the_umask(tmp_path: Path) -> None:
    """Labs share directories: a lock that only its maker can open would not be one for the others."""
    before = os.umask(0o002)
    try:
        with Locks(tmp_path).hold(["a"]):
            pass
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o664


SLOW_IMPORT = """
import contextlib, importlib.abc, os, sys, threading, time, warnings
from pathlib import Path
from featurestore.storage import locks

warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks beside threads; this is about them
if sys.argv[2] == "unguarded":
    locks.IMPORTING = contextlib.nullcontext()
begun = threading.Event()


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "filelock":
            begun.set()
            time.sleep(1)


sys.meta_path.insert(0, Slow())
locks = locks.Locks(Path(sys.argv[1]))


def use():
    with locks.recipe():
        pass


thread = threading.Thread(target=use)
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    use()
    os._exit(0)
until = time.monotonic() + (20 if sys.argv[2] == "guarded" else 3)
while time.monotonic() < until and os.waitpid(child, os.WNOHANG) == (0, 0):
    time.sleep(0.01)
thread.join()
try:
    os.kill(child, 9)
    print("hangs")
except ProcessLookupError:
    print("ended")
"""


@pytest.mark.parametrize(("how", "end"), [("guarded", "ended"), ("unguarded", "hangs")])
def test_a_fork_while_another_thread_imports_the_locks(tmp_path: Path, how: str, end: str) -> None:
    """Without the guard, the child waits for the end of an import that nobody there goes on with."""
    command = [sys.executable, "-c", SLOW_IMPORT, str(tmp_path / "locks"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [end], done.stderr


EVERY_IMPORT = """
import importlib.abc, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from store_factories import ALL, KEY, RECIPE, batch, fill, flip, segment_dirs, values_of
from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError
from featurestore.storage import maintenance, reader

unguarded = []


class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if not reader.IMPORTING._is_owned():
            unguarded.append(name)


values_of("a")  # what the test itself imports
sys.meta_path.insert(0, Watch())
if sys.argv[3] == "set operations":
    shared = lambda segment, wanted: np.intersect1d(wanted, segment.records()["hi"].astype("u8"))
    maintenance._holds_any = lambda segment, wanted: bool(shared(segment, wanted).size)
root = Path(sys.argv[1])
store = fill(root, ["a", "b"], ["c", "d"], ["e"])
store.put_many(ALL, ["a", "b"], [values_of("a"), values_of("b", 3)], recipe=RECIPE)
store.put_many(KEY, ["a", "c"], batch(["x", "y"]), recipe=RECIPE, overwrite=True)
store.delete(KEY, ["e"])
store.get(KEY, "a"), store.get(KEY, "a", [1, 3]), store.get_many(KEY, ["d", "a", "c"])
store.get_ragged(ALL, ["b", "a"]), store.get_features(KEY, "b"), store.ids(KEY)
flip(segment_dirs(root)[-1] / "c.0.0.0", 2)
for read in (FeatureStore(root).get, store.get):
    try:
        read(KEY, "no such id")
    except FeatureStoreError:
        pass
for id in "abcd":
    try:
        FeatureStore(root).get(KEY, id)
    except FeatureStoreError:
        pass
store.feature_set(KEY).compact()
print(*unguarded)
"""


def imports_while_working(root: Path, variant: str) -> str:
    code = [sys.executable, "-c", EVERY_IMPORT, str(root), str(Path(__file__).parent), variant]
    ran = subprocess.run(code, capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_no_import_of_an_operation_is_in_the_way_of_a_fork(tmp_path: Path) -> None:
    """Not even one that numpy makes: a child of a fork in the middle of it would wait for its end for ever."""
    assert imports_while_working(tmp_path, "as it is") == ""


def test_an_import_that_numpy_makes_is_caught(tmp_path: Path) -> None:
    assert "numpy.ma" in imports_while_working(tmp_path, "set operations")
