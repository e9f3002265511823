"""Feature folders of MERTools, Emotion-LLaMA-v2 and EmoBox: in, read, and out again as they were, byte for byte."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from folder_factories import HUBERT, IDS, MACBERT, array, bytes_of, frames, kinds, lab, means, write
from mutants import mutant

from featurestore.affectgpt import sample_form
from featurestore.affectgpt.exporting import export_tree, exportable
from featurestore.affectgpt.importing import import_tree
from featurestore.affectgpt.utterances import Utterances
from featurestore.cli import fstore
from featurestore.errors import LegacyTreeError, MissingFeatureError
from featurestore.key import FeatureKey
from featurestore.store import FeatureStore


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


def back(store: FeatureStore, root: Path) -> Path:
    """Everything of a store as folders; where those of the data set `mine` are."""
    for key in exportable(store, "mertools"):
        export_tree(store, key, root, layout="mertools")
    return root / "mine"


def test_a_labs_folders_come_back_as_they_were(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    store = FeatureStore(tmp_path / "store")
    report = import_tree(tree, store, dataset="mine", audit=True)
    assert report.findings == []
    assert {row.stored for row in report.folders} == {len(IDS)}
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(tree)
    assert {str(key): store.get(key, IDS[3]).shape for key in store.keys()} == {
        "mine/audio/chinese-hubert-large/cut10s/all": (5, 16),
        "mine/audio/chinese-hubert-large/utterance/1": (1, 16),
        "mine/audio/whisper-large-v3/tokens/64": (64, 4),
        "mine/face/resnet50face/utterance/1": (1, 12),
        "mine/face/videomae-base/uniform-16x2/all": (8, 6),
        "mine/text/chinese-macbert-base/tokens/all": (5, 16),
        "mine/text/chinese-macbert-base/utterance/1": (1, 16),
    }
    again = import_tree(tree, store, dataset="mine")
    assert {(row.stored, row.present) for row in again.folders} == {(0, len(IDS))}


def odd_files() -> dict[str, np.ndarray]:
    """Arrays that may lie in a folder of float32 vectors of 16."""
    return {
        "one_row": array(1, 1, 16),
        "two_axes": array(2, 1, 1, 16),
        "empty_text": np.zeros(16),
        "exact": array(3, 16).astype("<f8"),
        "half": array(4, 16, dtype="<f2"),
        "big_endian": array(5, 16).astype(">f4"),
        "fortran": np.asfortranarray(array(6, 1, 16)),
    }


def test_files_that_differ_from_their_folder_come_back_as_they_were(tmp_path: Path) -> None:
    plain = {id: array(number, 16) for number, id in enumerate(IDS)}
    folder = write(tmp_path / "tree" / "emonet_UTT", {**plain, **odd_files()})
    store = FeatureStore(tmp_path / "store")
    report = import_tree(folder, store, dataset="mine")
    assert report.findings == []
    key = FeatureKey.parse("mine/face/emonet/utterance/1")
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(folder.parent)
    told = {id: store.get_features(key, id).provenance for id in odd_files()}
    assert told["two_axes"] == {"file_shape": [1, 1, 16]}
    assert told["exact"] == {"file_dtype": "<f8"}
    assert told["half"] == {"file_dtype": "<f2"}
    assert told["big_endian"] == {"file_dtype": ">f4"}
    assert store.get_features(key, IDS[0]).provenance is None
    assert {store.get(key, id).dtype for id in odd_files()} == {np.dtype("<f4")}


def test_a_lost_dtype_would_be_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "tree" / "emonet_UTT", {IDS[0]: array(0, 16), IDS[1]: array(1, 16), **odd_files()})
    with mutant(sample_form.Form.fit, 'facts["file_dtype"] = array.dtype.str', "pass"):
        store = FeatureStore(tmp_path / "store")
        import_tree(folder, store, dataset="mine")
        assert bytes_of(back(store, tmp_path / "back")) != bytes_of(folder.parent)


def test_numbers_that_would_be_rounded_have_a_recipe_of_their_own(tmp_path: Path) -> None:
    own = np.random.default_rng(0).standard_normal(16)  # float64 that float32 does not hold
    plain = {id: array(number, 16) for number, id in enumerate(IDS)}
    folder = write(tmp_path / "tree" / "emonet_UTT", {**plain, IDS[4]: own})
    store = FeatureStore(tmp_path / "store")
    report = import_tree(folder, store, dataset="mine")
    assert kinds(report) == {"own_dtype": [IDS[4]]}
    assert report.folders[0].stored == len(IDS)
    key = FeatureKey.parse("mine/face/emonet/utterance/1")
    main, other = sorted(store.recipes(key).values(), key=lambda recipe: "beside" in recipe.data)
    assert other.data["beside"] == main.fingerprint == report.folders[0].recipe
    assert store.ids(key, fingerprint=other.fingerprint) == [IDS[4]]
    assert store.get(key, IDS[4], fingerprint=other.fingerprint).tobytes() == own.tobytes()
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(folder.parent)


@pytest.mark.parametrize("version", [(2, 0), "old"])
def test_headers_of_other_writers_come_back(tmp_path: Path, version: object) -> None:
    folder = write(tmp_path / "tree" / "emonet_UTT", {id: array(number, 16) for number, id in enumerate(IDS)})
    values = array(99, 16)
    path = folder / f"{IDS[2]}.npy"
    if version == "old":  # numpy before 1.14 filled the header up to 16 bytes
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (16L,), }".replace(b"L", b"")
        path.write_bytes(b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n" + values.tobytes())
    else:
        with path.open("wb") as stream:
            np.lib.format.write_array(stream, values, version=version)  # type: ignore[arg-type]
    store = FeatureStore(tmp_path / "store")
    assert import_tree(folder, store, dataset="mine").findings == []
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(folder.parent)


def test_clips_of_one_frame_are_frames_all_the_same(tmp_path: Path) -> None:
    """The scripts squeeze: one frame of sound is (dim,), one face (1, dim)."""
    folder = write(tmp_path / "tree" / f"{HUBERT}-FRA", {**frames(), IDS[0]: array(0, 16), IDS[1]: array(1, 1, 16)})
    store = FeatureStore(tmp_path / "store")
    assert import_tree(folder, store, dataset="mine").findings == []
    key = FeatureKey.parse(f"mine/audio/{HUBERT}/cut10s/all")
    assert store.get(key, IDS[0]).shape == store.get(key, IDS[1]).shape == (1, 16)
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(folder.parent)


def test_samples_that_are_folders_of_frames_are_stacked(tmp_path: Path) -> None:
    folder = tmp_path / "tree" / "emonet_FRA"
    for number, id in enumerate(IDS):
        write(folder / id, {f"{frame:04d}": array(10 * number + frame, 16) for frame in range(3)})
    store = FeatureStore(tmp_path / "store")
    assert import_tree(folder, store, dataset="mine").findings == []
    values = store.get("mine/face/emonet/every/all", IDS[1])
    assert values.tobytes() == np.stack([array(10 + frame, 16) for frame in range(3)]).tobytes()
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(folder.parent)
    np.save(folder / IDS[2] / "0001.npy", array(0, 2, 16))
    found = kinds(import_tree(folder, None, dataset="mine"))
    assert found == {"unreadable": [IDS[2]]}


def test_emobox_puts_the_data_set_before_each_id(tmp_path: Path) -> None:
    arrays = {f"mer2023-{id}": values for id, values in frames().items()}
    folder = write(tmp_path / "tree" / "wavlm-base", arrays)
    store = FeatureStore(tmp_path / "store")
    assert import_tree(folder, store, dataset="mer2023").findings == []
    key = FeatureKey.parse("mer2023/audio/wavlm-base/every/all")
    assert store.ids(key) == list(IDS)
    export_tree(store, key, tmp_path / "back")
    assert bytes_of(tmp_path / "back" / "mer2023") == bytes_of(folder.parent)


def test_emotion_llamas_tokens_may_lack_their_first_axis(tmp_path: Path) -> None:
    tokens = {id: array(number, 1, 64, 4) for number, id in enumerate(IDS)}
    folder = write(tmp_path / "MELD" / "features" / "EVA-ViT-G", {**tokens, IDS[0]: array(0, 64, 4)})
    store = FeatureStore(tmp_path / "store")
    assert import_tree(tmp_path / "MELD", store).findings == []
    (key,) = store.keys()
    assert str(key) == "meld/frame/EVA-ViT-G/tokens/64"
    assert store.get_many(key, list(IDS)).shape == (12, 64, 4)
    export_tree(store, key, tmp_path / "back")
    assert bytes_of(tmp_path / "back" / "meld") == bytes_of(folder.parent)
    np.save(folder / f"{IDS[3]}.npy", array(3, 1, 32, 4))
    (finding,) = import_tree(folder, None, dataset="meld").findings
    assert (finding.kind, finding.ids) == ("shape", [IDS[3]])
    assert "32 tokens, where Emotion-LLaMA-v2 reads 64" in finding.what


# ---- any other folder ----


@pytest.mark.parametrize(
    ("shape", "key", "stored"),
    [
        ((8, 4), "mine/face/own/uniform/8", (8, 4)),
        ((1, 8, 4), "mine/face/own/uniform/8", (8, 4)),
        ((4,), "mine/audio/own/utterance/1", (1, 4)),
        ((1, 4), "mine/audio/own/utterance/1", (1, 4)),
        ((5, 3, 4), "mine/frame/own/every/all", (5, 3, 4)),
        ((1, 64, 4), "mine/audio/own/tokens/all", (64, 4)),
        ((2, 3, 4), "mine/text/own+more/layers/2", (2, 3, 4)),
    ],
)
def test_a_folder_of_any_name_is_what_one_says(
    tmp_path: Path, shape: tuple[int, ...], key: str, stored: tuple[int, ...]
) -> None:
    folder = write(tmp_path / "my features", {id: array(number, *shape) for number, id in enumerate(IDS)})
    done = run("import", folder, "--store", tmp_path / "store", "--as", key)
    assert done.exit_code == 0, done.output
    store = FeatureStore(tmp_path / "store")
    assert store.get(key, IDS[1]).shape == stored
    export_tree(store, FeatureKey.parse(key), tmp_path / "back")
    assert bytes_of(tmp_path / "back" / "mine" / "my features") == bytes_of(folder)


def test_a_key_whose_shape_does_not_fit_is_refused_with_what_was_found(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", {id: array(number, 16, 4) for number, id in enumerate(IDS)})
    said = (
        r"its arrays are \(16, 4\), and mine/face/own/uniform/8 wants 8 frames of a sample in one; a key that fits "
        r"ends in /16: `--as mine/face/own/uniform/16`"
    )
    with pytest.raises(LegacyTreeError, match=said):
        import_tree(folder, None, key=FeatureKey.parse("mine/face/own/uniform/8"))
    done = run("import", folder, "--store", tmp_path / "store", "--as", "mine/face/own/utterance/1")
    assert done.exit_code == 1
    assert "`--as mine/face/own/utterance/16`" in done.output
    assert not (tmp_path / "store").exists()


def test_the_key_says_it_all(tmp_path: Path) -> None:
    folder = write(tmp_path / "own", {id: array(0, 4) for id in IDS})
    for more in (("--dataset", "x"), ("--folder", "own"), ("--recompute", 1, "--manifest", "m.csv")):
        done = run("import", folder, "--as", "mine/face/own/utterance/1", *more)
        assert done.exit_code == 2
        assert "--as KEY says all of one folder" in done.output
    done = run("import", folder, "--as", "mine/face/own/utterance/1@abcd")
    assert (done.exit_code, "a key without @RECIPE" in done.output) == (2, True)
    with pytest.raises(LegacyTreeError, match="does not exist"):
        import_tree(tmp_path / "nowhere", None, key=FeatureKey.parse("mine/face/own/utterance/1"))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(LegacyTreeError, match=r"no file of a whole set, which end in \.npz"):
        import_tree(tmp_path / "notes.txt", None, key=FeatureKey.parse("mine/face/own/utterance/1"))


# ---- utterances that are the mean of frames ----


def test_utterances_that_are_means_are_recognised(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    np.save(tree / f"{HUBERT}-UTT" / f"{IDS[5]}.npy", array(0, 16))
    report = import_tree(tree, None, dataset="mine")
    assert {row.folder: row.means for row in report.folders if row.means is not None} == {
        f"{HUBERT}-UTT": 11,
        f"{MACBERT}-UTT": 12,
    }


def test_means_need_not_be_stored_and_are_there_all_the_same(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    done = run("import", tree, "--store", tmp_path / "store", "--dataset", "mine", "--skip-means")
    assert done.exit_code == 0, done.output
    assert f"{HUBERT}-UTT: all 12 are the mean of their frames to the bit; left out" in done.output
    store = FeatureStore(tmp_path / "store")
    key = FeatureKey.parse(f"mine/audio/{HUBERT}/utterance/1")
    assert key not in store.keys()
    with pytest.raises(MissingFeatureError):
        store.get(key, IDS[0])
    reading = FeatureStore(tmp_path / "store", Utterances(store), read_only=True)
    wanted = np.load(tree / f"{HUBERT}-UTT" / f"{IDS[0]}.npy")
    assert reading.get(key, IDS[0]).tobytes() == wanted.tobytes()
    export_tree(store, key, tmp_path / "back")
    export_tree(store, FeatureKey.parse(f"mine/text/{MACBERT}/utterance/1"), tmp_path / "back")
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(tree)


def change_one(folder: Path) -> None:
    np.save(folder / f"{IDS[5]}.npy", array(0, 16))


def leave_one_out(folder: Path) -> None:
    (folder / f"{IDS[5]}.npy").unlink()


def write_one_as_a_row(folder: Path) -> None:
    np.save(folder / f"{IDS[5]}.npy", np.load(folder / f"{IDS[5]}.npy")[None])


@pytest.mark.parametrize("spoil", [change_one, leave_one_out, write_one_as_a_row])
def test_utterances_that_could_not_come_back_are_stored(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    tree = lab(tmp_path / "features")
    spoil(tree / f"{HUBERT}-UTT")
    store = FeatureStore(tmp_path / "store")
    report = import_tree(tree, store, dataset="mine", skip_means=True)
    assert {row.folder: row.derived for row in report.folders}[f"{HUBERT}-UTT"] == 0
    export_tree(store, FeatureKey.parse(f"mine/text/{MACBERT}/utterance/1"), tmp_path / "back")
    assert bytes_of(back(store, tmp_path / "back")) == bytes_of(tree)


def test_without_frames_there_is_no_mean(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    write(tmp_path / "features" / f"{HUBERT}-UTT", means(frames()))
    import_tree(tmp_path / "features", store, dataset="mine")
    other = FeatureKey.parse(f"mine/text/{MACBERT}/utterance/1")
    with pytest.raises(MissingFeatureError, match=r"would be the mean of imported frames of .*, and none are stored"):
        export_tree(store, other, tmp_path / "back")


# ---- bad input ----


def test_a_folder_with_a_store_in_it_is_imported_without_the_store(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine" / "emonet_UTT", {id: array(0, 4) for id in IDS[:1]})
    import_tree(folder, FeatureStore(folder), dataset="mine")
    report = import_tree(folder, FeatureStore(folder), dataset="mine")
    assert report.findings == []
    assert [row.present for row in report.folders] == [1]


def test_a_store_is_no_folder_of_features(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    import_tree(tree, FeatureStore(tmp_path / "store"), dataset="mine")
    with pytest.raises(LegacyTreeError, match="is a store, not a tree of feature folders"):
        import_tree(tmp_path / "store", None)
    with pytest.raises(LegacyTreeError, match="is a store, not a folder of features"):
        import_tree(tmp_path / "store", None, key=FeatureKey.parse("mine/face/own/utterance/1"))
    (tmp_path / "store").rename(tmp_path / "emonet_UTT")
    (finding,) = import_tree(tmp_path / "emonet_UTT", None, dataset="mine").findings
    assert (finding.kind, finding.what) == ("unreadable", "is a store, and no folder of features")


def test_damaged_files_cost_only_themselves(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    folder = tree / f"{HUBERT}-FRA"
    (folder / f"{IDS[0]}.npy").write_bytes(b"")
    with (folder / f"{IDS[1]}.npy").open("r+b") as stream:
        stream.truncate(150)
    np.save(folder / f"{IDS[2]}.npy", array(0, 3, 20))
    np.save(folder / f"{IDS[3]}.npy", np.array([{"a": 1}], object))
    np.save(folder / f"{IDS[4]}.npy", np.full((2, 16), np.nan, "<f4"))
    np.save(folder / f"{IDS[5]}.npy", np.zeros((0, 16), "<f4"))
    np.save(folder / f"{IDS[6]}.npy", np.zeros((2, 16), np.int32))
    store = FeatureStore(tmp_path / "store")
    report = import_tree(folder, store, dataset="mine")
    assert kinds(report) == {
        "unreadable": [IDS[0], IDS[1], IDS[3]],
        "shape": [IDS[2], IDS[5]],
        "nonfinite": [IDS[4]],
        "dtype": [IDS[6]],
    }
    said = {finding.kind: finding.what for finding in report.findings if finding.ids == [IDS[2]]}
    assert said == {
        "shape": "shape (3, 20), not (n, 16): another width than most files have, so of another model; the loaders "
        "look at the first file only"
    }
    assert store.ids(f"mine/audio/{HUBERT}/cut10s/all") == list(IDS[7:])


def test_a_pickle_named_npy_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    folder = write(tmp_path / "features" / "emonet_UTT", {id: array(0, 4) for id in IDS})
    (folder / f"{IDS[0]}.npy").write_bytes(pickle.dumps(Evil()))
    np.save(folder / f"{IDS[1]}.npy", np.array([Evil()], object))
    assert kinds(import_tree(folder, None, dataset="mine", audit=True))["unreadable"] == [IDS[0], IDS[1]]
    assert not (tmp_path / "ran").exists()


def test_origins_are_told_apart_by_content(tmp_path: Path) -> None:
    """As for AffectGPT's folders: a tree that was moved is the same, one that differs is another."""
    tree = lab(tmp_path / "a" / "features")
    store = FeatureStore(tmp_path / "store")
    first = import_tree(tree, store, dataset="mine")
    (tmp_path / "a").rename(tmp_path / "b")
    moved = import_tree(tmp_path / "b" / "features", store, dataset="mine")
    assert {row.stored for row in moved.folders} == {0}
    assert {row.origin for row in moved.folders} == {row.origin for row in first.folders}
    (tmp_path / "b").rename(tmp_path / "c")
    np.save(tmp_path / "c" / "features" / "resnet50face_UTT" / f"{IDS[0]}.npy", array(9, 12, dtype="<f8"))
    other = import_tree(tmp_path / "c" / "features", store, dataset="mine")
    assert [row.stored for row in other.folders if row.stored] == [12]


def test_export_needs_a_layout_that_has_a_name(tmp_path: Path) -> None:
    tree = lab(tmp_path / "features")
    run("import", tree, "--store", tmp_path / "store", "--dataset", "mine")
    done = run("export", "--store", tmp_path / "store", "--layout", "mertools", tmp_path / "back")
    assert done.exit_code == 0, done.output
    assert bytes_of(tmp_path / "back" / "mine") == bytes_of(tree)
    store = FeatureStore(tmp_path / "own")
    store.put("mine/frame/own/uniform/8", "a", array(0, 8, 4), recipe={"weights": "x"})
    done = run("export", "mine/frame/own/uniform/8", "--store", tmp_path / "own", "--layout", "mertools", tmp_path)
    assert done.exit_code == 2
    assert "no folder name in MERTools' layout, which knows utterance/1 (MODEL-UTT)" in done.output
    store.put("mine/audio/own/utterance/1", "a", array(0, 1, 4), recipe={"weights": "x"})
    done = run("export", "mine/audio/own/utterance/1", "--store", tmp_path / "own", "--layout", "mertools", tmp_path)
    assert np.load(tmp_path / "mine" / "own-UTT" / "a.npy").tobytes() == array(0, 1, 4).tobytes()
