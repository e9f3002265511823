"""Disks that are full, read-only, or shared by several users: refused in words, and nothing is lost."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figures import Figures
from mounts import make_read_only, mount_layers, mount_memory, need_own_mounts, own_mounts
from oracle import KEY, RECIPE, Op, Oracle, run
from workers import run_all

from featurestore import Failure, Features, FeatureStore, Recipe, packs
from featurestore.errors import FailedSampleError, ReadOnlyError, StoreError
from featurestore.key import FeatureKey
from featurestore.packs import pack


class Made:
    """A compute whose samples fail where their id says so."""

    def recipe(self, key: FeatureKey) -> Recipe:
        return RECIPE

    def __call__(self, key: FeatureKey, ids: Sequence[str]) -> Iterator[tuple[str, Features | Failure]]:
        for id in ids:
            if id.startswith("bad"):
                yield id, Failure("media", "no such stream")
            else:
                yield id, Features(np.ones((4, 8), np.float32))


def attempt(store: FeatureStore, oracle: Oracle, op: Op) -> StoreError | None:
    """Do it; where that fails, the error, after which what is in doubt is settled and nothing may be wrong."""
    oracle.begin(op)
    try:
        op.run(store)
    except StoreError as error:
        assert oracle.settle(store.root) == []
        return error
    oracle.done()
    return None


def fill_up(folder: Path, options: str) -> dict[str, int]:
    """Put until nothing fits; then every other operation; then make room and do them all."""
    own_mounts()
    mount_memory(folder, options)
    ballast = [folder / f"ballast_{number}" for number in range(24)]
    for path in ballast:
        path.write_bytes(bytes(8_192))
    root = folder / "features"
    store, oracle = FeatureStore(root), Oracle()
    refused = puts = 0
    while not refused:
        error = attempt(store, oracle, Op("put", tuple(f"{puts}-{number}" for number in range(100)), 1 + puts))
        puts += 1
        if error is not None:
            refused += 1
            assert error.errno == errno.ENOSPC
            assert "free some space" in str(error)
    assert puts > 3
    ops = [Op("overwrite", ("0-0", "1-7"), 99), Op("compact"), Op("delete", ("0-1",)), Op("put", ("more",), 98)]
    for op in ops:
        refused += attempt(store, oracle, op) is not None
    with pytest.raises((StoreError, FailedSampleError)):  # told, recorded or not
        FeatureStore(root, compute=Made()).get(KEY, "bad clip")
    for path in ballast:
        path.unlink()
    run(store, oracle, [*ops[:1], ops[2], ops[3]])
    assert oracle.settle(root) == []
    return {"samples acknowledged": oracle.acknowledged, "operations refused": refused}


@pytest.mark.parametrize("options", ["size=1m", "size=16m,nr_inodes=120"], ids=["bytes", "inodes"])
def test_a_full_disk(options: str, tmp_path: Path, figures: Figures) -> None:
    need_own_mounts()
    (counts,) = run_all([functools.partial(fill_up, tmp_path, options)])
    refused, acknowledged = counts["operations refused"], counts["samples acknowledged"]
    # What is lost fails in the process that fills the disk.
    figures.record("a full disk", refused, "refusals", {"lost or wrong": 0}, {"samples acknowledged": acknowledged})
    assert refused > 0


def pack_until_full(folder: Path, store: Path) -> list[str]:
    """Pack onto disks of growing sizes until it fits; what the refusals say.  After each nothing is there."""
    own_mounts()
    said = []
    for size in range(1, 40):
        disk = folder / f"disk_{size}"
        disk.mkdir()
        mount_memory(disk, f"size={size * 128}k,nr_inodes={10 + size * 4}")
        for name in ("packed", "packed.zip"):
            refused = None
            try:
                pack(FeatureStore(store, read_only=True), KEY, disk / name)
            except StoreError as error:
                refused = error
            there = [path.name for path in disk.iterdir()]
            if refused is not None:
                assert (refused.errno, there) == (errno.ENOSPC, [])
                said.append(str(refused))
            elif name == "packed.zip":
                assert there == [name]
                return said
            else:
                shutil.rmtree(disk / name)
    raise AssertionError("it never fits")


def test_a_disk_that_fills_in_the_middle_of_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_own_mounts()
    monkeypatch.setattr(packs, "CHUNK_BYTES", 32 << 10)
    monkeypatch.setattr(packs, "SHARD_BYTES", 64 << 10)
    values = np.random.default_rng(0).standard_normal((1000, 4, 64)).astype(np.float32)
    FeatureStore(tmp_path / "features").put_many(KEY, [str(n) for n in range(1000)], values, recipe=RECIPE)
    (said,) = run_all([functools.partial(pack_until_full, tmp_path, tmp_path / "features")])
    assert len(said) > 10
    assert all("nothing of it is left: No space left on device; free some space" in one for one in said)


def read_only(folder: Path) -> None:
    own_mounts()
    mount_memory(folder, "size=8m")
    root = folder / "features"
    store, oracle = FeatureStore(root), Oracle()
    run(store, oracle, [Op("put", ("a", "b"), 1), Op("put", ("c",), 2), Op("overwrite", ("a",), 3)])
    with pytest.raises(FailedSampleError):
        FeatureStore(root, compute=Made()).get(KEY, "bad")
    make_read_only(folder)
    assert oracle.settle(root) == []
    for op in (Op("put", ("d",), 4), Op("overwrite", ("a",), 5), Op("delete", ("b",)), Op("compact"), Op("gc")):
        with pytest.raises(StoreError, match=r"Read-only file system|read_only=True|writable"):
            op.run(FeatureStore(root))
    with pytest.raises(ReadOnlyError, match="read_only=True"):
        FeatureStore(root, compute=Made()).get(KEY, "new")
    kind = FeatureStore(root, compute=Made(), read_only=True)
    assert np.array_equal(kind.get(KEY, "new"), np.ones((4, 8), np.float32))
    assert kind.stats.not_kept == 1
    with pytest.raises(FailedSampleError, match="no such stream"):
        kind.get(KEY, "bad")
    assert kind.failures(KEY)["bad"].attempts == 1
    assert oracle.settle(root) == []


def test_a_read_only_disk(tmp_path: Path) -> None:
    need_own_mounts()
    run_all([functools.partial(read_only, tmp_path)])


def in_a_container(folder: Path) -> None:
    own_mounts()
    mount_memory(folder, "size=8m")
    image, upper, work, seen = (folder / name for name in ("image", "upper", "work", "seen"))
    for each in (image, upper, work, seen):
        each.mkdir()
    oracle = Oracle()
    run(FeatureStore(image / "features"), oracle, [Op("put", ("a", "b"), 1), Op("overwrite", ("a",), 2)])
    mount_layers(seen, image, upper, work)
    store = FeatureStore(seen / "features")
    assert oracle.settle(store.root) == []
    run(store, oracle, [Op("put", ("c",), 3), Op("overwrite", ("a", "b"), 4), Op("delete", ("b",))])
    with pytest.raises(StoreError, match="cross-device") as raised:  # a folder of the image cannot be renamed
        run(store, oracle, [Op("compact")])  # and gc at once
    assert raised.value.errno == errno.EXDEV
    assert oracle.settle(store.root) == []
    run(store, oracle, [Op("put", ("d",), 5)])
    assert oracle.settle(store.root) == []


def test_a_store_that_came_with_the_image_of_a_container(tmp_path: Path) -> None:
    """Read, added to, overwritten and merged; only the space of its own old segments cannot be freed."""
    need_own_mounts()
    run_all([functools.partial(in_a_container, tmp_path)])


ANNA, BERT, LAB = 12_001, 12_002, 12_100


def as_user(uid: int, umask: int, job: Callable[[], Any]) -> Any:
    """What the job returns when this user does it, in a process of its own."""
    import filelock  # noqa: F401 - before: another user might not be allowed to read the packages

    def other() -> Any:
        os.setgroups([LAB])
        os.setgid(LAB)
        os.setuid(uid)
        os.umask(umask)
        return job()

    return run_all([other])[0]


def open_to_all() -> Path:
    """Of the folders for temporary files the first that every user gets to; $TMPDIR may be somebody's own."""
    for place in map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if all(above.stat().st_mode & 0o001 for above in (place, *place.parents)):
            return place
    pytest.skip("no folder for temporary files is open to all users")


