"""xarray opens a key of a live store by the name of the engine, and reads no more of it than is looked at."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from store_factories import flip, segment_dirs
from test_packs import ALL, FORMS, IDS, KEY, filled, values_of

from featurestore import FeatureStore
from featurestore.arrays import NO_FRAME
from featurestore.errors import AmbiguousRecipeError, ConfigError, CorruptSegmentError, MissingFeatureError
from featurestore.packs import pack
from featurestore.storage.reader import Segment


def opened(root: Path, key: object, **options: Any) -> xarray.Dataset:
    return xarray.open_dataset(root, engine="featurestore", group=str(key), **options)


class Read:
    """Which samples were read, and how many frames of those of which not all were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows, self.frames = 0, 0
        take, read, part = Segment.take, Segment.read, Segment.read_frames

        def counted_take(segment: Segment, rows: Any, out: Any = None) -> Any:
            self.rows += len(rows)
            return take(segment, rows, out)

        def counted_read(segment: Segment, row: int) -> Any:
            self.rows += 1
            return read(segment, row)

        def counted_part(segment: Segment, row: int, frames: Any) -> Any:
            self.frames += len(frames)
            return part(segment, row, frames)

        monkeypatch.setattr(Segment, "take", counted_take)
        monkeypatch.setattr(Segment, "read", counted_read)
        monkeypatch.setattr(Segment, "read_frames", counted_part)


@pytest.mark.parametrize("form", FORMS)
def test_a_live_store_reads_as_its_pack_does(tmp_path: Path, form: str) -> None:
    key = FORMS[form][0]
    pack(filled(tmp_path / "store", form), key, tmp_path / "packed")
    live = opened(tmp_path / "store", key)
    packed = xarray.open_zarr(tmp_path / "packed", chunks=None).drop_vars("id_utf8")
    assert set(live.variables) == {*packed.variables, "made_in"}
    assert set(live.coords) == {*packed.coords, "made_in"}
    for name in packed.variables:
        assert live[name].dims == packed[name].dims
        if live[name].dtype != object:
            assert live[name].dtype == packed[name].dtype
            assert live[name].values.tobytes() == packed[name].values.tobytes()
        assert list(live[name].values.ravel()) == list(packed[name].values.ravel()) or name == "timestamp_s"
    assert live.attrs["key"] == str(key)
    assert live.attrs["fingerprint"] == packed.attrs["featurestore_pack"]["fingerprint"]


@pytest.mark.parametrize("form", ["tokens", "ragged tokens"])
def test_indexing_is_that_of_numpy(tmp_path: Path, form: str) -> None:
    key = FORMS[form][0]
    filled(tmp_path / "store", form)
    lazy = opened(tmp_path / "store", key)["values"]
    made = dict(zip(IDS, values_of(form), strict=True))
    expected = (np.concatenate if key is ALL else np.stack)([made[id] for id in sorted(IDS)])
    for index in [
        np.s_[1], np.s_[-1], np.s_[1:4], np.s_[::-2], np.s_[:0], np.s_[[2, 0, 2]], np.s_[1, 2], np.s_[1, :, 3],
        np.s_[:, -1, 1:3], np.s_[..., 0], np.s_[2, ::2, -1], np.s_[2:0:-1, 1:], np.s_[:],
    ]:  # fmt: skip
        np.testing.assert_array_equal(lazy[index].values, expected[index], strict=True)
    rows, last = [3, 1], [0, 2, 4]
    outer = expected[np.ix_(rows, range(expected.shape[1]), last)] if key is ALL else expected[rows][..., last]
    np.testing.assert_array_equal(lazy[rows][..., last].values, outer)
    points = xarray.DataArray([0, 2, 1], dims="point")
    np.testing.assert_array_equal(
        lazy.isel({lazy.dims[0]: points, lazy.dims[1]: points}), expected[[0, 2, 1], [0, 2, 1]]
    )


def test_only_what_is_looked_at_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "store", "tokens").compact(KEY)
    read = Read(monkeypatch)
    dataset = opened(tmp_path / "store", KEY)
    part = dataset.isel(sample=[0, 3], frame=slice(2, 4)).set_xindex("id")
    assert "..." in repr(dataset)
    assert read.rows == 0
    assert part["values"].values.shape == (2, 2, 257, 32)
    assert read.rows == 2
    assert dataset["values"][4].values.shape == (8, 257, 32)
    assert read.rows == 3
    assert dataset["values"].values.shape == (6, 8, 257, 32)  # the mutant: all of them are more
    assert read.rows == 9


