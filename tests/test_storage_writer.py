"""One segment: the bytes on disk, the order in which they come there, and other programs that read them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from store_factories import ALL, DIM, KEY, RECIPE, batch, fill, header_of, recipe_dir, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import CommitUncertainError, ReadOnlyError, StoreError
from featurestore.storage import layout
from featurestore.storage import writer as room
from featurestore.storage.layout import Layout
from featurestore.storage.reader import RECORD
from featurestore.storage.writer import Rows, commit, encode_line, row_line

IDS = ["a", "b", "é"]
PAYLOAD = 4 * DIM * 4


def place_of(root: Path) -> Layout:
    return Layout(root, KEY, Recipe(RECIPE).fingerprint)


def rows_of(ids: list[str], dtype: Any = np.float32) -> Rows:
    lines = [row_line(id, None, None, None) for id in ids]
    return Rows((4, DIM), np.dtype(dtype), lines, ids, [batch(ids, dtype)] if ids else [])


def put(root: Path, ids: list[str] | None = None, **options: Any) -> Path:
    layout = place_of(root)
    return layout.segments / commit(layout, Recipe(RECIPE), rows_of(IDS if ids is None else ids), **options)


# -- bytes -------------------------------------------------------------------------------------------


def test_the_shard_is_payload_and_checksum_per_row_and_then_the_index_of_zarr(tmp_path: Path) -> None:
    raw = (put(tmp_path) / "c.0.0.0").read_bytes()
    pitch = PAYLOAD + 4
    assert len(raw) == 3 * pitch + 3 * 16 + 4
    for row, id in enumerate(IDS):
        payload = raw[row * pitch : row * pitch + PAYLOAD]
        assert payload == values_of(id).astype("<f4").tobytes()
        checksum = raw[row * pitch + PAYLOAD : (row + 1) * pitch]
        assert checksum == google_crc32c.value(payload).to_bytes(4, "little")
    index = raw[3 * pitch :]
    assert np.frombuffer(index[:-4], "<u8").reshape(3, 2).tolist() == [[row * pitch, pitch] for row in range(3)]
    assert index[-4:] == google_crc32c.value(index[:-4]).to_bytes(4, "little")


def test_rows_are_a_table_and_then_one_line_each(tmp_path: Path) -> None:
    segment = put(tmp_path)
    raw = (segment / "rows").read_bytes()
    table = np.frombuffer(raw[: 3 * 32], RECORD)
    assert RECORD.itemsize == 32
    text = raw[3 * 32 :]
    assert text == '{"id":"a"}\n{"id":"b"}\n{"id":"é"}\n'.encode()
    for row, id in enumerate(IDS):
        digest = hashlib.blake2b(id.encode(), digest_size=16).digest()
        assert raw[row * 32 : row * 32 + 16] == digest
        line = json.dumps({"id": id}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        assert raw[table["line"][row] : table["line"][row] + len(line)] == line
        assert table["line_crc"][row] == google_crc32c.value(line)
        assert table["crc"][row] == google_crc32c.value(values_of(id).tobytes())


def test_zarr_json_says_all_that_is_needed_and_is_sealed(tmp_path: Path) -> None:
    segment = put(tmp_path, replaces=["x", "b"], made_with={"torch": "2.15.0"})
    raw = (segment / "zarr.json").read_bytes()
    document = json.loads(raw)
    header = document["attributes"]["featurestore"]
    assert document["shape"] == [3, 4, DIM]
    assert document["data_type"] == "float32"
    assert document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    assert {name: header[name] for name in ("format", "name", "key", "fingerprint", "codec", "replaces")} == {
        "format": 1,
        "name": segment.name,
        "key": str(KEY),
        "fingerprint": Recipe(RECIPE).fingerprint,
        "codec": None,
        "replaces": ["b", "x"],
    }
    assert header["made_with"]["torch"] == "2.15.0"
    for name, file in (("shard", "c.0.0.0"), ("rows", "rows")):
        content = (segment / file).read_bytes()
        assert header[name]["bytes"] == len(content)
        assert header[name]["blake2b"] == hashlib.blake2b(content, digest_size=32).hexdigest()
    table = (segment / "rows").read_bytes()[: 3 * 32]
    assert header["rows"]["table_blake2b"] == hashlib.blake2b(table, digest_size=32).hexdigest()
    seal = header["seal"].encode()
    assert raw.count(seal) == 1
    assert seal == hashlib.blake2b(raw.replace(seal, b"0" * 64), digest_size=32).hexdigest().encode()


def test_a_line_of_an_id_alone_is_what_the_encoder_would_write() -> None:
    for id in ("sample_00000001", 'q"\\', "größe", "\u2028", "a b", "/", "\U0001f600"):
        assert row_line(id, None, None, None) == encode_line({"id": id})
    with pytest.raises(UnicodeEncodeError):
        row_line("\ud800", None, None, None)


def test_a_row_costs_its_payload_its_line_and_little_else(tmp_path: Path) -> None:
    """Bytes on disk <= payload x 1.01 + the row lines."""
    ids = [f"sample_{number:08d}" for number in range(100)]
    values = np.random.default_rng(0).standard_normal((100, 8, 768)).astype(np.float32)
    key = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 8)
    FeatureStore(tmp_path).put_many(key, ids, values, recipe=RECIPE)
    (segment,) = segment_dirs(tmp_path, key)
    lines = sum(len(row_line(id, None, None, None)) for id in ids)
    size = sum(path.stat().st_size for path in segment.iterdir())
    assert size <= values.nbytes * 1.01 + lines


def test_names_sort_by_time_and_never_collide(tmp_path: Path) -> None:
    names = [put(tmp_path, time_ns=time_ns).name for time_ns in (7, 7, 10**18, 2 * 10**19)]
    assert all(re.fullmatch(r"[0-9]{20}-[0-9a-f]{32}", name) for name in names)
    assert len(set(names)) == 4
    assert sorted(names)[2:] == names[2:]


def test_a_large_batch_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"s{number}" for number in range(300)]
    whole = (put(tmp_path / "whole", ids) / "c.0.0.0").read_bytes()
    monkeypatch.setattr(room, "BLOCK_BYTES", 1000)
    assert (put(tmp_path / "blocks", ids) / "c.0.0.0").read_bytes() == whole


@pytest.mark.parametrize("waits", [True, False])
def test_a_block_is_digested_before_its_memory_is_written_again(
    waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        """blake2b on a processor that has other things to do."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.hexdigest = inner, inner.hexdigest

        def update(self, data: Any) -> None:
            time.sleep(0.02)
            self.inner.update(data)

    class Digest(room._Digest):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self._blake2b: Any = Late(self._blake2b)

        def update(self, data: Any) -> None:
            if not waits:  # the mutant
                self._last = None
            super().update(data)

    monkeypatch.setattr(room, "_Digest", Digest)
    monkeypatch.setattr(room, "BLOCK_BYTES", 1 << 18)
    ids = [f"s{number}" for number in range(24)]
    values = np.random.default_rng(0).standard_normal((24, 4, 1 << 14), dtype=np.float32)
    rows = Rows((4, 1 << 14), np.dtype("f4"), [row_line(id, None, None, None) for id in ids], ids, [values])
    layout = place_of(tmp_path)
    segment = layout.segments / commit(layout, Recipe(RECIPE), rows)
    raw = (segment / "c.0.0.0").read_bytes()
    right = header_of(segment)["shard"]["blake2b"] == hashlib.blake2b(raw, digest_size=32).hexdigest()
    assert right is waits


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (put(tmp_path / "whole") / "c.0.0.0").read_bytes()
    write = os.write
    monkeypatch.setattr(room.os, "write", lambda fd, data: write(fd, data[:7]))
    assert (put(tmp_path / "short") / "c.0.0.0").read_bytes() == whole


