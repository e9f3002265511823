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
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from store_factories import ALL, DIM, KEY, RECIPE, batch, fill, header_of, recipe_dir, rows_of, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import CommitUncertainError, ReadOnlyError, StoreError
from featurestore.storage import durable, layout
from featurestore.storage import writer as room
from featurestore.storage.layout import Layout
from featurestore.storage.reader import RECORD
from featurestore.storage.writer import Rows, commit, encode_line, inner_chunk, row_line

IDS = ["a", "b", "é"]
PAYLOAD = 4 * DIM * 4


def place_of(root: Path, key: FeatureKey = KEY) -> Layout:
    return Layout(root, key, Recipe(RECIPE).fingerprint)


def put(root: Path, rows: Rows | list[str] | None = None, key: FeatureKey = KEY, **options: Any) -> Path:
    """The segment with some rows, or those of some ids."""
    if not isinstance(rows, Rows):
        rows = rows_of({id: values_of(id) for id in rows or IDS})
    layout = place_of(root, key)
    return layout.segments / commit(layout, Recipe(RECIPE), rows, **options)


# -- bytes -------------------------------------------------------------------------------------------


def test_the_shard_is_raw_values_and_then_the_index_of_zarr(tmp_path: Path) -> None:
    raw = (put(tmp_path) / "c.0.0.0").read_bytes()
    assert raw[: 3 * PAYLOAD] == batch(IDS).astype("<f4").tobytes()
    index = raw[3 * PAYLOAD :]
    assert np.frombuffer(index[:-4], "<u8").tolist() == [0, 3 * PAYLOAD]  # one inner chunk
    assert index[-4:] == google_crc32c.value(index[:-4]).to_bytes(4, "little")


def test_rows_are_a_table_and_then_one_line_each(tmp_path: Path) -> None:
    segment = put(tmp_path)
    raw = (segment / "rows").read_bytes()
    table = np.frombuffer(raw[: 3 * 48], RECORD)
    assert RECORD.itemsize == 48
    text = raw[3 * 48 :]
    assert text == '{"id":"a"}\n{"id":"b"}\n{"id":"é"}\n'.encode()
    for row, id in enumerate(IDS):
        digest = hashlib.blake2b(id.encode(), digest_size=16).digest()
        assert raw[row * 48 : row * 48 + 16] == digest
        line = json.dumps({"id": id}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        assert raw[table["line"][row] : table["line"][row] + len(line)] == line
        assert (table["frame"][row], table["n_frames"][row]) == (row * 4, 4)
        assert table["line_crc"][row] == google_crc32c.value(line)
        assert table["crc"][row] == google_crc32c.value(values_of(id).tobytes())
        assert table["frames_crc"][row] == 0
    assert not (segment / "frames").exists()
    assert header_of(segment)["frames"] is None


def test_ragged_samples_follow_each_other_and_each_frame_has_a_checksum(tmp_path: Path) -> None:
    values = {"a": values_of("a", 2), "b": values_of("b", 1), "c": values_of("c", 5)}
    segment = put(tmp_path, rows_of(values, ragged=True), ALL)
    assert json.loads((segment / "zarr.json").read_bytes())["shape"] == [8, DIM]
    assert (segment / "c.0.0").read_bytes()[: 8 * DIM * 4] == np.concatenate(list(values.values())).tobytes()
    table = np.frombuffer((segment / "rows").read_bytes()[: 3 * 48], RECORD)
    assert table["frame"].tolist() == [0, 2, 3]
    assert table["n_frames"].tolist() == [2, 1, 5]
    frames = (segment / "frames").read_bytes()
    sums = [google_crc32c.value(frame.tobytes()) for one in values.values() for frame in one]
    assert np.frombuffer(frames, "<u4").tolist() == sums
    assert table["frames_crc"].tolist() == [google_crc32c.value(frames[a:b]) for a, b in ((0, 8), (8, 12), (12, 32))]
    digest = hashlib.blake2b(frames, digest_size=32).hexdigest()
    assert header_of(segment)["frames"] == {"bytes": 32, "blake2b": digest}


@pytest.mark.parametrize("width", [4095, 4096])
def test_stacked_frames_have_checksums_from_16_kib_on(tmp_path: Path, width: int) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, width), np.float32)
    segment = put(tmp_path, rows_of(dict(zip("ab", values, strict=True))))
    table = np.frombuffer((segment / "rows").read_bytes()[: 2 * 48], RECORD)
    if width == 4095:
        assert header_of(segment)["frames"] is None
        assert table["frames_crc"].tolist() == [0, 0]
        return
    frames = (segment / "frames").read_bytes()
    sums = [google_crc32c.value(frame.tobytes()) for frame in values.reshape(6, width)]
    assert np.frombuffer(frames, "<u4").tolist() == sums
    assert table["frames_crc"].tolist() == [google_crc32c.value(frames[:12]), google_crc32c.value(frames[12:])]


