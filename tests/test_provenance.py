"""Sources: their form is checked when they are stored, because what looks for changes relies on it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from store_factories import KEY, batch

from featurestore import FeatureStore
from featurestore.errors import ValuesError
from featurestore.provenance import file_sha256, legible, misfit, path_of, state_of, written


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


def test_another_path_is_the_same_file_by_inode_or_digest_not_by_size_and_time(film: Path, tmp_path: Path) -> None:
    source = source_of(film)
    linked, copied, other = tmp_path / "linked.mp4", tmp_path / "copied.mp4", tmp_path / "other.mp4"
    os.link(film, linked)
    assert state_of(source, linked) == "unchanged"
    copied.write_bytes(b"frames")
    assert state_of(source, copied) == "touched"
    other.write_bytes(b"FRAMES")
    os.utime(other, ns=(source["mtime_ns"], source["mtime_ns"]))  # unpacked from an archive, say
    assert state_of(source, other) == "changed"


@pytest.mark.parametrize("name", [b"d\xe9part.mp4", "\u6837\u672c.mp4".encode("gbk"), b"a\\xe9.mp4", "dé.mp4".encode()])
def test_a_name_of_another_encoding_is_written_as_text_and_found_again(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    path.write_bytes(b"frames")
    source = written(source_of(path))
    assert misfit([source]) is None
    assert written(source) == source
    line = json.dumps(source, ensure_ascii=False).encode()  # as a row's line is written: strict UTF-8
    assert path_of(json.loads(line)) == str(path)
    assert state_of(json.loads(line)) == "unchanged"
    store = FeatureStore(tmp_path / "store")
    store.put_many(KEY, ["a"], batch(["a"]), recipe={"w": 1}, provenance=[{"sources": [source_of(path)]}])
    assert store.get_features(KEY, "a").provenance == {"sources": [source]}


def test_a_text_that_is_no_name_of_a_file_is_legible_too() -> None:
    assert legible("a\ud800b") == "a\\ud800b"
    assert legible("d\udce9") == "d\\xe9"
    assert legible("dé") == "dé"


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        ("a.mp4", "sources are str, not a list of objects with path, size, mtime_ns, sha256"),
        ([{"path": "a"}, "b"], "sources[0] has no 'size'; it needs path, size, mtime_ns, sha256"),
        (["b"], "sources[0] is str, not an object"),
        ([{"path": "a", "size": 1, "mtime_ns": 1.5, "sha256": "00"}], "sources[0] has mtime_ns 1.5, not int"),
        ([{"path": "a", "size": True, "mtime_ns": 1, "sha256": "00"}], "sources[0] has size True, not int"),
        (
            [{"path": "a", "size": 1, "mtime_ns": 1, "sha256": "00", "column": 3}],
            "sources[0] has column 3, not str",
        ),
    ],
)
def test_sources_of_another_form_are_refused_by_name(tmp_path: Path, sources: object, said: str) -> None:
    assert said in str(misfit(sources))
    with pytest.raises(ValuesError) as caught:
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe={"w": 1}, provenance=[{"sources": sources}])
    assert str(caught.value).startswith("sample 'a': provenance: ")
    assert said in str(caught.value)
    assert FeatureStore(tmp_path).keys() == []
