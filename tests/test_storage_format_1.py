"""The reader of format 1: what the first version wrote, read as it was written or named, whatever is damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_factories import KEY, fill, flip, reseal

from featurestore import FeatureKey
from featurestore.storage import format_1
from featurestore.storage.format_1 import OldSet, is_old_store, old_sets

GOLDEN = Path(__file__).parent / "golden" / "format1"
EXPECTED: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_bytes())
FRAME = "mer2023/frame/CLIP_VIT_LARGE/uniform/2"
TEXT = "iemocap/au/CLIP_TEXT/au_summary/all"
PLAIN, HALF = "232794e82c2420a4", "1a91b0cbb5bc9eeb"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "store", tmp_path / "store"))


def opened(root: Path, key: str, recipe: str) -> OldSet:
    return OldSet(root / "data" / key / recipe, FeatureKey.parse(key))


def segment_of(root: Path, key: str, recipe: str, id: str) -> Path:
    """The folder of the segment that counts for a sample."""
    old = opened(root, key, recipe)
    segments = [one for one in old._segments for row in range(len(one.records)) if one.line(row)["id"] == id]
    return segments[0].path


def assert_right_or_named(old: OldSet) -> int:
    """Every sample is as the first version wrote it; how many are left out, of which something is said."""
    rows = {
        row["id"]: row for row in EXPECTED if (row["key"], row["recipe"]) == (str(old.key), old.fingerprint)
    }  # fmt: skip
    found = {line["id"]: (line, values) for line, values, _ in old.samples()}
    for id, (line, values) in found.items():
        row = rows[id]
        expected = np.array(row["values"], row["dtype"])
        assert (values.dtype, values.shape, values.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())
        assert [line.get(name) for name in ("frame_indices", "timestamps_s", "provenance")] == [
            row[name] for name in ("frame_indices", "timestamps_s", "provenance")
        ]
    left_out = len(rows) - len(found)
    assert not left_out or old.problems
    return left_out


def test_every_row_of_the_golden_store_is_read() -> None:
    sets = old_sets(GOLDEN / "store")
    assert [(str(old.key), old.fingerprint) for old in sets] == [
        (TEXT, PLAIN), ("mer2023/audio/HUBERT_LARGE/const_clips/1", PLAIN), (FRAME, HALF), (FRAME, PLAIN)
    ]  # fmt: skip
    for old in sets:
        assert assert_right_or_named(old) == 0
        assert old.problems == {}
        assert old.recipe().fingerprint == old.fingerprint
    assert sum(map(len, sets)) == len(EXPECTED)
    assert {made_with["featurestore"] for old in sets for _, _, made_with in old.samples()} == {"0.1.0"}


@pytest.mark.parametrize(("key", "recipe"), [(TEXT, PLAIN), (FRAME, HALF), (FRAME, PLAIN)])
def test_with_one_bit_turned_what_is_read_is_right_and_the_rest_is_named(golden: Path, key: str, recipe: str) -> None:
    draw = np.random.default_rng(0)
    left_out = 0
    for path in sorted((golden / "data" / key / recipe / "segments").glob("*-*/*")):
        for at in draw.integers(0, path.stat().st_size, 25).tolist():
            flip(path, at, at % 8)
            left_out += assert_right_or_named(opened(golden, key, recipe)) > 0
            flip(path, at, at % 8)
    assert left_out > 50


@pytest.mark.parametrize("key", [FRAME, TEXT])
def test_a_reader_that_checks_no_values_gives_wrong_ones(
    golden: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The mutant of the test above."""
    path = segment_of(golden, key, PLAIN, "plain" if key == FRAME else "one")
    flip(path / "c.0.0.0", 3)
    assert assert_right_or_named(opened(golden, key, PLAIN)) == 1
    monkeypatch.setattr(format_1._Segment, "values", unchecked)
    with pytest.raises(AssertionError):
        assert_right_or_named(opened(golden, key, PLAIN))


def unchecked(self: Any, row: int) -> Any:
    raw = self._read("c.0.0.0", *self.index[row].tolist())
    return np.frombuffer(raw, self.dtype).reshape(self.shape)


def test_what_a_damaged_segment_replaced_does_not_come_back(golden: Path) -> None:
    """`overwritten` and `deleted` are in a segment that a later one replaces."""
    folder = golden / "data" / FRAME / PLAIN / "segments"
    replacing = [path for path in folder.glob("*-*") if (path / "replaces").exists()]
    assert len(replacing) == 2
    for path in replacing:
        flip(path / "rows", 3)
    old = opened(golden, FRAME, PLAIN)
    assert {line["id"] for line, _, _ in old.samples()} == {"-later"}
    # Of those that are damaged the one that the other replaced is of no interest.
    ((what, why),) = old.problems.items()
    assert what.startswith("segment 0179")
    assert why == "the table in `rows` fails its digest"


