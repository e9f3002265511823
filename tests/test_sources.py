"""Sources: their form is checked when they are stored, because what looks for changes relies on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from keeping import KEY, batch

from featurestore import FeatureStore
from featurestore.errors import ValuesError
from featurestore.sources import compare, file_sha256, misfit, state_of


def source_of(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {
        "path": str(path),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": file_sha256(path),
    }


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(b"frames")
    return path


def test_a_file_is_unchanged_touched_changed_or_gone(film: Path) -> None:
    source = source_of(film)
    assert state_of(source, film) == "unchanged"
    os.utime(film, ns=(0, 0))
    assert state_of(source, film) == "touched"
    film.write_bytes(b"FRAMES")
    assert state_of(source, film) == "changed"
    film.write_bytes(b"more frames")
    assert state_of(source, film) == "changed"
    film.unlink()
    assert state_of(source, film) == "gone"


def test_one_changed_file_is_enough_and_one_gone_is_told_only_without(film: Path, tmp_path: Path) -> None:
    other = tmp_path / "au.json"
    other.write_text("{}")
    both = {"sources": [source_of(film), source_of(other)]}
    assert compare(both, [film, other]) == "unchanged"
    assert compare(both, []) == "unchanged"  # the sample names neither now: there is nothing to compare with
    film.unlink()
    assert compare(both, [film, other]) == "gone"
    other.write_text("[]")
    assert compare(both, [film, other]) == "changed"
    assert compare({}, [film]) == "unchanged"
    assert compare({"sources": ["of a store written before these were checked", {}]}, [film]) == "unchanged"


def test_a_sample_that_names_another_file_now_was_made_of_another(film: Path, tmp_path: Path) -> None:
    made = {"sources": [source_of(film)]}
    better = tmp_path / "film in colour.mp4"
    better.write_bytes(b"FRAMES")
    assert compare(made, [better]) == "changed"
    better.write_bytes(film.read_bytes())  # the same under another name
    os.utime(better, ns=(0, 0))
    assert compare(made, [better]) == "unchanged"
    sound, table = tmp_path / "film.wav", tmp_path / "film.csv"
    assert compare(made, [sound, table]) == "unchanged"  # no counterpart
    assert compare(made, [film, tmp_path / "sound of the film.mp4"]) == "unchanged"  # the same name counts
    assert compare(made, [tmp_path / "one.mp4", tmp_path / "two.mp4"]) == "unchanged"  # nobody knows which


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("a.mp4", "sources are str, not a list of objects with path, size, mtime_ns, sha256"),
        ([{"path": "a"}, "b"], "sources[0] has no 'size'; it needs path, size, mtime_ns, sha256"),
        (["b"], "sources[0] is str, not an object"),
        ([{"path": "a", "size": 1, "mtime_ns": 1.5, "sha256": "00"}], "sources[0] has mtime_ns 1.5, not int"),
        ([{"path": "a", "size": True, "mtime_ns": 1, "sha256": "00"}], "sources[0] has size True, not int"),
    ],
)
def test_sources_of_another_form_are_refused_by_name(tmp_path: Path, sources: object, said: str) -> None:
    assert said in str(misfit(sources))
    with pytest.raises(ValuesError) as caught:
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe={"w": 1}, provenance=[{"sources": sources}])
    assert str(caught.value).startswith("sample 'a': provenance: ")
    assert said in str(caught.value)
    assert FeatureStore(tmp_path).keys() == []
