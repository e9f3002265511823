"""Every kind of mistake is planted in a sound store and found, and a sound store raises no alarm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
from forging import Forged

from featurestore import Failure, FeatureKey, Features, FeatureStore, Recipe, Sample
from featurestore.errors import ConfigError
from featurestore.quality import KINDS, VerifyReport, check_store, integrity, verify
from featurestore.storage.feature_set import FeatureSet
from featurestore.storage.layout import Layout
from featurestore.storage.reader import OLD_FORMAT, Form
from featurestore.storage.writer import Rows, commit, row_line

KEY = FeatureKey.parse("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")
AU = FeatureKey.parse("mer2023/au/CLIP_TEXT/au_summary/all")
RECIPE = Recipe({"weights": "some", "compute_dtype": "float32"})
IDS = [f"sample_{number:02d}" for number in range(11)] + ["-6aNcD3dYJg_00"]
INDICES = np.arange(8) * 3
FORM = Form((16,), np.dtype("f4"), ("feature",))


def values_of(id: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(8, 16), another for each id."""
    seed = int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)


def source_of(path: Path) -> dict[str, Any]:
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Sample]:
    folder = tmp_path / "video"
    folder.mkdir()
    for id in IDS:
        (folder / f"{id}.mp4").write_bytes(f"the video of {id}".encode())
    return {id: Sample(id, video=folder / f"{id}.mp4") for id in IDS}


