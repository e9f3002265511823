"""The manifest and the catalogue: what a feature set consists of, for readers that cannot list folders."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from store_factories import ALL, KEY, RECIPE, Making, batch, fill, flip, segment_dirs, values_of

from featurestore import Failure, FeatureKey, Features, FeatureStore, extract
from featurestore.errors import CorruptSegmentError
from featurestore.quality.store_check import check_store
from featurestore.storage.layout import Layout
from featurestore.storage.manifest import read_catalog, read_manifest
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


def damaged(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> tuple[FeatureStore, Path]:
    store = fill(tmp_path, IDS)
    store.compact(KEY)
    path = {"catalog.json": tmp_path / ".fstore" / "catalog.json"}.get(name, layout_of(store).housekeeping / name)
    damage(path)
    return store, path


@pytest.mark.parametrize(
    ("name", "damage", "what"),
    [
        ("manifest.json", lambda path: flip(path, 20), "fails its seal"),
        ("manifest.json", lambda path: path.write_bytes(b""), "fails its seal"),
        ("manifest.json", lambda path: path.write_bytes(path.read_bytes()[:-9]), "fails its seal"),
        ("manifest.rows", lambda path: flip(path, 33), "names another table than the one beside it"),
        ("manifest.rows", lambda path: path.unlink(), "has no table beside it"),
        ("catalog.json", lambda path: flip(path, 20), "fails its seal"),
        ("catalog.json", lambda path: path.write_bytes(b"{}"), "fails its seal"),
    ],
)
def test_verify_finds_and_repairs_what_a_store_says_of_itself(
    tmp_path: Path, name: str, damage: Callable[[Path], None], what: str
) -> None:
    _, path = damaged(tmp_path, name, damage)
    (finding,) = check_store(tmp_path).findings
    shown = path.with_suffix(".json")
    assert (finding.kind, finding.where, finding.what) == ("manifest", str(shown), what)
    assert str(finding) == f"manifest: {shown}: {what}; no local reader needs it; repair writes it anew"
    (finding,) = check_store(tmp_path, repair=True).findings
    assert finding.repaired
    assert check_store(tmp_path, full=True).clean


def test_the_manifest_of_another_feature_set_is_found(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.put_many(ALL, ["r"], [values_of("r", 2)], recipe=RECIPE)
    store.compact(KEY)
    store.compact(ALL)
    other = store.feature_set(ALL)
    assert other is not None
    for name in ("manifest.json", "manifest.rows"):
        shutil.copy(layout_of(store).housekeeping / name, other.layout.housekeeping / name)
    (finding,) = check_store(tmp_path).findings
    assert finding.what == "is that of another feature set"


def test_a_manifest_older_than_the_last_commit_is_no_fault(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.compact(KEY)
    store.put_many(KEY, ["d"], batch(["d"]), recipe=RECIPE)
    store.delete(KEY, ["a"])
    assert check_store(tmp_path).clean


def test_a_manifest_that_is_replaced_meanwhile_is_no_fault(tmp_path: Path) -> None:
    """Its table comes first: for a moment the old manifest lies beside the new table."""
    store = fill(tmp_path, IDS)
    store.compact(KEY)
    layout = layout_of(store)
    old = layout.manifest.read_bytes()
    store.put_many(KEY, ["d"], batch(["d"]), recipe=RECIPE)
    store.compact(KEY)
    new = layout.manifest.read_bytes()
    layout.manifest.write_bytes(old)
    timer = threading.Timer(0.2, layout.manifest.write_bytes, [new])
    timer.start()
    assert check_store(tmp_path).clean
    timer.join()


def test_what_was_removed_is_said_no_more(tmp_path: Path) -> None:
    store = fill(tmp_path, IDS)
    store.put_many(ALL, ["r"], [values_of("r", 2)], recipe=RECIPE)
    store.compact(KEY)
    store.compact(ALL)
    layout = layout_of(store)
    store.feature_set(KEY).remove()  # type: ignore[union-attr]
    assert list(read_catalog(tmp_path)) == [str(ALL)]
    assert not layout.manifest.exists()
    assert not layout.manifest_rows.exists()
