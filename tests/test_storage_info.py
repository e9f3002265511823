"""What a store says of a feature set and of one sample, against what was put and what the command line counts."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
from cli_factories import run
from store_factories import ALL, DIM, KEY, RECIPE, Making, batch, fill, flip, recipe_dir, segment_dirs, values_of

from featurestore import Failure, FeatureKey, FeatureStore, MissingFeatureError, Recipe
from featurestore.errors import AmbiguousRecipeError, InvalidIdError, UnknownRecipeError
from featurestore.storage.info import FeatureSetInfo

FINGERPRINT = Recipe(RECIPE).fingerprint


def agrees(root: Path, key: FeatureKey) -> FeatureSetInfo:
    """What `store.info` says, which must be what `fstore info` counts from the documents alone."""
    info = FeatureStore(root).info(key)
    (told,) = json.loads(run("info", key, "--store", root, "--json").stdout)
    assert (told["key"], told["recipe"], told["dtype"]) == (str(info.key), info.fingerprint, info.dtype)
    assert told["shapes"] == [list(shape) for shape in info.shapes]
    assert told["recipe_document"] == (None if info.recipe is None else info.recipe.data)
    for name in ("samples", "bytes", "segments", "replaced", "replaced_bytes", "damaged", "failures"):
        assert told[name] == getattr(info, name), name
    assert sum(made["segments"] for made in told["made_with"]) == len(info.made_with) == info.segments
    return info


def test_info_sums_up_a_feature_set(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a", "b"], ["c"])
    info = agrees(tmp_path, KEY)
    assert (info.key, info.fingerprint, info.recipe) == (KEY, FINGERPRINT, Recipe(RECIPE))
    assert (info.samples, info.shapes, info.dtype, info.segments) == (3, ((4, DIM),), "float32", 2)
    assert info.bytes == sum(path.stat().st_size for one in segment_dirs(tmp_path) for path in one.iterdir())
    assert (info.replaced, info.replaced_bytes, info.replaced_at, info.damaged, info.failures) == (0, 0, None, 0, 0)
    assert info.made_with[0]["numpy"] == np.__version__
    assert store.info(str(KEY), fingerprint=FINGERPRINT[:6]) == info
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.samples = 4  # type: ignore[misc]


def test_info_counts_what_was_replaced_failed_and_damaged(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a", "b"], ["c"])
    store.info(KEY)
    before = time.time()
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.fail("bad", Failure("media", "an HTML page"))
    info = agrees(tmp_path, KEY)
    assert store.info(KEY) == info
    assert (info.samples, info.segments, info.replaced, info.failures) == (3, 2, 1, 1)
    assert info.replaced_bytes > 2 * 4 * DIM * 4
    assert info.replaced_at is not None
    assert before - 1 <= info.replaced_at <= time.time() + 1
    store.gc(KEY, grace_s=0)
    assert store.info(KEY).replaced == 0
    (segment_dirs(tmp_path)[0] / "rows").write_bytes(b"")
    assert agrees(tmp_path, KEY).damaged == 1
    (recipe_dir(tmp_path) / "zarr.json").write_text("{}")
    assert agrees(tmp_path, KEY).recipe is None


def test_info_has_every_shape_of_an_all_key_once(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    for id, n in (("a", 1), ("b", 3), ("c", 1)):
        store.put(ALL, id, values_of(id, n), recipe=RECIPE)
    assert agrees(tmp_path, ALL).shapes == ((1, DIM), (3, DIM))
    store.put_many(ALL, ["d", "e"], [values_of("d", 3), values_of("e", 2)], recipe=RECIPE)
    assert agrees(tmp_path, ALL).shapes == ((1, DIM), (3, DIM), (2, DIM))


def test_info_and_explain_of_frames_with_axes_of_their_own(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = [values_of(id, n, 8).reshape(n, 2, 4) for id, n in (("a", 2), ("b", 1))]
    store.put_many(ALL, ["a", "b"], values, recipe=RECIPE, axes=("token", "feature"))
    assert agrees(tmp_path, ALL).shapes == ((2, 2, 4), (1, 2, 4))
    found = store.explain(ALL, "b")
    assert (found.shape, found.axes) == ((1, 2, 4), ("token", "feature"))
    store.put_many(KEY, ["a"], np.ones((1, 4, 2, 4), np.uint8), recipe=RECIPE)
    assert agrees(tmp_path, KEY).shapes == ((4, 2, 4),)
    assert store.explain(KEY, "a").axes == ("axis_1", "feature")


def test_what_was_never_committed_is_not_counted(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], ["c"])
    (segment_dirs(tmp_path)[0] / "zarr.json").unlink()
    info = agrees(tmp_path, KEY)
    assert (info.samples, info.segments, info.damaged) == (1, 1, 0)


def test_info_and_explain_say_where_nothing_is_stored(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    near = dataclasses.replace(KEY, sampling="unifrom")
    own = Recipe(Making().settings).fingerprint[:8]
    for store, key, said in [
        (FeatureStore(tmp_path), near, f"nothing is stored under {near} in {tmp_path}; did you mean {KEY}\\?"),
        (FeatureStore(tmp_path / "other"), KEY, r"; `store\.keys\(\)` lists what is"),
        (FeatureStore(tmp_path, compute=Making()), KEY, f"nothing is stored under {KEY}@{own} in .*; `store.keys"),
    ]:
        with pytest.raises(MissingFeatureError, match=said):
            store.info(key)
        with pytest.raises(MissingFeatureError, match=said):
            store.explain(key, "a")
    with pytest.raises(UnknownRecipeError, match="no recipe begins with '000000'"):
        FeatureStore(tmp_path).info(KEY, fingerprint="000000")
    FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["x"]), recipe={"other": 1})
    with pytest.raises(AmbiguousRecipeError, match="say which with fingerprint="):
        FeatureStore(tmp_path).info(KEY)
    assert FeatureStore(tmp_path).info(KEY, fingerprint=FINGERPRINT).recipe == Recipe(RECIPE)


def test_explain_says_where_a_sample_is_and_what_it_was_made_of(tmp_path: Path) -> None:
    store = fill(tmp_path, ["a"])
    frames, seconds = np.array([0, 5, 10, 15]), np.array([0.0, 0.2, 0.4, 0.6])
    store.put(
        KEY, "b", values_of("b"), recipe=RECIPE, frame_indices=frames, timestamps_s=seconds, provenance={"note": 1}
    )
    found = store.explain(KEY, "b")
    assert (found.key, found.fingerprint, found.recipe, found.id) == (KEY, FINGERPRINT, Recipe(RECIPE), "b")
    assert (found.stored, found.segment, found.row) == (True, segment_dirs(tmp_path)[1].name, 0)
    assert (found.shape, found.dtype, found.axes, found.problem) == ((4, DIM), "float32", ("feature",), None)
    assert (found.frame_indices, found.timestamps_s) == (frames.tolist(), seconds.tolist())
    assert found.provenance == {"note": 1}
    assert found.made_with["numpy"] == np.__version__
    bare = store.explain(KEY, "a")
    assert (bare.stored, bare.frame_indices, bare.provenance) == (True, None, None)


def test_explain_says_why_a_sample_is_not_there_and_computes_nothing(tmp_path: Path) -> None:
    making = Making(RECIPE)
    store = FeatureStore(tmp_path, compute=making)
    store.put(KEY, "a", values_of("a"), recipe=RECIPE)
    feature_set = store.feature_set(KEY)
    assert feature_set is not None
    feature_set.fail("bad", Failure("media", "an HTML page"))
    assert (store.explain(KEY, "x").stored, store.explain(KEY, "x").failure) == (False, None)
    record = store.explain(KEY, "bad").failure
    assert record is not None
    assert record.message == "an HTML page"
    flip(segment_dirs(tmp_path)[0] / "c.0.0.0", 8)
    assert "row 0" in str(FeatureStore(tmp_path).explain(KEY, "a").problem)
    with pytest.raises(InvalidIdError, match="sample id"):
        store.explain(KEY, "")
    assert making.asked == []