@pytest.mark.parametrize("block", [1, 2, 5, 8])
def test_blocks_may_hold_any_number_of_whole_samples(tmp_path: Path, block: int) -> None:
    values = {f"s{number}": values_of(f"s{number}", 1 + number % 3) for number in range(8)}
    arrays = list(values.values())
    blocks = [np.concatenate(arrays[start : start + block]) for start in range(0, 8, block)]
    whole = put(tmp_path / "whole", rows_of(values, ragged=True), ALL)
    parts = put(tmp_path / "parts", replace(rows_of(values, ragged=True), blocks=blocks), ALL)
    for name in ("c.0.0", "rows", "frames"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


# -- inner chunks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 3, 99, 100, 101, 199, 1000, 1009, 12_345])
@pytest.mark.parametrize("row_bytes", [4, 24_576, 100_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_inner_chunks_are_as_many_as_waste_one_percent_at_most(length: int, row_bytes: int) -> None:
    inner, count = inner_chunk(length, length * row_bytes)
    most = min(-(-length * row_bytes // (1 << 20)), length)
    allowed = [m for m in range(1, most + 1) if 100 * (-(-length // m) * m - length) <= length]
    assert count == allowed[-1]
    assert inner == -(-length // count)


def test_zeros_fill_up_the_last_inner_chunk_and_the_index_says_where_each_is(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((1009, 1, 2048), np.float32)
    segment = put(tmp_path, rows_of({f"s{number}": one for number, one in enumerate(values)}))
    document = json.loads((segment / "zarr.json").read_bytes())
    inner = document["codecs"][0]["configuration"]["chunk_shape"]
    outer = document["chunk_grid"]["configuration"]["chunk_shape"]
    assert (inner, outer) == ([127, 1, 2048], [1016, 1, 2048])  # 8 chunks of 0.99 MiB, 0.7 % of them zeros
    raw = (segment / "c.0.0.0").read_bytes()
    index = np.frombuffer(raw[-(8 * 16 + 4) : -4], "<u8").reshape(8, 2)
    size = 127 * 8192
    assert index.tolist() == [[number * size, size] for number in range(8)]
    assert raw[: values.nbytes] == values.tobytes()
    assert raw[values.nbytes : 8 * size] == bytes(7 * 8192)
    assert len(raw) == 8 * size + 8 * 16 + 4
    assert hashlib.blake2b(raw, digest_size=32).hexdigest() == header_of(segment)["shard"]["blake2b"]


def test_the_shard_is_written_in_aligned_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From large and from small blocks: what is written in other pieces is read more slowly for the first time."""
    values = np.random.default_rng(0).standard_normal((40, 1, 40_000), np.float32)
    whole = rows_of({f"s{number}": one for number, one in enumerate(values)})
    sizes: list[int] = []
    write = os.write
    monkeypatch.setattr(durable.os, "write", lambda fd, data: sizes.append(len(data)) or write(fd, data))
    shards = []
    flat = values.reshape(-1, 40_000)
    for name, blocks in (("small", whole.blocks), ("large", [flat]), ("both", [flat[:3], flat[3:36], flat[36:]])):
        sizes.clear()
        shards.append((put(tmp_path / name, replace(whole, blocks=blocks)) / "c.0.0.0").read_bytes())
        first = sizes.index(2 << 20)
        assert sizes[first : first + 4] == [2 << 20, 2 << 20, 2 << 20, len(shards[-1]) - (6 << 20)]
    assert shards[0] == shards[1] == shards[2]


def test_zarr_json_says_all_that_is_needed_and_is_sealed(tmp_path: Path) -> None:
    segment = put(tmp_path, replaces=["x", "b"], made_with={"torch": "2.15.0"})
    raw = (segment / "zarr.json").read_bytes()
    document = json.loads(raw)
    header = document["attributes"]["featurestore"]
    assert document["shape"] == [3, 4, DIM]
    assert document["data_type"] == "float32"
    assert document["dimension_names"] == ["sample", "frame", "feature"]
    assert document["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    assert {name: header[name] for name in ("format", "name", "key", "fingerprint", "needs", "replaces")} == {
        "format": 2,
        "name": segment.name,
        "key": str(KEY),
        "fingerprint": Recipe(RECIPE).fingerprint,
        "needs": [],
        "replaces": ["b", "x"],
    }
    assert header["made_with"]["torch"] == "2.15.0"
    for name, file in (("shard", "c.0.0.0"), ("rows", "rows")):
        content = (segment / file).read_bytes()
        assert header[name]["bytes"] == len(content)
        assert header[name]["blake2b"] == hashlib.blake2b(content, digest_size=32).hexdigest()
    assert header["rows"]["samples"] == 3
    table = (segment / "rows").read_bytes()[: 3 * 48]
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

        def wait(self) -> None:
            if waits:  # else the mutant
                super().wait()

    monkeypatch.setattr(room, "_Digest", Digest)
    ids = [f"s{number}" for number in range(24)]
    values = np.random.default_rng(0).standard_normal((24, 4, 1 << 14), dtype=np.float32)

    def blocks() -> Iterator[Any]:
        memory = np.empty(values.shape[1:], np.float32)
        for one in values:
            memory[:] = one
            yield memory

    rows = replace(rows_of(dict(zip(ids, values, strict=True))), blocks=blocks())
    segment = put(tmp_path, rows)
    raw = (segment / "c.0.0.0").read_bytes()
    right = header_of(segment)["shard"]["blake2b"] == hashlib.blake2b(raw, digest_size=32).hexdigest()
    assert right is waits


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (put(tmp_path / "whole") / "c.0.0.0").read_bytes()
    write = os.write
    monkeypatch.setattr(room.os, "write", lambda fd, data: write(fd, data[:7]))
    assert (put(tmp_path / "short") / "c.0.0.0").read_bytes() == whole


@pytest.mark.parametrize("ids", ["ab", "abb"])
def test_fewer_frames_than_ids_need_are_not_committed(tmp_path: Path, ids: str) -> None:
    rows = rows_of({id: values_of(id) for id in IDS})
    short = replace(rows, blocks=[values_of(id)[: 4 - (number == 2)] for number, id in enumerate(ids)])
    with pytest.raises(ValueError, match=r"(8|11) frames were given for 3 ids with 12"):
        put(tmp_path, short)
    assert list(place_of(tmp_path).segments.glob("*-*")) == []
    assert list((place_of(tmp_path).housekeeping / "tmp").iterdir()) == []


# -- other programs ----------------------------------------------------------------------------------


def kinds() -> dict[str, tuple[Rows, Any]]:
    """{name: (rows, the array that they make)}"""
    draw = np.random.default_rng(0)

    def stacked(values: Any) -> tuple[Rows, Any]:
        return rows_of({f"s{number}": one for number, one in enumerate(values)}), values

    def ragged(values: list[Any]) -> tuple[Rows, Any]:
        return rows_of({f"s{n}": one for n, one in enumerate(values)}, ragged=True), np.concatenate(values)

    padded = draw.standard_normal((1009, 1, 2048), np.float32)
    return {
        "float32": stacked(batch(IDS)),
        "float16": stacked(batch(IDS, np.float16)),
        "float64": stacked(draw.standard_normal((3, 2, 5))),
        "uint8": stacked(draw.integers(0, 256, (3, 2, 4, 5, 3), np.uint8)),
        "several inner chunks": stacked(padded),
        "tokens": stacked(draw.standard_normal((3, 2, 5, 7), np.float32)),
        "ragged": ragged([values_of("one", 1), values_of("three", 3)]),
        "ragged tokens": ragged([draw.standard_normal((n, 5, 7), np.float32) for n in (2, 1, 4)]),
        "ragged uint8": ragged([draw.integers(0, 256, (n, 7), np.uint8) for n in (2, 1, 4)]),
        "ragged, several inner chunks": ragged([*padded[:500], padded[500:].reshape(-1, 2048)]),
        "empty": (rows_of({}, like=values_of("a")), np.empty((0, 4, DIM), np.float32)),
        "empty uint8": (rows_of({}, like=np.zeros((2, 3), np.uint8)), np.empty((0, 2, 3), np.uint8)),
        "empty and ragged": (rows_of({}, ragged=True, like=values_of("a")), np.empty((0, DIM), np.float32)),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_zarr_python_reads_every_segment(tmp_path: Path, kind: str) -> None:
    import zarr

    rows, values = kinds()[kind]
    array = zarr.open_array(put(tmp_path, rows), mode="r")
    assert array.shape == values.shape
    assert array.dtype == values.dtype
    lead = ("frame",) if rows.n_frames is None else ("sample", "frame")
    assert array.metadata.dimension_names == (*lead, *rows.form.axes)  # type: ignore[union-attr]
    found = array[:]
    assert isinstance(found, np.ndarray)
    assert found.tobytes() == values.tobytes()
    if len(values):
        np.testing.assert_array_equal(array[len(values) - 1], values[-1])


@pytest.mark.parametrize("kind", list(kinds()))
def test_tensorstore_reads_every_segment(tmp_path: Path, kind: str) -> None:
    import tensorstore

    rows, values = kinds()[kind]
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{put(tmp_path, rows)}/"}}
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
        assert recipe == {"format": 2, "key": str(KEY), "recipe": RECIPE}
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
            {"featurestore": {"format": 2, "key": str(KEY), "recipe": RECIPE}} if level == recipe_dir(tmp_path) else {}
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


def test_zarr_json_is_written_when_all_else_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without it is not committed, also where somebody copies one file after the other."""
    rows = rows_of({"a": values_of("a", 2), "b": values_of("b", 3)}, ragged=True)
    put(tmp_path, rows, ALL)
    with monkeypatch.context() as patch:
        recorder = Recorder(patch)
        put(tmp_path, rows, ALL, replaces=["x"])
    staged = [step for step in recorder.steps if step.split()[0] in ("open", "fsync")]
    assert staged == [
        f"{verb} {name}"
        for name in ("c.0.0", "rows", "frames", "replaces", "zarr.json", "staging", "segments")
        for verb in ("open", "fsync")
    ]


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
