"""A feature set: what is compared before it is put, and what is put beside what others stored."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_factories import KEY, RECIPE, fill, recipe_dir, values_of

from featurestore import Failure, Features, FeatureStore, Recipe
from featurestore.errors import CorruptSegmentError, ExistsError, FormatVersionError, StoreError, UnknownRecipeError
from featurestore.storage import durable, reader
from featurestore.storage import feature_set as room
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.layout import Layout, read_recipe
from featurestore.storage.reader import CorruptRowError, UnknownFormatError

FINGERPRINT = Recipe(RECIPE).fingerprint


def feature_set_at(root: Path) -> FeatureSet:
    return FeatureSet(root, KEY, FINGERPRINT, Recipe(RECIPE))


def features_of(**values: str) -> dict[str, Features]:
    return {id: Features(values_of(value)) for id, value in values.items()}


def stored(root: Path) -> dict[str, str]:
    """{id: the id whose values it has}."""
    store = FeatureStore(root)
    known = {values_of(name).tobytes(): name for name in "abcdxyz"}
    return {id: known[store.get(KEY, id).tobytes()] for id in store.ids(KEY)}


def test_a_shelf_touches_no_disk_until_it_is_used(tmp_path: Path) -> None:
    feature_set = feature_set_at(tmp_path)
    assert feature_set.recipe == Recipe(RECIPE)
    assert "a" not in feature_set.reader
    assert feature_set.failures.all() == {}
    assert list(tmp_path.iterdir()) == []


def test_put_says_how_many_were_not_there(tmp_path: Path) -> None:
    feature_set = feature_set_at(tmp_path)
    assert feature_set.put(features_of(a="a", b="b")) == 2
    assert feature_set.put(features_of(b="b", c="c")) == 1
    assert feature_set.put({}) == 0
    assert stored(tmp_path) == {"a": "a", "b": "b", "c": "c"}


def test_what_others_stored_is_refused_kept_or_replaced_sample_by_sample(tmp_path: Path) -> None:
    feature_set = feature_set_at(tmp_path)
    feature_set.put(features_of(a="a", b="b"))
    with pytest.raises(ExistsError, match=r"1 of 3 samples, e\.g\. 'b', are stored with other values"):
        feature_set.put(features_of(a="x", b="y", c="c"), overwrite=["a"])
    assert stored(tmp_path) == {"a": "a", "b": "b"}
    feature_set.put(features_of(a="x", b="y", c="c"), overwrite=["a"], keep_stored=True)
    assert stored(tmp_path) == {"a": "x", "b": "b", "c": "c"}
    feature_set.put(features_of(a="y", d="d"), keep_stored=True)
    assert stored(tmp_path) == {"a": "x", "b": "b", "c": "c", "d": "d"}


def test_a_put_clears_the_records_of_what_it_stores(tmp_path: Path) -> None:
    feature_set = feature_set_at(tmp_path)
    for id in ("a", "b"):
        feature_set.fail(id, Failure("media", "bad"))
    feature_set.put(features_of(a="a"))
    assert list(feature_set.failures.all()) == ["b"]
    feature_set.fail("a", Failure("media", "bad"))
    feature_set.put(features_of(a="a"))  # the same bits
    assert list(feature_set.failures.all()) == ["b"]


def test_a_failure_is_recorded_with_its_recipe_or_not_at_all(tmp_path: Path) -> None:
    feature_set_at(tmp_path / "store").fail("a", Failure("media", "bad"))
    assert FeatureStore(tmp_path / "store").recipes(KEY) == {FINGERPRINT: Recipe(RECIPE)}
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"the failure of sample 'a' \(bad\) cannot be recorded: File exists"):
        feature_set_at(tmp_path / "file").fail("a", Failure("media", "bad"))


def test_the_recipe_is_read_from_beside_the_segments(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    assert FeatureSet(tmp_path, KEY, FINGERPRINT).recipe == Recipe(RECIPE)
    layout = Layout(tmp_path, KEY, "0123456789abcdef")
    with pytest.raises(UnknownRecipeError, match="cannot be read as a recipe"):
        read_recipe(layout)
    recipe_dir(tmp_path).rename(layout.recipe_dir)
    with pytest.raises(UnknownRecipeError, match="holds another recipe than its folder is named after"):
        read_recipe(layout)


def test_what_the_reader_raises_is_said_in_our_words(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    (segment,) = feature_set_at(tmp_path).reader.segments
    own = StoreError("ours already")
    for error, kind in [
        (UnknownFormatError("upgrade"), FormatVersionError),
        (CorruptRowError(segment, 0, "bad"), CorruptSegmentError),
        (OSError(5, "Input/output error", "/path"), StoreError),
        (own, StoreError),
        (KeyError("not of the disk"), KeyError),
    ]:
        with pytest.raises(kind) as caught, reading(KEY):
            raise error
        assert caught.value is error if kind in (KeyError,) or error is own else caught.value is not error


# -- one sample after the other, beside other processes ----------------------------------------------


def one_clock_tick(monkeypatch: pytest.MonkeyPatch, segments: Path) -> None:
    """All commits seem to be made within one tick of the file system's clock."""
    stat, then = os.stat, segments.stat().st_mtime_ns

    def still(path: Any, **options: Any) -> Any:
        status = stat(path, **options)
        if str(path) != str(segments):
            return status
        return SimpleNamespace(st_mtime_ns=then, st_nlink=status.st_nlink, st_mode=status.st_mode)

    monkeypatch.setattr(reader.os, "stat", still)


