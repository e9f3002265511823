"""Which recipe a call means: its argument, the pin, the compute's, the only one, else an error; never another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import ALL, KEY, Making, batch, fill, flip, reseal, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import (
    AmbiguousRecipeError,
    FormatVersionError,
    MissingFeatureError,
    RecipeError,
    StoreError,
    UnknownRecipeError,
    WeightsNotFoundError,
)
from featurestore.storage.layout import Layout, ensure_levels

ONE, TWO = Recipe({"weights": "one"}), Recipe({"weights": "two", "origin": "import"})


def test_a_misspelt_key_is_told_and_one_of_another_name_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`ids` of what is not stored is an empty list, which alone would hide a typing error."""
    store = fill(tmp_path, ["a"])
    misspelt = str(KEY).replace("uniform", "unifrom")
    for _ in range(2):
        assert store.ids(misspelt) == []
    assert caplog.messages[0] == f"nothing is stored under {misspelt} in {tmp_path}; did you mean {KEY}?"
    with pytest.raises(MissingFeatureError, match=re.escape(f"(nothing is; did you mean {KEY}?), and this store has")):
        store.get(misspelt, "a")
    caplog.clear()
    for other in ("mer2024/frame/CLIP_VIT_LARGE/uniform/4", "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/4"):
        assert store.ids(other) == []
    assert store.ids(str(KEY).replace("/4", "/8")) == []
    assert caplog.messages == []
    assert FeatureStore(tmp_path / "new").ids(misspelt) == []
    assert caplog.messages == []


class Weightless(Making):
    """A compute whose weights are not on this machine."""

    def recipe(self, key: FeatureKey) -> dict[str, Any]:
        super().recipe(key)
        raise WeightsNotFoundError("no weights here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One key under two recipes: `a` is values_of("a") under ONE, values_of("x") under TWO."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=ONE)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=TWO)
    return tmp_path


def is_one(store: FeatureStore, **options: Any) -> bool:
    """Whether all ways of reading mean ONE; else all of them mean TWO."""
    values = [
        store.get(KEY, "a", **options),
        store.get_features(KEY, "a", **options).values,
        store.get_many(KEY, ["a"], **options)[0],
    ]
    one = np.array_equal(values[0], values_of("a"))
    for found in values:
        np.testing.assert_array_equal(found, values_of("a" if one else "x"))
    assert store.get_features(KEY, "a", **options).recipe == (ONE if one else TWO)
    ids = ["a", "b"] if one else ["a"]
    assert store.ids(KEY, **options) == ids
    assert store.available(KEY, ["a", "b"], **options) == ids
    assert store.missing(KEY, ["a", "b", "c"], **options) == [id for id in ["a", "b", "c"] if id not in ids]
    return one


# -- the order -------------------------------------------------------------------------------------


def test_the_only_recipe_is_meant(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=ONE)
    assert is_one(store)
    assert is_one(FeatureStore(tmp_path))


def test_the_argument_comes_before_pin_and_compute(root: Path) -> None:
    making = Making(ONE.data)
    store = FeatureStore(root, compute=making, fingerprints={KEY: ONE.fingerprint})
    assert not is_one(store, fingerprint=TWO.fingerprint)
    for length in (6, 10, 16):
        assert not is_one(store, fingerprint=TWO.fingerprint[:length])
        assert is_one(store, fingerprint=ONE.fingerprint[:length])


def test_the_pin_comes_before_the_compute(root: Path) -> None:
    making = Making(ONE.data)
    for pin in ({KEY: TWO.fingerprint[:8]}, {str(KEY): TWO.fingerprint[:8]}):
        assert not is_one(FeatureStore(root, compute=making, fingerprints=pin))
    assert making.recipes_asked == 0
    # A pin is for one key only.
    with pytest.raises(MissingFeatureError):
        FeatureStore(root, fingerprints={KEY: TWO.fingerprint}).get(ALL, "a")


