"""Segments that no store wrote: their seals and checksums are right, and what they say is not."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import Forged
from mutants import mutant
from store_factories import ALL, KEY, RECIPE, batch, fill, flip, header_of, recipe_dir, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore
from featurestore.cli.inventory import take_inventory
from featurestore.compute.extraction import verdicts
from featurestore.errors import (
    CorruptSegmentError,
    FeatureStoreError,
    FormatVersionError,
    UnknownRecipeError,
    ValuesError,
)
from featurestore.quality import check_store
from featurestore.sample import Sample
from featurestore.storage import reader as room
from featurestore.storage.reader import RECORD, Form, UnknownFormatError, crc32c, open_key, open_segment

IDS = ["a", "b", "c"]


def rewritten(segment: Path, lines: list[bytes], places: list[int] | None = None) -> None:
    """Other lines; `places` are where they are said to begin."""
    forged = Forged(segment)
    forged.lines = lines
    forged.write_lines()
    if places is not None:
        forged.table["line"] = places
        forged.write_rows()


def plain_lines() -> list[bytes]:
    return [json.dumps({"id": id}, separators=(",", ":")).encode() + b"\n" for id in IDS]


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    fill(tmp_path, IDS)
    (found,) = segment_dirs(tmp_path)
    return found


def refused(tmp_path: Path, segment: Path) -> str:
    """Why a reader leaves the segment out; the store answers that its samples are not there."""
    reader = open_key(str(tmp_path), str(KEY))
    assert len(reader) == 0
    assert FeatureStore(tmp_path).ids(KEY) == []
    return reader.problems[segment.name]


def test_what_the_helpers_write_unchanged_is_read(tmp_path: Path, segment: Path) -> None:
    rewritten(segment, plain_lines())
    assert FeatureStore(tmp_path).ids(KEY) == IDS
    assert FeatureStore(tmp_path).get(KEY, "b").tobytes() == values_of("b").tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replaces", [[]]), ("replaces", 3), ("replaces", {"a": 1}), ("made_with", None), ("shard", None),
        ("shard", {"bytes": -1}), ("shard", {"bytes": 340}), ("rows", {}), ("rows", {"bytes": 1.5}),
        ("rows", {"bytes": True}), ("frames", 3), ("frames", {}), ("frames", {"bytes": None}), ("format", "1"),
        ("format", None), ("needs", {}), ("needs", "all"),
    ],
)  # fmt: skip
def test_a_header_of_other_types_is_a_damaged_segment(tmp_path: Path, segment: Path, name: str, value: Any) -> None:
    forged = Forged(segment)
    forged.header[name] = value
    forged.seal()
    assert "not that of a segment" in refused(tmp_path, segment)


@pytest.mark.parametrize("name", ["samples", "bytes", "blake2b", "table_blake2b"])
def test_a_header_that_lacks_what_readers_need_is_a_damaged_segment(tmp_path: Path, segment: Path, name: str) -> None:
    forged = Forged(segment)
    del forged.header["rows"][name]
    forged.seal()
    assert "not that of a segment" in refused(tmp_path, segment)


@pytest.mark.parametrize(
    "shape",
    [
        [3, 4], [3], [], "abc", [3, 4, None], [-1, 4, 6], [2**70, 4, 6], [3, 4, 2**61], [10**12, 4, 6], [0, 4, 6], 7,
        [3, 4, 6, 1], [3, 4, 6, 0], [3, 5, 6], [4, 3, 6], [3, 6, 4], [2, 4, 6], [3, 4, 3, 2], [True, 4, 6],
    ],
)  # fmt: skip
def test_a_shape_that_the_files_cannot_have_is_a_damaged_segment(tmp_path: Path, segment: Path, shape: Any) -> None:
    forged = Forged(segment)
    forged.document["shape"] = shape
    forged.seal()
    refused(tmp_path, segment)


def test_as_many_values_in_another_shape_are_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    """All sizes fit, but samples have other frames than the key says."""
    forged = Forged(segment)
    forged.document["shape"] = [3, 6, 4]
    forged.document["chunk_grid"]["configuration"]["chunk_shape"] = [3, 6, 4]
    forged.document["codecs"][0]["configuration"]["chunk_shape"] = [3, 6, 4]
    forged.table["frame"], forged.table["n_frames"] = [0, 6, 12], 6
    forged.write_rows()
    assert refused(tmp_path, segment) == "samples have 6 frames, not those of the key"


@pytest.mark.parametrize("outer", [[3, 4, 5], [2, 4, 6], [5, 4, 6], [0, 4, 6], [3, 4], [3, 8, 6], "abc", [3.0, 4, 6]])
@pytest.mark.parametrize("which", ["chunk_grid", "codecs"])
def test_chunks_that_do_not_fit_the_shape_are_a_damaged_segment(
    tmp_path: Path, segment: Path, outer: Any, which: str
) -> None:
    forged = Forged(segment)
    of = forged.document["chunk_grid"] if which == "chunk_grid" else forged.document["codecs"][0]
    of["configuration"]["chunk_shape"] = outer
    forged.seal()
    refused(tmp_path, segment)


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "bfloat16", "int8", "complex64", None, ["float32"]])
def test_a_dtype_that_the_file_cannot_have_is_a_damaged_segment(tmp_path: Path, segment: Path, dtype: Any) -> None:
    forged = Forged(segment)
    forged.document["data_type"] = dtype
    forged.seal()
    refused(tmp_path, segment)


@pytest.mark.parametrize(
    "names",
    [
        ["frame", "sample", "feature"], ["sample", "frame"], ["sample", "frame", "a", "b"], ["frame", "feature", "x"],
        ["sample", "frame", 3], "sfx", None, {"sample": 0, "frame": 1, "feature": 2},
    ],
)  # fmt: skip
def test_axes_that_do_not_fit_the_shape_are_a_damaged_segment(tmp_path: Path, segment: Path, names: Any) -> None:
    forged = Forged(segment)
    forged.document["dimension_names"] = names
    forged.seal()
    refused(tmp_path, segment)


def test_other_axes_than_those_of_the_first_segment_are_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    fill(tmp_path, ["later"])
    forged = Forged(segment_dirs(tmp_path)[1])
    forged.document["dimension_names"][2] = "token"
    forged.seal()
    reader = open_key(str(tmp_path), str(KEY))
    assert reader.ids() == IDS
    assert reader.problems[forged.path.name] == (
        "frames are float32 (token 6), but those of the recipe's first segment float32 (feature 6)"
    )


def test_what_is_needed_and_not_known_is_refused_with_the_words_to_upgrade(tmp_path: Path, segment: Path) -> None:
    forged = Forged(segment)
    forged.header["needs"] = ["deltas", "masks"]
    forged.seal()
    said = "written with deltas, masks, this version reads up to 2[:;] upgrade featurestore$"
    with pytest.raises(UnknownFormatError, match=said):
        len(open_key(str(tmp_path), str(KEY)))
    with pytest.raises(FormatVersionError, match=said):
        FeatureStore(tmp_path).get(KEY, "a")
    with pytest.raises(FormatVersionError, match=said):
        take_inventory(tmp_path)
    (finding,) = check_store(tmp_path, full=True, repair=True).findings
    assert (finding.kind, finding.advice, finding.repaired) == ("format", "upgrade featurestore", False)


def test_a_header_nested_too_deeply_is_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    forged = Forged(segment)
    forged.document["storage_transformers"] = "deep"
    deep = b"[" * 50_000 + b"]" * 50_000
    forged.seal(lambda document: json.dumps(document, separators=(",", ":")).encode().replace(b'"deep"', deep))
    assert "nested too deeply" in refused(tmp_path, segment)


def test_samples_that_claim_more_than_one_may_have_are_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    dim = room.SAMPLE_BYTES // 16 + 1
    forged = Forged(segment)
    size = 3 * 4 * dim * 4 + 16 + 4
    os.truncate(forged.shard, size)  # a hole, which costs nothing
    for shape in (
        forged.document["shape"],
        forged.document["chunk_grid"]["configuration"]["chunk_shape"],
        forged.document["codecs"][0]["configuration"]["chunk_shape"],
    ):
        shape[2] = dim
    forged.header["shard"]["bytes"] = size
    forged.seal()
    assert f"shape (3, 4, {dim}) float32" in refused(tmp_path, segment)
    assert "holds no samples" in refused(tmp_path, segment)


def test_samples_that_no_reader_would_take_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.storage.rows.SAMPLE_BYTES", 95)
    with pytest.raises(ValuesError, match="'a': values are 96 bytes, and a sample may have 95; store fewer frames"):
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE)


def test_a_table_whose_lines_all_begin_at_the_first_is_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    """Thousands of them, each as long as the file, kept `ids` busy for ever."""
    begin = 3 * RECORD.itemsize
    rewritten(segment, plain_lines(), [begin, begin, begin])
    assert "not one behind the other" in refused(tmp_path, segment)
    for places in ([0, 1, 2], [begin, 2**63, begin], [begin, begin + 11, 10**6]):
        rewritten(segment, plain_lines(), places)
        assert "not one behind the other" in refused(tmp_path, segment)


@pytest.mark.parametrize("name", ["rows", "zarr.json", "c.0.0.0", "replaces"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, segment: Path, name: str) -> None:
    for target in ("pipe", "/dev/zero"):
        (segment / name).unlink(missing_ok=True)
        os.mkfifo(segment / name) if target == "pipe" else (segment / name).symlink_to(target)
        store = FeatureStore(tmp_path)
        assert store.ids(KEY) == (IDS if name == "replaces" else [])
    if name == "replaces":
        found = check_store(tmp_path, full=True).findings
        assert any("`replaces` cannot be read" in finding.what for finding in found)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"3", b'{"id":[]}', b'{"id":"\\ud800"}', b"[" * 50_000,
        b'{"id":"a","frame_indices":[1,2]}', b'{"id":"a","frame_indices":[0,1,2,99999999999999999999]}',
        b'{"id":"a","frame_indices":"0123"}', b'{"id":"a","timestamps_s":[0,1,2,NaN]}', b'{"id":"a","timestamps_s":7}',
        b'{"id":"a","provenance":[]}', b'{"id":"a","provenance":{"sources":[3]}}',
        b'{"id":"a","provenance":{"sources":[{"size":1}]}}',
    ],
)  # fmt: skip
def test_a_line_that_is_none_is_a_missing_sample(tmp_path: Path, segment: Path, line: bytes) -> None:
    rewritten(segment, [line + b"\n", *plain_lines()[1:]])
    store = FeatureStore(tmp_path)
    with pytest.raises(FeatureStoreError):
        store.get_features(KEY, "a")
    assert [features.values.shape for features in (store.get_features(KEY, id) for id in "bc")] == [(4, 6)] * 2
    assert store.ids(KEY)[-2:] == ["b", "c"]


def test_many_damaged_lines_are_found_in_one_go(
    tmp_path: Path, segment: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the disk again after each took the square of their number."""
    rewritten(segment, [b"\n"] * 3)
    looks = []
    look = room.Reader._look
    monkeypatch.setattr(room.Reader, "_look", lambda self, damage: looks.append(1) or look(self, damage))
    with caplog.at_level(logging.WARNING):
        assert open_key(str(tmp_path), str(KEY)).ids() == []
    assert len(looks) == 2
    assert "and 2 more rows" in caplog.text


