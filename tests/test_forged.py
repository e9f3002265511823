"""Segments that no store wrote: their seals and checksums are right, and what they say is not."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import KEY, RECIPE, batch, fill, header_of, recipe_dir, segment_dirs, values_of

from featurestore import FeatureStore
from featurestore.compute.extraction import verdicts
from featurestore.errors import FeatureStoreError, UnknownRecipeError, ValuesError
from featurestore.sample import Sample
from featurestore.storage import reader as room
from featurestore.storage.reader import RECORD, SEAL_SIZE, crc32c, open_key, open_segment, seal_of

IDS = ["a", "b", "c"]


def write_document(segment: Path, document: Any, text: Callable[[str], str] = str) -> None:
    """zarr.json with a seal that is right."""
    raw = text(json.dumps(document, separators=(",", ":"))).encode()
    at = raw.rfind(b'"seal":"') + len(b'"seal":"')
    raw = raw[:at] + b"0" * SEAL_SIZE + raw[at + SEAL_SIZE :]
    (segment / "zarr.json").write_bytes(raw[:at] + seal_of(raw)[1] + raw[at + SEAL_SIZE :])


def write_rows(segment: Path, lines: list[bytes], places: list[int] | None = None, n: int | None = None) -> None:
    """Lines with checksums, table and digests that are right; `places` are where they are said to begin."""
    table = np.frombuffer((segment / "rows").read_bytes()[: len(lines) * RECORD.itemsize], RECORD).copy()
    if n is not None:
        table = np.resize(table, n)
    sizes = np.array([len(line) for line in lines], np.uint64)
    table["line"] = places if places is not None else table.nbytes + np.cumsum(sizes) - sizes
    if n is None:
        table["line_crc"] = [crc32c(line) for line in lines]
    raw = table.tobytes() + b"".join(lines)
    (segment / "rows").write_bytes(raw)
    document = json.loads((segment / "zarr.json").read_bytes())
    digests = {"blake2b": raw, "table_blake2b": table.tobytes()}
    document["attributes"]["featurestore"]["rows"] = {
        "bytes": len(raw),
        **{name: hashlib.blake2b(part, digest_size=32).hexdigest() for name, part in digests.items()},
    }
    write_document(segment, document)


def lines_of(segment: Path) -> list[bytes]:
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
    write_rows(segment, lines_of(segment))
    assert FeatureStore(tmp_path).ids(KEY) == IDS
    assert FeatureStore(tmp_path).get(KEY, "b").tobytes() == values_of("b").tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replaces", [[]]), ("replaces", 3), ("replaces", {"a": 1}), ("made_with", None), ("codec", "blosc"),
        ("codec", []), ("shard", None), ("rows", {}), ("shard", {"bytes": -1}), ("shard", {"bytes": 340}),
        ("rows", {"bytes": 1.5}), ("rows", {"bytes": True}), ("format", "1"), ("format", None),
    ],
)  # fmt: skip
def test_a_header_of_other_types_is_a_damaged_segment(tmp_path: Path, segment: Path, name: str, value: Any) -> None:
    document = json.loads((segment / "zarr.json").read_bytes())
    document["attributes"]["featurestore"][name] = value
    write_document(segment, document)
    assert "not that of a segment" in refused(tmp_path, segment)


@pytest.mark.parametrize(
    "shape", [[3, 4], "abc", [3, 4, None], [-1, 4, 6], [2**70, 4, 6], [3, 4, 2**61], [10**12, 4, 6], [0, 4, 6], 7]
)
def test_a_shape_that_the_files_cannot_have_is_a_damaged_segment(tmp_path: Path, segment: Path, shape: Any) -> None:
    document = json.loads((segment / "zarr.json").read_bytes())
    document["shape"] = shape
    write_document(segment, document)
    refused(tmp_path, segment)


def test_a_header_nested_too_deeply_is_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    document = json.loads((segment / "zarr.json").read_bytes())
    document["storage_transformers"] = "deep"
    write_document(segment, document, lambda text: text.replace('"deep"', "[" * 50_000 + "]" * 50_000))
    assert "nested too deeply" in refused(tmp_path, segment)


def test_rows_that_claim_more_than_a_row_may_have_are_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    dim = room.ROW_BYTES // 16 + 1
    size = 3 * (4 * dim * 4 + 4 + 16) + 4
    os.truncate(segment / "c.0.0.0", size)  # a hole, which costs nothing
    document = json.loads((segment / "zarr.json").read_bytes())
    document["shape"][2] = dim
    document["attributes"]["featurestore"]["shard"]["bytes"] = size
    write_document(segment, document)
    assert f"more than {room.ROW_BYTES} are not read" in refused(tmp_path, segment)


def test_rows_that_no_reader_would_take_are_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featurestore.storage.rows.ROW_BYTES", 95)
    with pytest.raises(ValuesError, match="'a': values are 96 bytes, and a sample may have 95"):
        FeatureStore(tmp_path).put_many(KEY, ["a"], batch(["a"]), recipe=RECIPE)


def test_a_table_whose_lines_all_begin_at_the_first_is_a_damaged_segment(tmp_path: Path, segment: Path) -> None:
    """Thousands of them, each as long as the file, kept `ids` busy for ever."""
    begin = 3 * RECORD.itemsize
    write_rows(segment, lines_of(segment), [begin, begin, begin])
    assert "not one behind the other" in refused(tmp_path, segment)
    for places in ([0, 1, 2], [begin, 2**63, begin], [begin, begin + 11, 10**6]):
        write_rows(segment, lines_of(segment), places)
        assert "not one behind the other" in refused(tmp_path, segment)


@pytest.mark.parametrize("name", ["rows", "zarr.json", "c.0.0.0", "replaces"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, segment: Path, name: str) -> None:
    for target in ("pipe", "/dev/zero"):
        (segment / name).unlink(missing_ok=True)
        os.mkfifo(segment / name) if target == "pipe" else (segment / name).symlink_to(target)
        store = FeatureStore(tmp_path)
        assert store.ids(KEY) == (IDS if name == "replaces" else [])
    if name == "replaces":
        from featurestore.quality import check_store

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
    write_rows(segment, [line + b"\n", *lines_of(segment)[1:]])
    store = FeatureStore(tmp_path)
    with pytest.raises(FeatureStoreError):
        store.get_features(KEY, "a")
    assert [features.values.shape for features in (store.get_features(KEY, id) for id in "bc")] == [(4, 6)] * 2
    assert store.ids(KEY)[-2:] == ["b", "c"]


def test_many_damaged_lines_are_found_in_one_go(
    tmp_path: Path, segment: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the disk again after each took the square of their number."""
    write_rows(segment, [b"\n"] * 3)
    looks = []
    look = room.Reader._look
    monkeypatch.setattr(room.Reader, "_look", lambda self: looks.append(1) or look(self))
    with caplog.at_level(logging.WARNING):
        assert open_key(str(tmp_path), str(KEY)).ids() == []
    assert len(looks) == 2
    assert "and 2 more rows" in caplog.text


