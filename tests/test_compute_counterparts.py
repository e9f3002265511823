"""Counterparts: a row is compared with the file that stands in its column now, whatever either is called."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from featurestore.compute import counterparts
from featurestore.compute.counterparts import Counterparts, Verdict, column_of, own_verdict
from featurestore.provenance import file_sha256
from featurestore.sample import Sample
from featurestore.storage.failures import FailureRecord


def file(path: Path, content: str, mtime_ns: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def recorded(path: Path, column: str | None = None) -> dict[str, Any]:
    status = path.stat()
    found = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_sha256(path)}
    return found | ({"column": column} if column else {})


def verdict(
    sample: Sample, *sources: Mapping[str, Any], modality: str = "frame", others: tuple[Sample, ...] = ()
) -> Verdict:
    samples = {each.id: each for each in (sample, *others)}
    return Counterparts(samples, modality).verdict(sample.id, {"sources": list(sources)})


COLUMNS = pytest.mark.parametrize("column", ["video", None], ids=["recorded", "before columns were"])


@COLUMNS
@pytest.mark.parametrize("names", [("a.mov", "a.mp4"), ("a.MP4", "a.mp4"), ("a.mp4", "b.mkv"), ("a", "a.mp4")])
def test_another_file_in_the_column_is_another_whatever_it_is_called(
    tmp_path: Path, column: str | None, names: tuple[str, str]
) -> None:
    before = file(tmp_path / names[0], "one", 7)
    now = file(tmp_path / names[1], "two", 7)  # of the same size and time
    assert verdict(Sample("a", video=now), recorded(before, column)) == "changed"
    source = recorded(before, column)
    before.rename(now)  # renamed, or converted by a change of its name only
    assert verdict(Sample("a", video=now), source) == "unchanged"


@COLUMNS
@pytest.mark.parametrize("places", ["{}.mp4", "{}/video.mp4"])
def test_two_ids_that_change_places_are_both_changed(tmp_path: Path, column: str | None, places: str) -> None:
    a, b = (file(tmp_path / places.format(id), id * 3, 7) for id in "ab")
    sources = {"a": recorded(a, column), "b": recorded(b, column)}
    swapped = {"a": Sample("a", video=b), "b": Sample("b", video=a)}
    assert [Counterparts(swapped, "frame").verdict(id, {"sources": [sources[id]]}) for id in "ab"] == ["changed"] * 2
    moved = tmp_path / "moved"
    moved.mkdir()
    now = [moved / path.relative_to(tmp_path) for path in (a, b)]
    for path, there in zip((a, b), now, strict=True):  # the root was moved since: what was read is not to be seen
        there.parent.mkdir(exist_ok=True)
        path.rename(there)
    swapped = {"a": Sample("a", video=now[1]), "b": Sample("b", video=now[0])}
    assert [Counterparts(swapped, "frame").verdict(id, {"sources": [sources[id]]}) for id in "ab"] == ["changed"] * 2


@COLUMNS
def test_columns_whose_files_are_called_alike_are_told_apart(tmp_path: Path, column: str | None) -> None:
    video, sound = file(tmp_path / "video" / "a.mp4", "video"), file(tmp_path / "sound" / "a.mp4", "sound")
    sample = Sample("a", video=video, audio=sound)
    assert verdict(sample, recorded(video, column)) == "unchanged"
    audio = recorded(sound, column and "audio")
    assert verdict(sample, audio, modality="audio") == "unchanged"
    assert verdict(Sample("a", video=sound, audio=video), audio, modality="audio") == "changed"


@COLUMNS
def test_the_same_file_elsewhere_is_the_same(
    tmp_path: Path, column: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file(tmp_path / "old" / "a.mp4", "one")
    source = recorded(before, column)
    copied = tmp_path / "copied.mkv"
    shutil.copyfile(before, copied)
    os.utime(copied, (1, 1))
    assert verdict(Sample("a", video=copied), source) == "unchanged"  # the digest decides
    (tmp_path / "linked").symlink_to(tmp_path / "old")
    read = []
    monkeypatch.setattr("featurestore.provenance.file_sha256", lambda path: read.append(path) or file_sha256(path))
    assert verdict(Sample("a", video=tmp_path / "linked" / "a.mp4"), source) == "unchanged"
    (tmp_path / "old").rename(tmp_path / "new")
    assert verdict(Sample("a", video=tmp_path / "new" / "a.mp4"), source) == "unchanged"
    assert read == []  # a data set that was moved is not read again for it
    other = Sample("b", video=tmp_path / "b" / "a.mp4")
    assert verdict(Sample("a", video=tmp_path / "new" / "a.mp4"), source, others=(other,)) == "unchanged"
    assert len(read) == 1  # but where names do not tell files apart it is


@COLUMNS
def test_a_file_that_the_manifest_names_and_that_is_not_there_is_told(tmp_path: Path, column: str | None) -> None:
    source = recorded(file(tmp_path / "a.mov", "one"), column)
    assert verdict(Sample("a", video=tmp_path / "a.mp4"), source) == "gone"
    assert verdict(Sample("a", video=tmp_path / "a.mp4"), modality="frame") == "gone"  # also where nothing is recorded
    assert verdict(Sample("a", audio=tmp_path / "a.mov"), recorded(tmp_path / "a.mov", "video")) == "unnamed"
    assert verdict(Sample("a"), source) == "unnamed"
    assert verdict(Sample("a")) == "unrecorded"
    assert Counterparts({"a": Sample("a")}, "frame").verdict("a", None) == "unrecorded"
    assert Counterparts({"a": Sample("a")}, "frame").verdict("a", {"sources": [{}]}) == "unrecorded"


@pytest.mark.parametrize("columns", [("video", "au_json"), (None, None)], ids=["recorded", "before columns were"])
def test_a_description_is_compared_with_the_one_that_is_named_now(
    tmp_path: Path, columns: tuple[str | None, str | None]
) -> None:
    video = file(tmp_path / "a.mp4", "one")
    before, now = file(tmp_path / "1" / "a_au_analysis.json", "{}"), file(tmp_path / "2" / "b.json", "[]")
    sources = recorded(video, columns[0]), recorded(before, columns[1])
    assert verdict(Sample("a", video=video, au_json=before), *sources) == "unchanged"
    assert verdict(Sample("a", video=video, au_json=now), *sources) == "changed"
    table = file(tmp_path / "1" / "a.csv", "frame")
    sources = recorded(video, columns[0]), recorded(table, columns[1] and "au_csv")
    assert verdict(Sample("a", video=video, au_json=before), *sources) == "unchanged"  # beside the JSON
    table.write_text("frames")
    assert verdict(Sample("a", video=video, au_json=before), *sources) == "changed"
    table.unlink()
    assert verdict(Sample("a", video=video, au_json=before), *sources) == "gone"


def test_what_a_sampler_found_by_itself_is_looked_at_where_it_was(tmp_path: Path) -> None:
    video, own = file(tmp_path / "a.mp4", "one"), file(tmp_path / "peaks.txt", "3")
    sample = Sample("a", video=video)
    assert column_of(sample, own, "frame") == "sampler"
    for column in ("sampler", None):
        sources = recorded(video, "video"), recorded(own, column)
        assert verdict(sample, *sources) == "unchanged"
        own.write_text("4")
        assert verdict(sample, *sources) == "changed"
        file(own, "3")


def test_the_column_of_a_file_is_the_one_that_is_read(tmp_path: Path) -> None:
    both = Sample("a", video=tmp_path / "a.mp4", audio=tmp_path / "a.mp4", au_json=tmp_path / "a_au_analysis.json")
    assert [column_of(both, tmp_path / "a.mp4", modality) for modality in ("frame", "audio")] == ["video", "audio"]
    assert column_of(both, str(tmp_path / "a_merr_data.json"), "frame") == "au_json"
    assert column_of(both, tmp_path / "a.csv", "frame") == "au_csv"


def test_without_a_sample_the_recorded_path_is_looked_at(tmp_path: Path) -> None:
    path = file(tmp_path / "a.mp4", "one")
    provenance = {"sources": [recorded(path, "video")]}
    assert own_verdict(provenance) == "unchanged"
    file(path, "two")
    assert own_verdict(provenance) == "changed"
    path.unlink()
    assert own_verdict(provenance) == "gone"
    assert own_verdict(None) == own_verdict({"sources": []}) == own_verdict({"sources": [3]}) == "unrecorded"


@COLUMNS
def test_a_failure_is_that_of_the_file_that_was_tried(tmp_path: Path, column: str | None) -> None:
    path = file(tmp_path / "a.mov", "broken")
    sources = [{name: value for name, value in recorded(path, column).items() if name != "sha256"}]
    record = FailureRecord("a", "media", "no video", 1, "0" * 16, "", sources)

    def outdated(**files: Path) -> bool:
        return Counterparts({"a": Sample("a", **files)}, "frame").outdated(record)

    assert not outdated(video=path)
    assert outdated(video=file(tmp_path / "a.mp4", "whole!"))
    assert not outdated(video=tmp_path / "nothing.mp4")  # not there: nothing to try
    assert not outdated(audio=path)
    (tmp_path / "moved").mkdir()
    assert not outdated(video=path.rename(tmp_path / "moved" / "a.mov"))
    assert not Counterparts({}, "frame").outdated(record)


def test_a_record_of_a_samplers_own_file_stays(tmp_path: Path) -> None:
    own = file(tmp_path / "peaks.txt", "none")
    record = FailureRecord("a", "sampling", "no peak", 1, "0" * 16, "", [recorded(own, counterparts.OTHER)])
    assert not Counterparts({"a": Sample("a", video=file(tmp_path / "a.mp4", "one"))}, "frame").outdated(record)