def test_fewer_rows_than_ids_are_not_committed(tmp_path: Path) -> None:
    rows = rows_of(IDS)
    with pytest.raises(ValueError, match="2 rows were given for 3 ids"):
        commit(place_of(tmp_path), Recipe(RECIPE), Rows(rows.shape, rows.dtype, rows.lines, IDS, [batch("ab")]))
    assert list(place_of(tmp_path).segments.glob("*-*")) == []
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []


# -- other programs ----------------------------------------------------------------------------------


def segments_of_all_kinds(root: Path) -> Iterator[tuple[Path, Any]]:
    """(segment, the values that it holds): float32, float16, compressed, empty, one row of another length."""
    for name, dtype, codec in (
        ("f4", np.float32, None),
        ("f2", np.float16, None),
        ("f4z", np.float32, "zstd"),
        ("f2z", np.float16, "zstd"),
    ):
        layout = place_of(root / name)
        yield layout.segments / commit(layout, Recipe(RECIPE), rows_of(IDS, dtype), codec=codec), batch(IDS, dtype)
    layout = place_of(root / "empty")
    yield layout.segments / commit(layout, Recipe(RECIPE), rows_of([])), np.empty((0, 4, DIM), np.float32)
    store = FeatureStore(root / "all")
    store.put_many(ALL, ["one"], [values_of("one", 1)], recipe=RECIPE)
    yield segment_dirs(root / "all", ALL)[0], values_of("one", 1)[None]


