"""A pack holds the bits of the store, other tools open it, and it is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import xarray
import zarr
from numpy.typing import NDArray
from store_factories import flip, segment_dirs

import featurestore
from featurestore import FeatureKey, FeatureStore, packs
from featurestore.arrays import NO_FRAME
from featurestore.errors import (
    AmbiguousRecipeError,
    CorruptSegmentError,
    ExistsError,
    MissingFeatureError,
    StoreError,
)
from featurestore.packs import pack

SCHEMA = json.loads((Path(__file__).resolve().parents[1] / "docs" / "schemas" / "pack.json").read_text("utf-8"))
RECIPE = {"weights": "x", "größe": [1, 2.5, None]}
IDS = ["größe", "a b", "-x_0", "日本😀", "sample_00000001", "s" * 300]
KEY = FeatureKey("mine", "frame", "E", "uniform", 8)
ALL = FeatureKey("mine", "audio", "E", "sound", "all")
FORMS: dict[str, tuple[FeatureKey, tuple[int, ...], Any, tuple[str, ...]]] = {
    "vectors": (KEY, (768,), np.float16, ("feature",)),
    "tokens": (KEY, (257, 32), np.float32, ("token", "feature")),
    "layers": (KEY, (25, 32), np.float16, ("layer", "feature")),
    "pixels": (KEY, (16, 16, 3), np.uint8, ("height", "width", "channel")),
    "ragged": (ALL, (1280,), np.float32, ("feature",)),
    "ragged tokens": (ALL, (5, 6), np.uint8, ("token", "feature")),
}


def values_of(form: str, ids: list[str] = IDS) -> list[NDArray[Any]]:
    """(n_frames, *item) of each; among them zeros, and zeros with a sign, which equal them."""
    key, item, dtype, _ = FORMS[form]
    generator = np.random.default_rng(3)
    counts = [8 if key.n_frames == 8 else 1 + 7 * number for number in range(len(ids))]
    made = [(generator.standard_normal((count, *item)) * 50).astype(dtype) for count in counts]
    made[1][:] = 0
    made[2][:] = np.array(-0.0).astype(dtype)
    return made


def filled(root: Path, form: str, ids: list[str] = IDS) -> FeatureStore:
    """A store of two segments; frames, seconds and provenance are known of every sample but the last."""
    store, made, (key, _, _, axes) = FeatureStore(root), values_of(form, ids), FORMS[form]
    for number, (id, values) in enumerate(zip(ids, made, strict=True)):
        known = number < len(ids) - 1
        count = len(values)
        store.put(
            key,
            id,
            values,
            recipe=RECIPE,
            axes=axes,
            frame_indices=np.arange(count) * 3 + number if known else None,
            timestamps_s=np.arange(count) / 30 if known else None,
            provenance={"sources": [{"path": f"/media/{id}.mp4", "size": 1, "mtime_ns": 2, "sha256": "0" * 64}]}
            if known
            else None,
        )
        if number == 1:
            store.compact(key)
    return store


def by_tensorstore(path: Path) -> Any:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(spec, open=True).result()


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(params=["as it is", "many files"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with chunks and files so small that samples and frames lie across several."""
    if request.param == "many files":
        monkeypatch.setattr(packs, "CHUNK_BYTES", 9_000)
        monkeypatch.setattr(packs, "SHARD_BYTES", 40_000)
        monkeypatch.setattr(packs, "BLOCK_SAMPLES", 2)


