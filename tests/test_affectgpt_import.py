"""What people already have is imported bit for bit, and everything that is wrong with it is said."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featurestore import affectgpt
from featurestore.affectgpt.importing import REFUSED, import_tree
from featurestore.affectgpt.npy import npy_header, read_npy
from featurestore.affectgpt.origins import imported_recipe
from featurestore.affectgpt.tree import scan_tree
from featurestore.cli import fstore
from featurestore.compute.extractor import Extractor
from featurestore.datasets import dataset_names
from featurestore.errors import LegacyTreeError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.quality.findings import Findings
from featurestore.sample import read_manifest
from featurestore.store import FeatureStore

SIMS = 457  # samples of the smallest test split
FRAME = "frame_CLIP_VIT_LARGE_emotion_peak_8frms"
FOLDER = "frame_ViT-S-32.none_uniform_8frms"


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape or (8, 768), dtype=np.float32)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clean tree: the whole test split of SIMS in every template that one split can have."""
    root = tmp_path / "preextracted_features"
    shapes = {
        FRAME: (8, 16),
        "face_CLIP_VIT_LARGE_8frms": (8, 16),
        "audio_HUBERT_LARGE_8clips": (8, 12),
        "multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete": (1024,),
        "au_CLIP_VITB32_8frms": None,
    }
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        folder = root / "sims" / name
        folder.mkdir(parents=True)
        for number in range(SIMS):
            own = shape or (number % 3 + 1, 512)
            np.save(folder / f"video_{number:04d}_0001.npy", generator.standard_normal(own, dtype=np.float32))
    return root  # rows narrower than the encoders make them, to be quick


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ten good samples of one folder, for planting mistakes into."""
    folder = tmp_path / "tree" / "mer2023" / FRAME
    folder.mkdir(parents=True)
    for number in range(10):
        np.save(folder / f"sample_{number:08d}.npy", rows(number))
    return tmp_path / "tree"


def kinds(report: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.kind, []).extend(finding.ids)
    return found


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


# ---- recognising ----

TEMPLATES = {
    "frame_CLIP_VIT_LARGE_emotion_peak_8frms": "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8",
    "frame_EVA_CLIP_G_NO_QFORMER_headtail_6frms": "mer2023/frame/EVA_CLIP_G_NO_QFORMER/headtail/6",
    "frame_SigLIP_SO_uniform_16frms": "mer2023/frame/SigLIP_SO/uniform/16",
    "frame_DINO2_LARGE_8frms": "mer2023/frame/DINO2_LARGE/uniform/8",
    "face_CLIP_VIT_LARGE_8frms": "mer2023/face/CLIP_VIT_LARGE/uniform/8",
    "face_DINO2_LARGE_uniform_8frms": "mer2023/face/DINO2_LARGE/uniform/8",
    "audio_HUBERT_LARGE_8clips": "mer2023/audio/HUBERT_LARGE/const_clips/8",
    "multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete": "mer2023/multi/CLIP_VIT_LARGE.HUBERT_LARGE/complete/1",
    "multi_SigLIP_SO_WAVLM_LARGE_simple": "mer2023/multi/SigLIP_SO.WAVLM_LARGE/simple/1",
    "au_CLIP_VITB32_8frms": "mer2023/au/CLIP_TEXT/au_summary/all",
}


def test_every_template_is_recognised(tmp_path: Path) -> None:
    for name in TEMPLATES:
        (tmp_path / "MER2023" / name).mkdir(parents=True)
    findings = Findings()
    tree = scan_tree(tmp_path, findings)
    assert {folder.path.name: str(folder.key) for folder in tree.folders} == TEMPLATES
    assert not findings


@pytest.mark.parametrize("name", ["au", "au_CLIP_VITB32_8frms", "au_CLIP_VITB32_512d_8frms"])
def test_the_three_au_folders_mean_one_key(tmp_path: Path, name: str) -> None:
    (tmp_path / "iemocapfour" / name).mkdir(parents=True)
    assert [str(f.key) for f in scan_tree(tmp_path, Findings()).folders] == ["iemocap/au/CLIP_TEXT/au_summary/all"]


def test_a_dataset_folder_or_a_feature_folder_is_a_tree_too(small: Path) -> None:
    for path in (small, small / "mer2023", small / "mer2023" / FRAME):
        assert [str(f.key) for f in scan_tree(path, Findings()).folders] == [TEMPLATES[FRAME]]
    (small / "mer2023").rename(small / "mine")
    said = r"'mine' is none of the known datasets: say .* own; `import_tree\('\S.*/mine', store, dataset='NAME'\)`$"
    with pytest.raises(LegacyTreeError, match=said):
        scan_tree(small / "mine", Findings())
    assert [str(f.key) for f in scan_tree(small / "mine", Findings(), "my_own").folders] == [
        "my_own/frame/CLIP_VIT_LARGE/emotion_peak/8"
    ]


def test_what_is_not_recognised_is_named(small: Path) -> None:
    wrong = ("frame_CLIP_VIT_LARGE_middle_8frms", "frame_my encoder_8frms", "frame_X_0frms", "frame_X", "notes", "old")
    for name in ("mer2032/" + FRAME, "logs", *(f"mer2023/{name}" for name in wrong)):
        (small / name).mkdir(parents=True)
    for name in ("loose.npy", "mer2023/flat.npy", "mer2023/README.txt"):
        (small / name).touch()
    report = import_tree(small, None)
    found = {(f.kind, f.where): (f.message, f.ids) for f in report.findings}
    for kind, folder, text, ids in (
        ("unknown_dataset", "mer2032", "none of the known datasets", []),
        ("unknown_folder", "mer2023/frame_CLIP_VIT_LARGE_middle_8frms", "CLIP_VIT_LARGE with an unknown sampling", []),
        ("unknown_folder", "mer2023/frame_my encoder_8frms", "encoder 'my encoder' must be", []),
        ("unknown_folder", "mer2023/frame_X_0frms", "n_frames 0 is neither", []),
        ("unknown_folder", "mer2023/frame_X", "is none of frame_ENCODER", []),
        ("unknown_folder", "mer2023", "no dataset's folder and no feature folder", ["notes", "old"]),
        ("unknown_folder", ".", "no dataset's folder and no feature folder", ["logs"]),
        ("stray", "mer2023", "not in a folder that says which features these are", ["flat.npy"]),
        ("stray", ".", "not in a folder that says which features these are", ["loose.npy"]),
    ):
        message, named = found.pop((kind, folder))
        assert text in message
        assert named == ids
    assert not found
    assert [folder.files for folder in report.folders] == [10]


def test_a_dataset_of_ones_own_is_met_with_the_command_that_imports_it(small: Path, tmp_path: Path) -> None:
    """What is printed is pasted, and works."""
    (small / "mer2023").rename(small / "my_clips")
    (small / "mer2032").symlink_to(small / "my_clips")
    (small / "my own").symlink_to(small / "my_clips")
    store = ("--store", tmp_path / "store")
    given = shlex.join(["--store", str(tmp_path / "store")])
    tree, other = (shlex.quote(str(path)) for path in (small, small / "mer2032"))
    report = json.loads(run("import", small, *store, "--json").stdout)
    said = {finding["folder"]: finding["message"] for finding in report["findings"]}
    assert {finding["kind"] for finding in report["findings"]} == {"unknown_dataset"}
    assert said["my_clips"].endswith(f"; if it is your own: `fstore import {tree} {given} --dataset my_clips`")
    assert said["mer2032"].endswith(f"; if mer2023 is meant: `fstore import {other} {given} --dataset mer2023`")
    assert said["my own"].endswith(f"say what it is called; `fstore import '{small}/my own' {given} --dataset NAME`")
    for message in said.values():
        words = shlex.split(message.rpartition("`fstore ")[2].rstrip("`").replace("NAME", "my_own"))
        result = run(*words)
        assert result.exit_code == 0, result.output
    keys = [str(key) for key in FeatureStore(tmp_path / "store").keys()]
    assert keys == [f"{name}/frame/CLIP_VIT_LARGE/emotion_peak/8" for name in ("mer2023", "my_clips", "my_own")]
    assert run("import", small, *store, "--dataset", "my own").exit_code == 2


@pytest.mark.parametrize("name", ["sample_00000000_clip_features.json", "x_au_analysis.json", "x_merr_data.json"])
def test_files_of_mer_factory_are_known_by_name(small: Path, name: str) -> None:
    """CLIP features of descriptions as JSON beside .npy, and an output directory taken for features."""
    (small / "mer2023" / FRAME / name).touch()
    (finding,) = import_tree(small, None).findings
    assert (finding.kind, finding.ids) == ("stray", [name])
    assert "give MER-Factory's output to extract as its mer_factory" in finding.message
    assert ("CLIP features of descriptions as JSON" in finding.message) is ("clip_features" in name)
    for sample in range(3):
        (small / "output" / "mer2023" / f"s{sample}").mkdir(parents=True)
        (small / "output" / "mer2023" / f"s{sample}" / name).touch()
    for tree, folder in ((small / "output", "mer2023"), (small / "output" / "mer2023", ".")):
        (finding,) = import_tree(tree, None).findings
        assert (finding.kind, finding.where, finding.ids) == ("unknown_folder", folder, ["s0", "s1", "s2"])
        assert "give MER-Factory's output to extract as its mer_factory" in finding.message


def test_features_beside_the_media_of_a_dataset_are_found(small: Path, tmp_path: Path) -> None:
    """`mer2023-dataset-process/features/frame_...`: whichever of the folders is given, the dataset is known."""
    data = small / "mer2023-dataset-process"
    for name in ("video", "audio", "openface_face"):
        (data / name).mkdir(parents=True)
    shutil.move(small / "mer2023", data / "features")
    np.save(data / "openface_face.npy", rows(0))
    for path in (small, data, data / "features", data / "features" / FRAME):
        for dataset in (None, "mer2023"):
            findings = Findings()
            assert [str(f.key) for f in scan_tree(path, findings, dataset).folders] == [TEMPLATES[FRAME]], path
            assert not findings
    result = run("import", small, "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    assert f"mer2023-dataset-process/features/{FRAME}" in result.stdout


def test_a_level_called_features_is_nobodys_name(small: Path) -> None:
    (small / "mine").mkdir()
    shutil.move(small / "mer2023", small / "mine" / "features")
    (finding,) = import_tree(small, None).findings
    assert (finding.kind, finding.where) == ("unknown_dataset", "mine")
    assert finding.message.endswith(f"if it is your own: `import_tree({str(small)!r}, store, dataset='mine')`")
    assert [str(f.key) for f in scan_tree(small, Findings(), "mine").folders] == [
        "mine/frame/CLIP_VIT_LARGE/emotion_peak/8"
    ]
    for path in (small / "mine", small / "mine" / "features"):
        with pytest.raises(LegacyTreeError, match=r"'mine' is none of the known datasets") as raised:
            scan_tree(path, Findings())
        assert "--dataset features" not in str(raised.value)


def test_the_folder_one_is_in_is_a_tree(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (small, small / "mer2023", small / "mer2023" / FRAME):
        monkeypatch.chdir(place)
        assert [str(f.key) for f in scan_tree(".", Findings()).folders] == [TEMPLATES[FRAME]]


def test_names_that_are_no_text_are_told_on_one_line_each(small: Path, tmp_path: Path) -> None:
    own = os.fsdecode(b"\xff")
    for name in (f"{own}/{FRAME}", f"mer2023/frame_{own}_8frms", f"mer2023/{own}", "two\nlines"):
        (small / name).mkdir(parents=True)
    (small / f"{own}.npy").touch()
    np.save(small / own / FRAME / "a.npy", rows(0))
    result = run("import", small, "--store", tmp_path / "store")
    said = result.stdout.split("\n\n")[1].splitlines()
    assert len(said) == 1 + 5
    assert all(line.isprintable() for line in said)
    assert {line.split()[0] for line in said[1:]} == {"stray", "unknown_folder", "unknown_dataset"}
    result = run("import", small / own, "--store", tmp_path / "store", "--dataset", "own")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1].endswith("under origin 'tree/\\\\udcff'.")


def test_a_folder_that_cannot_be_listed_costs_only_itself(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = {small / "sims", small / "mer2023" / "audio_HUBERT_LARGE_8clips"}
    for folder in locked:
        folder.mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:  # root may list anything, and tests may run as root
        if Path(path) in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = import_tree(small, FeatureStore(tmp_path / "store"))
    assert sorted((f.kind, f.where, f.message) for f in report.findings) == [
        ("unreadable", "mer2023/audio_HUBERT_LARGE_8clips", "the folder cannot be listed: Permission denied"),
        ("unreadable", "sims", "the folder cannot be listed: Permission denied"),
    ]
    assert [folder.stored for folder in report.folders] == [0, 10]
    locked.add(small)
    with pytest.raises(LegacyTreeError, match="cannot be listed: Permission denied"):
        import_tree(small, None)


def test_a_declaration_of_ones_own_says_which_ids_there_should_be(small: Path, tmp_path: Path) -> None:
    (small / "mer2023").rename(small / "mine")
    (tmp_path / "list.csv").write_text("name\n" + "".join(f"sample_{number:08d}\n" for number in range(1, 12)))
    (tmp_path / "mine.toml").write_text('name = "mine"\n[splits.test]\nfile = "list.csv"\n')
    result = run("import", small, "--dataset", tmp_path / "mine.toml", "--audit", "--dry-run", "--json")
    report = json.loads(result.stdout)
    found = {finding["kind"]: finding["ids"] for finding in report["findings"]}
    assert found == {"missing_id": ["sample_00000010", "sample_00000011"], "unknown_id": ["sample_00000000"]}
    assert [(f["key"], f["expected"]) for f in report["folders"]] == [("mine/frame/CLIP_VIT_LARGE/emotion_peak/8", 11)]


def test_a_place_without_features_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LegacyTreeError, match="holds no feature folder"):
        import_tree(tmp_path, None)
    with pytest.raises(LegacyTreeError, match="is not a folder"):
        import_tree(tmp_path / "nowhere", None)


# ---- importing ----


def test_a_whole_tree_is_stored_bit_for_bit(tree: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    report = import_tree(tree, store)
    assert report.findings == []
    assert [(folder.files, folder.stored, folder.refused) for folder in report.folders] == [(SIMS, SIMS, 0)] * 5
    for folder in sorted((tree / "sims").iterdir()):
        key = FeatureKey.from_legacy("sims", folder.name)
        assert len(store.ids(key)) == SIMS
        for file in sorted(folder.iterdir()):
            expected = np.load(file)
            stored = store.get(key, file.stem)
            assert stored.dtype == expected.dtype
            assert stored.tobytes() == expected.tobytes()
        assert store.get(key, file.stem).shape == (expected.shape if expected.ndim == 2 else (1, 1024))


def test_the_recipe_says_where_rows_came_from(small: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    key = TEMPLATES[FRAME]
    import_tree(small, store)
    origin = "/".join(small.resolve().parts[-2:])
    recipe = {"imported": True, "layout": "affectgpt", "origin": origin, "stored_dtype": "float32"}
    assert [found.data for found in store.recipes(key).values()] == [recipe]
    assert store.get_features(key, "sample_00000000").recipe == imported_recipe(origin, "float32")


def test_another_tree_is_another_recipe(small: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    import_tree(small, store)
    file = small / "mer2023" / FRAME / "sample_00000000.npy"
    np.save(file, rows(99))
    np.save(file.with_name("sample_00000010.npy"), rows(10))
    report = import_tree(small, store)
    assert kinds(report) == {"exists": ["sample_00000000"]}
    assert [(f.stored, f.present, f.refused) for f in report.folders] == [(1, 9, 1)]
    np.testing.assert_array_equal(store.get(TEMPLATES[FRAME], "sample_00000000"), rows(0))
    other = import_tree(small, store, origin="the-other")
    assert other.folders[0].stored == 11
    recipes = store.recipes(TEMPLATES[FRAME])
    assert sorted(recipe.data["origin"] for recipe in recipes.values()) == sorted([report.origin, "the-other"])
    mine = store.get(TEMPLATES[FRAME], "sample_00000000", fingerprint=other.folders[0].recipe)
    np.testing.assert_array_equal(mine, rows(99))


@pytest.mark.parametrize("how", ["moved", "copied", "linked", "part of it", "more than it"])
def test_the_same_tree_under_another_path_is_the_same(small: Path, tmp_path: Path, how: str) -> None:
    store, key = FeatureStore(tmp_path / "store"), TEMPLATES[FRAME]
    first, other = import_tree(small, store), tmp_path / "elsewhere" / "features of last year"
    other.parent.mkdir()
    if how == "moved":
        small.rename(other)
    elif how == "linked":
        other.symlink_to(small)
    else:
        shutil.copytree(small, other)
    added = 0
    if how == "part of it":
        (other / "mer2023" / FRAME / "sample_00000000.npy").unlink()
    elif how == "more than it":
        np.save(other / "mer2023" / FRAME / "sample_00000010.npy", rows(10))
        added = 1
    planned = import_tree(other, store, dry_run=True)
    second = import_tree(other, store)
    for report in (planned, second):
        assert [folder.recipe for folder in report.folders] == [folder.recipe for folder in first.folders]
        assert {folder.origin for folder in report.folders} == {first.origin}
        assert (report.origin == first.origin) == (how == "linked")  # a link is followed
    assert sum(folder.would_store for folder in planned.folders) == added
    assert sum(folder.stored for folder in second.folders) == added
    assert len(store.recipes(key)) == 1
    np.testing.assert_array_equal(FeatureStore(tmp_path / "store").get(key, "sample_00000001"), rows(1))


def test_other_content_under_the_same_names_is_another_tree(small: Path, tmp_path: Path) -> None:
    store, key = FeatureStore(tmp_path / "store"), TEMPLATES[FRAME]
    import_tree(small, store)
    for number, change in enumerate(("one row", "nothing shared", "only zeros shared", "asked for")):
        other = tmp_path / "elsewhere" / f"tree{number}"
        folder = other / "mer2023" / FRAME
        shutil.copytree(small, other)
        if change == "one row":
            np.save(folder / "sample_00000009.npy", rows(99))
        elif change == "nothing shared":
            for file in folder.iterdir():
                file.rename(file.with_name(f"x{file.name}"))
        elif change == "only zeros shared":
            for file in [*folder.iterdir()][1:]:
                file.unlink()
            zero = {"values": rows(0)[None] * 0, "recipe": imported_recipe("zeros", "float32")}
            (only,) = folder.iterdir()
            np.save(only, rows(0) * 0)
            FeatureStore(tmp_path / "zeros").put_many(key, [only.stem], **zero)
            store = FeatureStore(tmp_path / "zeros")
        before = len(store.recipes(key))
        report = import_tree(other, store, origin="mine" if change == "asked for" else None)
        assert len(store.recipes(key)) == before + 1, change
        assert report.folders[0].origin == ("mine" if change == "asked for" else f"elsewhere/tree{number}")
    np.testing.assert_array_equal(store.get(key, "sample_00000001", fingerprint=report.folders[0].recipe), rows(1))


def test_the_line_says_under_which_origin_rows_are(small: Path, tmp_path: Path) -> None:
    first = import_tree(small, FeatureStore(tmp_path / "store"))
    small.rename(tmp_path / "moved")
    done = CliRunner().invoke(fstore, ["import", str(tmp_path / "moved"), "--store", str(tmp_path / "store")])
    kept_apart = f"--origin {tmp_path.name}/moved keeps them apart"
    assert f"under origin {first.origin!r}, where the same rows are stored already ({kept_apart})" in done.output


def test_importing_again_stores_nothing_twice(small: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    assert import_tree(small, store).folders[0].stored == 10
    again = import_tree(small, store)
    assert (again.folders[0].stored, again.folders[0].present) == (0, 10)
    np.save(small / "mer2023" / FRAME / "sample_00000010.npy", rows(10))
    assert import_tree(small, store).folders[0].stored == 1


def test_float16_folders_keep_their_dtype(small: Path, tmp_path: Path) -> None:
    for file in (small / "mer2023" / FRAME).iterdir():
        np.save(file, np.load(file).astype(np.float16))
    store = FeatureStore(tmp_path / "store")
    report = import_tree(small, store, audit=True)
    assert set(kinds(report)) == {"count"}
    stored = store.get(TEMPLATES[FRAME], "sample_00000003")
    assert stored.dtype == np.float16
    assert stored.tobytes() == rows(3).astype(np.float16).tobytes()
    assert next(iter(store.recipes(TEMPLATES[FRAME]).values())).data["stored_dtype"] == "float16"


def test_fortran_order_and_other_headers_hold_the_same_values(small: Path, tmp_path: Path) -> None:
    folder = small / "mer2023" / FRAME
    np.save(folder / "sample_00000001.npy", np.asfortranarray(rows(1)))
    with (folder / "sample_00000002.npy").open("wb") as stream:
        np.lib.format.write_array(stream, rows(2), version=(2, 0))
    store = FeatureStore(tmp_path / "store")
    assert import_tree(small, store).findings == []
    for number in (1, 2):
        np.testing.assert_array_equal(store.get(TEMPLATES[FRAME], f"sample_{number:08d}"), rows(number))


def test_a_dataset_of_ones_own(small: Path, tmp_path: Path) -> None:
    (small / "mer2023").rename(small / "anything")
    store = FeatureStore(tmp_path / "store")
    assert import_tree(small / "anything", store, dataset="my_own").folders[0].stored == 10
    assert [str(key) for key in store.keys()] == ["my_own/frame/CLIP_VIT_LARGE/emotion_peak/8"]


def test_a_dataset_may_be_called_like_a_feature_folder(small: Path) -> None:
    (small / "mer2023").rename(small / "face_to_face")
    (small / "frame_X").mkdir()
    findings = Findings()
    assert [folder.key.dataset for folder in scan_tree(small, findings, "face_to_face").folders] == ["face_to_face"]
    assert [(finding.kind, finding.where) for finding in findings] == [("unknown_folder", "frame_X")]
    findings = Findings()
    scan_tree(small, findings)
    assert [(f.kind, f.where) for f in findings] == [
        ("unknown_dataset", "face_to_face"),
        ("unknown_folder", "frame_X"),
    ]


def test_a_feature_folder_of_nobody_does_not_keep_the_datasets_beside_it_back(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small / "mer2023" / FRAME, small / FRAME)
    report = import_tree(small, FeatureStore(tmp_path / "store"))
    assert [(finding.kind, finding.where) for finding in report.findings] == [("unknown_dataset", FRAME)]
    assert "say whose features these are" in report.findings[0].message
    assert [(folder.folder, folder.stored) for folder in report.folders] == [(f"mer2023/{FRAME}", 10)]


def test_one_dataset_of_a_tree_can_be_taken(small: Path) -> None:
    for name in ("MELD", "my_own", "meld2"):
        (small / name / FRAME).mkdir(parents=True)
    for wanted, name in (("meld", "meld"), ("MER2023", "mer2023"), ("my_own", "my_own")):
        findings = Findings()
        assert [folder.key.dataset for folder in scan_tree(small, findings, wanted).folders] == [name]
        assert not findings
    findings = Findings()
    assert {folder.key.dataset for folder in scan_tree(small, findings).folders} == {"meld", "mer2023"}
    assert [finding.where for finding in findings] == ["meld2", "my_own"]
    with pytest.raises(LegacyTreeError, match="holds no feature folder"):
        scan_tree(small, Findings(), "sims")


# ---- what is wrong ----


def plant_truncated(folder: Path) -> list[str]:
    for number, size in ((0, 5000), (1, 100), (2, 0)):
        with (folder / f"sample_{number:08d}.npy").open("r+b") as stream:
            stream.truncate(size)
    return [f"sample_{number:08d}" for number in range(3)]


def plant_longer(folder: Path) -> list[str]:
    with (folder / "sample_00000000.npy").open("ab") as stream:
        stream.write(b"\0")
    return ["sample_00000000"]


def plant_not_npy(folder: Path) -> list[str]:
    (folder / "sample_00000000.npy").write_text("<html>404</html>")
    return ["sample_00000000"]


def plant_shape(folder: Path) -> list[str]:
    np.save(folder / "sample_00000000.npy", rows(0, 1, 768))
    np.save(folder / "sample_00000001.npy", rows(0, 8, 1024))
    np.save(folder / "sample_00000002.npy", rows(0, 768))
    np.save(folder / "sample_00000003.npy", rows(0, 8, 32, 768))
    return [f"sample_{number:08d}" for number in range(4)]


def plant_dtype(folder: Path) -> list[str]:
    np.save(folder / "sample_00000000.npy", rows(0).astype(np.float64))
    np.save(folder / "sample_00000001.npy", rows(0).astype(np.float16))
    np.save(folder / "sample_00000002.npy", rows(0).astype(">f4"))
    np.save(folder / "sample_00000003.npy", rows(0).astype(np.int32))
    return [f"sample_{number:08d}" for number in range(4)]


def plant_nonfinite(folder: Path) -> list[str]:
    for number, value in enumerate((np.nan, np.inf, -np.inf)):
        values = rows(number)
        values[7, 767] = value
        np.save(folder / f"sample_{number:08d}.npy", values)
    return [f"sample_{number:08d}" for number in range(3)]


def plant_zero(folder: Path) -> list[str]:
    np.save(folder / "sample_00000000.npy", np.zeros((8, 768), np.float32))
    values = rows(1)
    values[3] = -0.0
    np.save(folder / "sample_00000001.npy", values)
    return ["sample_00000000", "sample_00000001"]


def plant_identical(folder: Path) -> list[str]:
    np.save(folder / "sample_00000000.npy", np.repeat(rows(0, 1, 768), 8, axis=0))
    return ["sample_00000000"]


def plant_duplicate(folder: Path) -> list[str]:
    np.save(folder / "sample_00000005.npy", rows(2))
    return ["sample_00000002", "sample_00000005"]


def plant_stray(folder: Path) -> list[str]:
    (folder / "sample_00000000.npy.tmp").write_bytes(b"half")
    (folder / ".DS_Store").write_bytes(b"")
    os.mkfifo(folder / "pipe.npy")
    return ["pipe.npy", "sample_00000000.npy.tmp"]


def plant_bad_id(folder: Path) -> list[str]:
    np.save(folder / "a\nb.npy", rows(0))
    with open(os.fsencode(folder) + b"/\xff.npy", "wb") as stream:
        np.save(stream, rows(1))
    return ["\\udcff.npy", "a\\nb.npy"]


PLANTED: dict[str, tuple[str, Callable[[Path], list[str]], bool]] = {
    "truncated": ("unreadable", plant_truncated, True),
    "longer": ("unreadable", plant_longer, True),
    "not_npy": ("unreadable", plant_not_npy, True),
    "shape": ("shape", plant_shape, True),
    "dtype": ("dtype", plant_dtype, True),
    "nonfinite": ("nonfinite", plant_nonfinite, True),
    "zero": ("zero", plant_zero, False),
    "identical": ("identical", plant_identical, False),
    "duplicate": ("duplicate", plant_duplicate, False),
    "stray": ("stray", plant_stray, False),
    "bad_id": ("bad_id", plant_bad_id, False),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_mistake_is_found_and_the_rest_is_stored(small: Path, tmp_path: Path, name: str) -> None:
    kind, plant, refused = PLANTED[name]
    concerned = plant(small / "mer2023" / FRAME)
    store = FeatureStore(tmp_path / "store")
    report = import_tree(small, store, audit=True)
    found = kinds(report)
    assert sorted(found.pop(kind)) == sorted(concerned)
    assert set(found) == {"count"}  # ten of 411, and nothing else is wrong
    stored = store.ids(TEMPLATES[FRAME])
    assert len(stored) == (10 - len(concerned) if refused else 10)
    assert not refused or not set(stored) & set(concerned)


def test_all_mistakes_in_one_tree_are_told_apart_and_the_tree_stays_as_it_is(small: Path, tmp_path: Path) -> None:
    """Each in a dataset of its own; what cannot be imported is still there, with the same bytes."""
    (small / "mer2023").rename(tmp_path / "right")
    planted = dict(zip(dataset_names(), PLANTED.values(), strict=False))
    assert len(planted) == len(PLANTED)
    for name in planted:
        shutil.copytree(tmp_path / "right", small / name)
    expected = {name: (kind, sorted(plant(small / name / FRAME))) for name, (kind, plant, _) in planted.items()}
    before = state(small)
    report = import_tree(small, FeatureStore(tmp_path / "store"), audit=True)
    assert state(small) == before
    found: dict[str, tuple[str, list[str]]] = {}
    for finding in report.findings:
        name = finding.where.partition("/")[0]
        if finding.kind != "count":  # ten files are no whole split
            kind, ids = found.get(name, (finding.kind, []))
            assert kind == finding.kind
            found[name] = kind, sorted([*ids, *finding.ids])
    assert found == expected
    lost = {name: len(ids) if planted[name][2] else 0 for name, (_, ids) in expected.items()}
    assert {row.folder.partition("/")[0]: 10 - row.stored for row in report.folders} == lost


def state(root: Path) -> dict[bytes, tuple[bytes, int] | None]:
    """The content and mtime of every file; None for what is no file."""
    found: dict[bytes, tuple[bytes, int] | None] = {}
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = Path(os.fsdecode(os.path.join(folder, name)))
            found[bytes(path)] = (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
    return found


def test_every_kind_of_finding_is_explained_and_planted() -> None:
    package = Path(affectgpt.__file__).parent
    source = "".join(path.read_text() for path in package.glob("*.py") if path.name != "old_store.py")  # no tree
    kinds = set(re.findall(r'(?:findings\.|self\._?)add\(\s*"([a-z_]+)"', source))
    page = (Path(__file__).parents[1] / "docs" / "coming_from_npy.md").read_text()
    table = page.partition("| finding | means |")[2].partition("\n\n")[0]
    assert kinds == {name for row in table.splitlines()[2:] for name in re.findall("`([a-z_]+)`", row.split("|")[1])}
    assert kinds > REFUSED
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_affectgpt_*.py"))
    assert [kind for kind in kinds if f'"{kind}"' not in tests] == []


def test_a_clean_tree_has_no_finding(tree: Path) -> None:
    report = import_tree(tree, None, audit=True)
    # The fixture's rows are narrow to be quick; the width is the only thing to say.
    assert {finding.kind for finding in report.findings} == {"dim"}
    for name in (FRAME, "face_CLIP_VIT_LARGE_8frms"):
        for number, file in enumerate(sorted((tree / "sims" / name).iterdir())):
            np.save(file, rows(number + (1000 if name == FRAME else 0)))
    for number, file in enumerate(sorted((tree / "sims" / "audio_HUBERT_LARGE_8clips").iterdir())):
        np.save(file, rows(number, 8, 1024))
    assert import_tree(tree, None, audit=True).findings == []


def test_one_missing_and_one_too_many_are_counted(tree: Path) -> None:
    (tree / "sims" / FRAME / "video_0000_0001.npy").unlink()
    report = import_tree(tree, None, audit=True, only=(FRAME,))
    assert [f.named for f in report.findings if f.kind == "count"] == ["456 files; the split has 457 samples"]


def test_an_object_array_is_refused_and_not_executed(small: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(canary),)

    file = small / "mer2023" / FRAME / "sample_00000000.npy"
    np.save(file, np.array([Touch()], dtype=object), allow_pickle=True)
    report = import_tree(small, FeatureStore(tmp_path / "store"))
    assert [finding.named for finding in report.findings] == [
        "holds Python objects (a pickle), which are never loaded (1: sample_00000000)"
    ]
    assert not canary.exists()
    with pytest.raises(LegacyTreeError, match="never loaded"):
        read_npy(file)
    np.load(file, allow_pickle=True)  # the mutant
    assert canary.exists()


@pytest.mark.parametrize(
    ("shape", "data"),
    [("(8, 768", b""), ("(-8, -768)", bytes(8 * 768 * 4)), ("(1000000000, 1000000000)", b""), ("((8), 768)", b"")],
)
def test_headers_that_lie_are_refused(tmp_path: Path, shape: str, data: bytes) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    file = tmp_path / "x.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data)
    with pytest.raises(LegacyTreeError):
        read_npy(file)


def test_pickles_renamed_to_npy_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(LegacyTreeError, match=r"is not a \.npy file"):
        read_npy(tmp_path / "x.npy")


def test_two_writers_folders_for_one_key_are_not_mixed(small: Path, tmp_path: Path) -> None:
    face, other = (
        small / "mer2023" / "face_CLIP_VIT_LARGE_8frms",
        small / "mer2023" / "face_CLIP_VIT_LARGE_uniform_8frms",
    )
    for seed, folder in ((1, face), (2, other)):
        folder.mkdir()
        np.save(folder / "sample_00000000.npy", rows(seed))
    store = FeatureStore(tmp_path / "store")
    report = import_tree(small, store)
    assert [finding.kind for finding in report.findings] == ["two_folders"]
    assert [str(key) for key in store.keys()] == [TEMPLATES[FRAME]]
    for number, folder in enumerate((face, other)):
        assert import_tree(small, store, only=(folder.name,), origin=f"writer-{number}").folders[0].stored == 1
    assert len(store.recipes("mer2023/face/CLIP_VIT_LARGE/uniform/8")) == 2
    (small / "MER2023" / FRAME).mkdir(parents=True)  # an alias of the same dataset beside it
    assert "two_folders" in kinds(import_tree(small, None))


def test_a_folder_whose_name_lies_about_n_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "mer2023" / "frame_CLIP_VIT_LARGE_emotion_peak_1frms"
    folder.mkdir(parents=True)
    np.save(folder / "sample_00000000.npy", rows(0))
    report = import_tree(tmp_path / "tree", None)
    assert "if the values are right, the folder should be named ..._8frms" in str(report.findings[0])


def test_ids_are_checked_against_the_label_file(small: Path, tmp_path: Path) -> None:
    root = tmp_path / "mer2023-dataset-process"
    root.mkdir()
    labels = {f"sample_{number:08d}": {"emo": "happy"} for number in range(1, 12)}
    arrays = {
        "test1_corpus": labels,
        "train_corpus": {"sample_00000000": {"emo": "sad"}},
        "test2_corpus": {},
        "test3_corpus": {},
    }
    np.savez(root / "label-6way.npz", **{name: np.array(value, dtype=object) for name, value in arrays.items()})
    np.save(small / "mer2023" / FRAME / "nobody.npy", rows(50))
    result = run("import", small, "--audit", "--dry-run", "--root", root, "--json")
    assert result.exit_code == 1
    found = {finding["kind"]: finding["ids"] for finding in json.loads(result.stdout)["findings"]}
    assert found == {"missing_id": ["sample_00000010", "sample_00000011"], "unknown_id": ["nobody"]}
    (root / "label-6way.npz").write_bytes(b"not a zip")
    result = run("import", small, "--audit", "--dry-run", "--root", root, "--json")
    assert "source" in {finding["kind"] for finding in json.loads(result.stdout)["findings"]}


def test_identical_rows_of_a_one_frame_clip_are_right(small: Path, shared_media: Path, tmp_path: Path) -> None:
    folder = small / "mer2023" / FRAME
    for name in ("sample_00000000", "sample_00000001", "sample_00000002"):
        np.save(folder / f"{name}.npy", np.repeat(rows(len(name), 1, 768) + int(name[-1]), 8, axis=0))
    clips = shared_media / "synthetic"
    manifest = tmp_path / "manifest.csv"
    lines = [f"sample_00000000,{clips / 'short1.mp4'}", f"sample_00000001,{clips / 'short3.mp4'}", "sample_00000002,"]
    manifest.write_text("\n".join(["id,video", *lines, *(f"sample_{n:08d}," for n in range(3, 10))]) + "\n")
    result = run("import", small, "--audit", "--dry-run", "--manifest", manifest, "--json")
    found = {f["message"].partition(":")[2]: f["ids"] for f in json.loads(result.stdout)["findings"]}
    assert [ids for message, ids in found.items() if "cannot tell" in message] == [["sample_00000002"]]
    assert [ids for message, ids in found.items() if "cannot tell" not in message] == [["sample_00000001"]]


# ---- the command ----


def test_import_prints_a_table_and_exits_1_on_findings(small: Path, tmp_path: Path) -> None:
    result = run("import", small, "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["FOLDER", "FILES", "EXPECTED", "STORED", "PRESENT", "REFUSED", "SUSPECT"]
    assert lines[1].split() == [f"mer2023/{FRAME}", "10", "411", "10", "0", "0", "-"]  # nobody looked
    assert lines[-1] == f"10 samples stored in {tmp_path / 'store'} under origin '{small.parent.name}/tree'."
    plant_zero(small / "mer2023" / FRAME)
    result = run("import", small, "--audit", "--dry-run", "--store", tmp_path / "none")
    assert result.exit_code == 1
    assert "zero" in result.stdout
    assert "(1: sample_00000000)" in result.stdout
    assert result.stdout.splitlines()[1].split()[1:] == ["10", "411", "10", "0", "0", "2"]
    assert result.stdout.splitlines()[-1].startswith("Nothing was stored (--dry-run): 10 samples would be, in ")


def test_dry_run_touches_no_store(small: Path, tmp_path: Path) -> None:
    assert run("import", small, "--dry-run", "--store", tmp_path / "store").exit_code == 0
    assert not (tmp_path / "store").exists()


def test_dry_run_says_what_an_import_would_do(small: Path, tmp_path: Path) -> None:
    """What is present, refused and would be stored is what the import then says of the same tree."""
    store = ("--store", tmp_path / "store", "--json")
    shutil.move(small / "mer2023" / FRAME / "sample_00000009.npy", tmp_path / "new.npy")
    assert run("import", small, *store).exit_code == 0
    shutil.move(tmp_path / "new.npy", small / "mer2023" / FRAME / "sample_00000009.npy")
    plant_zero(small / "mer2023" / FRAME)
    np.save(small / "mer2023" / FRAME / "sample_00000004.npy", rows(4) * np.float32(np.nan))
    before = state(tmp_path / "store")
    dry = run("import", small, *store, "--dry-run")
    assert state(tmp_path / "store") == before
    wet = run("import", small, *store)
    assert dry.exit_code == wet.exit_code == 1
    told, done = json.loads(dry.stdout), json.loads(wet.stdout)
    assert told["findings"] == done["findings"]
    (row,), (then,) = told["folders"], done["folders"]
    assert (row.pop("would_store"), row.pop("stored")) == (then.pop("stored"), then.pop("would_store")) == (1, 0)
    assert row == then
    assert (row["present"], row["refused"]) == (6, 3)


def test_a_name_of_ones_own_is_said_to_be_taken_as_one(small: Path, tmp_path: Path) -> None:
    tree, store = small / "mer2023", ("--store", tmp_path / "store")
    said = run("import", tree, "--dataset", "mer2023x", *store).stderr
    assert "mer2023x is not a known dataset: taken as your own (did you mean mer2023?)" in said
    assert "not a known dataset" not in run("import", tree, "--dataset", "MER2023", *store).stderr


def test_one_folder_is_taken_without_a_word_about_others(small: Path, tmp_path: Path) -> None:
    for name in ("frame_X", "notes", "audio_HUBERT_LARGE_8clips"):
        (small / "mer2023" / name).mkdir()
    (small / "elsewhere").mkdir()
    (small / "mer2023" / "audio_HUBERT_LARGE_8clips" / "torn.npy").touch()
    assert run("import", small, "--store", tmp_path / "store").exit_code == 1
    for name in (FRAME, f"mer2023/{FRAME}"):
        result = run("import", small, "--folder", name, "--store", tmp_path / "store")
        assert result.exit_code == 0, result.output
        assert "FINDING" not in result.stdout


def test_expected_is_one_number_with_and_without_audit(small: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("id\n" + "".join(f"sample_{number:08d}\n" for number in range(10)))
    for more in ((), ("--audit",)):
        result = run("import", small, "--manifest", manifest, "--dry-run", "--json", *more)
        assert [folder["expected"] for folder in json.loads(result.stdout)["folders"]] == [10]


def test_what_cannot_be_stored_is_told_with_the_row_and_the_way_out(small: Path) -> None:
    plant_nonfinite(small / "mer2023" / FRAME)
    np.save(small / "mer2023" / FRAME / "sample_00000005.npy", rows(5).astype(np.float64))
    np.save(small / "mer2023" / FRAME / "sample_00000006.npy", rows(6) * np.float32(np.inf))
    found = {finding.message: finding.ids for finding in import_tree(small, None).findings}
    assert found == {
        "NaN or infinite values in row 7 of 0 to 7": [f"sample_{number:08d}" for number in range(3)],
        "NaN or infinite values in every row": ["sample_00000006"],
        "float64 in a folder of float32; "
        'convert each with numpy.save(file, numpy.load(file).astype("float32")), which may round': ["sample_00000005"],
    }


def test_usage_mistakes_exit_2(small: Path) -> None:
    assert run("import", small, "--recompute", "3").exit_code == 2
    assert run("import", small, "--root", small, "--manifest", small / "x").exit_code == 2
    assert run("import", small / "mer2023", "--dry-run", "--folder", "nope").exit_code == 1


def test_a_large_directory_is_listed_once_and_batched(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.affectgpt.intake.BATCH_BYTES", 3 * 8 * 768 * 4)
    seen: list[tuple[int, int]] = []
    report = import_tree(
        small, FeatureStore(tmp_path / "store"), progress=lambda name, done, total: seen.append((done, total))
    )
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert report.folders[0].stored == 10


def test_a_directory_is_listed_a_fixed_number_of_times_and_each_file_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes a directory of a million entries as slow as a million files, and not slower."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("scandir", "listdir", "stat", "lstat", "open"):
        counted(name)
    seen = []
    for number in (200, 1200):
        folder = tmp_path / str(number) / "mer2023" / FRAME
        folder.mkdir(parents=True)
        for at in range(number):
            np.save(folder / f"s{at:06d}.npy", rows(at, 8, 4))
        calls.clear()
        import_tree(tmp_path / str(number), None, audit=True)
        seen.append(dict(calls))
    few, many = seen
    assert many.pop("open") - few.pop("open") == 1000
    assert few == many
    assert few["scandir"] < 10


LARGE = """
import resource, sys, time
from featurestore import FeatureStore
from featurestore.affectgpt.importing import import_tree
report = import_tree(sys.argv[1], None, audit=True)
report = import_tree(sys.argv[1], FeatureStore(sys.argv[2]))
assert report.folders[0].stored == int(sys.argv[3])
usage = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as file:  # of this program: `ru_maxrss` may be that of the one that started it
    most_kb = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
