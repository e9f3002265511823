"""What was imported comes back byte for byte, and other tools read what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featurestore.affectgpt.exporting import export_tree, exportable
from featurestore.affectgpt.importing import import_tree
from featurestore.cli import fstore
from featurestore.errors import LegacyNameError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.store import FeatureStore

KEY = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "emotion_peak", 8)
FOLDERS = {
    "mer2023/frame_CLIP_VIT_LARGE_emotion_peak_8frms": ((8, 768), np.float32),
    "mer2023/face_CLIP_VIT_LARGE_8frms": ((8, 768), np.float32),
    "mer2023/audio_HUBERT_LARGE_8clips": ((8, 1024), np.float32),
    "mer2023/multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete": ((1024,), np.float32),
    "mer2023/au_CLIP_VITB32_8frms": (None, np.float16),
    "iemocap/frame_DINO2_LARGE_uniform_6frms": ((6, 1024), np.float32),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "preextracted_features"
    generator = np.random.default_rng(0)
    for name, (shape, dtype) in FOLDERS.items():
        (root / name).mkdir(parents=True)
        for number, id in enumerate(("sample_00000001", "-MeTTeMJBNc_0", "größe", "a b")):
            values = generator.standard_normal(shape or (number + 1, 512), dtype=np.float32).astype(dtype)
            np.save(root / name / f"{id}.npy", values)
    return root


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Features of our own making: other dtypes, a key with no old name, a key with rows of several counts."""
    store = FeatureStore(tmp_path / "own")
    values = np.random.default_rng(1).standard_normal((5, 8, 32), dtype=np.float32)
    store.put_many(KEY, list("abcde"), values.astype(np.float16), recipe={"weights": "x"})
    fork = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "emotion_peak_fork", 8)
    store.put_many(fork, list("abcde"), values, recipe={"weights": "x"})
    texts = FeatureKey("mer2023", "au", "CLIP_TEXT", "au_summary", "all")
    store.put_many(texts, ["a", "b"], [values[0, :3], values[1, :1]], recipe={"weights": "x"})
    return store


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_import_then_export_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert run("import", tree, "--store", store).exit_code == 0
    result = run("export", "--store", store, "--layout", "affectgpt", tmp_path / "back")
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "back") == files(tree)
    assert len(files(tree)) == 24


def test_a_changed_value_is_not_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    """The mutant of the round trip: one bit of one value."""
    import_tree(tree, FeatureStore(tmp_path / "store"))
    file = tree / "mer2023" / "face_CLIP_VIT_LARGE_8frms" / "a b.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    run("export", "--store", tmp_path / "store", "--layout", "affectgpt", tmp_path / "back")
    assert files(tmp_path / "back") != files(tree)


def test_exporting_again_writes_nothing_and_other_bytes_stay(tree: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    import_tree(tree, store)
    report = export_tree(store, KEY, tree)
    assert (report.written, report.present, report.problems) == (0, 4, [])
    file = Path(report.folder) / "größe.npy"
    np.save(file, np.zeros((8, 768), np.float32))
    result = run("export", KEY, "--store", tmp_path / "store", "--layout", "affectgpt", tree)
    assert result.exit_code == 1
    assert "'größe'" in result.stderr
    assert "holds other bytes" in result.stderr
    assert not np.load(file).any()
    report = export_tree(store, KEY, tree, overwrite=True)
    assert (report.written, report.present) == (1, 3)
    assert np.load(file).all()


def test_our_own_features_are_exported_as_float32(store: FeatureStore, tmp_path: Path) -> None:
    report = export_tree(store, KEY, tmp_path / "out")
    assert report.folder == str(tmp_path / "out/mer2023/frame_CLIP_VIT_LARGE_emotion_peak_8frms")
    found = np.load(Path(report.folder) / "c.npy")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, store.get(KEY, "c").astype(np.float32))
    assert sorted(path.name for path in Path(report.folder).iterdir()) == [f"{id}.npy" for id in "abcde"]


def test_a_key_without_an_old_name_needs_to_say_what_it_passes_for(store: FeatureStore, tmp_path: Path) -> None:
    fork = "mer2023/frame/CLIP_VIT_LARGE/emotion_peak_fork/8"
    with pytest.raises(LegacyNameError, match="--sampling-as emotion_peak"):
        export_tree(store, FeatureKey.parse(fork), tmp_path / "out")
    command = ("export", fork, "--store", store.root, "--layout", "affectgpt", tmp_path / "out")
    assert run(*command).exit_code == 2
    assert run(*command, "--sampling-as", "emotion_peak").exit_code == 0
    assert len(files(tmp_path / "out" / "mer2023" / "frame_CLIP_VIT_LARGE_emotion_peak_8frms")) == 5
    assert [str(key) for key in exportable(store)] == ["mer2023/au/CLIP_TEXT/au_summary/all", str(KEY)]


def test_ids_that_cannot_be_file_names_are_named_and_the_rest_is_written(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    ids = ["../../up", "x" * 300, "fine", ".."]
    store.put_many(KEY, ids, np.ones((4, 8, 4), np.float32), recipe={"x": 1})
    report = export_tree(store, KEY, tmp_path / "deep" / "out")
    assert sorted(path.name for path in Path(report.folder).iterdir()) == ["...npy", "fine.npy"]
    assert len(report.problems) == 2
    assert all("cannot be a file name" in problem for problem in report.problems)
    assert not list(tmp_path.glob("*.npy"))


def test_one_recipe_is_exported_and_which_must_be_clear(store: FeatureStore, tmp_path: Path) -> None:
    other = store.get_many(KEY, list("abcde")) + np.float16(1)
    store.put_many(KEY, list("abcde"), other, recipe={"weights": "y"})
    result = run("export", KEY, "--store", store.root, "--layout", "affectgpt", tmp_path / "out")
    assert result.exit_code == 2
    prefix = next(name for name, recipe in store.recipes(KEY).items() if recipe.data == {"weights": "y"})
    assert (
        run("export", f"{KEY}@{prefix}", "--store", store.root, "--layout", "affectgpt", tmp_path / "out").exit_code
        == 0
    )
    found = np.load(next((tmp_path / "out").rglob("a.npy")))
    np.testing.assert_array_equal(found, other[0].astype(np.float32))


def test_a_key_that_is_not_clear_does_not_keep_the_others_back(store: FeatureStore, tmp_path: Path) -> None:
    store.put_many(KEY, ["a"], np.ones((1, 8, 32), np.float16), recipe={"weights": "y"})
    result = run("export", "--store", store.root, "--layout", "affectgpt", tmp_path / "out")
    assert result.exit_code == 1
    assert str(KEY) in result.stderr
    assert sorted(path.name for path in (tmp_path / "out" / "mer2023").iterdir()) == ["au_CLIP_VITB32_8frms"]


def test_nothing_stored_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFeatureError, match="nothing is stored under"):
        export_tree(FeatureStore(tmp_path / "empty"), KEY, tmp_path / "out")
    assert run("export", "--store", tmp_path / "empty", "--layout", "affectgpt", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


def test_json_and_usage(store: FeatureStore, tmp_path: Path) -> None:
    result = run("export", KEY, "--store", store.root, "--layout", "affectgpt", tmp_path / "out", "--json")
    assert [(r["written"], r["problems"]) for r in json.loads(result.stdout)] == [(5, [])]
    result = run("export", KEY, "--store", store.root)
    assert result.exit_code == 2
    assert "`fstore pack KEY -o DIR`" in result.stderr
    assert run("export", "--store", store.root, "--layout", "affectgpt").exit_code == 2
