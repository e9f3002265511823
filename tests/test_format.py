"""The format on disk: the store that the first version wrote, and the program of docs/format.md, which reads any."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_factories import files
from click.testing import CliRunner
from store_factories import ALL, KEY, RECIPE, batch, flip, header_of, reseal, segment_dirs, values_of

from featurestore import FeatureKey, FeatureStore
from featurestore.cli import fstore, inventory
from featurestore.errors import FailedSampleError
from featurestore.storage.reader import FORMAT, Reader

GOLDEN = Path(__file__).parent / "golden" / "format1"
EXPECTED: list[dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_bytes())
KINDS = sorted({(row["key"], row["recipe"]) for row in EXPECTED})
PAGE = Path(__file__).resolve().parents[1] / "docs" / "format.md"


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy that a test may write into."""
    return Path(shutil.copytree(GOLDEN / "store", tmp_path / "store"))


@pytest.fixture(scope="module")
def documented() -> Any:
    """The names that the program in docs/format.md defines."""
    (program,) = [
        body for body in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def read(" in body
    ]
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


def rows_expected(key: str, recipe: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in EXPECTED if (row["key"], row["recipe"]) == (key, recipe)}


def same(values: Any, row: dict[str, Any]) -> bool:
    expected = np.array(row["values"], row["dtype"])
    return bool(values.dtype == expected.dtype and values.shape == expected.shape) and (
        np.ascontiguousarray(values).tobytes() == expected.tobytes()
    )


# -- the store that the first version wrote ------------------------------------------------------------


def test_the_golden_store_holds_what_a_store_can_hold() -> None:
    assert len(EXPECTED) == 10
    assert {row["dtype"] for row in EXPECTED} == {"float16", "float32"}
    assert {len(row["values"]) for row in EXPECTED if row["key"].endswith("/all")} == {1, 2, 3}
    assert {row["frame_indices"] is None for row in EXPECTED} == {True, False}
    assert {row["timestamps_s"] is None for row in EXPECTED} == {True, False}
    assert any((row["provenance"] or {}).get("sources") for row in EXPECTED)
    assert {"-later", "../é/样本"} <= {row["id"] for row in EXPECTED}
    assert len(KINDS) == 3
    headers = [header_of(path.parent) for path in (GOLDEN / "store" / "data").rglob("rows")]
    assert {header["codec"] for header in headers} == {None, "zstd"}
    assert {header["format"] for header in headers} == {1}
    assert any(header["replaces"] for header in headers)
    assert any(header["shard"]["bytes"] == 0 for header in headers), "a segment of no rows"
    assert {name for header in headers for name in header["replaces"]} & {header["name"] for header in headers}
    assert len(list((GOLDEN / "store" / ".fstore").rglob("failed/*.json"))) == 1


@pytest.mark.parametrize(("key", "recipe"), KINDS)
@pytest.mark.parametrize("memory_bytes", [0, 10**6])
def test_every_row_of_the_golden_store_is_read_bit_for_bit(key: str, recipe: str, memory_bytes: int) -> None:
    store = FeatureStore(GOLDEN / "store", memory_bytes=memory_bytes, read_only=True)
    rows = rows_expected(key, recipe)
    assert store.ids(key, fingerprint=recipe) == sorted(rows)
    for _ in range(2):
        read = store.get_ragged if key.endswith("/all") else store.get_many
        many = read(key, list(rows), fingerprint=recipe)
        for found, (id, row) in zip(many, rows.items(), strict=True):
            features = store.get_features(key, id, fingerprint=recipe)
            frames, seconds = features.frame_indices, features.timestamps_s
            assert same(found, row)
            assert same(store.get(key, id, fingerprint=recipe), row)
            assert same(features.values, row)
            assert (frames if frames is None else frames.tolist()) == row["frame_indices"]
            assert (seconds if seconds is None else seconds.tolist()) == row["timestamps_s"]
            assert features.provenance == row["provenance"]


def test_keys_recipes_and_records_of_the_golden_store_are_read() -> None:
    store = FeatureStore(GOLDEN / "store", read_only=True)
    audio = "mer2023/audio/HUBERT_LARGE/const_clips/1"
    text = "iemocap/au/CLIP_TEXT/au_summary/all"
    frame = "mer2023/frame/CLIP_VIT_LARGE/uniform/2"
    assert [str(key) for key in store.keys()] == [text, audio, frame]
    assert {name: recipe.fingerprint for name, recipe in store.recipes(frame).items()} == {
        recipe: recipe for key, recipe in KINDS if key == frame
    }
    assert store.ids(audio) == []
    record = store.failures(text)["broken"]
    assert (record.reason, record.message) == ("description", "broken: no summary_description")
    with pytest.raises(FailedSampleError, match="no summary_description"):
        store.get(text, "broken")


def test_the_golden_store_can_be_written_on(golden: Path) -> None:
    for key, recipe in KINDS:
        store = FeatureStore(golden)
        rows = rows_expected(key, recipe)
        stored = store.recipes(key)[recipe]
        first = next(iter(rows))
        new = np.ones_like(np.array(rows[first]["values"], rows[first]["dtype"]))
        store.put_many(key, ["new"], [new], recipe=stored)
        store.put_many(key, [first], [new], recipe=stored, overwrite=True)
        store.compact(key, fingerprint=recipe)
        feature_set = store.feature_set(key, fingerprint=recipe)
        assert feature_set is not None
        feature_set.gc(0)
        again = FeatureStore(golden)
        assert again.ids(key, fingerprint=recipe) == sorted([*rows, "new"])
        for id, row in rows.items():
            found = again.get(key, id, fingerprint=recipe)
            assert np.array_equal(found, new) if id == first else same(found, row)


def test_the_golden_store_is_sound(golden: Path) -> None:
    from featurestore.quality import check_store

    report = check_store(golden, full=True)
    assert [finding for finding in report.findings if finding.kind not in ("coverage", "content")] == []


@pytest.mark.parametrize("what", ["segment", "recipe"])
@pytest.mark.parametrize(
    "words",
    [["ls"], ["info", KINDS[-1][0]], ["compact", "@".join(KINDS[-1])], ["verify"]],
    ids=lambda words: words[0],
)
def test_a_golden_store_of_a_later_version_is_refused_with_the_words_to_upgrade(
    golden: Path, what: str, words: list[str]
) -> None:
    """By every command that reads it or would change it; what is there stays as it is."""
    key, recipe = KINDS[-1]
    folder = golden.joinpath("data", *key.split("/"), recipe)
    if what == "recipe":
        document = folder / "zarr.json"
        document.write_bytes(document.read_bytes().replace(b'"format":1', b'"format":2'))
    else:
        reseal(max(folder.glob("segments/*-*/zarr.json")), b'"format":1', b'"format":2')
    before = files(golden)
    result = CliRunner().invoke(fstore, [*words, "--store", str(golden)])
    assert result.exit_code in (1, 2)
    assert "upgrade featurestore" in result.output
    assert files(golden) == before


def test_the_command_line_knows_formats_as_far_as_the_reader() -> None:
    assert inventory.FORMAT == FORMAT


def test_zarr_reads_the_golden_store() -> None:
    import zarr

    group = zarr.open_group(GOLDEN / "store" / "data", mode="r")
    arrays = [member for _, member in group.members(max_depth=None) if isinstance(member, zarr.Array)]
    rows = {values.tobytes() for array in arrays for values in np.asarray(array[:])}
    for row in EXPECTED:
        assert np.array(row["values"], row["dtype"]).tobytes() in rows


# -- the program in the documentation ------------------------------------------------------------------


@pytest.mark.parametrize(("key", "recipe"), KINDS)
def test_the_documented_program_reads_the_golden_store(documented: Any, key: str, recipe: str) -> None:
    found = documented["read"](GOLDEN / "store" / "data" / key / recipe, key)
    rows = rows_expected(key, recipe)
    assert sorted(found) == sorted(rows)
    for id, (line, values) in found.items():
        assert same(values, rows[id])
        assert line.get("frame_indices") == rows[id]["frame_indices"]
        assert line.get("timestamps_s") == rows[id]["timestamps_s"]
        assert line.get("provenance") == rows[id]["provenance"]


def history(root: Path) -> None:
    """A store with all that happens to one."""
    store = FeatureStore(root)
    for unit in (["a", "b", "c"], ["d", "../é"], ["e"]):
        store.put_many(KEY, unit, batch(unit), recipe=RECIPE)
    store.put_many(KEY, ["a"], batch(["x"]), recipe=RECIPE, overwrite=True)
    store.delete(KEY, ["d"])
    store.compact(KEY, codec="zstd")
    store.put_many(KEY, ["f", "g"], batch(["f", "g"]), recipe=RECIPE)
    store.put_many(ALL, ["one", "three"], [values_of("one", 1), values_of("three", 3)], recipe=RECIPE)
    store.put_many(ALL, ["one"], [values_of("one", 2)], recipe=RECIPE, overwrite=True)


@pytest.mark.parametrize("key", [KEY, ALL], ids=str)
def test_the_documented_program_and_the_store_agree_whatever_is_damaged(
    tmp_path: Path, documented: Any, key: FeatureKey
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
            np.testing.assert_array_equal(mine[id], values)
            assert reader.line(id) == line
        return len(by_hand)

    whole = agree()
    assert whole == (7 if key is KEY else 2)
    generator = np.random.default_rng(0)
    fewer = 0
    for segment in segment_dirs(tmp_path, key):
        for path in sorted(segment.iterdir()):
            for at in generator.integers(0, path.stat().st_size, 12).tolist():
                flip(path, at, at % 8)
                fewer += agree() < whole
                flip(path, at, at % 8)
    assert fewer > 20
    assert agree() == whole
