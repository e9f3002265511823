"""The format on disk: the store that its first version wrote, and the program of docs/format.md, which reads any."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_factories import files
from click.testing import CliRunner
from store_factories import ALL, KEY, RECIPE, batch, flip, header_of, reseal, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore, version
from featurestore.cli import fstore
from featurestore.errors import FailedSampleError
from featurestore.storage.manifest import read_manifest
from featurestore.storage.reader import FORMAT, Reader, seal_of
from featurestore.storage.rows import IMPORTED

GOLDEN = Path(__file__).parent / "golden" / "format2"
EXPECTED: list[dict[str, Any]] = [
    json.loads(line) for line in (GOLDEN / "expected.jsonl").read_text(encoding="utf-8").splitlines()
]
KINDS = sorted({(row["key"], row["recipe"]) for row in EXPECTED})
PAGE = Path(__file__).resolve().parents[1] / "docs" / "format.md"
TEXT = "iemocap/au/CLIP_TEXT/au_summary/all"
AUDIO = "mer2023/audio/HUBERT_LARGE/const_clips/1"
FRAME = "mer2023/frame/CLIP_VIT_LARGE/uniform/2"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy that a test may write into."""
    return Path(shutil.copytree(GOLDEN / "store", tmp_path / "store"))


@pytest.fixture(scope="module")
def documented() -> Any:
    """The names that the program in docs/format.md defines."""
    (program,) = [
        body
        for body in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "def read(" in body
    ]
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


def rows_expected(key: str, recipe: str) -> dict[str, dict[str, Any]]:
    return {row["line"]["id"]: row for row in EXPECTED if (row["key"], row["recipe"]) == (key, recipe)}


def values_expected(row: dict[str, Any]) -> Any:
    dtype = np.dtype(row["dtype"]).newbyteorder("<")
    return np.frombuffer(zlib.decompress(base64.b64decode(row["values"])), dtype).reshape(row["shape"])


def same(values: Any, row: dict[str, Any]) -> bool:
    expected = values_expected(row)
    return bool(values.dtype == expected.dtype and values.shape == expected.shape) and (
        np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes() == expected.tobytes()
    )


# -- the store that the first version wrote ------------------------------------------------------------


def test_the_golden_store_holds_what_a_store_can_hold() -> None:
    assert {row["dtype"] for row in EXPECTED} == {"float16", "float32", "float64", "uint8"}
    assert {len(row["shape"]) for row in EXPECTED} == {2, 3, 4}
    assert {row["shape"][0] for row in EXPECTED if row["key"] == TEXT} == {1, 2, 3, 5}
    assert {tuple(row["axes"]) for row in EXPECTED} == {
        ("feature",), ("token", "feature"), ("layer", "feature"), ("height", "width", "channel")
    }  # fmt: skip
    lines = [row["line"] for row in EXPECTED]
    for name in ("frame_indices", "timestamps_s", "provenance", "dtype"):
        assert {name in line for line in lines} == {True, False}
    assert any((line.get("provenance") or {}).get("sources") for line in lines)
    assert {"-later", "../é/样本"} <= {line["id"] for line in lines}
    assert len(KINDS) == 9
    documents = [
        json.loads(path.read_bytes()) for path in (GOLDEN / "store" / "data").glob("**/segments/*-*/zarr.json")
    ]
    headers = [document["attributes"]["featurestore"] for document in documents]
    assert {header["format"] for header in headers} == {2}
    kinds = {
        (
            document["dimension_names"][0],
            header["frames"] is not None,
            document["chunk_grid"]["configuration"]["chunk_shape"][0]
            - document["codecs"][0]["configuration"]["chunk_shape"][0]
            > 0,
            document["chunk_grid"]["configuration"]["chunk_shape"][0] > max(1, document["shape"][0]),
        )
        for document, header in zip(documents, headers, strict=True)
    }  # ragged or not, with checksums of frames, several inner chunks, zeros behind the last
    assert kinds == {
        ("sample", False, False, False), ("sample", True, False, False), ("sample", False, True, True),
        ("frame", True, False, False), ("frame", True, True, True),
    }  # fmt: skip
    assert any(header["replaces"] for header in headers)
    assert any(header["shard"]["bytes"] == 0 for header in headers), "a segment of no samples"
    assert {name for header in headers for name in header["replaces"]} & {header["name"] for header in headers}
    assert len(list((GOLDEN / "store" / ".fstore").rglob("failed/*.json"))) == 1


