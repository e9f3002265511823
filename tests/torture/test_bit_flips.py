"""One bit of every byte of every file: each read is right or says that something is wrong, and verify finds all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from figures import Figures
from mutants import mutant
from oracle import ALL, AXES, KEY, RECIPE, SECOND_RECIPE, value

from featurestore import FeatureKey, FeatureStore, Recipe
from featurestore.errors import FeatureStoreError, MissingFeatureError
from featurestore.features import Failure
from featurestore.quality import check_store
from featurestore.storage import reader
from featurestore.storage.feature_set import FeatureSet

Place = tuple[FeatureKey, Recipe]
# What must be read: the last version of each id, 0 where it was deleted.
TRUTH: dict[Place, dict[str, int]] = {
    (KEY, RECIPE): {"a": 1, "b": 3, "c": 1, "d": 0, "é/../f": 2},
    (KEY, SECOND_RECIPE): {"a": 5, "b": 5},
    (ALL, RECIPE): {"a": 1, "bb": 2, "ccc": 1},
}


def fill(root: Path) -> None:
    """Several recipes and lengths, frames of two axes; segments that replace others that are still there; a failure."""
    store = FeatureStore(root)

    def put(key: FeatureKey, recipe: Recipe, version: int, *ids: str) -> None:
        values = [value(id, version, key) for id in ids]
        frames = [np.arange(len(one), dtype=np.int64) for one in values]
        notes = [{"version": version} for _ in ids]
        store.put_many(
            key, ids, values, recipe=recipe, frame_indices=frames, provenance=notes, axes=AXES.get(key), overwrite=True
        )

    put(KEY, RECIPE, 1, "a", "b", "c")
    put(KEY, RECIPE, 1, "d")
    put(KEY, RECIPE, 2, "é/../f", "b")
    put(KEY, RECIPE, 3, "b")
    store.delete(KEY, ["d"], fingerprint=RECIPE.fingerprint)
    put(KEY, SECOND_RECIPE, 5, "a")
    put(KEY, SECOND_RECIPE, 5, "b")
    store.compact(KEY, fingerprint=SECOND_RECIPE.fingerprint)
    put(ALL, RECIPE, 1, "a", "bb", "ccc")
    put(ALL, RECIPE, 2, "bb")
    feature_set_of(root, (ALL, RECIPE)).failures.add("broken", Failure("media", "no such stream"))


def feature_set_of(root: Path, place: Place) -> FeatureSet:
    feature_set = FeatureStore(root).feature_set(place[0], fingerprint=place[1].fingerprint)
    assert feature_set is not None
    return feature_set


def silent(root: Path, place: Place) -> list[str]:
    """What a new reader is told that is not true, without an error and without a named problem."""
    key, recipe = place
    store = FeatureStore(root)
    prefix = recipe.fingerprint
    found = []
    reported = []
    for id, version in TRUTH[place].items():
        try:
            # Before any of it was checked as a whole, which may say that something is wrong.
            some = store.get(key, id, [0], fingerprint=prefix)
            if not version or not np.array_equal(some, value(id, version, key)[:1]):
                found.append(f"{id} has another first frame")
            part = store.get_features(key, id, slice(0, None, 2), fingerprint=prefix)
            if not version or not np.array_equal(part.values, value(id, version, key)[::2]):
                found.append(f"{id} has other frames")
            values = store.get(key, id, fingerprint=prefix)
            features = store.get_features(key, id, fingerprint=prefix)
            batch = store.get_ragged(key, [id], fingerprint=prefix)
        except MissingFeatureError:
            if version:
                found.append(f"{id} is missing")
            continue
        except FeatureStoreError as error:
            reported.append(error)
            continue
        except (ValueError, TypeError, OSError) as error:
            found.append(f"{id}: {error!r}, which is no error of ours")
            continue
        expected = value(id, version, key)
        frames, note = features.frame_indices, features.provenance
        if not version or not all(np.array_equal(one, expected) for one in (values, features.values, batch[0])):
            found.append(f"{id} has other values")
        elif part.frame_indices is None or part.frame_indices.tolist() != list(range(0, len(expected), 2)):
            found.append(f"{id} has frames that are said to be others")
        elif not np.array_equal(frames, np.arange(len(expected))) or note != {"version": version}:
            found.append(f"{id} has other frames or another note")
    feature_set = store.feature_set(key, fingerprint=prefix)
    assert feature_set is not None
    try:
        ids, recipes = store.ids(key, fingerprint=prefix), store.recipes(key)
        if recipes.get(prefix) != recipe:
            found.append("another recipe")
        if ids != sorted(id for id, version in TRUTH[place].items() if version) and not feature_set.reader.problems:
            found.append(f"ids are {ids}")
    except FeatureStoreError as error:
        reported.append(error)
    except (ValueError, TypeError, OSError) as error:
        found.append(f"{error!r}, which is no error of ours")
    for id, record in feature_set.failures.all().items():
        if (id, record.reason, record.message, record.attempts) != ("broken", "media", "no such stream", 1):
            found.append(f"another failure: {record}")
    return found


def flips(root: Path, every: int = 1) -> Iterator[tuple[Path, int]]:
    """Each byte of each file with one bit the other way, while the caller looks."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for at in range(0, len(content), every):
            with path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([content[at] ^ 1 << at % 8]))
            yield path, at
            with path.open("r+b") as file:
                file.seek(at)
                file.write(content[at : at + 1])