def test_a_damaged_line_does_not_end_an_extraction(tmp_path: Path, segment: Path) -> None:
    rewritten(segment, [b"\n", *plain_lines()[1:]])
    feature_set = FeatureStore(tmp_path).feature_set(KEY)
    assert feature_set is not None
    samples = {id: Sample(id) for id in IDS}
    assert verdicts(feature_set, samples, set(IDS)) == {"b": "unrecorded", "c": "unrecorded"}
    assert [id in feature_set.reader for id in IDS] == [False, True, True]


def test_a_recipe_that_is_nested_too_deeply_is_told(tmp_path: Path, segment: Path) -> None:
    (recipe_dir(tmp_path) / "zarr.json").write_bytes(b'{"attributes":' * 50_000)
    with pytest.raises(UnknownRecipeError, match=r"zarr\.json cannot be read as a recipe.*nested too deeply"):
        FeatureStore(tmp_path).recipes(KEY)


def test_a_sound_header_is_described(segment: Path, tmp_path: Path) -> None:
    opened, records = open_segment(str(segment), recipe_dir(tmp_path).name, str(KEY))
    assert (opened.n, opened.array_shape, opened.form, len(records)) == (
        3,
        (3, 4, 6),
        Form((6,), np.dtype("f4"), ("feature",)),
        3,
    )
    assert header_of(segment)["shard"]["bytes"] == 3 * 4 * 6 * 4 + 16 + 4