@pytest.mark.parametrize(("key", "recipe"), KINDS)
@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_every_row_of_the_golden_store_is_read_bit_for_bit(key: str, recipe: str, memory_bytes: int) -> None:
    store = FeatureStore(GOLDEN / "store", memory_bytes=memory_bytes, read_only=True)
    rows = rows_expected(key, recipe)
    assert store.ids(key, fingerprint=recipe) == sorted(rows)
    feature_set = store.feature_set(key, fingerprint=recipe)
    assert feature_set is not None
    for _ in range(2):
        read = store.get_ragged if key.endswith("/all") else store.get_many
        many = read(key, list(rows), fingerprint=recipe)
        for found, (id, row) in zip(many, rows.items(), strict=True):
            features = store.get_features(key, id, fingerprint=recipe)
            frames, seconds = features.frame_indices, features.timestamps_s
            assert same(found, row)
            assert same(store.get(key, id, fingerprint=recipe), row)
            assert same(features.values, row)
            for n in (0, len(found) - 1):
                one = store.get(key, id, [n], fingerprint=recipe)
                assert one.tobytes() == found[n].tobytes()
            assert (frames if frames is None else frames.tolist()) == row["line"].get("frame_indices")
            assert (seconds if seconds is None else seconds.tolist()) == row["line"].get("timestamps_s")
            assert features.provenance == row["line"].get("provenance")
            assert features.axes == tuple(row["axes"])
            assert feature_set.line(id) == row["line"]


def test_keys_recipes_and_records_of_the_golden_store_are_read() -> None:
    store = FeatureStore(GOLDEN / "store", read_only=True)
    assert {str(key) for key in store.keys()} == {AUDIO, *(key for key, _ in KINDS)}
    for key in {key for key, _ in KINDS}:
        recipes = store.recipes(key)
        assert {name: recipe.fingerprint for name, recipe in recipes.items()} == {name: name for name in recipes}
        assert sorted(recipes) == [recipe for other, recipe in KINDS if other == key]
    assert store.ids(AUDIO) == []
    record = store.failures(TEXT)["broken"]
    assert (record.reason, record.message) == ("description", "broken: no summary_description")
    with pytest.raises(FailedSampleError, match="no summary_description"):
        store.get(TEXT, "broken")


def test_manifests_and_the_list_of_keys_of_the_golden_store_are_read() -> None:
    store = FeatureStore(GOLDEN / "store", read_only=True)
    (recipe,) = {recipe for key, recipe in KINDS if key == FRAME and len(rows_expected(key, recipe)) == 2}
    feature_set = store.feature_set(FRAME, fingerprint=recipe)
    assert feature_set is not None
    (entry,) = read_manifest(feature_set.layout)["segments"]
    (segment,) = feature_set.reader.segments
    assert (entry["name"], entry["samples"]) == (segment.name, 2)
    assert feature_set.layout.manifest_rows.read_bytes() == segment.records().tobytes()
    raw = (GOLDEN / "store" / ".fstore" / "catalog.json").read_bytes()
    assert len(set(seal_of(raw))) == 1
    keys = json.loads(raw)["keys"]
    assert keys == {str(key): sorted(store.recipes(key)) for key in store.keys()}