def counting_links(root: Path) -> FeatureStore:
    """A store with three segments; skips where this file system does not count folders in links."""
    store = fill(root, ["a"], ["b"], ["c"])
    if segments_of(root).stat().st_nlink != 2 + 3:
        pytest.skip("this file system does not count folders in the links of the one above")
    return store


def segments_of(root: Path) -> Path:
    return recipe_dir(root) / "segments"


@pytest.mark.parametrize("count", [10, 300])
def test_a_commit_of_one_sample_does_not_list_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    store = counting_links(tmp_path)
    monkeypatch.setattr(durable, "fsync", lambda fd: None)
    for number in range(count - 3):
        store.put(KEY, f"s{number}", values_of(f"s{number}"), recipe=RECIPE)
    store.get(KEY, "a")  # which recipe is meant is found once
    listed, opened = [], []
    scandir, listdir, open_segment = os.scandir, os.listdir, reader.open_segment
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or listdir(path))
    monkeypatch.setattr(reader, "open_segment", lambda *args: opened.append(args) or open_segment(*args))
    for id in "xyz":
        assert store.put(KEY, id, values_of(id), recipe=RECIPE)
        assert store.get(KEY, id).tobytes() == values_of(id).tobytes()
    assert listed == []
    assert len(opened) == 3  # the new ones
    assert len(FeatureStore(tmp_path).ids(KEY)) == count + 3


@pytest.mark.parametrize("counts", [True, False])
def test_what_others_commit_between_two_commits_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: bool
) -> None:
    store = counting_links(tmp_path)
    store.put(KEY, "d", values_of("d"), recipe=RECIPE)
    one_clock_tick(monkeypatch, segments_of(tmp_path))
    if not counts:  # the mutant
        changed = reader.Reader._changed
        monkeypatch.setattr(reader.Reader, "_changed", lambda self: (changed(self)[0], 2 + 4))
    store.refresh()
    FeatureStore(tmp_path).put(KEY, "x", values_of("x"), recipe=RECIPE)
    if counts:
        with pytest.raises(ExistsError, match="'x', are stored with other values"):
            store.put(KEY, "x", values_of("y"), recipe=RECIPE)
    else:
        assert store.put(KEY, "x", values_of("y"), recipe=RECIPE)
    assert stored(tmp_path)["x"] == "x"


def test_what_others_commit_during_a_commit_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = counting_links(tmp_path)
    one_clock_tick(monkeypatch, segments_of(tmp_path))
    commit = room.commit

    def beside(*args: Any, **options: Any) -> str:
        monkeypatch.setattr(room, "commit", commit)
        name = commit(*args, **options)
        FeatureStore(tmp_path).put(KEY, "x", values_of("x"), recipe=RECIPE)
        return name

    monkeypatch.setattr(room, "commit", beside)
    store.put(KEY, "d", values_of("d"), recipe=RECIPE)
    with pytest.raises(ExistsError, match="'x', are stored with other values"):
        store.put(KEY, "x", values_of("y"), recipe=RECIPE)
    assert stored(tmp_path) == {id: id for id in "abcdx"}


def test_where_links_do_not_count_a_commit_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on btrfs, where a folder has one link whatever is in it."""
    store = fill(tmp_path, ["a"], ["b"], ["c"])
    segments = segments_of(tmp_path)
    stat, then = os.stat, segments.stat().st_mtime_ns

    def one_link(path: Any, **options: Any) -> Any:
        status = stat(path, **options)
        if str(path) != str(segments):
            return status
        return SimpleNamespace(st_mtime_ns=then, st_nlink=1, st_mode=status.st_mode)

    monkeypatch.setattr(reader.os, "stat", one_link)
    store.refresh()
    FeatureStore(tmp_path).put(KEY, "x", values_of("x"), recipe=RECIPE)
    with pytest.raises(ExistsError, match="'x', are stored with other values"):
        store.put(KEY, "x", values_of("y"), recipe=RECIPE)