def place_of(root: Path, path: Path) -> list[Place]:
    """The recipes that a file belongs to: one, or all below a level."""
    parts = path.relative_to(root).parts
    return [
        place
        for place in TRUTH
        if all(mine == its for mine, its in zip(parts[1:-1], (*place[0].parts, place[1].fingerprint), strict=False))
    ]


@pytest.fixture(scope="module")
def store_root(fast_disk: Path) -> Path:
    root = fast_disk / "flipped"
    fill(root)
    assert [silent(root, place) for place in TRUTH] == [[], [], []]
    return root


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)  # one warning for each of thousands of flips
    yield
    logging.disable(logging.NOTSET)


def test_no_flipped_bit_is_silent(store_root: Path, figures: Figures) -> None:
    count = 0
    found = []
    for path, at in flips(store_root):
        count += 1
        for place in place_of(store_root, path):
            found += [f"{path.relative_to(store_root)} byte {at}: {what}" for what in silent(store_root, place)]
    figures.record("bit flips", count, "flips", {"silent": len(found)})
    assert found[:20] == []


def test_verify_finds_every_flipped_bit(store_root: Path, rounds: Callable[[int, int], int], figures: Figures) -> None:
    """In all that is read.  What was replaced is not, and gc removes it."""
    replaced = {name for place in TRUTH for name in feature_set_of(store_root, place).reader.replaced}
    every = 1 if rounds(1, 2) == 2 else 5
    count, missed = 0, []
    for path, at in flips(store_root, every):
        if path.parent.name in replaced:
            continue
        count += 1
        keys = {place[0]: None for place in place_of(store_root, path)}
        if check_store(store_root, keys, full=True).clean:
            missed.append(f"{path.relative_to(store_root)} byte {at}")
    figures.record("bit flips, verify --full", count, "flips", {"not found": len(missed)})
    assert missed[:20] == []
    assert check_store(store_root, full=True).clean


MUTANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "samples unchecked": lambda: mutant(
        reader.Segment._check, "elif crc32c(values) != self.crcs[row] and", "elif 0 and"
    ),
    "frames unchecked": lambda: mutant(
        reader.Segment.read_frames, "return out if checked or not len(frames) else", "return out; 0 and"
    ),
    "seal unchecked": lambda: mutant(reader.open_segment, "if found != expected:", "if False:"),
    "table unchecked": lambda: mutant(
        reader.open_segment, 'hexdigest() != header["rows"]["table_blake2b"]', "hexdigest() == ''"
    ),
    "lines unchecked": lambda: mutant(reader.Segment._document, "crc32c(line) != crc", "False"),
    "what was replaced is forgotten": lambda: mutant(
        reader.names_replaced, "found.update(SEGMENT_NAME.findall(_between(file.read(), begin, end)))", "pass"
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_reader_that_does_not_check_is_caught(name: str, store_root: Path, figures: Figures) -> None:
    with MUTANTS[name]():
        caught = any(
            silent(store_root, place) for path, _ in flips(store_root, 3) for place in place_of(store_root, path)
        )
    assert caught
    figures.caught("bit flips", name)