def test_the_golden_store_can_be_written_on(golden: Path) -> None:
    for key, recipe in KINDS:
        feature_set = FeatureStore(golden).feature_set(key, fingerprint=recipe)
        assert feature_set is not None
        rows = rows_expected(key, recipe)
        first = next(iter(rows))
        old = FeatureStore(golden).get_features(key, first, fingerprint=recipe)
        new = replace(old, values=np.ones_like(values_expected(rows[first])), frame_indices=None, timestamps_s=None)
        feature_set.put({"new": new}, dtypes=IMPORTED)
        feature_set.put({first: new}, overwrite=[first], dtypes=IMPORTED)
        feature_set.compact()
        feature_set.gc(0)
        again = FeatureStore(golden)
        assert again.ids(key, fingerprint=recipe) == sorted([*rows, "new"])
        for id, row in rows.items():
            found = again.get(key, id, fingerprint=recipe)
            assert np.array_equal(found, new.values) if id == first else same(found, row)


def test_the_golden_store_is_sound(golden: Path) -> None:
    from featurestore.quality import check_store

    report = check_store(golden, full=True)
    assert [finding for finding in report.findings if finding.kind not in ("coverage", "content")] == []


@pytest.mark.parametrize("what", ["segment", "recipe", "needs"])
@pytest.mark.parametrize(
    "words",
    [["ls"], ["info", FRAME], ["compact", f"{FRAME}@{KINDS[-1][1]}"], ["verify"]],
    ids=lambda words: words[0],
)
def test_a_golden_store_of_a_later_version_is_refused_with_the_words_to_upgrade(
    golden: Path, what: str, words: list[str]
) -> None:
    """By every command that reads it or would change it; what is there stays as it is."""
    (recipe,) = [name for name in FeatureStore(golden).recipes(FRAME) if len(rows_expected(FRAME, name)) > 2]
    words = [word.split("@")[0] + f"@{recipe}" if "@" in word else word for word in words]
    folder = golden.joinpath("data", *FRAME.split("/"), recipe)
    if what == "recipe":
        document = folder / "zarr.json"
        document.write_bytes(document.read_bytes().replace(b'"format":2', b'"format":3'))
    elif what == "segment":
        reseal(max(folder.glob("segments/*-*/zarr.json")), b'"format":2', b'"format":3')
    else:
        reseal(max(folder.glob("segments/*-*/zarr.json")), b'"needs":[]', b'"needs":["whiteouts"]')
    before = files(golden / "data")
    result = CliRunner().invoke(fstore, [*words, "--store", str(golden)])
    assert result.exit_code in (1, 2)
    assert "upgrade featurestore" in result.output
    assert files(golden / "data") == before


def test_the_package_knows_formats_as_far_as_the_reader() -> None:
    assert version.FORMAT == FORMAT == 2


def test_zarr_reads_the_golden_store() -> None:
    import zarr

    group = zarr.open_group(GOLDEN / "store" / "data", mode="r")
    arrays = [member for _, member in group.members(max_depth=None) if isinstance(member, zarr.Array)]
    everything = {str(array.store_path): np.asarray(array[:]).tobytes() for array in arrays}
    for row in EXPECTED:
        raw = values_expected(row).tobytes()
        assert any(f"{row['key']}/{row['recipe']}/" in path and raw in values for path, values in everything.items())


# -- the program in the documentation ------------------------------------------------------------------


@pytest.mark.parametrize(("key", "recipe"), KINDS)
def test_the_documented_program_reads_the_golden_store(documented: Any, key: str, recipe: str) -> None:
    found = documented["read"](GOLDEN / "store" / "data" / key / recipe, key)
    rows = rows_expected(key, recipe)
    assert sorted(found) == sorted(rows)
    for id, (line, values) in found.items():
        assert same(values, rows[id])
        assert line == rows[id]["line"]