# -- records of samples -----------------------------------------------------------------------------


@pytest.fixture
def ragged(tmp_path: Path) -> Forged:
    """Samples of 1, 2 and 3 frames of (2, 3), in one segment."""
    values = [ragged_values(id) for id in IDS]
    FeatureStore(tmp_path).put_many(ALL, IDS, values, recipe=RECIPE, axes=("token", "feature"))
    return Forged(segment_dirs(tmp_path, ALL)[0])


def ragged_values(id: str) -> np.ndarray[Any, Any]:
    return values_of(id, 1 + IDS.index(id), 6).reshape(-1, 2, 3)


# (first frames, numbers of frames) of three samples, in an array of six frames
LIES = {
    "overlap": ([0, 0, 3], [1, 3, 3]),
    "the same frames": ([0, 0, 0], [6, 6, 6]),
    "a gap": ([0, 2, 3], [1, 1, 3]),
    "a gap before the first": ([1, 2, 4], [1, 2, 2]),
    "a gap behind the last": ([0, 1, 3], [1, 2, 2]),
    "past the end": ([0, 1, 3], [1, 2, 4]),
    "far past the end": ([0, 1, 2**63], [1, 2, 3]),
    "a number that wraps around": ([0, 1, 2**64 - 1], [1, 2, 2**32 - 1]),
    "not in order": ([3, 1, 0], [3, 2, 1]),
    "a sample of no frames": ([0, 1, 1], [1, 0, 5]),
    "no frames at all": ([0, 0, 0], [0, 0, 0]),
}