def test_the_computes_recipe_comes_before_the_only_one(root: Path) -> None:
    assert is_one(FeatureStore(root, compute=Making(ONE.data)))
    assert not is_one(FeatureStore(root, compute=Making(TWO.data)))
    third = FeatureStore(root, compute=Making({"weights": "three"}))
    assert third.ids(KEY) == []
    np.testing.assert_array_equal(third.get(KEY, "a"), values_of("a"))
    assert len(third.recipes(KEY)) == 3


def test_the_compute_is_asked_once_per_key(root: Path) -> None:
    making = Making(ONE.data)
    store = FeatureStore(root, compute=making)
    for _ in range(3):
        store.get(KEY, "a")
        store.refresh()
    assert making.recipes_asked == 1
    store.missing(ALL, ["a"])
    assert making.recipes_asked == 2


def test_several_without_a_choice_are_listed_with_prefix_origin_count_and_date(root: Path) -> None:
    store = FeatureStore(root)
    for read in (
        lambda: store.get(KEY, "a"),
        lambda: store.get_many(KEY, ["a"]),
        lambda: store.get_features(KEY, "a"),
        lambda: store.ids(KEY),
        lambda: store.missing(KEY, ["a"]),
        lambda: store.available(KEY, ["a"]),
        lambda: store.failures(KEY),
        lambda: store.delete(KEY, ["a"]),
        lambda: store.compact(KEY),
    ):
        with pytest.raises(AmbiguousRecipeError) as caught:
            read()
    first, *lines, last = str(caught.value).splitlines()
    assert first == f"{KEY} is stored under 2 recipes:"
    assert last == caught.value.advice == "say which with fingerprint=, the first 6 or more of its digits"
    assert (caught.value.key, caught.value.root) == (KEY, root)
    date = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    expected = {ONE.fingerprint: rf"computed  2 samples  {date}", TWO.fingerprint: rf"import  1 samples  {date}"}
    for line, fingerprint in zip(lines, sorted(expected), strict=True):
        assert re.fullmatch(f"  {fingerprint[:8]}  {expected[fingerprint]}", line)
    assert store.stats.misses == 0


def test_a_miss_under_another_recipe_than_the_computes_is_not_computed(root: Path) -> None:
    """A miss is computed under the compute's own recipe or not at all: the values would be others."""
    making = Making(ONE.data)
    for store in (
        FeatureStore(root, compute=making, fingerprints={KEY: TWO.fingerprint}),
        FeatureStore(root, compute=making),
    ):
        with pytest.raises(MissingFeatureError, match=f"sample 'new' is not stored under {KEY}@{TWO.fingerprint[:8]}"):
            store.get(KEY, "new", fingerprint=TWO.fingerprint)
    assert making.asked == []
    np.testing.assert_array_equal(
        FeatureStore(root, compute=making).get(KEY, "new", fingerprint=ONE.fingerprint[:6]), values_of("new")
    )


def test_the_computes_recipe_may_be_named_before_anything_is_stored_under_it(tmp_path: Path) -> None:
    own = Recipe({"made_by": "Making"}).fingerprint
    for options in ({"fingerprints": {KEY: own[:7]}}, {}):
        store = FeatureStore(tmp_path / str(len(options)), compute=Making(), **options)
        np.testing.assert_array_equal(store.get(KEY, "a", fingerprint=None if options else own), values_of("a"))


def test_a_compute_without_its_weights_does_not_keep_a_named_recipe_from_being_read(root: Path) -> None:
    assert is_one(FeatureStore(root, compute=Weightless()), fingerprint=ONE.fingerprint)
    assert is_one(FeatureStore(root, compute=Weightless(), fingerprints={KEY: ONE.fingerprint}))
    with pytest.raises(WeightsNotFoundError):
        FeatureStore(root, compute=Weightless()).get(KEY, "a")