def test_damage_is_named_by_its_sample_where_that_is_known(golden: Path) -> None:
    path = segment_of(golden, FRAME, HALF, "half")
    size = (path / "c.0.0.0").stat().st_size
    assert json.loads((path / "zarr.json").read_bytes())["attributes"]["featurestore"]["codec"] == "zstd"
    flip(path / "c.0.0.0", 8)
    flip(path / "rows", (path / "rows").stat().st_size - 5)
    old = opened(golden, FRAME, HALF)
    assert list(old.samples()) == []
    assert old.problems == {
        "sample 'half'": "its values fail their checksum",
        f"row 1 of segment {path.name}": "its line in `rows` fails its checksum",
    }
    (path / "c.0.0.0").write_bytes(bytes(size - 1))
    (why,) = opened(golden, FRAME, HALF).problems.values()
    assert why == "`c.0.0.0` is not of the size that was committed"


def test_a_frame_that_says_that_it_holds_a_gigabyte_is_not_decompressed(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import google_crc32c
    import numcodecs

    path = segment_of(golden, FRAME, HALF, "half")
    old = opened(golden, FRAME, HALF)
    (segment,) = old._segments
    start, size = segment.index[0].tolist()
    raw = bytearray((path / "c.0.0.0").read_bytes())
    assert raw[start + 4] & 0xE0 == 0x20  # the size of the content is one byte
    raw[start + 5] += 1
    records = segment.records.copy()
    records["crc"][0] = google_crc32c.value(bytes(raw[start : start + size]))
    (path / "c.0.0.0").write_bytes(raw)
    segment.records = records
    monkeypatch.setattr(numcodecs, "Zstd", lambda: pytest.fail("it was decompressed"))
    with pytest.raises(ValueError, match="its values are of another size when they are decompressed"):
        segment.values(0)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"format":1', b'"format":2', "it belongs elsewhere: its zarr.json says [2, "),
        (b'"shape":[1,2,3],"data_type"', b'"shape":[1,2,1073741824],"data_type"', "holds no rows of this key"),
        (b'"shape":[1,2,3],"data_type"', b'"shape":[1,2,-3],"data_type"', "its sizes are no numbers"),
        (b'"shape":[1,2,3],"data_type"', b'"shape":[1,3,3],"data_type"', "holds no rows of this key"),
        (b'"shape":[1,2,3],"data_type"', b'"shape":[9,2,3],"data_type"', "`rows` is not of the size"),
        (b'"data_type":"float32"', b'"data_type":"float99"', "it is not what a store wrote: KeyError('float99')"),
    ],
)  # fmt: skip
def test_a_sealed_segment_that_no_store_wrote_is_named(golden: Path, old: bytes, new: bytes, why: str) -> None:
    path = segment_of(golden, FRAME, PLAIN, "-later")
    reseal(path / "zarr.json", old, new)
    problems = opened(golden, FRAME, PLAIN).problems
    assert why in problems[f"segment {path.name}"]


def test_a_recipe_that_is_damaged_or_of_another_place_is_refused(golden: Path) -> None:
    document = golden / "data" / FRAME / PLAIN / "zarr.json"
    raw = document.read_bytes()
    for change, why in (
        (raw.replace(b"sha256:00", b"sha256:01"), "its recipe is that of another place"),
        (raw.replace(b"mer2023", b"mer2024"), "its recipe is that of another place"),
        (raw[:-5], "its recipe cannot be read: "),
        (b"[]", "its recipe cannot be read: it is not what a store wrote: TypeError"),
    ):
        document.write_bytes(change)
        with pytest.raises(ValueError, match=why):
            opened(golden, FRAME, PLAIN).recipe()


def test_a_store_is_an_old_one_by_its_documents(golden: Path, tmp_path: Path) -> None:
    assert is_old_store(golden)
    for document in golden.glob("data/*/*/*/*/*/*/zarr.json"):
        document.write_bytes(b"")
    assert is_old_store(golden)  # by the segments
    fill(tmp_path / "new", ["a"], key=KEY)
    for root in (tmp_path / "new", tmp_path / "nothing", GOLDEN):
        assert not is_old_store(root)