@pytest.mark.usefixtures("_sizes")
@pytest.mark.parametrize("form", FORMS)
def test_three_readers_find_the_bits_and_the_names(tmp_path: Path, form: str) -> None:
    key, _, dtype, axes = FORMS[form]
    store, path = filled(tmp_path / "store", form), tmp_path / "packed"
    packed = pack(store, key, path)
    assert (packed.samples, packed.path, packed.fingerprint) == (len(IDS), path, next(iter(store.recipes(key))))
    assert packed.bytes == sum(map(len, files(path).values()))
    ragged = key.n_frames == "all"
    ids = sorted(IDS)
    made = dict(zip(IDS, values_of(form), strict=True))
    expected = (np.concatenate if ragged else np.stack)([made[id] for id in ids])
    frames = ("frame",) if ragged else ("sample", "frame")

    group = zarr.open_group(path, mode="r")
    array = group["values"]
    assert isinstance(array, zarr.Array)
    assert array.metadata.dimension_names == frames + axes  # type: ignore[union-attr]
    assert array.dtype == dtype
    assert np.asarray(array[:]).tobytes() == expected.tobytes()
    assert list(np.asarray(group["id"][:])) == ids

    assert by_tensorstore(path / "values").read().result().tobytes() == expected.tobytes()
    assert by_tensorstore(path / "values").domain.labels == frames + axes
    utf8 = by_tensorstore(path / "id_utf8").read().result()
    assert [bytes(row).rstrip(b"\0").decode() for row in utf8] == ids

    dataset = xarray.open_zarr(path, chunks=None)
    assert dataset["values"].dims == frames + axes
    assert dataset["values"].dtype == dtype
    assert dataset["values"].values.tobytes() == expected.tobytes()
    assert list(dataset["id"].values) == ids
    beside = {"frame_index", "timestamp_s", "provenance", "id", "id_utf8"}
    assert set(dataset.coords) == beside | ({"offset", "n_frames"} if ragged else set())
    assert dataset["frame_index"].dims == dataset["timestamp_s"].dims == frames
    for row, id in enumerate(ids):
        count, number = len(made[id]), IDS.index(id)
        part: Any = row
        if ragged:
            start = int(dataset["offset"][row])
            assert int(dataset["n_frames"][row]) == count
            part = slice(start, start + count)
        assert dataset["values"][part].values.tobytes() == made[id].tobytes()
        known = number < len(IDS) - 1
        indices = np.arange(count) * 3 + number if known else np.full(count, NO_FRAME)
        np.testing.assert_array_equal(dataset["frame_index"][part].values, indices)
        np.testing.assert_array_equal(dataset["timestamp_s"][part].values, np.arange(count) / (30 if known else np.nan))
        text = str(dataset["provenance"][row].values)
        assert (json.loads(text) if text else None) == store.get_features(key, id).provenance
    own = dataset.attrs["featurestore_pack"]
    assert (own["key"], own["recipe"], own["fingerprint"]) == (str(key), RECIPE, packed.fingerprint)
    assert own["layout"] == ("ragged" if ragged else "stacked")
    assert own["made_with"][0]["featurestore"] == featurestore.__version__
    assert len(own["made_with"]) == 1


def test_a_sample_is_found_by_its_id(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "vectors")
    featurestore.pack(store, KEY, tmp_path / "packed")
    dataset = xarray.open_zarr(tmp_path / "packed", chunks=None).set_xindex("id")
    assert dataset.sel(id="größe")["values"].values.tobytes() == store.get(KEY, "größe").tobytes()