@pytest.mark.parametrize("lie", LIES)
def test_ragged_records_that_lie_are_a_damaged_segment(tmp_path: Path, ragged: Forged, lie: str) -> None:
    ragged.table["frame"], ragged.table["n_frames"] = LIES[lie]
    ragged.write_rows()
    reader = open_key(str(tmp_path), str(ALL))
    assert len(reader) == 0
    assert "do not follow each other from the first frame" in reader.problems[ragged.path.name]
    with pytest.raises(CorruptSegmentError, match="do not follow each other"):
        FeatureStore(tmp_path).get(ALL, "a")


@pytest.mark.parametrize("lie", [([0, 4, 7], [4, 4, 4]), ([0, 4, 8], [4, 3, 4]), ([4, 8, 12], 4), (0, 12), (0, 0)])
def test_stacked_records_that_lie_are_a_damaged_segment(tmp_path: Path, segment: Path, lie: Any) -> None:
    forged = Forged(segment)
    forged.table["frame"], forged.table["n_frames"] = lie
    forged.write_rows()
    assert "do not follow each other from the first frame" in refused(tmp_path, segment)


@pytest.mark.parametrize(
    "change", [{"bytes": 20}, {"bytes": 28}, {"bytes": 0}, {"bytes": -4}, {"bytes": 2**70}, {"bytes": "24"}, None, {}]
)
def test_another_number_of_frame_checksums_is_a_damaged_segment(tmp_path: Path, ragged: Forged, change: Any) -> None:
    ragged.header["frames"] = change
    if change and change["bytes"] in (20, 28):
        os.truncate(ragged.path / "frames", change["bytes"])
    ragged.seal()
    reader = open_key(str(tmp_path), str(ALL))
    assert len(reader) == 0
    assert ragged.path.name in reader.problems