def test_a_damaged_line_does_not_end_an_extraction(tmp_path: Path, segment: Path) -> None:
    write_rows(segment, [b"\n", *lines_of(segment)[1:]])
    feature_set = FeatureStore(tmp_path).feature_set(KEY)
    assert feature_set is not None
    samples = {id: Sample(id) for id in IDS}
    assert verdicts(feature_set, samples, set(IDS)) == {"b": "unrecorded", "c": "unrecorded"}
    assert [id in feature_set.reader for id in IDS] == [False, True, True]


def test_a_recipe_that_is_nested_too_deeply_is_told(tmp_path: Path, segment: Path) -> None:
    (recipe_dir(tmp_path) / "zarr.json").write_bytes(b'{"attributes":' * 50_000)
    with pytest.raises(UnknownRecipeError, match=r"zarr\.json cannot be read as a recipe.*nested too deeply"):
        FeatureStore(tmp_path).recipes(KEY)


def test_a_sound_header_is_described_as_before(segment: Path, tmp_path: Path) -> None:
    opened, records = open_segment(str(segment), recipe_dir(tmp_path).name, str(KEY))
    assert (opened.n, opened.shape, opened.codec, len(records)) == (3, (4, 6), None, 3)
    assert header_of(segment)["shard"]["bytes"] == 3 * (opened.pitch + 16) + 4
