"""The manifest and the catalogue: what a feature set consists of, for readers that cannot list folders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from store_factories import ALL, KEY, RECIPE, Making, batch, fill, flip, segment_dirs, values_of

from featurestore import Failure, FeatureKey, Features, FeatureStore, extract
from featurestore.errors import CorruptSegmentError
from featurestore.storage.layout import Layout
from featurestore.storage.manifest import read_manifest
from featurestore.storage.reader import RECORD, seal_of

IDS = ["a", "b", "c"]


def layout_of(store: FeatureStore) -> Layout:
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    return feature_set.layout


def test_a_manifest_says_all_that_a_folder_would(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b", "c"])
    store.compact(KEY)
    layout = layout_of(store)
    document = read_manifest(layout)
    (segment,) = [path for path in segment_dirs(tmp_path) if len(list(path.iterdir())) == 4]  # it replaces the others
    (entry,) = document["segments"]
    assert (entry["name"], entry["samples"], len(entry["replaces"])) == (segment.name, 3, 2)
    assert set(entry["files"]) == {"zarr.json", "rows", "c.0.0.0"}
    for name, said in entry["files"].items():
        raw = (segment / name).read_bytes()
        assert said == {"bytes": len(raw), "blake2b": hashlib.blake2b(raw, digest_size=32).hexdigest()}
    table = layout.manifest_rows.read_bytes()
    assert document["rows"] == {
        "bytes": len(table),
        "blake2b": hashlib.blake2b(table, digest_size=32).hexdigest(),
    }
    assert table == (segment / "rows").read_bytes()[: 3 * RECORD.itemsize]
    assert (document["key"], document["fingerprint"], document["format"]) == (str(KEY), layout.fingerprint, 2)
    assert (document["generation"], len(document["commits"]), document["gone"]) == (1, 1, [])
    raw = layout.manifest.read_bytes()
    assert len(set(seal_of(raw))) == 1


def test_what_was_there_before_is_gone_and_must_not_come_back(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"], ["b"])
    store.compact(KEY)
    first = read_manifest(layout_of(store))
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    store.put_many(KEY, ["c"], batch(["c"]), recipe=RECIPE)
    store.compact(KEY)
    store.gc(KEY, grace_s=0)
    second = read_manifest(layout_of(store))
    assert second["gone"] == [first["segments"][0]["name"]]
    assert second["generation"] == 2
    assert second["commits"][:-1] == first["commits"]


class InTurn(Making):
    """Takes its ids one after the other, as `extract` gives them."""

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[tuple[str, Features | Failure]]:
        for id in ids:
            yield id, Features(values_of(id))


def test_extract_writes_it_at_its_end(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, compute=InTurn())
    extract(store, KEY, IDS)
    document = read_manifest(layout_of(store))
    assert sum(segment["samples"] for segment in document["segments"]) == 3
    catalogue = json.loads((tmp_path / ".fstore" / "catalog.json").read_bytes())
    assert catalogue["keys"] == {str(KEY): [layout_of(store).fingerprint]}
    store.put_many(ALL, ["r"], [values_of("r", 2)], recipe=RECIPE)
    store.compact(ALL)
    raw = (tmp_path / ".fstore" / "catalog.json").read_bytes()
    assert sorted(json.loads(raw)["keys"]) == sorted([str(KEY), str(ALL)])
    assert len(set(seal_of(raw))) == 1


def test_a_damaged_manifest_is_told_and_written_anew(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.compact(KEY)
    layout = layout_of(store)
    flip(layout.manifest, 20)
    with pytest.raises(CorruptSegmentError, match=r"manifest\.json fails its seal"):
        read_manifest(layout)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(KEY, "a"), values_of("a"))  # nobody here needs it
    store.compact(KEY)
    assert read_manifest(layout)["generation"] == 1


def test_without_a_manifest_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(layout_of(fill(tmp_path, IDS)))