print(usage.ru_utime + usage.ru_stime, most_kb)
"""


@pytest.mark.torture
def test_a_large_directory_costs_as_much_time_a_file_and_little_memory(tmp_path: Path) -> None:
    """100,000 files against 10,000."""
    seen = []
    for number in (10_000, 100_000):
        folder = tmp_path / str(number) / "mer2023" / FRAME
        folder.mkdir(parents=True)
        head = npy_header(np.dtype("<f4"), (8, 4))
        for at in range(number):
            (folder / f"s{at:07d}.npy").write_bytes(head + rows(at, 8, 4).tobytes())
        words = [sys.executable, "-c", LARGE, folder.parent.parent, tmp_path / f"store{number}", number]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=True)
        seen.append([float(text) for text in done.stdout.split()])
    (few_s, few_kb), (many_s, many_kb) = seen
    assert many_s < 20 * few_s
    assert many_kb - few_kb < 200_000


def test_a_miss_after_import_says_what_would_make_it(small: Path, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    import_tree(small, store)
    with pytest.raises(MissingFeatureError, match="open it with one: "):
        store.get(TEMPLATES[FRAME], "sample_99999999")


class Made:
    """A compute that makes what the tree holds, except for three samples, of which it leaves one out."""

    def __init__(self, folder: Path, wrong: str) -> None:
        self.folder, self.wrong = folder, wrong

    def recipe(self, key: FeatureKey) -> dict[str, Any]:
        return {"made": 1}

    def __call__(self, key: FeatureKey, ids: Any) -> Iterator[tuple[str, Any]]:
        from featurestore.features import Failure, Features

        for id in ids:
            values = np.load(self.folder / f"{id}.npy")
            if id == self.wrong:
                yield id, Features(np.roll(values, 1, axis=0))
            elif id == "sample_00000009":
                yield id, Failure("media", "no such clip")
            elif id != "sample_00000008":
                yield id, Features((values * np.float32(1.0001)).astype(np.float32))


def test_recompute_measures_the_distance(small: Path) -> None:
    from featurestore.affectgpt.recompute import choose, recompute

    folder = scan_tree(small, Findings()).folders[0]
    ids = [f"sample_{number:08d}" for number in range(10)]
    matches = {m.id: m for m in recompute(folder, folder.key, ids, Made(folder.path, ids[4]))}
    assert matches[ids[0]].good
    assert matches[ids[0]].max_abs == pytest.approx(float(np.abs(rows(0)).max()) * 1e-4, rel=0.02)
    assert matches[ids[0]].cosine == pytest.approx(1.0)
    assert not matches[ids[4]].good
    assert abs(matches[ids[4]].cosine or 1.0) < 0.3
    assert (matches[ids[9]].good, matches[ids[9]].problem) == (False, "no such clip")
    assert (matches[ids[8]].good, matches[ids[8]].problem) == (False, "the code that computes did not answer for it")
    assert matches[ids[0]].length == pytest.approx(1.0001)
    assert choose(ids, 3) == choose(list(reversed(ids)), 3)
    assert len(choose(ids, 99)) == 10


def test_recompute_makes_rows_again_from_the_media(tmp_path: Path, shared_media: Path) -> None:
    pytest.importorskip("open_clip")
    clips = [shared_media / "synthetic" / name for name in ("cfr_gop12.mp4", "short5.mp4")]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("id,video\n" + "".join(f"{clip.stem},{clip}\n" for clip in clips))
    key = "mer2023/frame/ViT-S-32.none/uniform/8"
    weights = ("--weights", "random:0")
    with Extractor({"mer2023": read_manifest(manifest)}, weights={"ViT-S-32.none": "random:0"}) as compute:
        FeatureStore(tmp_path / "store", compute=compute).get_many(key, [clip.stem for clip in clips])
    tree = tmp_path / "tree"
    assert run("export", key, "--store", tmp_path / "store", "--layout", "affectgpt", tree).exit_code == 0
    command = ("import", tree, "--dry-run", "--manifest", manifest, "--recompute", 5, *weights, "--json")
    result = run(*command)
    assert result.exit_code == 0, result.output
    matches = json.loads(result.stdout)["recomputed"]
    assert [match["id"] for match in matches] == ["cfr_gop12", "short5"]
    assert all(match["cosine"] > 0.99999 and match["max_abs"] < 1e-3 for match in matches)
    # Of a folder that cannot be made again the reason is told; the others are compared.
    nobodys = tree / "mer2023" / "frame_Nobodys_uniform_8frms"
    nobodys.mkdir()
    np.save(nobodys / "short5.npy", rows(0))
    result = run("import", tree, *command[2:-1])
    assert result.exit_code == 1
    made = result.stdout.partition("MADE AGAIN")[2].splitlines()[1:]
    assert made[0].split()[:2] == [f"mer2023/{nobodys.name}", "-"]
    assert "no encoder is called 'Nobodys'" in made[0]
    assert [line.split()[0] for line in made[1:3]] == [f"mer2023/{FOLDER}"] * 2
    shutil.rmtree(nobodys)
    assert "DIFFERS" not in run(*command[:-1]).stdout
    # What keeps all from being made is told before anything is read or stored.
    for words, said in (
        ((*weights, "--recompute-as", "unifrom"), "did you mean 'uniform'?"),
        ((), "weights"),
    ):
        result = run("import", tree, "--store", tmp_path / "other", *command[3:7], *words)
        assert result.exit_code in (1, 2)
        assert said in result.stderr
        assert result.stdout == ""
        assert not (tmp_path / "other").exists()
    (tmp_path / "others.csv").write_text("id\nsomebody\n")
    result = run("import", tree, "--dry-run", "--manifest", tmp_path / "others.csv", "--recompute", 5, *weights)
    assert result.exit_code == 1
    assert "Nothing was made again" in result.stdout
    # The mutant: one sample holds the features of the other.
    folder = tree / "mer2023" / FOLDER
    np.save(folder / "short5.npy", np.load(folder / "cfr_gop12.npy"))
    result = run(*command)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["recomputed"][1]["cosine"] < 0.999
    said = run(*command[:-1]).stdout
    assert [line.split()[-1] == "DIFFERS" for line in said.splitlines() if line.startswith(f"mer2023/{FOLDER} ")][
        -2:
    ] == [False, True]
    assert "Of 2 made again 1 differ (a row has a cosine below 0.999, or a length more than 5% off) and 0 " in said


def test_a_file_or_a_folder_that_claims_gigabytes_costs_nothing(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little") + b"{}")
    with pytest.raises(LegacyTreeError, match=r"is not a \.npy file"):
        read_npy(path)
    np.save(path, np.ones(10, np.float32))
    with monkeypatch.context() as smaller:
        smaller.setattr("featurestore.affectgpt.npy.MAX_BYTES", 150)
        with pytest.raises(LegacyTreeError, match="is too large: 168 bytes, and a sample may have 150"):
            read_npy(path)
    folder = small / "mer2023" / "frame_CLIP_VIT_LARGE_uniform_99999999frms"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.ones((2, 768), np.float32))
    (finding,) = import_tree(folder, None).findings
    assert (finding.kind, finding.ids) == ("shape", ["a"])
    assert finding.message == "not 99999999 rows as the folder's name says"


@pytest.mark.parametrize(
    ("folder", "shapes", "said"),
    [
        (FRAME, [(1, 8, 768)], "shape (1, 8, 768), not (8, n); {} numpy.save(file, numpy.load(file)[0])"),
        (FRAME, [(8, 768)] * 3 + [(8, 1, 768)], "shape (8, 1, 768), not (8, 768); {} numpy.load(file)[:, 0])"),
        (FRAME, [(8, 768)] * 3 + [(1, 6, 768)], "shape (1, 6, 768), not (8, 768)"),
        (FRAME, [(8, 768)] * 3 + [(1, 8, 512)], "shape (1, 8, 512), not (8, 768)"),
        (FRAME, [(2, 8, 768)], "shape (2, 8, 768), not (8, n)"),
        ("au_CLIP_VITB32_8frms", [(1, 3, 512)], "shape (1, 3, 512), not (n, m); {} numpy.load(file)[0])"),
        ("au_CLIP_VITB32_8frms", [(2, 512)] * 3 + [(1, 3, 512)], "not (n, 512); {} numpy.load(file)[0])"),
        ("multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete", [(1, 1024)], "(1, 1024), not (n,); {} numpy.load(file)[0])"),
    ],
)  # fmt: skip
def test_an_axis_too_many_is_told_with_the_line_that_mends_it(
    tmp_path: Path, folder: str, shapes: list[tuple[int, ...]], said: str
) -> None:
    place = tmp_path / "tree" / "mer2023" / folder
    place.mkdir(parents=True)
    for number, shape in enumerate(shapes):
        np.save(place / f"s{number}.npy", rows(number, *shape))
    (message,) = [finding.message for finding in import_tree(tmp_path / "tree", None).findings]
    start, advised, call = said.partition("{}")
    assert start in message
    assert ("take the axis of length one off:" in message) == bool(advised)
    assert message.endswith(call.strip() if advised else start)
    if advised:  # the line does what it says
        file = place / f"s{len(shapes) - 1}.npy"
        exec(message.partition("off: ")[2], {"numpy": np, "file": file})
        assert [f.would_store for f in import_tree(tmp_path / "tree", None, dry_run=True).folders] == [len(shapes)]
