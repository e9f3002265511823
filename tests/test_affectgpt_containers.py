"""Arrays in files of other kinds: one for each sample or one for a set, and none of them is ever executed."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from folder_factories import IDS, array, bytes_of, kinds
from numpy.typing import NDArray

from featurestore import FeatureKey, FeatureStore
from featurestore.affectgpt.exporting import export_tree
from featurestore.affectgpt.importing import import_tree
from featurestore.affectgpt.pickled import read_pickle
from featurestore.errors import LegacyTreeError

KEY = FeatureKey.parse("mine/audio/own/utterance/1")
Arrays = Mapping[str, NDArray[Any]]


def write_npz(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]


def write_pt(path: Path, arrays: Arrays) -> None:
    torch.save({name: torch.from_numpy(each.copy()) for name, each in arrays.items()}, path)


def write_h5(path: Path, arrays: Arrays) -> None:
    with h5py.File(path, "w") as file:
        for name, each in arrays.items():
            file[name] = each


def write_pkl(path: Path, arrays: Arrays) -> None:
    path.write_bytes(pickle.dumps(dict(arrays)))


WRITERS = {".npz": write_npz, ".pt": write_pt, ".h5": write_h5, ".pkl": write_pkl}
ARRAYS = {id: array(number, 6) for number, id in enumerate(IDS)}


def stored(folder: Path, root: Path) -> dict[str, bytes]:
    store = FeatureStore(root)
    report = import_tree(folder, store, key=KEY)
    assert report.findings == []
    return {id: store.get(KEY, id).tobytes() for id in store.ids(KEY)}


def exported(root: Path, back: Path) -> dict[str, bytes]:
    export_tree(FeatureStore(root), KEY, back)
    (folder,) = (back / "mine").iterdir()
    return {path.stem: np.load(path).tobytes() for path in folder.iterdir()}


EXPECTED = {id: values.tobytes() for id, values in ARRAYS.items()}


@pytest.mark.parametrize("kind", WRITERS)
def test_one_file_of_a_whole_set(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"features{kind}"
    WRITERS[kind](path, ARRAYS)
    before = path.read_bytes()
    assert stored(path, tmp_path / "store") == EXPECTED
    assert path.read_bytes() == before
    assert exported(tmp_path / "store", tmp_path / "back") == EXPECTED


@pytest.mark.parametrize("kind", WRITERS)
def test_one_file_for_each_sample(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for id, values in ARRAYS.items():
        if kind in (".npz", ".h5"):
            WRITERS[kind](folder / f"{id}{kind}", {"feature": values})
        elif kind == ".pt":
            torch.save(torch.from_numpy(values.copy()), folder / f"{id}{kind}")
        else:
            (folder / f"{id}{kind}").write_bytes(pickle.dumps(values))
    assert stored(folder, tmp_path / "store") == EXPECTED


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", [dict, OrderedDict])
def test_pickles_of_every_protocol(protocol: int, form: Callable[[Arrays], Any]) -> None:
    arrays = {
        "one": array(0, 3, 4),
        "column by column": np.asfortranarray(array(1, 3, 4)),
        "swapped": array(2, 3).astype(">f4"),
        "half": array(3, 2).astype(np.float16),
        "none of them": np.zeros((0, 4), np.float32),
        "flags": np.array([True, False]),
    }
    found = read_pickle(pickle.dumps(form(arrays), protocol=protocol))
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert found[name].tolist() == values.tolist()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


class Hidden:
    """Runs code by a name that looks harmless."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return eval, (f"__import__('os').mkdir({str(self.path)!r})",)


@pytest.mark.parametrize("kind", [".pkl", ".pt"])
@pytest.mark.parametrize("made", [Evil, Hidden])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, kind: str, made: Callable[[Path], object]) -> None:
    """In a set's file, which is refused whole, and in a sample's, which costs that sample."""
    ran = tmp_path / "ran"
    content = {IDS[0]: ARRAYS[IDS[0]], IDS[1]: made(ran)}
    whole = tmp_path / f"set{kind}"
    if kind == ".pkl":
        whole.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, whole)
    (finding,) = import_tree(whole, None, key=KEY).findings
    assert finding.kind == "unreadable"
    assert "not loaded" in finding.what
    folder = tmp_path / "own"
    folder.mkdir()
    for id, values in ARRAYS.items():
        (folder / f"{id}.pkl").write_bytes(pickle.dumps(values))
    (folder / f"{IDS[3]}.pkl").write_bytes(pickle.dumps(made(ran)))
    report = import_tree(folder, None, key=KEY)
    assert kinds(report) == {"unreadable": [IDS[3]]}
    assert not ran.exists()
    # The same bytes do run where one believes them: the test would see it.
    pickle.loads((folder / f"{IDS[3]}.pkl").read_bytes())
    assert ran.exists()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not loaded"),
        (pickle.dumps(ARRAYS)[:-40], "not loaded"),
        (pickle.dumps({"a": object()}), "would run"),
        (pickle.dumps(np.array([{"a": 1}], object)), "not of numbers"),
        (pickle.dumps(np.zeros(2, [("x", "f4")])), "not of numbers"),
        (b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "cut off"),
        (b"\x80\x04q\xff.", "not loaded"),
        (b"cbuiltins\nexec\n(S'1'\ntR.", "it would run builtins.exec"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_pickles_that_hold_no_arrays_are_refused(raw: bytes, said: str) -> None:
    with pytest.raises(LegacyTreeError, match=said):
        read_pickle(raw)


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_no_array_of_the_set_is_named_and_the_rest_is_stored(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"features{kind}"
    WRITERS[kind](path, {**ARRAYS, IDS[2]: array(2, 9), IDS[4]: np.full(6, np.nan, np.float32)})
    store = FeatureStore(tmp_path / "store")
    assert kinds(import_tree(path, store, key=KEY)) == {"shape": [IDS[2]], "nonfinite": [IDS[4]]}
    assert store.ids(KEY) == [id for number, id in enumerate(IDS) if number not in (2, 4)]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("size", [0, 7, 200])
def test_a_file_that_was_cut_off_is_refused_whole(tmp_path: Path, kind: str, size: int) -> None:
    path = tmp_path / f"features{kind}"
    WRITERS[kind](path, ARRAYS)
    os.truncate(path, size)
    (finding,) = import_tree(path, FeatureStore(tmp_path / "store"), key=KEY).findings
    assert finding.kind == "unreadable"
    assert FeatureStore(tmp_path / "store").keys() == []


def test_a_file_named_after_its_model_needs_no_key(tmp_path: Path) -> None:
    tree = tmp_path / "features"
    tree.mkdir()
    write_npz(tree / "chinese-hubert-large-UTT.npz", ARRAYS)
    write_h5(tree / "emonet_UTT.h5", ARRAYS)
    store = FeatureStore(tmp_path / "store")
    assert import_tree(tree, store, dataset="mine").findings == []
    keys = ["mine/audio/chinese-hubert-large/utterance/1", "mine/face/emonet/utterance/1"]
    assert [str(key) for key in store.keys()] == keys
    assert bytes_of(tree)
    for key in keys:
        assert {id: store.get(key, id).tobytes() for id in IDS} == EXPECTED


def test_bfloat16_is_kept_as_float32_exactly(tmp_path: Path) -> None:
    values = torch.linspace(-3, 3, 6).to(torch.bfloat16)
    torch.save({"a": values}, tmp_path / "set.pt")
    store = FeatureStore(tmp_path / "store")
    import_tree(tmp_path / "set.pt", store, key=KEY)
    assert store.get(KEY, "a").tolist() == [values.float().tolist()]