def history(root: Path) -> None:
    """A store with all that happens to one."""
    store = FeatureStore(root)
    for unit in (["a", "b", "c"], ["d", "../é"], ["e"]):
        store.put_many(KEY, unit, batch(unit), recipe=RECIPE)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    store.delete(KEY, ["d"])
    store.compact(KEY)
    store.put_many(KEY, ["f", "g"], batch(["f", "g"]), recipe=RECIPE)
    store.put_many(ALL, ["one", "three"], [values_of("one", 1), values_of("three", 3)], recipe=RECIPE)
    store.put_many(ALL, ["one"], [values_of("one", 2)], recipe=RECIPE, overwrite=True)
    wide = np.arange(3 * 4 * 2 * 2048, dtype=np.float32).reshape(3, 4, 2, 2048)
    store.put_many(WIDE, ["x", "y", "z"], wide, recipe=RECIPE, axes=("token", "feature"))
    store.delete(WIDE, ["y"])
    store.put_many(PIXELS, ["p", "q"], [np.full((n, 4, 5), n, np.uint8) for n in (1, 7)], recipe=RECIPE)


WIDE = FeatureKey("mer2023", "frame", "WIDE", "uniform", 4)  # its frames have checksums of their own
PIXELS = FeatureKey("mer2023", "face", "PIXELS", "uniform", "all")


@pytest.mark.parametrize(("key", "count"), [(KEY, 7), (ALL, 2), (WIDE, 2), (PIXELS, 2)], ids=str)
def test_the_documented_program_and_the_store_agree_whatever_is_damaged(
    tmp_path: Path, documented: Any, key: FeatureKey, count: int
) -> None:
    """The page says what a reader must check: with a bad byte anywhere, both read the same rows."""
    history(tmp_path)
    folder = segment_dirs(tmp_path, key)[0].parents[1]

    def agree() -> int:
        reader = Reader(str(folder), str(key))
        mine = {id: reader.get(id) for id in reader.ids()}
        by_hand = documented["read"](folder, str(key))
        assert sorted(id for id, values in mine.items() if values is not None) == sorted(by_hand)
        for id, (line, values) in by_hand.items():
            np.testing.assert_array_equal(mine[id], values, strict=True)
            assert reader.line(id) == line
        return len(by_hand)

    assert agree() == count
    generator = np.random.default_rng(0)
    fewer = 0
    for segment in segment_dirs(tmp_path, key):
        for path in sorted(segment.iterdir()):
            for at in generator.integers(0, path.stat().st_size, 12).tolist():
                flip(path, at, at % 8)
                fewer += agree() < count
                flip(path, at, at % 8)
            aside = path.rename(tmp_path / "aside")
            agree()  # also where a file is missing: without zarr.json it was never committed
            aside.rename(path)
    assert fewer > 10
    assert agree() == count


@pytest.mark.parametrize("key", [ALL, WIDE], ids=str)
def test_the_documented_program_reads_what_either_checksum_proves(
    tmp_path: Path, documented: Any, key: FeatureKey
) -> None:
    """That of the sample, or those of its frames: a bad bit in either costs nothing, in both the row."""
    history(tmp_path)
    segment = next(path for path in segment_dirs(tmp_path, key) if header_of(path)["replaces"])
    folder = segment.parents[1]
    whole = {id: values.tobytes() for id, (_, values) in documented["read"](folder, str(key)).items()}
    assert len(whole) == 2
    flip(segment / "frames", 1)
    assert {id: one.tobytes() for id, (_, one) in documented["read"](folder, str(key)).items()} == whole
    # As if the record itself had been wrong when it was written.
    wrong = bytearray((segment / "rows").read_bytes())
    n = header_of(segment)["rows"]["samples"]
    before = hashlib.blake2b(wrong[: n * 48], digest_size=32).hexdigest().encode()
    wrong[36] ^= 1
    (segment / "rows").write_bytes(wrong)
    reseal(segment / "zarr.json", before, hashlib.blake2b(wrong[: n * 48], digest_size=32).hexdigest().encode())
    (left_out,) = set(whole) - set(documented["read"](folder, str(key)))
    flip(segment / "frames", 1)
    found = documented["read"](folder, str(key))
    assert {id: one.tobytes() for id, (_, one) in found.items()} == whole
    reader = Reader(str(folder), str(key))
    assert reader.get(left_out).tobytes() == whole[left_out]
