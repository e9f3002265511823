"""Files cut short, grown, lost, swapped and copied to where they do not belong: no read is silent."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from figures import Figures
from mutants import mutant
from test_bit_flips import TRUTH, feature_set_of, fill, place_of, silent

from featurestore.quality import check_store
from featurestore.storage import reader


@pytest.fixture(scope="module")
def store_root(fast_disk: Path) -> Path:
    fill(fast_disk / "moved")
    return fast_disk / "moved"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def lies(root: Path) -> list[str]:
    return [f"{place[0]}@{place[1].fingerprint[:6]}: {what}" for place in TRUTH for what in silent(root, place)]


def alarm(root: Path, segment: Path) -> bool:
    """Whether a reader of its recipe names a problem with what is in the place of this segment, or does not open it."""
    (place,) = place_of(root, segment / "rows")
    looked_at = feature_set_of(root, place).reader
    return segment.name in (*looked_at.replaced, *looked_at.problems)


def files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "data").rglob("*") if path.is_file())


def segments(root: Path) -> list[Path]:
    return sorted(path.parent for path in (root / "data").rglob("rows"))


@contextmanager
def swapped(one: Path, other: Path) -> Iterator[None]:
    aside = one.with_name(f"{one.name}.aside")

    def swap() -> None:
        one.rename(aside)
        other.rename(one)
        aside.rename(other)

    swap()
    yield
    swap()


def test_every_length_that_a_file_may_be_cut_to(
    store_root: Path, rounds: Callable[[int, int], int], figures: Figures
) -> None:
    """Each of them in a long run, each third otherwise."""
    every = 1 if rounds(1, 2) == 2 else 3
    count, found = 0, []
    for path in files(store_root):
        content, places = path.read_bytes(), place_of(store_root, path)
        for size in range(0, len(content), every):
            os.truncate(path, size)
            for place in places:
                found += [f"{path.relative_to(store_root)} cut to {size}: {what}" for what in silent(store_root, place)]
            path.write_bytes(content)
            count += 1
    figures.record("files cut short", count, "lengths", {"silent": len(found)})
    assert found[:20] == []


def test_a_file_that_grew_or_is_lost(store_root: Path) -> None:
    for path in files(store_root):
        content = path.read_bytes()
        path.write_bytes(content + b"\0")
        assert lies(store_root) == [], path
        path.unlink()
        # A segment without its document is one that was not committed yet, and does not count; verify names it later.
        lost = lies(store_root) if path.name != "zarr.json" or path.parent.parent.name != "segments" else []
        path.write_bytes(content)
        assert lost == [], path


def test_files_swapped_between_segments_recipes_and_keys(store_root: Path, figures: Figures) -> None:
    count, found = 0, []
    for one, other in itertools.combinations(files(store_root), 2):
        if one.name == other.name:
            with swapped(one, other):
                found += [f"{one} and {other}: {what}" for what in lies(store_root)]
            count += 1
    for one, other in itertools.combinations(segments(store_root), 2):
        with swapped(one, other):
            # What a segment replaced counts again where it was taken away; but not without a word.
            told = alarm(store_root, one) and alarm(store_root, other)
            found += [f"{one} and {other}: {what}" for what in lies(store_root) if not told]
        count += 1
    recipes = sorted({path.parent.parent for path in segments(store_root)})
    for one, other in itertools.combinations(recipes, 2):
        with swapped(one, other):
            found += [f"{one} and {other}: {what}" for what in lies(store_root)]
        count += 1
    figures.record("files and folders swapped", count, "pairs", {"silent": len(found)})
    assert found[:20] == []


def test_a_segment_copied_to_where_it_does_not_belong_hides_nothing(store_root: Path) -> None:
    """It is left out, and what it is a copy of is read as before."""
    for source in segments(store_root):
        for folder in {path.parent for path in segments(store_root)}:
            name = f"{source.name[:21]}{'0' * 32}" if folder == source.parent else source.name
            shutil.copytree(source, folder / name)
            assert lies(store_root) == []
            for place in TRUTH:
                if place[1].fingerprint == folder.parent.name:
                    assert readable(store_root, place) == TRUTH[place], (source, folder)
            shutil.rmtree(folder / name)


def readable(root: Path, place: Any) -> dict[str, int]:
    from featurestore import FeatureStore

    store = FeatureStore(root)
    ids = store.available(place[0], TRUTH[place], fingerprint=place[1].fingerprint)
    return {id: version if id in ids else 0 for id, version in TRUTH[place].items()}


def test_a_reader_that_does_not_look_whose_segment_it_is_is_caught(store_root: Path, figures: Figures) -> None:
    with mutant(reader.open_segment, "if header[name] != mine:", "if False:"):
        found = []
        for one, other in itertools.combinations(segments(store_root), 2):
            with swapped(one, other):
                found += lies(store_root)
    assert found
    figures.caught("files and folders swapped", "names and fingerprints unchecked")


def test_verify_tells_of_whole_segments_that_were_swapped(store_root: Path) -> None:
    """Where one goes that replaced others, these count again: no file that is left says that they do not."""
    for one, other in itertools.combinations(segments(store_root), 2):
        with swapped(one, other):
            found = [f"{finding.where} {finding.what}" for finding in check_store(store_root).findings]
            passed_over = {name for place in TRUTH for name in feature_set_of(store_root, place).reader.replaced}
        assert found != [] or {one.name, other.name} <= passed_over
        for moved in {one, other} if not {one.name, other.name} & passed_over else set():
            assert any("moved here from elsewhere" in what and moved.name in what for what in found), (moved, found)
    assert list(check_store(store_root).findings) == []