@pytest.fixture
def root(tmp_path: Path, samples: dict[str, Sample]) -> Path:
    """A sound store: two keys, three segments under one, a replaced one, rows of several lengths under the other."""
    store = FeatureStore(tmp_path / "store")
    for part in (IDS[:5], IDS[5:10], IDS[10:]):
        put(store, part, samples)
    store.put_many(KEY, IDS[:1], values_of("other")[None], recipe=RECIPE, overwrite=True)
    put(store, IDS[:1], samples, overwrite=True)
    texts = [values_of(id)[: 1 + number % 3, :8] for number, id in enumerate(IDS)]
    texts[1] = texts[0].copy()  # two people may show the same expression
    store.put_many(AU, IDS, texts, recipe={"weights": "text"}, frame_indices=[np.arange(len(text)) for text in texts])
    return store.root


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Readers warn of what verify reports."""
    caplog.set_level("ERROR", "featurestore")


def put(store: FeatureStore, ids: Sequence[str], samples: dict[str, Sample], overwrite: bool = False) -> None:
    store.put_many(
        KEY,
        ids,
        np.stack([values_of(id) for id in ids]),
        recipe=RECIPE,
        frame_indices=np.tile(INDICES, (len(ids), 1)),
        timestamps_s=np.tile(INDICES / 25, (len(ids), 1)),
        provenance=[{"sources": [source_of(samples[id].video)]} for id in ids],  # type: ignore[arg-type]
        overwrite=overwrite,
    )


def feature_set_of(root: Path, key: FeatureKey = KEY, recipe: Recipe = RECIPE) -> FeatureSet:
    return FeatureSet(root, key, recipe.fingerprint)


def segment_of(root: Path, id: str) -> tuple[Path, int]:
    """(folder, row) where a sample is stored."""
    place = feature_set_of(root).reader.find(id)
    assert place is not None
    return Path(place[0].path), place[1]


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def replace_rows(root: Path, rows: dict[str, np.ndarray[Any, Any]], indices: Any = INDICES) -> None:
    """Commit rows as a writer without any checks would, in place of what is stored."""
    layout = Layout(root, KEY, RECIPE.fingerprint)
    FeatureStore(root).delete(KEY, list(rows))
    lines = [row_line(id, indices, None, None) for id in rows]
    commit(layout, RECIPE, Rows(FORM, 8, [8] * len(rows), lines, list(rows), list(rows.values())))


def kinds(report: VerifyReport) -> set[str]:
    return {finding.kind for finding in report.findings}


# -- a sound store -------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_a_sound_store_raises_no_alarm(root: Path, samples: dict[str, Sample], full: bool, merged: bool) -> None:
    for key in (KEY, AU) if merged else ():
        FeatureStore(root).compact(key)
    report = check_store(root, sources={"mer2023": samples}, full=full)
    assert [str(finding) for finding in report.findings] == []
    assert report.clean
    assert (report.recipes, report.samples) == (2, 24)
    assert len(report.coverage) == 2
    assert report.no_coverage == []


def test_without_a_source_the_report_says_that_coverage_was_not_checked(root: Path) -> None:
    report = check_store(root)
    assert report.clean
    assert report.coverage == []
    assert report.no_coverage == [
        f"{AU}@{FeatureStore(root).feature_set(AU).fingerprint[:8]}",
        f"{KEY}@{RECIPE.fingerprint[:8]}",
    ]  # type: ignore[union-attr]


# -- from Python ---------------------------------------------------------------------------------


def test_verify_gives_the_findings_of_a_store(root: Path, samples: dict[str, Sample]) -> None:
    store = FeatureStore(root)
    assert verify(store) == verify(store, samples=samples) == verify(store, samples={"mer2023": samples}) == []
    more = {**samples, "new": Sample("new")}
    for given in (more, {"mer2023": more}):
        found = verify(store, samples=given)
        assert [(finding.kind, finding.where, finding.ids) for finding in found] == [
            ("missing", f"{AU}@{FeatureStore(root).info(AU).fingerprint[:8]}", ["new"]),
            ("missing", f"{KEY}@{RECIPE.fingerprint[:8]}", ["new"]),
        ]
        for keys in (KEY, str(KEY), [KEY], iter([str(KEY)])):
            assert verify(store, keys, given) == found[1:]
    assert verify(store, [], more) == []


def test_verify_looks_at_every_byte_when_asked_to_and_changes_nothing(root: Path) -> None:
    folder, _ = segment_of(root, IDS[0])
    flip(folder / "c.0.0.0", 8)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    store = FeatureStore(root)
    assert verify(store) == []
    assert {finding.kind for finding in verify(store, full=True)} == {"row"}
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_verify_says_of_samples_of_one_dataset_that_the_keys_must_be_too(
    root: Path, samples: dict[str, Sample]
) -> None:
    store = FeatureStore(root)
    other = replace(KEY, dataset="other")
    store.put_many(other, IDS[:1], values_of(IDS[0])[None], recipe=RECIPE)
    with pytest.raises(ConfigError, match="of one dataset, and the keys of mer2023, other: pass"):
        verify(store, samples=samples)
    with pytest.raises(ConfigError, match="the keys of none"):
        verify(FeatureStore(root / "nowhere"), samples=samples)
    assert verify(store, [AU, KEY], samples) == []


def test_an_empty_directory_and_one_that_is_not_there_are_clean(tmp_path: Path) -> None:
    assert check_store(tmp_path).clean
    assert check_store(tmp_path / "nowhere").clean
    assert not (tmp_path / "nowhere").exists()


def test_a_writer_killed_before_its_first_commit_leaves_nothing_to_report(root: Path) -> None:
    """Levels without their documents are where the next writer goes on."""
    (root / "data" / "mer2024" / "face" / "CLIP_VIT_LARGE" / "uniform" / "8").mkdir(parents=True)
    assert check_store(root, full=True).clean


def test_only_the_named_keys_are_looked_at(root: Path) -> None:
    flip(segment_of(root, IDS[0])[0] / "c.0.0.0", 10)
    assert check_store(root, {AU: None}, full=True).clean
    assert check_store(root, {KEY: "ffffff"}, full=True).findings[0].what == "nothing is stored under a recipe ffffff"
    assert kinds(check_store(root, {KEY: RECIPE.fingerprint[:6]}, full=True)) == {"row"}


def test_verify_writes_nothing_without_repair(root: Path, samples: dict[str, Sample]) -> None:
    flip(segment_of(root, IDS[0])[0] / "c.0.0.0", 10)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    check_store(root, sources={"mer2023": samples}, full=True)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


# -- damage --------------------------------------------------------------------------------------


def break_seal(root: Path) -> None:
    flip(segment_of(root, IDS[5])[0] / "zarr.json", 40)


def cut_shard(root: Path) -> None:
    path = segment_of(root, IDS[5])[0] / "c.0.0.0"
    os.truncate(path, path.stat().st_size - 1)


def lose_shard(root: Path) -> None:
    (segment_of(root, IDS[5])[0] / "c.0.0.0").unlink()


def lose_rows(root: Path) -> None:
    (segment_of(root, IDS[5])[0] / "rows").unlink()


def break_table(root: Path) -> None:
    flip(segment_of(root, IDS[5])[0] / "rows", 3)


def move_in_from_elsewhere(root: Path) -> None:
    folder = segment_of(root, IDS[5])[0]
    shutil.copytree(folder, folder.with_name(f"{10**19}-{'0' * 32}"))


def move_to_another_key(root: Path) -> None:
    other = feature_set_of(root, AU, Recipe({"weights": "text"})).layout.segments
    folder = segment_of(root, IDS[5])[0]
    os.rename(folder, other / folder.name)


def break_value(root: Path) -> None:
    folder, row = segment_of(root, IDS[5])
    flip(folder / "c.0.0.0", row * 8 * 16 * 4 + 100)


def break_frame_checksum(root: Path) -> None:
    (path,) = (root / "data").rglob("frames")
    flip(path, 17)


def break_index_checksum(root: Path) -> None:
    path = segment_of(root, IDS[5])[0] / "c.0.0.0"
    flip(path, path.stat().st_size - 1)


def lose_document_long_ago(root: Path) -> None:
    lose_document(root, 86_400 + 3_600)


def lose_document(root: Path, age_s: float) -> Path:
    """A copy of a segment that somebody gave up before its zarr.json, which comes last."""
    folder = segment_of(root, IDS[5])[0]
    copy = folder.with_name(f"{10**19}-{'0' * 32}")
    shutil.copytree(folder, copy, ignore=lambda *_: ["zarr.json"])
    for path in (*copy.iterdir(), copy):
        os.utime(path, (time.time() - age_s,) * 2)
    return copy


def break_shard_index(root: Path) -> None:
    path = segment_of(root, IDS[5])[0] / "c.0.0.0"
    flip(path, path.stat().st_size - 20)


def break_line(root: Path) -> None:
    path = segment_of(root, IDS[5])[0] / "rows"
    flip(path, path.stat().st_size - 30)


def lose_group(root: Path) -> None:
    (root / "data" / "mer2023" / "zarr.json").unlink()


def break_group(root: Path) -> None:
    (root / "data" / "mer2023" / "frame" / "zarr.json").write_text('{"zarr_format":2}')


def lose_recipe(root: Path) -> None:
    (feature_set_of(root).layout.recipe_dir / "zarr.json").unlink()


def swap_recipe(root: Path) -> None:
    path = feature_set_of(root).layout.recipe_dir / "zarr.json"
    path.write_text(path.read_text().replace('"some"', '"more"'))


def reformat_recipe(root: Path) -> None:
    path = feature_set_of(root).layout.recipe_dir / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))


def come_from_the_future(root: Path) -> None:
    path = feature_set_of(root).layout.recipe_dir / "zarr.json"
    path.write_text(path.read_text().replace('"format":2', '"format":3'))


def come_from_the_past(root: Path) -> None:
    path = feature_set_of(root).layout.recipe_dir / "zarr.json"
    path.write_text(path.read_text().replace('"format":2', '"format":1'))


def leave_a_file(root: Path) -> None:
    (root / "data" / "mer2023" / "notes.txt").write_text("do not delete")


def leave_a_file_in_a_segment(root: Path) -> None:
    (segment_of(root, IDS[5])[0] / "rows.bak").write_text("")


def leave_a_folder(root: Path) -> None:
    (root / "data" / "mer2023" / "picture").mkdir()


def link_a_dataset(root: Path) -> None:
    (root / "data" / "meld").symlink_to(root / "data" / "mer2023")


def break_record(root: Path) -> None:
    record = feature_set_of(root).failures.add("other", Failure("media", "no such file"))
    path = next(feature_set_of(root).failures.folder.glob("*.json"))
    path.write_text(path.read_text().replace(record.id, "another"))


def break_manifest(root: Path) -> None:
    feature_set = feature_set_of(root)
    feature_set.publish()
    flip(feature_set.layout.manifest, 40)


DAMAGE: list[tuple[Callable[[Path], None], str, bool, bool]] = [
    # what is planted, the kind it is found as, only with --full, whether repair mends it
    (break_seal, "segment", False, True),
    (cut_shard, "segment", False, True),
    (lose_shard, "segment", False, True),
    (lose_rows, "segment", False, True),
    (break_table, "segment", False, True),
    (move_in_from_elsewhere, "segment", False, True),
    (move_to_another_key, "segment", False, True),
    (break_value, "row", True, True),
    (break_frame_checksum, "frame_checksum", True, True),
    (break_index_checksum, "file", True, True),
    (lose_document_long_ago, "uncommitted", False, True),
    (break_shard_index, "file", True, True),
    (break_line, "line", False, True),
    (lose_group, "group", False, True),
    (break_group, "group", False, True),
    (lose_recipe, "recipe", False, False),
    (swap_recipe, "recipe", False, False),
    (reformat_recipe, "group", False, True),
    (come_from_the_future, "format", False, False),
    (come_from_the_past, "format", False, False),
    (leave_a_file, "stray", False, False),
    (leave_a_file_in_a_segment, "stray", False, False),
    (leave_a_folder, "stray", False, False),
    (link_a_dataset, "stray", False, False),
    (break_record, "record", False, True),
    (break_manifest, "manifest", False, True),
]


@pytest.mark.parametrize(("plant", "kind", "needs_full", "mends"), DAMAGE, ids=[row[0].__name__ for row in DAMAGE])
def test_damage_is_found_and_repair_deletes_nothing(
    root: Path, plant: Callable[[Path], None], kind: str, needs_full: bool, mends: bool
) -> None:
    plant(root)
    assert kinds(check_store(root)) == (set() if needs_full else {kind})
    report = check_store(root, full=True)
    assert kinds(report) == {kind}
    assert all(finding.advice and not finding.repaired for finding in report.findings)

    before = contents(root)
    report = check_store(root, full=True, repair=True)
    assert kinds(report) == {kind}, "a repaired finding is still a finding"
    assert all(finding.repaired == mends for finding in report.findings)
    assert before <= contents(root)
    again = check_store(root, full=True)
    assert kinds(again) == (set() if mends else {kind})
    if kind != "format":
        store = FeatureStore(root)
        for id in store.ids(KEY):
            np.testing.assert_array_equal(store.get(KEY, id), values_of(id))


def contents(root: Path) -> set[bytes]:
    """What the files hold, wherever they are."""
    return {path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize(
    ("plant", "lost"),
    [
        (break_value, 1), (break_line, 1), (break_index_checksum, 0), (break_shard_index, 0), (break_frame_checksum, 0),
        (lose_document_long_ago, 0), (break_seal, 5),
    ],
)  # fmt: skip
def test_repair_keeps_every_sound_row(
    root: Path, samples: dict[str, Sample], plant: Callable[[Path], None], lost: int
) -> None:
    plant(root)
    report = check_store(root, sources={"mer2023": samples}, full=True, repair=True)
    missing = [finding for finding in report.findings if finding.kind == "missing"]
    assert sum(len(finding.ids) for finding in missing) == lost
    assert len(FeatureStore(root).ids(KEY)) == 12 - lost


def test_what_may_be_a_copy_on_its_way_is_neither_named_nor_moved(root: Path) -> None:
    """Whatever another program calls its files meanwhile, and whatever lies in it."""
    copy = lose_document(root, 82_800)
    (copy / ".c.0.0.0.xK3d9a").write_bytes(b"")
    os.utime(copy, (1, 1))
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert check_store(root, full=True, repair=True).clean
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    shutil.copy(segment_of(root, IDS[5])[0] / "zarr.json", copy)
    assert kinds(check_store(root)) == {"segment", "stray"}, "with its document it is a segment, from elsewhere"


def test_what_nobody_committed_is_named_and_repair_moves_it_aside(root: Path) -> None:
    lose_document_long_ago(root)
    (finding,) = check_store(root).findings
    name = f"{10**19}-{'0' * 32}"
    assert finding.what == f"segment {name} was never committed: it has no zarr.json"
    assert finding.advice == "nothing reads it; repair moves it aside"
    (finding,) = check_store(root, repair=True).findings
    aside = feature_set_of(root).layout.housekeeping / "quarantine"
    assert (finding.repaired, str(aside) in str(finding)) == (True, True)
    assert sorted(path.name for path in (aside / name).iterdir()) == ["c.0.0.0", "rows"]
    assert check_store(root, full=True).clean


@pytest.mark.parametrize("where", ["the first frame's place", "a size", "the zeros", "the checksum"])
def test_what_only_other_readers_of_zarr_need_is_checked(tmp_path: Path, where: str) -> None:
    """The zeros that fill up the last chunk, and the index behind them."""
    key = FeatureKey("d", "frame", "e", "s", 1)
    ids = [f"{number:03d}" for number in range(202)]
    store = FeatureStore(tmp_path)
    values = np.random.default_rng(0).standard_normal((202, 1, 3072)).astype("f4")
    store.put_many(key, ids, values, recipe=RECIPE)
    (path,) = (tmp_path / "data").rglob("c.0.0.0")
    end = path.stat().st_size
    assert end == 3 * 68 * 12_288 + 3 * 16 + 4
    ats = {"the first frame's place": end - 52, "a size": end - 44, "the zeros": 203 * 12_288, "the checksum": end - 1}
    assert check_store(tmp_path, full=True).clean
    flip(path, ats[where])
    (finding,) = check_store(tmp_path, full=True, repair=True).findings
    assert (finding.kind, finding.repaired) == ("file", True)
    assert "`c.0.0.0`: zeros behind the rows, or the index" in finding.what
    assert check_store(tmp_path, full=True).clean
    np.testing.assert_array_equal(FeatureStore(tmp_path).get_many(key, ids), values)


def test_a_lost_recipe_is_written_anew_by_the_compute_that_made_it(root: Path) -> None:
    (feature_set_of(root).layout.recipe_dir / "zarr.json").unlink()
    report = check_store(root, repair=True, compute=Maker())
    assert [finding.repaired for finding in report.findings] == [True]
    assert check_store(root, full=True).clean
    assert FeatureStore(root).recipes(KEY) == {RECIPE.fingerprint: RECIPE}


def test_a_segment_of_another_dtype_is_found(root: Path) -> None:
    form = FORM._replace(dtype=np.dtype("f2"))
    rows = Rows(form, 8, [8], [row_line("half", None, None, None)], ["half"], [np.ones((8, 16), "f2")])
    commit(Layout(root, KEY, RECIPE.fingerprint), RECIPE, rows)
    assert kinds(check_store(root)) == {"segment"}


@pytest.mark.parametrize(
    ("change", "what", "advice"),
    [
        ({"format": 3}, "is format 3, this version reads up to 2", "upgrade featurestore"),
        ({"needs": ["masks"]}, "is written with masks, this version reads up to 2", "upgrade featurestore"),
        (
            {"format": 1},
            "is format 1, and 2 is read",
            OLD_FORMAT,
        ),
    ],
)
def test_a_segment_of_another_version_is_told_and_left_alone(
    root: Path, change: dict[str, Any], what: str, advice: str
) -> None:
    forged = Forged(segment_of(root, IDS[5])[0])
    forged.header.update(change)
    forged.seal()
    before = contents(root)
    report = check_store(root, full=True, repair=True)
    assert [(finding.kind, finding.advice) for finding in report.findings] == [("format", advice)]
    assert report.findings[0].what.endswith(what)
    assert contents(root) == before


def test_one_bit_of_every_byte_is_found(tmp_path: Path) -> None:
    """Of every file below `data`: documents of levels, recipe, segment, shard and rows."""
    root = tiny(tmp_path)
    assert silent_flips(root) == []


def test_a_look_at_what_other_readers_need_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, and without the digests of whole files, flips in the index of the shard would be silent."""
    monkeypatch.setattr(integrity.Damage, "_digests", lambda self, segment: None)
    monkeypatch.setattr(integrity.Damage, "_other_readers", lambda self, segment: None)
    assert [at for _, at in silent_flips(tiny(tmp_path), "c.0.0.0")] == list(range(16, 16 + 16 + 4))