@pytest.mark.parametrize("n", [0, 1, 2, 4, 6, 2**40])
def test_another_number_of_ragged_samples_is_a_damaged_segment(tmp_path: Path, ragged: Forged, n: int) -> None:
    ragged.header["rows"]["samples"] = n
    ragged.seal()
    reader = open_key(str(tmp_path), str(ALL))
    assert len(reader) == 0
    assert ragged.path.name in reader.problems


def test_a_ragged_segment_under_a_key_of_so_many_frames_is_damaged_and_the_reverse(
    tmp_path: Path, ragged: Forged, segment: Path
) -> None:
    """The key is in both, and the name of the folder is right."""
    for forged, key in ((ragged, KEY), (Forged(segment), ALL)):
        forged.header["key"] = str(key)
        forged.seal()
        target = recipe_dir(tmp_path, key) / "segments" / forged.path.name
        forged.path.rename(target)
        reader = open_key(str(tmp_path), str(key))
        assert target.name not in [segment.name for segment in reader.segments]
        assert target.name in reader.problems


# -- checksums of the sample and of its frames --------------------------------------------------------


@pytest.fixture
def wide(tmp_path: Path) -> Forged:
    """Stacked samples whose frames are large enough for checksums of their own."""
    FeatureStore(tmp_path).put_many(KEY, IDS, np.stack([wide_values(id) for id in IDS]), recipe=RECIPE)
    return Forged(segment_dirs(tmp_path)[0])


def wide_values(id: str) -> np.ndarray[Any, Any]:
    return values_of(id, 4, 4096)


KINDS_OF_KEY = pytest.mark.parametrize(
    ("which", "key", "values"), [("ragged", ALL, ragged_values), ("wide", KEY, wide_values)], ids=["ragged", "wide"]
)


def spoil_frame_sum(forged: Forged) -> None:
    """One of the last frame, with a checksum over all of them that agrees."""
    assert forged.sums is not None
    forged.sums[-1] ^= 1
    forged.write_sums()


def flip_frame_sum(forged: Forged) -> None:
    flip(forged.path / "frames", (forged.path / "frames").stat().st_size - 1)


def spoil_sum_of_frame_sums(forged: Forged) -> None:
    forged.table["frames_crc"][-1] ^= 1
    forged.write_rows()


def spoil_sample_sum(forged: Forged) -> None:
    forged.table["crc"][-1] ^= 1
    forged.write_rows()