def test_zarr_python_reads_every_segment(tmp_path: Path) -> None:
    import zarr

    for path, values in segments_of_all_kinds(tmp_path):
        array = zarr.open_array(path, mode="r")
        assert array.shape == values.shape
        assert array.dtype == values.dtype
        found = array[:]
        assert isinstance(found, np.ndarray)
        assert found.tobytes() == values.tobytes()
        if len(values):
            np.testing.assert_array_equal(array[len(values) - 1], values[-1])


def test_tensorstore_reads_every_segment(tmp_path: Path) -> None:
    import tensorstore

    for path, values in segments_of_all_kinds(tmp_path):
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
        array = tensorstore.open(spec, open=True, read=True).result()
        assert tuple(array.shape) == values.shape
        assert array.dtype.numpy_dtype == values.dtype
        assert array.read().result().tobytes() == values.tobytes()


def test_the_whole_tree_opens_as_zarr_without_a_warning(tmp_path: Path) -> None:
    import zarr

    store = fill(tmp_path, ["a", "b"], ["c"])
    store.delete(KEY, ["a"])
    store.compact(KEY)
    store.put_many(ALL, ["one"], [values_of("one", 1)], recipe={"weights": "other"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "data", mode="r")
        members = dict(group.members(max_depth=None))
        arrays = {name: member for name, member in members.items() if isinstance(member, zarr.Array)}
        assert len(arrays) == 5
        assert {name.rsplit("/", 2)[0] for name in arrays} == {
            f"{KEY}/{Recipe(RECIPE).fingerprint}", f"{ALL}/{Recipe({'weights': 'other'}).fingerprint}"
        }  # fmt: skip
        recipe = group[f"{KEY}/{Recipe(RECIPE).fingerprint}"].attrs["featurestore"]
        assert recipe == {"format": 1, "key": str(KEY), "recipe": RECIPE}
        for array in arrays.values():
            array[:]  # type: ignore[index]


# -- levels ------------------------------------------------------------------------------------------


def test_every_level_is_a_zarr_group_and_the_recipe_is_beside_its_segments(tmp_path: Path) -> None:
    put(tmp_path)
    level = tmp_path
    for part in ("data", *KEY.parts, Recipe(RECIPE).fingerprint, "segments"):
        level = level / part
        document = json.loads((level / "zarr.json").read_bytes())
        assert (document["zarr_format"], document["node_type"]) == (3, "group")
        mine = (
            {"featurestore": {"format": 1, "key": str(KEY), "recipe": RECIPE}} if level == recipe_dir(tmp_path) else {}
        )
        assert document["attributes"] == mine
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".fstore"}
    housekeeping = {path.name for path in place_of(tmp_path).housekeeping.iterdir()}
    assert housekeeping == {"tmp"}
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []


def test_the_document_of_a_recipe_is_written_once(tmp_path: Path) -> None:
    put(tmp_path)
    path = recipe_dir(tmp_path) / "zarr.json"
    before = (path.stat().st_ino, path.read_bytes())
    put(tmp_path)
    layout._durable.clear()  # as another process
    put(tmp_path)
    assert (path.stat().st_ino, path.read_bytes()) == before


def test_two_processes_that_make_the_first_levels_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from featurestore import FeatureStore\n"
        f"FeatureStore({str(tmp_path)!r}).put_many({str(KEY)!r}, [sys.argv[1]], np.ones((1, 4, 6), np.float32), "
        f"recipe={RECIPE!r})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, f"s{number}"]) for number in range(5)]
    assert [process.wait(60) for process in processes] == [0] * 5
    assert FeatureStore(tmp_path).ids(KEY) == [f"s{number}" for number in range(5)]


def test_the_umask_decides_who_may_write(tmp_path: Path) -> None:
    """Labs share directories."""
    before = os.umask(0o002)
    try:
        fill(tmp_path / "store", ["a"]).delete(KEY, ["a"])
    finally:
        os.umask(before)
    for path in (tmp_path / "store").rglob("*"):
        expected = 0o775 if path.is_dir() else 0o664
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


# -- the order of a commit ---------------------------------------------------------------------------