def test_what_no_sample_has_is_left_out(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    store.put_many(KEY, ["a", "b"], np.ones((2, 8, 4), np.float32), recipe=RECIPE)
    pack(store, KEY, tmp_path / "packed")
    assert sorted(zarr.open_group(tmp_path / "packed", mode="r").array_keys()) == ["id", "id_utf8", "values"]
    assert set(xarray.open_zarr(tmp_path / "packed", chunks=None).variables) == {"id", "id_utf8", "values"}


def test_what_was_bfloat16_says_so(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    store = FeatureStore(tmp_path / "store")
    store.put(KEY, "a", np.full((8, 4), 1.5, ml_dtypes.bfloat16), recipe=RECIPE)
    store.put(KEY, "b", np.full((8, 4), 1.5, np.float32), recipe=RECIPE)
    pack(store, KEY, tmp_path / "packed")
    dataset = xarray.open_zarr(tmp_path / "packed", chunks=None)
    assert list(dataset["made_in"].values) == ["bfloat16", ""]
    assert dataset["values"].dtype == np.float32


def test_axes_that_are_called_like_a_variable(tmp_path: Path) -> None:
    store, values = FeatureStore(tmp_path / "store"), np.arange(2 * 8 * 3 * 4 * 5, dtype=np.float32)
    store.put_many(KEY, ["a", "b"], values.reshape(2, 8, 3, 4, 5), recipe=RECIPE, axes=("id", "id_byte", "values"))
    pack(store, KEY, tmp_path / "packed")
    dataset = xarray.open_zarr(tmp_path / "packed", chunks=None)
    assert dataset["values"].dims == ("sample", "frame", "id_axis", "id_byte_axis", "values_axis")
    assert dataset["values"].values.tobytes() == values.tobytes()


def test_equal_features_make_equal_packs_and_a_zip_has_the_same_files(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "layers")
    for name in ("one", "two", "one.zip", "two.zip"):
        pack(store, KEY, tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zarr.storage.ZipStore(tmp_path / "one.zip", mode="r") as zipped:
        dataset = xarray.open_zarr(zipped, chunks=None)
        xarray.testing.assert_identical(dataset.load(), xarray.open_zarr(tmp_path / "one", chunks=None).load())
    kvstore = {"driver": "zip", "base": {"driver": "file", "path": str(tmp_path / "one.zip")}, "path": "values/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    assert array.read().result().tobytes() == dataset["values"].values.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "one.zip", "store", "two", "two.zip"]


def test_a_flipped_bit_in_a_pack_is_noticed(tmp_path: Path) -> None:
    """The checksum is there: of a bit in the middle of a chunk each reader says so."""
    store = filled(tmp_path / "store", "vectors")
    pack(store, KEY, tmp_path / "packed")
    chunk = next(path for path in (tmp_path / "packed" / "values" / "c").rglob("*") if path.is_file())
    flip(chunk, chunk.stat().st_size // 2)
    with pytest.raises(RuntimeError, match=r"checksum|corruption|Zstd"):
        zarr.open_group(tmp_path / "packed", mode="r")["values"][:]
    with pytest.raises(ValueError, match="match checksum"):
        by_tensorstore(tmp_path / "packed" / "values").read().result()


def test_memory_is_that_of_a_block_whatever_the_number_of_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "SHARD_BYTES", 1 << 20)
    monkeypatch.setattr(packs, "BLOCK_BYTES", 1 << 20)
    store = FeatureStore(tmp_path / "store")
    values = np.random.default_rng(0).integers(0, 255, (1024, 8, 4096), np.uint8)  # 32 MiB
    store.put_many(KEY, [f"s{number}" for number in range(1024)], values, recipe=RECIPE)
    pack(store, KEY, tmp_path / "before")  # what is imported and remembered

    def peak(name: str) -> int:
        tracemalloc.start()
        pack(store, KEY, tmp_path / name)
        (_, most), _ = tracemalloc.get_traced_memory(), tracemalloc.stop()
        return most

    assert peak("blocks") < 12 << 20
    monkeypatch.setattr(packs, "BLOCK_BYTES", 1 << 30)
    assert peak("at once") > 32 << 20


@pytest.mark.parametrize("name", ["packed", "packed.zip"])
def test_what_exists_is_refused(tmp_path: Path, name: str) -> None:
    store, path = filled(tmp_path / "store", "vectors"), tmp_path / name

    def refused() -> None:
        with pytest.raises(ExistsError, match=rf"{name} exists, .* name a path where nothing is"):
            pack(store, KEY, path)

    path.mkdir()
    refused()
    path.rmdir()
    path.write_bytes(b"mine")
    refused()
    assert path.read_bytes() == b"mine"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    refused()


class _Full:
    """A disk on which the n-th array write finds no space."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
        self.calls, self.at, self.error, self.write = 0, at, error, packs._Column._write
        monkeypatch.setattr(packs._Column, "_write", lambda column, count: self(column, count))

    def __call__(self, column: Any, count: int) -> None:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        self.write(column, count)


@pytest.mark.parametrize("name", ["packed", "packed.zip"])
def test_a_disk_that_fills_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store = filled(tmp_path / "store", "vectors")
    no_space = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for at in (1, 4):
        with monkeypatch.context() as patch:
            _Full(patch, at, no_space)
            with pytest.raises(
                StoreError, match=rf"nothing of it is left: No space left on device; free some space, .*{name}"
            ):
                pack(store, KEY, tmp_path / name)
            assert [path.name for path in tmp_path.iterdir()] == ["store"]
    with monkeypatch.context() as patch:
        _Full(patch, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            pack(store, KEY, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert pack(store, KEY, tmp_path / name).samples == len(IDS)


def test_a_pack_that_does_not_clean_up_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the test before."""
    store = filled(tmp_path / "store", "vectors")
    _Full(monkeypatch, 2, OSError(errno.ENOSPC, "full"))
    monkeypatch.setattr(packs.shutil, "rmtree", lambda *args, **options: None)
    with pytest.raises(StoreError):
        pack(store, KEY, tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] != ["store"]
    assert not (tmp_path / "packed").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "vectors")
    with pytest.raises(
        StoreError, match=r"nothing of it is left: No such file or directory; look at the path: .*no/packed"
    ):
        pack(store, KEY, tmp_path / "no" / "packed")


def test_nothing_stored_and_a_recipe_that_is_not_clear(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "vectors")
    with pytest.raises(MissingFeatureError, match="nothing is stored under mine/face/E/uniform/8"):
        pack(store, "mine/face/E/uniform/8", tmp_path / "packed")
    store.put_many(KEY, ["a"], np.ones((1, 8, 4), np.float32), recipe={"weights": "y"})
    with pytest.raises(AmbiguousRecipeError):
        pack(store, KEY, tmp_path / "packed")
    other = next(name for name, recipe in store.recipes(KEY).items() if recipe.data == {"weights": "y"})
    assert pack(store, KEY, tmp_path / "packed", fingerprint=other[:8]).samples == 1


@pytest.mark.parametrize("where", ["values", "lines", "table"])
def test_what_is_damaged_is_not_left_out_silently(tmp_path: Path, where: str) -> None:
    filled(tmp_path / "store", "vectors")
    segment = segment_dirs(tmp_path / "store", KEY)[-1]
    file = segment / ("c.0.0.0" if where == "values" else "rows")
    flip(file, {"values": 100, "lines": file.stat().st_size - 20, "table": 3}[where])
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(CorruptSegmentError, match=r"full=True, repair=True"):
        pack(store, KEY, tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def during(do: Callable[[], object]) -> Callable[[int], None]:
    """Progress that does something once, after the first block."""
    once: Iterator[object] = iter([do])
    return lambda count: next((None for each in once if each()), None)


def test_segments_that_are_merged_and_removed_meanwhile_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "BLOCK_SAMPLES", 1)
    store, other = filled(tmp_path / "store", "vectors"), FeatureStore(tmp_path / "store")

    def merge() -> None:
        assert other.compact(KEY) > 1
        other.gc(KEY, grace_s=0)

    assert pack(store, KEY, tmp_path / "packed", progress=during(merge)).samples == len(IDS)
    pack(other, KEY, tmp_path / "after")
    assert len(segment_dirs(tmp_path / "store", KEY)) == 1
    values = [zarr.open_group(tmp_path / name, mode="r")["values"][:] for name in ("packed", "after")]
    assert np.asarray(values[0]).tobytes() == np.asarray(values[1]).tobytes()


def test_samples_that_are_deleted_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "BLOCK_SAMPLES", 1)
    store, other = filled(tmp_path / "store", "ragged"), FeatureStore(tmp_path / "store")

    def delete() -> None:
        other.delete(ALL, IDS[:-1])
        other.compact(ALL)
        other.gc(ALL, grace_s=0)

    with pytest.raises(
        StoreError, match="was deleted or replaced while it was read: read mine/audio/E/sound/all again"
    ):
        pack(store, ALL, tmp_path / "packed", progress=during(delete))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def problems(schema: Any, value: Any, where: str = "attributes") -> list[str]:
    """What a JSON Schema says against a value, for the words that docs/schemas/pack.json uses."""
    known = {"$schema", "$id", "title", "description", "type", "required", "properties", "additionalProperties"}
    assert set(schema) <= known | {"contains", "items", "const", "enum", "pattern", "minimum"}, schema
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    if not isinstance(value, kinds.get(schema.get("type"), object)) or (
        schema.get("type") == "integer" and value is True
    ):
        return [f"{where} is no {schema['type']}"]
    found = [f"{where} is not {schema['const']}"] if value != schema.get("const", value) else []
    found += [f"{where} is not one of {schema['enum']}"] if value not in schema.get("enum", [value]) else []
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        found.append(f"{where} does not match")
    if isinstance(value, int) and value < schema.get("minimum", value):
        found.append(f"{where} is below {schema['minimum']}")
    if isinstance(value, dict):
        own = schema.get("properties", {})
        found += [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
        if not schema.get("additionalProperties", True):
            found += [f"{where} has {name}" for name in value if name not in own]
        for name, each in own.items():
            found += problems(each, value[name], f"{where}.{name}") if name in value else []
    if isinstance(value, list):
        found += [text for each in value for text in problems(schema.get("items", {}), each, f"{where}[]")]
        if "contains" in schema and all(problems(schema["contains"], each) for each in value):
            found.append(f"{where} has none that is wanted")
    return found


@pytest.mark.parametrize("form", ["vectors", "ragged"])
def test_attributes_are_those_of_the_schema(tmp_path: Path, form: str) -> None:
    key = FORMS[form][0]
    pack(filled(tmp_path / "store", form), key, tmp_path / "packed")
    attributes = json.loads((tmp_path / "packed" / "zarr.json").read_text("utf-8"))["attributes"]
    assert problems(SCHEMA, attributes) == []
    assert attributes["zarr_conventions"] == [packs.CONVENTION]
    assert attributes["featurestore_pack"]["no_frame"] == NO_FRAME
    assert set(attributes["coordinates"].split()) <= set(zarr.open_group(tmp_path / "packed", mode="r").array_keys())

    own = attributes["featurestore_pack"]
    broken: list[dict[str, Any]] = [
        *({**attributes, "featurestore_pack": {n: v for n, v in own.items() if n != name}} for name in own),
        *({name: value for name, value in attributes.items() if name != left} for left in attributes),
        {**attributes, "zarr_conventions": [{**packs.CONVENTION, "uuid": "another"}]},
        {**attributes, "zarr_conventions": [{**packs.CONVENTION, "more": 1}]},
        {**attributes, "coordinates": "values"},
        *({**attributes, "featurestore_pack": {**own, name: "no such"}} for name in own),
    ]
    assert [each for each in broken if not problems(SCHEMA, each)] == []
    try:
        import jsonschema
    except ModuleNotFoundError:
        return
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    assert list(validator.iter_errors(attributes)) == []
    assert all(list(validator.iter_errors(each)) for each in broken)