@pytest.mark.parametrize("spoil", [spoil_frame_sum, flip_frame_sum, spoil_sum_of_frame_sums, spoil_sample_sum])
@KINDS_OF_KEY
def test_where_one_of_two_checksums_differs_the_other_vouches_for_the_values(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, key: FeatureKey, values: Any, spoil: Any
) -> None:
    spoil(request.getfixturevalue(which))
    last = len(values("c")) - 1
    for first in (lambda store: store.get(key, "c"), lambda store: store.get(key, "c", [last])):
        store = FeatureStore(tmp_path)
        first(store)  # either is asked for first by a reader of its own
        for frames in (None, [last], slice(0, 1), slice(None)):
            np.testing.assert_array_equal(
                store.get(key, "c", frames), values("c") if frames is None else values("c")[frames]
            )
        np.testing.assert_array_equal(store.get_ragged(key, IDS)[2], values("c"))
        if key is KEY:
            np.testing.assert_array_equal(store.get_many(key, IDS)[2], values("c"))
    assert check_store(tmp_path).clean
    (finding,) = check_store(tmp_path, full=True).findings
    assert finding.kind == "frame_checksum"
    which_differs = "the whole sample differs" if spoil is spoil_sample_sum else "its frames differ"
    assert which_differs in finding.what
    assert [one.repaired for one in check_store(tmp_path, full=True, repair=True).findings] == [True]
    assert check_store(tmp_path, full=True).clean
    store = FeatureStore(tmp_path)
    for id in IDS:
        np.testing.assert_array_equal(store.get(key, id), values(id))
        np.testing.assert_array_equal(store.get(key, id, [0]), values(id)[:1])
    repaired = Forged(segment_dirs(tmp_path, key)[0])
    assert repaired.sums is not None
    assert repaired.sums.tolist() == [crc32c(frame) for id in IDS for frame in values(id)]
    assert repaired.table["crc"].tolist() == [crc32c(values(id)) for id in IDS]


@pytest.mark.parametrize("spoil", [spoil_frame_sum, flip_frame_sum, spoil_sum_of_frame_sums])
@KINDS_OF_KEY
def test_where_both_checksums_differ_the_sample_is_missing(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, key: FeatureKey, values: Any, spoil: Any
) -> None:
    forged: Forged = request.getfixturevalue(which)
    spoil_sample_sum(forged)
    spoil(forged)
    last = len(values("c")) - 1
    for frames in (None, [last]):
        with pytest.raises(CorruptSegmentError, match="checksum differs"):
            FeatureStore(tmp_path).get(key, "c", frames)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(key, "b"), values("b"))
    assert {finding.kind for finding in check_store(tmp_path, full=True, repair=True).findings} == {"row"}
    assert check_store(tmp_path, full=True).clean
    assert FeatureStore(tmp_path).ids(key) == ["a", "b"]


@KINDS_OF_KEY
def test_a_part_of_a_damaged_sample_is_read_where_its_frames_are_sound(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, key: FeatureKey, values: Any
) -> None:
    forged: Forged = request.getfixturevalue(which)
    frame_bytes = values("c")[0].nbytes
    flip(forged.shard, int(forged.table["frame"][2] + 1) * frame_bytes + 3)
    np.testing.assert_array_equal(FeatureStore(tmp_path).get(key, "c", [0, 2]), values("c")[[0, 2]])
    for frames in ([1], [0, 1], None):
        with pytest.raises(CorruptSegmentError, match="checksum differs"):
            FeatureStore(tmp_path).get(key, "c", frames)
    assert {finding.kind for finding in check_store(tmp_path, full=True).findings} == {"row"}


@KINDS_OF_KEY
def test_readers_that_compare_no_frame_checksums_are_caught(
    tmp_path: Path, request: pytest.FixtureRequest, which: str, key: FeatureKey, values: Any
) -> None:
    forged: Forged = request.getfixturevalue(which)
    flip(forged.shard, int(forged.table["frame"][2] + 1) * values("c")[0].nbytes + 3)
    with mutant(room.Segment.read_frames, "return out if checked or not len(frames) else", "return out; 0 and"):
        assert not np.array_equal(FeatureStore(tmp_path).get(key, "c", [1]), values("c")[[1]])


def test_a_reader_that_takes_overlapping_records_is_caught(tmp_path: Path, ragged: Forged) -> None:
    ragged.table["frame"], ragged.table["n_frames"] = LIES["the same frames"]
    ragged.write_rows()
    with mutant(room._require_order, "if not sound:", "if False:"):
        assert len(open_key(str(tmp_path), str(ALL))) == 3