# -- what cannot be meant --------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "abcde", "ABCDEF12", "xyz123", "abcdef-", "abcde\n"])
def test_a_prefix_is_at_least_6_hex_digits(root: Path, prefix: str) -> None:
    with pytest.raises(RecipeError, match=f"recipe {re.escape(repr(prefix))} is not a prefix of at least 6 hex digits"):
        FeatureStore(root).get(KEY, "a", fingerprint=prefix)


def test_an_unknown_prefix_lists_what_is_stored(root: Path) -> None:
    stored = ", ".join(sorted([ONE.fingerprint, TWO.fingerprint]))
    for store in (FeatureStore(root), FeatureStore(root, compute=Making())):
        with pytest.raises(UnknownRecipeError, match=f"no recipe begins with '000000' under {KEY}; stored: {stored}"):
            store.get(KEY, "a", fingerprint="000000")
    with pytest.raises(UnknownRecipeError, match="stored: none"):
        FeatureStore(root).get(ALL, "a", fingerprint="000000")


def test_a_prefix_of_two_recipes_is_not_enough(tmp_path: Path) -> None:
    same = [Recipe({"n": n}) for n in (1051, 1684)]
    assert same[0].fingerprint[:6] == same[1].fingerprint[:6], [recipe.fingerprint for recipe in same]
    store = FeatureStore(tmp_path)
    for recipe in same:
        store.put_many(KEY, ["a"], batch(["a"]), recipe=recipe)
    with pytest.raises(UnknownRecipeError, match="several recipes begin with"):
        store.get(KEY, "a", fingerprint=same[0].fingerprint[:6])
    assert store.ids(KEY, fingerprint=same[0].fingerprint[:8]) == ["a"]


# -- what changes ----------------------------------------------------------------------------------


def test_a_second_recipe_makes_a_key_ambiguous_at_once_for_the_object_that_put_it(tmp_path: Path) -> None:
    store, other = FeatureStore(tmp_path), FeatureStore(tmp_path)
    store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=ONE)
    assert is_one(store)
    assert is_one(other)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=TWO)
    with pytest.raises(AmbiguousRecipeError):
        store.get(KEY, "a")
    assert is_one(other)  # a snapshot, until it looks again
    other.refresh()
    with pytest.raises(AmbiguousRecipeError):
        other.get(KEY, "a")


def test_a_recipe_without_rows_does_not_make_the_other_one_ambiguous(tmp_path: Path) -> None:
    """A writer that was killed, or ran out of space, before its first commit."""
    store = FeatureStore(tmp_path)
    store.put_many(KEY, ["a", "b"], batch(["a", "b"]), recipe=ONE)
    ensure_levels(Layout(tmp_path, KEY, TWO.fingerprint), TWO)
    assert is_one(FeatureStore(tmp_path))
    assert list(FeatureStore(tmp_path).recipes(KEY)) == sorted([ONE.fingerprint, TWO.fingerprint])
    store.put_many(KEY, ["a"], batch(["x"]), recipe=TWO)
    with pytest.raises(AmbiguousRecipeError):
        FeatureStore(tmp_path).get(KEY, "a")
    flip(segment_dirs_of(tmp_path, TWO)[0] / "zarr.json", 30)
    with pytest.raises(AmbiguousRecipeError):  # damaged is not empty
        FeatureStore(tmp_path).get(KEY, "a")


def segment_dirs_of(root: Path, recipe: Recipe) -> list[Path]:
    folder = root.joinpath("data", *KEY.parts, recipe.fingerprint, "segments")
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_folders_that_are_no_recipes_are_not_taken_for_one(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    key_dir = tmp_path.joinpath("data", *KEY.parts)
    for name in (".ipynb_checkpoints", "lost+found", "0123456789abcdeg", "backup of 531d"):
        (key_dir / name).mkdir()
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "x" / "y" / "z" / "w" / "0").mkdir(parents=True)
    store = FeatureStore(tmp_path)
    assert store.ids(KEY) == ["a"]
    assert len(store.recipes(KEY)) == 1
    assert store.keys() == [KEY]