def test_the_digests_of_whole_files_are_needed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checksum has 32 bits, and every four thousand millionth change leaves it as it was."""
    folder, row = segment_of(root, IDS[5])
    break_value(root)
    forged = Forged(folder)
    forged.table["crc"][row] = google_crc32c.value((folder / "c.0.0.0").read_bytes()[row * 512 : row * 512 + 512])
    forged.write_rows()
    (finding,) = check_store(root, full=True).findings
    assert (finding.kind, "`c.0.0.0` fails its digest" in finding.what) == ("file", True)
    monkeypatch.setattr(integrity.Damage, "_digests", lambda self, segment: None)
    assert check_store(root, full=True).clean


def tiny(tmp_path: Path) -> Path:
    store = FeatureStore(tmp_path / "tiny")
    key = FeatureKey("d", "frame", "e", "s", 1)
    values = np.arange(4, dtype="f4").reshape(2, 1, 2)
    store.put_many(key, ["a", "b"], values, recipe={"rate": 1e-05}, provenance=[{"note": 1.5}, {}])
    assert check_store(store.root, full=True).clean
    return store.root


def silent_flips(root: Path, name: str = "*") -> list[tuple[Path, int]]:
    """(file, byte) of each flip after which a full check says that nothing is wrong."""
    silent = []
    for path in sorted((root / "data").rglob(name)):
        if path.is_file():
            original = path.read_bytes()
            for at in range(len(original)):
                flip(path, at, at % 8)
                if check_store(root, full=True).clean:
                    silent.append((path, at))
                path.write_bytes(original)
    return silent


def test_segments_that_another_process_merges_meanwhile_are_no_damage(root: Path) -> None:
    feature_set = feature_set_of(root)
    checking = integrity.Damage(feature_set, "here", findings := integrity.Findings())
    rows = checking.rows()
    seen = [next(rows)[0]["id"]]
    FeatureStore(root).feature_set(KEY).compact(grace_s=0)  # type: ignore[union-attr]
    seen += [line["id"] for line, _ in rows]
    assert set(seen) == set(IDS)
    assert len(findings) == 0


# -- content -------------------------------------------------------------------------------------


def change(id: str, row: int, value: Any) -> np.ndarray[Any, Any]:
    values = values_of(id)
    values[row] = value
    return values


CONTENT: list[tuple[str, dict[str, np.ndarray[Any, Any]], str]] = [
    ("nonfinite", {IDS[3]: change(IDS[3], 2, np.nan)}, "NaN or infinite values"),
    ("zero", {IDS[3]: change(IDS[3], 2, 0)}, "some rows are zero"),
    ("zero", {id: np.zeros((8, 16), "f4") for id in IDS[3:5]}, "all rows are zero"),
    ("repeated", {IDS[3]: change(IDS[3], 2, values_of(IDS[3])[6])}, "rows of different frames are equal, bit for bit"),
    ("duplicate", {IDS[7]: values_of(IDS[3])}, f"the same values as '{IDS[3]}'"),
]


@pytest.mark.parametrize(("kind", "rows", "what"), CONTENT, ids=[f"{row[0]}-{len(row[1])}" for row in CONTENT])
def test_suspicious_content_is_found(root: Path, kind: str, rows: dict[str, np.ndarray[Any, Any]], what: str) -> None:
    replace_rows(root, rows, np.arange(8))
    if kind == "zero" and len(rows) == 2:  # rows of all-zero samples are equal too, and that is worth saying
        expected = {"zero", "repeated"}
    else:
        expected = {kind}
    assert check_store(root).clean, "only reading every value can tell"
    report = check_store(root, full=True)
    assert kinds(report) == expected
    finding = next(finding for finding in report.findings if finding.kind == kind)
    assert finding.what == what
    assert set(rows) <= set(finding.ids)


def test_rows_of_one_frame_that_was_taken_twice_may_be_equal(root: Path) -> None:
    """A short clip is padded with its last frame."""
    values = values_of(IDS[3])
    values[6] = values[7] = values[5]
    replace_rows(root, {IDS[3]: values}, np.array([0, 1, 2, 3, 4, 5, 5, 5]))
    assert check_store(root, full=True).clean


def test_of_rows_without_recorded_frames_only_those_are_suspected_that_are_all_equal(root: Path) -> None:
    replace_rows(root, {IDS[3]: change(IDS[3], 2, values_of(IDS[3])[6])}, None)
    assert check_store(root, full=True).clean
    replace_rows(root, {id: np.repeat(values_of(id)[:1], 8, axis=0) for id in IDS[3:5]}, None)
    (finding,) = check_store(root, full=True).findings
    assert (finding.kind, finding.ids) == ("repeated", IDS[3:5])
    assert finding.what == "all rows are equal, and of which frames they are was not recorded"


# -- coverage ------------------------------------------------------------------------------------


def test_coverage_is_checked_in_both_directions(root: Path, samples: dict[str, Sample]) -> None:
    source = {id: sample for id, sample in samples.items() if id != IDS[2]} | {"new": Sample("new")}
    report = check_store(root, {KEY: None}, sources={"mer2023": source})
    found = {finding.kind: finding for finding in report.findings}
    assert found.keys() == {"missing", "extra"}
    assert found["missing"].ids == ["new"]
    assert found["missing"].what == "1 of 12 samples are not stored"
    assert found["missing"].advice == f"`featurestore.extract(store, '{KEY}')` makes them"
    assert found["extra"].ids == [IDS[2]]


def test_a_sample_that_cannot_be_made_is_reported_with_its_reason(root: Path, samples: dict[str, Sample]) -> None:
    feature_set_of(root).failures.add("bad", Failure("media", "bad.mp4 is an HTML page"))
    report = check_store(root, {KEY: None}, sources={"mer2023": {**samples, "bad": Sample("bad")}})
    assert [(f.kind, f.what, f.ids) for f in report.findings] == [("failed", "media: bad.mp4 is an HTML page", ["bad"])]


def test_media_that_changed_are_stale_and_media_that_were_copied_are_not(
    root: Path, samples: dict[str, Sample], tmp_path: Path
) -> None:
    changed, touched, moved, gone = (Path(str(samples[id].video)) for id in IDS[:4])
    changed.write_bytes(changed.read_bytes().replace(b"the", b"The"))
    os.utime(touched, (1, 1))
    gone.unlink()
    copied = tmp_path / "elsewhere" / moved.name
    copied.parent.mkdir()
    shutil.copy(moved, copied)
    source = {**samples, IDS[2]: Sample(IDS[2], video=copied)}
    report = check_store(root, {KEY: None}, sources={"mer2023": source})
    assert [(finding.kind, finding.ids) for finding in report.findings] == [("stale", [IDS[0]])]


def test_without_a_source_media_are_looked_at_where_they_were(root: Path, samples: dict[str, Sample]) -> None:
    changed, gone = (Path(str(samples[id].video)) for id in IDS[:2])
    changed.write_bytes(changed.read_bytes().replace(b"the", b"The"))
    gone.unlink()
    report = check_store(root)
    assert [(finding.kind, finding.ids) for finding in report.findings] == [("stale", [IDS[0]])]
    assert report.gone == {f"{KEY}@{RECIPE.fingerprint[:8]}": [IDS[1]]}
    assert [key.split("@")[0] for key in report.unrecorded] == [str(AU)]


def test_ids_that_changed_places_are_stale(root: Path, samples: dict[str, Sample]) -> None:
    swapped = samples | {IDS[0]: Sample(IDS[0], video=samples[IDS[1]].video), IDS[1]: Sample(IDS[1])}
    report = check_store(root, {KEY: None}, sources={"mer2023": swapped})
    assert [(finding.kind, finding.ids) for finding in report.findings] == [("stale", [IDS[0]])]
    assert list(report.unnamed.values()) == [[IDS[1]]]


def test_a_key_with_nothing_stored_is_missing_all_of_its_samples(root: Path, samples: dict[str, Sample]) -> None:
    other = FeatureKey.parse("mer2023/frame/CLIP_VIT_LARGE/uniform/8")
    report = check_store(root, {other: None}, sources={"mer2023": samples})
    assert [(finding.kind, finding.ids) for finding in report.findings] == [("missing", IDS)]


def test_a_damaged_line_does_not_stop_the_check_of_coverage(root: Path, samples: dict[str, Sample]) -> None:
    break_line(root)
    report = check_store(root, {KEY: None}, sources={"mer2023": samples})
    assert kinds(report) == {"line", "missing"}


# -- made again ----------------------------------------------------------------------------------


class Maker:
    """A compute that makes what is stored, changed by `spoil`."""

    def __init__(self, spoil: Callable[[str, Features], Features | Failure] | None = None) -> None:
        self.spoil = spoil

    def recipe(self, key: FeatureKey) -> Recipe:
        return RECIPE

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[tuple[str, Features | Failure]]:
        for id in ids:
            made = Features(values_of(id), INDICES.copy())
            answer = made if self.spoil is None else self.spoil(id, made)
            if answer is not None:
                yield id, answer


def scaled(factor: float) -> Callable[[str, Features], Features]:
    return lambda id, made: Features((made.values * np.float32(factor)).astype("f4"), made.frame_indices)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (None, None),
        (scaled(1 + 5e-6), None),
        (scaled(1 + 5e-5), ("differs", "allowed are 2e-05")),  # nothing says how deep it is: as for the deepest
        (scaled(float("nan")), ("differs", "values differ by up to nan")),
        (lambda id, made: Features(made.values, made.frame_indices + 1), ("differs", "other frames")),
        (lambda id, made: Features(made.values[:, :8], made.frame_indices), ("differs", "other shape")),
        (lambda id, made: Failure("media", "gone"), ("not_made", "media: gone")),
        (lambda id, made: None, ("not_made", "no answer for it")),
    ],
)
def test_samples_are_made_again_and_compared(
    root: Path, samples: dict[str, Sample], spoil: Any, found: tuple[str, str] | None
) -> None:
    report = check_store(root, {KEY: None}, sources={"mer2023": samples}, recompute=3, compute=Maker(spoil))
    assert report.made_again == 3
    if found is None:
        assert report.clean
    else:
        assert kinds(report) == {found[0]}
        assert sum(len(finding.ids) for finding in report.findings) == 3
        assert all(found[1] in finding.what for finding in report.findings)


def test_half_precision_may_differ_more(root: Path) -> None:
    store = FeatureStore(root)
    recipe = Recipe({"dtype": "float16"})
    store.put_many(KEY, IDS, np.stack([values_of(id) for id in IDS]).astype("f2"), recipe=recipe)
    maker = Maker(lambda id, made: Features((made.values * np.float32(1.0003)).astype("f2"), made.frame_indices))
    maker.recipe = lambda key: recipe  # type: ignore[method-assign]
    source = {"mer2023": {id: Sample(id) for id in IDS}}
    assert check_store(root, {KEY: recipe.fingerprint}, sources=source, recompute=3, compute=maker).clean
    maker.spoil = scaled(1.01)
    assert not check_store(root, {KEY: recipe.fingerprint}, sources=source, recompute=3, compute=maker).clean


def test_a_recipe_that_says_how_deep_the_network_is_allows_what_that_needs(root: Path) -> None:
    depths = ((1, "float32", 3e-6, 9e-6), (48, "float32", 1e-5, 4e-5), (12, "bfloat16", 0.01, 0.1))
    for blocks, compute, clean, not_clean in depths:
        config = {"architecture": {"vision_cfg": {"layers": blocks}}}
        recipe = Recipe({"encoder": {"version": 1, "config": config}, "compute_dtype": compute})
        store = FeatureStore(root)
        store.put_many(KEY, IDS, np.stack([values_of(id) for id in IDS]), recipe=recipe)
        source = {"mer2023": {id: Sample(id) for id in IDS}}
        for off, found in ((clean, set()), (not_clean, {"differs"})):
            maker = Maker(scaled(1 + off))
            maker.recipe = lambda key, recipe=recipe: recipe  # type: ignore[method-assign]
            report = check_store(root, {KEY: recipe.fingerprint}, sources=source, recompute=3, compute=maker)
            assert kinds(report) == found, (blocks, compute, off)


def test_other_settings_are_refused_and_named(root: Path, samples: dict[str, Sample]) -> None:
    maker = Maker()
    maker.recipe = lambda key: Recipe({"weights": "other", "compute_dtype": "float32"})  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="weights is 'some' in the store and 'other' here"):
        check_store(root, {KEY: None}, sources={"mer2023": samples}, recompute=1, compute=maker)
    with pytest.raises(ConfigError, match="needs a compute"):
        check_store(root, {KEY: None}, sources={"mer2023": samples}, recompute=1)


def test_every_kind_is_planted_here() -> None:
    planted = {row[1] for row in DAMAGE} | {row[0] for row in CONTENT}
    assert planted | {"missing", "failed", "extra", "stale", "differs", "not_made"} == KINDS.keys()
