"""Rows under another recipe: the run stops and offers three ways, and each of them works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calm_run import quiet

from affect_infer.results import read_results
from affect_infer.run.certificate import Certificate, certificate_path
from affect_infer.run.parity import certify, require_finite
from affect_infer.settings.settings import Settings
from featurestore import Features, FeatureStore, Recipe
from featurestore.demo import CLIPS
from featurestore.errors import ConfigError, InputError, MissingFeatureError, RecipeError, UnknownRecipeError

IDS = [clip.id for clip in CLIPS]
FRAME = "mer2023/frame/QUICK_PIXELS/emotion_peak/8"
IMPORTED = {"origin": "imported", "from": "npy"}
Stored = Callable[..., Settings]


@pytest.fixture
def imported(stored: Stored, full_store: Path, tmp_path: Path) -> Stored:
    """Settings over a store whose frames, two missing, are under a recipe that says they were imported."""
    root = tmp_path / "features"
    shutil.copytree(full_store, root)
    store = FeatureStore(root)
    (own,) = store.recipes(FRAME)
    rows = [store.get_features(FRAME, id) for id in IDS]
    store.delete(FRAME, IDS, fingerprint=own)
    shutil.rmtree(root.joinpath("data", *FRAME.split("/"), own))
    values = np.stack([row.values for row in rows])
    indices = np.stack([row.frame_indices for row in rows])  # type: ignore[misc]
    FeatureStore(root).put_many(FRAME, IDS[:10], values[:10], recipe=IMPORTED, frame_indices=indices[:10])

    def make(**changes: object) -> Settings:
        settings = stored(**changes)
        return replace(settings, tasks=(replace(settings.tasks[0], store=root),))

    return make


def prefix(settings: Settings) -> str:
    store = FeatureStore(settings.tasks[0].store)
    return next(name for name, recipe in store.recipes(FRAME).items() if recipe.data == IMPORTED)[:8]


def test_the_run_stops_and_names_the_ways_out(imported: Stored) -> None:
    settings = imported()
    with pytest.raises(RecipeError) as caught:
        quiet(settings)
    text = str(caught.value)
    assert f"{prefix(settings)}  10 samples" in text
    assert f"--frame-recipe {prefix(settings)} --allow-mix" in text
    assert "--recompute" in text


def test_reading_imported_rows_makes_misses_errors(imported: Stored, tmp_path: Path) -> None:
    chosen = {"frame_recipe": prefix(imported())}
    with pytest.raises(InputError, match=rf"frame: 2\n    sample '{IDS[10]}' is not stored under {FRAME}@"):
        quiet(imported(values=chosen))
    report = quiet(imported(values={**chosen, "on_missing": "skip"}))
    assert report.answered == 10
    assert report.counts["frame"] == {"disk": 10}


def test_mixing_needs_a_certificate(imported: Stored) -> None:
    mixing = {"frame_recipe": prefix(imported()), "allow_mix": True}
    with pytest.raises(RecipeError, match=r"nobody has compared .*affect-infer parity"):
        quiet(imported(values=mixing))


def test_mixing_with_a_certificate_is_counted_per_sample(imported: Stored) -> None:
    mixing = {"frame_recipe": prefix(imported()), "allow_mix": True}
    ((certificate, path),) = certify(imported(values=mixing), samples=4)
    assert certificate.may_mix
    assert certificate.same_rows
    assert certificate.max_abs == 0.0
    assert path.is_relative_to(imported().tasks[0].store / "parity")
    report = quiet(imported(values=mixing))
    assert report.counts["frame"] == {"disk": 10, "computed": 2}
    assert sorted(report.recipes["frame"].values()) == [2, 10]
    assert any("two recipes may be mixed: max-abs 0 of" in note for note in report.notes)
    lines = read_results(report.files[0])[1]
    assert [lines[id]["inputs"]["frame"]["answer"] for id in IDS] == ["disk"] * 10 + ["computed"] * 2
    assert lines[IDS[0]]["inputs"]["frame"]["recipe"].startswith(prefix(imported()))


def test_rows_of_other_weights_may_not_be_mixed(imported: Stored) -> None:
    mixing = {"frame_recipe": prefix(imported()), "allow_mix": True}
    shifted = imported(values={**mixing, "weights": {"QUICK_PIXELS": "random:1"}}, policies={"face": "store_only"})
    ((certificate, _),) = certify(shifted, samples=4)
    assert not certificate.may_mix
    assert certificate.max_abs == pytest.approx(0.25, abs=1e-6)
    with pytest.raises(RecipeError, match=r"may not be mixed: max-abs 0\.25 .*beyond the tolerance"):
        quiet(shifted)


def test_other_frames_may_not_be_mixed_however_alike(imported: Stored) -> None:
    store = FeatureStore(imported().tasks[0].store)
    row = store.get_features(FRAME, IDS[0])
    assert row.frame_indices is not None
    other = Recipe({"origin": "imported", "from": "elsewhere"})
    store.put_many(FRAME, [IDS[0]], row.values[None], recipe=other, frame_indices=row.frame_indices[None] + 1)
    ((certificate, _),) = certify(imported(values={"frame_recipe": other.fingerprint}), samples=12)
    assert certificate.max_abs == 0.0
    assert not certificate.may_mix
    assert certificate.verdict() == "other frames were taken (1 samples compared)"


def test_recomputing_leaves_imported_rows_where_they_are(imported: Stored) -> None:
    report = quiet(imported(values={"recompute": True}))
    assert report.counts["frame"] == {"computed": 12}
    store = FeatureStore(imported().tasks[0].store)
    assert sorted(len(store.ids(FRAME, fingerprint=name)) for name in store.recipes(FRAME)) == [10, 12]


def test_a_prefix_that_means_nothing_lists_what_there_is(imported: Stored) -> None:
    with pytest.raises(UnknownRecipeError, match=rf"--frame-recipe 012345: .*{prefix(imported())} \(10 samples\)"):
        quiet(imported(values={"frame_recipe": "012345"}))


def test_options_that_contradict_each_other(stored: Stored) -> None:
    with pytest.raises(ConfigError, match="--allow-mix needs --frame-recipe"):
        stored(values={"allow_mix": True})
    with pytest.raises(ConfigError, match="give one"):
        stored(values={"frame_recipe": "abcdef", "recompute": True})
    with pytest.raises(ConfigError, match="frames of mer2023 are live; add --policy frame=store"):
        stored(values={"frame_recipe": "abcdef"}, policies={"frame": "live"})


def test_a_broken_certificate_is_not_trusted(imported: Stored) -> None:
    mixing = {"frame_recipe": prefix(imported()), "allow_mix": True}
    ((_, path),) = certify(imported(values=mixing), samples=2)
    path.write_text("{")
    with pytest.raises(RecipeError, match="cannot be read"):
        quiet(imported(values=mixing))


def test_nothing_stored_is_nothing_to_compare(stored: Stored, tmp_path: Path) -> None:
    settings = stored()
    empty = replace(settings, tasks=(replace(settings.tasks[0], store=tmp_path / "empty"),))
    with pytest.raises(MissingFeatureError, match="nothing is stored under"):
        certify(empty, samples=2)


def test_certificates_lie_beside_the_features_and_not_among_them(tmp_path: Path) -> None:
    from featurestore import FeatureKey

    path = certificate_path(tmp_path, FeatureKey.parse(FRAME), "a" * 16, "b" * 16)
    assert path.relative_to(tmp_path).parts[0] == "parity"
    assert Certificate.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_not_compared(value: float) -> None:
    whole, broken = (Features(np.full((2, 3), each, np.float32)) for each in (1, value))
    require_finite([(whole, whole)])
    for pair in ((broken, whole), (whole, broken)):
        with pytest.raises(InputError, match="rows to be compared hold NaN or infinities"):
            require_finite([(whole, whole), pair])