def test_keys_are_sorted_as_text_and_found_without_being_named(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert store.keys() == []
    keys = [
        KEY,
        FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 16),
        FeatureKey("iemocap", "audio", "HUBERT_LARGE", "const_clips", 8),
        ALL,
    ]
    for key in keys:
        n = 4 if key.n_frames == "all" else key.n_frames
        store.put_many(key, ["a"], [values_of("a", int(n))], recipe=ONE)
    assert store.keys() == sorted(keys, key=str)
    assert [str(key) for key in store.keys()] == sorted(map(str, keys))


def test_a_key_may_be_text_everywhere(root: Path) -> None:
    store = FeatureStore(root, fingerprints={str(KEY): ONE.fingerprint})
    np.testing.assert_array_equal(store.get(str(KEY), "a"), store.get(KEY, "a"))
    assert store.ids(str(KEY)) == ["a", "b"]
    assert list(store.recipes(str(KEY))) == sorted([ONE.fingerprint, TWO.fingerprint])
    with pytest.raises(ValueError, match="has 2 parts, not 5"):
        store.get("mer2023/frame", "a")


# -- damage ----------------------------------------------------------------------------------------


def test_a_recipe_whose_document_is_damaged_is_read_and_said_to_be_damaged(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    document = segment_dirs(tmp_path)[0].parents[1] / "zarr.json"
    flip(document, document.read_bytes().index(b"abc"))
    store = FeatureStore(tmp_path)
    np.testing.assert_array_equal(store.get(KEY, "a"), values_of("a"))  # the segments carry all that is needed
    with pytest.raises(UnknownRecipeError, match="holds another recipe than its folder is named after; `") as caught:
        store.recipes(KEY)
    assert caught.value.advice == f"`featurestore.verify(store, '{KEY}')` says what else is wrong"
    assert (caught.value.key, caught.value.path) == (KEY, document)
    document.write_bytes(b"{")
    with pytest.raises(UnknownRecipeError, match="cannot be read as a recipe"):
        FeatureStore(tmp_path).recipes(KEY)


def test_a_later_format_is_refused_with_the_words_to_upgrade(tmp_path: Path) -> None:
    fill(tmp_path, ["a"])
    document = segment_dirs(tmp_path)[0].parents[1] / "zarr.json"
    raw = document.read_bytes()
    document.write_bytes(raw.replace(b'"format":2', b'"format":3'))
    with pytest.raises(FormatVersionError, match="is format 3, this version reads up to 2; upgrade featurestore"):
        FeatureStore(tmp_path).recipes(KEY)
    document.write_bytes(raw)
    reseal(segment_dirs(tmp_path)[0] / "zarr.json", b'"format":2', b'"format":3')
    store = FeatureStore(tmp_path, compute=Making({"weights": "abc", "origin": "test"}))
    for call in (
        lambda: store.get(KEY, "a"),
        lambda: store.get_many(KEY, ["a"]),
        lambda: store.get_features(KEY, "a"),
        lambda: store.ids(KEY),
        lambda: store.missing(KEY, ["a"]),
        lambda: store.available(KEY, ["a"]),
        lambda: store.refresh(),
        lambda: store.delete(KEY, ["a"]),
        lambda: store.compact(KEY),
        lambda: store.put_many(KEY, ["b"], batch(["b"]), recipe=store.compute.recipe(KEY)),  # type: ignore[union-attr]
    ):
        with pytest.raises(FormatVersionError, match="is format 3, this version reads up to 2; upgrade featurestore"):
            call()


def test_a_directory_that_cannot_be_listed_is_an_error_with_its_path(tmp_path: Path) -> None:
    loop = tmp_path.joinpath("data", *KEY.parts)
    loop.parent.mkdir(parents=True)
    loop.symlink_to(loop)
    with pytest.raises(StoreError, match=f"{KEY}: .*; look at the path"):
        FeatureStore(tmp_path).get(KEY, "a")