@pytest.fixture
def lab() -> Iterator[Path]:
    """A directory of a group of people, where each of them gets to."""
    if os.getuid() != 0:
        pytest.skip("only root can be two users")
    with tempfile.TemporaryDirectory(prefix="torture-", dir=open_to_all()) as folder:
        os.chown(folder, 0, LAB)
        os.chmod(folder, 0o2775)
        yield Path(folder)


def test_two_users_who_share_a_group_write_one_store(lab: Path) -> None:
    def anna() -> None:
        run(FeatureStore(lab / "features"), Oracle(), [Op("put", ("a", "b"), 1), Op("overwrite", ("a",), 2)])
        with pytest.raises(FailedSampleError):
            FeatureStore(lab / "features", compute=Made()).get(KEY, "bad")

    def bert() -> None:
        store, oracle = FeatureStore(lab / "features"), Oracle()
        for op in (Op("put", ("a", "b"), 1), Op("overwrite", ("a",), 2)):
            oracle.begin(op)
            oracle.done()
        assert oracle.settle(store.root) == []
        run(store, oracle, [Op("overwrite", ("b",), 3), Op("put", ("c",), 4), Op("delete", ("a",)), Op("compact")])
        assert oracle.settle(store.root) == []
        feature_set = store.feature_set(KEY)
        assert feature_set is not None
        assert feature_set.failures.clear(["bad"]) == 1

    as_user(ANNA, 0o002, anna)
    as_user(BERT, 0o002, bert)
    as_user(ANNA, 0o002, lambda: run(FeatureStore(lab / "features"), Oracle(), [Op("put", ("d",), 5), Op("compact")]))


def test_a_user_who_may_only_read_reads_and_is_told_so_when_writing(lab: Path) -> None:
    def anna() -> None:
        run(FeatureStore(lab / "features"), Oracle(), [Op("put", ("a", "b"), 1)])

    def bert() -> None:
        store, oracle = FeatureStore(lab / "features"), Oracle()
        oracle.begin(Op("put", ("a", "b"), 1))
        oracle.done()
        assert oracle.settle(store.root) == []
        for op in (Op("put", ("c",), 1), Op("overwrite", ("a",), 2), Op("delete", ("a",)), Op("compact"), Op("gc")):
            with pytest.raises(StoreError, match="Permission denied"):
                op.run(store)
        with pytest.raises(ReadOnlyError, match="read_only=True"):
            FeatureStore(lab / "features", compute=Made()).get(KEY, "new")
        kind = FeatureStore(lab / "features", compute=Made(), read_only=True)
        assert np.array_equal(kind.get(KEY, "new"), np.ones((4, 8), np.float32))
        assert oracle.settle(store.root) == []

    as_user(ANNA, 0o022, anna)
    as_user(BERT, 0o022, bert)