class Recorder:
    """The system calls of a commit in order, as `verb name`; one of them may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: str = "", error: OSError | None = None) -> None:
        self.steps: list[str] = []
        self.names: dict[int, str] = {}
        self.fail_at = fail_at
        self.error = error or OSError(errno.EIO, "Input/output error")
        for name in ("open", "write", "fsync", "close", "rename", "mkdir"):
            monkeypatch.setattr(room.os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, verb: str, real: Any) -> Any:
        def call(first: Any, *args: Any, **kwargs: Any) -> Any:
            named = verb in ("open", "rename", "mkdir")
            name = Path(first).name if named else self.names.get(first, "?")
            if re.fullmatch(r"[0-9]{20}-[0-9a-f]{32}", name):
                name = "staging"
            step = f"{verb} {name}"
            if step == self.fail_at:
                raise self.error
            result = real(first, *args, **kwargs)
            if verb == "open":
                self.names[result] = name
            if not self.steps or self.steps[-1] != step:
                self.steps.append(step)
            return result

        return call


def test_a_commit_is_durable_before_it_is_visible_and_visible_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        put(tmp_path, ["c"])
    assert [step for step in recorder.steps if step.split()[0] != "close"] == [
        "mkdir staging",
        "open c.0.0.0", "write c.0.0.0", "fsync c.0.0.0",
        "open rows", "write rows", "fsync rows",
        "open zarr.json", "write zarr.json", "fsync zarr.json",
        "open staging", "fsync staging",
        "rename staging",
        "open segments", "fsync segments",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "step", ["mkdir staging", "open c.0.0.0", "write c.0.0.0", "fsync c.0.0.0", "write rows", "fsync rows",
             "open zarr.json", "write zarr.json", "fsync zarr.json", "fsync staging", "rename staging"],
)  # fmt: skip
def test_before_the_rename_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    first = put(tmp_path)
    with monkeypatch.context() as patch:
        Recorder(patch, step)
        with pytest.raises(StoreError, match=f"cannot commit 1 rows of {KEY}: nothing was stored: Input/output error"):
            put(tmp_path, ["c"])
    assert segment_dirs(tmp_path) == [first]
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(KEY, "a"), values_of("a"))


@pytest.mark.parametrize("step", ["open segments", "fsync segments"])
def test_after_the_rename_a_failure_says_to_look_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    put(tmp_path)
    with monkeypatch.context() as patch:
        Recorder(patch, step)
        with pytest.raises(CommitUncertainError, match="renamed into place, but Input/output"):
            put(tmp_path, ["c"])
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "b", "c", "é"]


def test_a_rename_whose_answer_was_lost_is_not_said_to_have_stored_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path)
    rename = os.rename

    def lose(old: str, new: str) -> None:
        rename(old, new)
        raise OSError(errno.ENOENT, "No such file or directory", old)

    monkeypatch.setattr(room.os, "rename", lose)
    with pytest.raises(CommitUncertainError):
        put(tmp_path, ["c"])
    assert FeatureStore(tmp_path).ids(KEY) == ["a", "b", "c", "é"]


def test_an_interrupt_is_passed_on_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    with monkeypatch.context() as patch:
        Recorder(patch, "fsync rows", KeyboardInterrupt())  # type: ignore[arg-type]
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path, ["c"])
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, StoreError, "free some space and run it again: what was acknowledged before is safe"),
        (errno.EDQUOT, StoreError, "free some space"),
        (
            errno.EACCES,
            ReadOnlyError,
            "make the directory writable: '/some/path'; or open the store",
        ),
        (errno.EROFS, ReadOnlyError, "make the directory writable"),
        (errno.EXDEV, StoreError, "`data` and `.fstore` of a store must be on one file system"),
        (errno.EIO, StoreError, "look at the path"),
    ],
)
def test_an_error_of_the_system_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], advice: str
) -> None:
    put(tmp_path)
    with monkeypatch.context() as patch:
        Recorder(patch, "rename staging", OSError(number, os.strerror(number), "/some/path"))
        with pytest.raises(kind, match=re.escape(advice)) as caught:
            put(tmp_path, ["c"])
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert caught.value.filename == "/some/path"


def test_a_root_that_is_a_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a directory")
    with pytest.raises(StoreError, match="Not a directory; look at the path"):
        FeatureStore(tmp_path / "root").put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE)
    with pytest.raises(StoreError, match="nothing was stored"):
        put(tmp_path / "root" / "deeper")


def test_a_failing_digest_thread_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large shards are hashed beside their writing: an error there must not become a wrong digest."""
    monkeypatch.setattr(room._Digest, "hexdigest", lambda self: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        put(tmp_path)
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []


def test_a_shard_above_four_megabytes_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 150_000)).astype(np.float32)
    FeatureStore(tmp_path).put_many(KEY, IDS, values, recipe=RECIPE)
    (segment,) = segment_dirs(tmp_path)
    content = (segment / "c.0.0.0").read_bytes()
    assert header_of(segment)["shard"]["blake2b"] == hashlib.blake2b(content, digest_size=32).hexdigest()
    np.testing.assert_array_equal(FeatureStore(tmp_path).get_many(KEY, IDS), values)