def test_of_ragged_samples_only_the_frames_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "store", "ragged")
    dataset = opened(tmp_path / "store", ALL)
    read = Read(monkeypatch)
    start = int(dataset["offset"][sorted(IDS).index("s" * 300)])
    assert dataset["values"][start + 1 : start + 4].values.shape == (3, 1280)
    assert (read.rows, read.frames) == (0, 3)
    assert dataset["values"][start - 1 : start + 1].values.shape == (2, 1280)  # of two samples
    assert (read.rows, read.frames) == (0, 5)


def test_a_damaged_sample_does_not_keep_the_others_back(tmp_path: Path) -> None:
    filled(tmp_path / "store", "vectors")
    flip(segment_dirs(tmp_path / "store", KEY)[-1] / "c.0.0.0", 100)  # the id that was stored last
    dataset = opened(tmp_path / "store", KEY)
    damaged = sorted(IDS).index(IDS[-1])
    others = [row for row in range(len(IDS)) if row != damaged]
    assert dataset["values"][others].values.shape == (5, 8, 768)
    with pytest.raises(CorruptSegmentError, match="checksum differs"):
        dataset["values"][damaged].load()


def test_a_dataset_is_pickled_without_what_is_open(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "layers")
    dataset = opened(tmp_path / "store", KEY)
    assert dataset["values"][0].values.shape == (8, 25, 32)
    again = pickle.loads(pickle.dumps(dataset))
    at = sorted(IDS).index("größe")
    assert again["values"][at].values.tobytes() == store.get(KEY, "größe").tobytes()


def test_what_is_not_known_of_a_sample(tmp_path: Path) -> None:
    filled(tmp_path / "store", "vectors")
    one = opened(tmp_path / "store", KEY).isel(sample=sorted(IDS).index(IDS[-1]))
    assert set(one["frame_index"].values.tolist()) == {NO_FRAME}
    assert np.isnan(one["timestamp_s"].values).all()
    assert (one["provenance"].item(), one["made_in"].item()) == ("", "")
    other = opened(tmp_path / "store", KEY).isel(sample=sorted(IDS).index("a b"))
    assert json.loads(other["provenance"].item())["sources"][0]["path"] == "/media/a b.mp4"


def test_variables_may_be_left_out(tmp_path: Path) -> None:
    filled(tmp_path / "store", "vectors")
    assert set(opened(tmp_path / "store", KEY, drop_variables=["provenance", "made_in"]).variables) == {
        "values", "id", "frame_index", "timestamp_s",
    }  # fmt: skip
    assert "id" not in opened(tmp_path / "store", KEY, drop_variables="id").variables


def test_which_key_and_which_recipe_must_be_clear(tmp_path: Path) -> None:
    store = filled(tmp_path / "store", "vectors")
    with pytest.raises(ConfigError, match=r"say which key of .*store is meant: group="):
        xarray.open_dataset(store.root, engine="featurestore")
    with pytest.raises(MissingFeatureError, match="nothing is stored under mine/face/E/uniform/8"):
        opened(store.root, "mine/face/E/uniform/8")
    store.put_many(KEY, ["a"], np.ones((1, 8, 4), np.float32), recipe={"weights": "y"})
    with pytest.raises(AmbiguousRecipeError):
        opened(store.root, KEY)
    other = next(name for name, recipe in store.recipes(KEY).items() if recipe.data == {"weights": "y"})
    assert opened(store.root, f"{KEY}@{other[:8]}")["values"].shape == (1, 8, 4)


def test_nothing_is_written(tmp_path: Path) -> None:
    filled(tmp_path / "store", "vectors")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    opened(tmp_path / "store", KEY).load()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(MissingFeatureError):
        opened(tmp_path / "none", KEY)
    assert not (tmp_path / "none").exists()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_package_does_without_xarray(tmp_path: Path) -> None:
    FeatureStore(tmp_path).put_many(KEY, ["a"], np.ones((1, 8, 4), np.float32), recipe={})
    code = "import sys; sys.modules['xarray'] = None\n"
    reads = f"import featurestore as f; print(f.FeatureStore({str(tmp_path)!r}).get({str(KEY)!r}, 'a').shape)"
    assert run(code + reads) == "(8, 4)\n"
    told = "from featurestore.errors import MissingPackageError\ntry: import featurestore.xarray_engine\n"
    told += "except MissingPackageError as error: print(error)"
    assert "xarray is not installed" in run("import sys\n" + BLOCKED + told)


BLOCKED = """
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "xarray":
            raise ModuleNotFoundError("No module named 'xarray'", name="xarray")
sys.meta_path.insert(0, Blocked())
"""
