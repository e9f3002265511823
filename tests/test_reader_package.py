"""featurestore-reader: its wheel is built, installed and used in each Python that it is for, and in others' loaders.

Pythons are tried where they are found, on the PATH or among pyenv's; numpy and google-crc32c are fetched once for each
and kept in pytest's cache.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from interpreters import interpreter, packages_for
from numpy.typing import NDArray

import featurestore.storage.reader
from featurestore import FeatureStore, Recipe
from featurestore.version import __version__

ROOT = Path(__file__).resolve().parents[1]
STAND_INS = ROOT / "tests" / "stand_ins"
IDS = [f"sample_{number:08d}" for number in range(23)]
FILES = "mer2026-dataset-process/features"
# folder -> (key, width, dtype, rows of the shortest and of the longest sample)
SETS: dict[str, tuple[str, int, str, int, int]] = {
    "chinese-hubert-large-UTT": ("audio/chinese-hubert-large/utterance/1", 64, "f4", 1, 1),
    "chinese-roberta-wwm-ext-large-UTT": ("au/chinese-roberta-wwm-ext-large/utterance/1", 48, "f4", 1, 1),
    "resnet50face_UTT": ("face/resnet50face/utterance/1", 32, "f8", 1, 1),
    "chinese-hubert-large-FRA": ("audio/chinese-hubert-large/cut10s/all", 64, "f4", 1, 60),
    "chinese-roberta-wwm-ext-large-FRA": ("au/chinese-roberta-wwm-ext-large/tokens/all", 48, "f4", 1, 9),
    "resnet50face_FRA": ("face/resnet50face/every/all", 32, "f8", 1, 45),
}
# The oldest numpy that the Python has, theirs for 3.10, and one of today.
PINS = {
    "3.8": "numpy==1.20.3", "3.9": "numpy==1.23.5", "3.10": "numpy==2.2.6", "3.11": "numpy==1.26.4",
    "3.12": "numpy==1.26.4", "3.13": "numpy==2.2.6",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("dist")
    command = ["sh", str(ROOT / "scripts" / "build_reader.sh"), sys.executable, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, as every Python can take it."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def package(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package in this process, and MERTools' stand-in."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.syspath_prepend(str(STAND_INS))
    yield importlib.import_module("featurestore_reader")
    for name in [name for name in sys.modules if name.split(".")[0] in ("featurestore_reader", "toolkit")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `features`, a store, and the files that it was made of, as MERTools' scripts write them."""
    root = tmp_path_factory.mktemp("lab")
    rng = np.random.default_rng(0)
    store = FeatureStore(root / "features")
    for folder, (key, dim, dtype, least, most) in SETS.items():
        rows = [rng.standard_normal((int(rng.integers(least, most + 1)), dim)).astype(dtype) for _ in IDS]
        rows[3] = rows[3][:1]  # one frame, of which the file is one-dimensional
        write(root / FILES / folder, rows)
        ragged = key.endswith("/all")
        store.put_many(f"mer2026/{key}", IDS, rows if ragged else np.stack(rows), recipe={"imported": True})
    return root


def write(folder: Path, rows: list[NDArray[Any]]) -> None:
    folder.mkdir(parents=True)
    for id, values in zip(IDS, rows, strict=True):
        np.save(folder / f"{id}.npy", values[0] if len(values) == 1 else values)


# Runs in each Python: what MERTools' loader makes of files, then the same of the store, as one text of digests.
PROGRAM = """
import hashlib, sys, warnings
import numpy as np
from toolkit.data import get_datasets

lab, unchecked = sys.argv[1], sys.argv[2] == "unchecked"
ids = ["sample_%08d" % (number * 7 % 23) for number in range(23)]  # in no order of theirs
labels = [{"emo": number % 6, "val": -10} for number in range(23)]
root = lab + "/mer2026-dataset-process/features/"
A, T, V = "chinese-hubert-large", "chinese-roberta-wwm-ext-large", "resnet50face"

def told(value):
    if hasattr(value, "shape"):
        array = np.asarray(value)
        return (str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array)).hexdigest())
    if isinstance(value, dict):
        return {name: told(each) for name, each in value.items()}
    return [told(each) for each in value] if isinstance(value, (list, tuple)) else value

def batches():
    for kind, level, other in (("utt", "-UTT", "_UTT"), ("utt", "-FRA", "_FRA"), ("frm_align", "-FRA", "_FRA"),
                               ("frm_unalign", "-FRA", "_FRA")):
        args = {"model": "attention", "feat_type": kind, "audio_root": root + A + level, "text_root": root + T + level,
                "video_root": root + V + other}
        made = get_datasets(args, ids, labels)
        yield [made.adim, made.tdim, made.vdim], told([made.audios, made.texts, made.videos])
        for start in range(0, 23, 8):
            yield told(made.collater([made[i] for i in range(start, min(start + 8, 23))]))
    roots = [root + A + "-UTT", root + T + "-FRA", root + V + "_UTT"]
    made = get_datasets({"model": "attention_topn", "feat_roots": roots}, ids, labels)
    yield made.dims, told(made.collater([made[i] for i in range(23)]))

theirs = list(batches())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    LINE
    ours = list(batches())
import featurestore_reader
assert ours == theirs, [pair for pair in zip(ours, theirs) if pair[0] != pair[1]][0]
assert featurestore_reader.checked is not unchecked
assert "zarr" not in sys.modules
print(len(ours), len([each for each in caught if "unchecked" in str(each.message)]))
"""


def shown(heading: str) -> str:
    """The first block below a heading of the page: what a reader is told to write is what is tried."""
    page = (ROOT / "docs" / "mer2026.md").read_text(encoding="utf-8")
    match = re.search(r"```[a-z]+[^\n]*\n(.*?)^```$", page.split(f"### {heading}\n")[1], re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def run(python: str, lab: Path, paths: list[Path], unchecked: bool = False, torch: bool = False) -> str:
    """What the program prints: how many batches were compared, and how often it was warned of what is not checked."""
    hidden = ["featurestore", *["google_crc32c"] * unchecked, *["torch"] * (not torch)]
    start = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden})); sys.path[:0] = {[str(path) for path in paths]!r}\n"
    )
    line = shown("MERTools").strip()
    assert '"../features"' in line
    program = PROGRAM.replace("LINE", line.replace('"../features"', repr(str(lab / "features"))))
    command = [python, "-I", "-c", start + program, str(lab), "unchecked" if unchecked else "checked"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("version", PINS)
def test_their_loader_makes_the_same_batches_in_each_python(
    version: str,
    lab: Path,
    installed: Path,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    cache = getattr(pytestconfig, "cache", None)
    kept = cache.mkdir("old-packages") if cache is not None else tmp_path_factory.mktemp("old-packages")
    packages = packages_for(version, (PINS[version], "google-crc32c"), kept)
    assert run(python, lab, [packages, installed, STAND_INS]) == "17 0"


def test_with_numpy_alone_it_warns_once(lab: Path, installed: Path) -> None:
    assert run(sys.executable, lab, [installed, STAND_INS], unchecked=True) == "17 1"


def test_their_loader_makes_the_same_batches_with_torch(lab: Path, installed: Path) -> None:
    pytest.importorskip("torch")
    assert run(sys.executable, lab, [installed, STAND_INS], torch=True) == "17 0"


def test_the_wheel_holds_the_one_reader_and_needs_what_it_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[2] for name in archive.namelist() if name.startswith("featurestore_reader/")}
        reader = archive.read("featurestore_reader/reader.py")
        told = archive.read(f"featurestore_reader-{__version__}.dist-info/METADATA").decode()
    assert names == {"__init__.py", "files.py", "folders.py", "mertools.py", "py.typed", "reader.py", "torch.py"}
    assert reader == Path(featurestore.storage.reader.__file__).read_bytes()
    assert wheel.name == f"featurestore_reader-{__version__}-py3-none-any.whl"
    assert re.findall(r"^Requires-.+", told, re.MULTILINE) == [
        "Requires-Python: >=3.8", "Requires-Dist: numpy>=1.20", "Requires-Dist: google-crc32c>=1.5",
    ]  # fmt: skip


def test_a_build_leaves_nothing_in_the_checkout(wheel: Path) -> None:
    found = {path.name for path in (ROOT / "scripts" / "reader_package").iterdir()}
    assert found == {"LICENSE", "README.md", "featurestore_reader", "pyproject.toml"}


def test_its_minimum_python_is_at_most_3_8() -> None:
    vermin = shutil.which("vermin", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if vermin is None:
        pytest.skip("vermin is not installed")
    command = [vermin, "--no-tips", "-t=3.8-", str(ROOT / "scripts" / "reader_package"), str(STAND_INS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -- reading by key ------------------------------------------------------------------------------------------------


KEY = "mer2026/audio/chinese-hubert-large/utterance/1"
ALL = "mer2026/audio/chinese-hubert-large/cut10s/all"


def test_samples_are_read_by_key(package: ModuleType, lab: Path) -> None:
    store = str(lab / "features")
    files = [np.load(lab / FILES / "chinese-hubert-large-FRA" / f"{id}.npy") for id in IDS]
    utterances = np.stack([np.load(lab / FILES / "chinese-hubert-large-UTT" / f"{id}.npy")[None] for id in IDS])
    assert package.checked
    assert package.get(store, KEY, IDS[2]).tobytes() == utterances[2].tobytes()
    assert package.get_many(store, KEY, IDS[::-1]).tobytes() == utterances[::-1].tobytes()
    for found, wanted in zip(package.get_ragged(store, ALL, IDS), files, strict=True):
        assert found.tobytes() == wanted.tobytes()
    assert [each.shape for each in package.get_ragged(store, KEY, IDS[:2])] == [(1, 64), (1, 64)]
    assert package.get(store, ALL, IDS[0], slice(0, 2)).tobytes() == files[0][:2].tobytes()
    assert package.open_key(store, ALL).ids() == IDS


def test_what_is_not_stored_is_an_error_that_names_it(package: ModuleType, lab: Path) -> None:
    store = str(lab / "features")
    said = rf"1 of 2 ids are not stored, e\.g\. 'nobody', under {KEY} in .*; `ids\(\)` lists those that are"
    for read in (package.get_many, package.get_ragged):
        with pytest.raises(LookupError, match=said):
            read(store, KEY, [IDS[0], "nobody"])
    for frames in (None, [0]):
        with pytest.raises(LookupError, match=r"1 of 1 ids are not stored, e\.g\. 'nobody'"):
            package.get(store, KEY, "nobody", frames)
    with pytest.raises(LookupError, match="nothing is stored under mer2026/audio/none/utterance/1 in "):
        package.get(store, "mer2026/audio/none/utterance/1", IDS[0])
    with pytest.raises(ValueError, match=f"samples of {ALL} differ in their number of frames: get_ragged gives a list"):
        package.get_many(store, ALL, IDS)


def test_what_is_stored_later_is_found(package: ModuleType, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    values = np.arange(12, dtype=np.float32).reshape(3, 1, 4)
    store.put_many(KEY, IDS[:2], values[:2], recipe={"x": 1})
    folders = package.Folders(str(tmp_path), "mer2026")
    assert package.get_many(str(tmp_path), KEY, IDS[:2]).tobytes() == values[:2].tobytes()
    assert folders.exists(f"chinese-hubert-large-UTT/{IDS[1]}.npy")
    assert not folders.exists(f"chinese-hubert-large-UTT/{IDS[2]}.npy")
    store.put_many(KEY, IDS[2:3], values[2:], recipe={"x": 1})
    assert package.get(str(tmp_path), KEY, IDS[2]).tobytes() == values[2].tobytes()
    assert folders.exists(f"chinese-hubert-large-UTT/{IDS[2]}.npy")
    assert len(folders.read("chinese-hubert-large-UTT", IDS[:3])) == 3


# -- reading by folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("x/audio/wavlm-base/utterance/1", {"wavlm-base", "wavlm-base-UTT", "wavlm-base_UTT"}),
        ("x/face/dinov2-large/uniform-64/all", {"dinov2-large", "dinov2-large-FRA", "dinov2-large_FRA"}),
        ("x/frame/EVA-ViT-G/tokens/64", {"EVA-ViT-G", "frame_EVA-ViT-G_tokens_64frms"}),
        ("x/frame/C/emotion_peak/8", {"C", "frame_C_emotion_peak_8frms"}),
        ("x/frame/C/uniform/8", {"C", "frame_C_uniform_8frms", "frame_C_8frms"}),
        ("x/face/C/uniform/8", {"C", "face_C_8frms", "face_C_uniform_8frms"}),
        ("x/audio/H/const_clips/8", {"H", "audio_H_8clips"}),
        ("x/multi/C.H/complete/1", {"C.H", "multi_C_H_complete"}),
        ("x/au/T/au_summary/all", {"T", "T-FRA", "T_FRA", "au", "au_CLIP_VITB32_8frms", "au_CLIP_VITB32_512d_8frms"}),
    ],
)
def test_a_key_answers_to_the_names_of_its_folders(package: ModuleType, key: str, names: set[str]) -> None:
    found = importlib.import_module("featurestore_reader.folders").names_of(key)
    assert set(found) == names
    assert len(found) == len(names)


def test_the_names_are_those_that_an_import_takes(package: ModuleType) -> None:
    from featurestore import FeatureKey

    names_of = importlib.import_module("featurestore_reader.folders").names_of
    for name in (
        "frame_C_emotion_peak_8frms", "frame_C_8frms", "face_C_8frms", "face_C_uniform_8frms", "audio_H_8clips",
        "multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete", "au_CLIP_VITB32_8frms", "au",
    ):  # fmt: skip
        assert name in names_of(str(FeatureKey.from_legacy("x", name))), name


def test_a_folder_that_is_not_clear_is_an_error_with_what_is_stored(package: ModuleType, tmp_path: Path) -> None:
    store, values = FeatureStore(tmp_path), np.ones((1, 1, 4), np.float32)
    for key in ("a/audio/W/utterance/1", "a/face/W/utterance/1", "b/audio/W/utterance/1"):
        store.put_many(key, ["one"], values, recipe={"x": 1})
    store.put_many("b/audio/W/utterance/1", ["one"], values + 1, recipe={"x": 2})
    root = str(tmp_path)
    with pytest.raises(LookupError, match=r"is no feature store: it has no folder `data`; give the store's folder"):
        package.Folders(str(tmp_path / "data" / "a"), "a")
    with pytest.raises(LookupError, match="has nothing of 'c', but of a, b"):
        package.Folders(root, "c")
    with pytest.raises(LookupError, match=r"a/audio/W/utterance/1, a/face/W/utterance/1 fit folder 'W-UTT' in .*keys="):
        package.Folders(root, "a").read("W-UTT", ["one"])
    with pytest.raises(
        LookupError, match=r"nothing of a fits folder 'W-FRA' in .*which has a/audio/W/utterance/1, .*; im"
    ):
        package.Folders(root, "a").read("W-FRA", ["one"])
    with pytest.raises(LookupError, match=r"whose folder is 'W-UTT'.*pass dataset=, one of a, b"):
        package.Folders(root).read("W-UTT", ["one"])
    with pytest.raises(LookupError, match=r"b/audio/W/utterance/1 has 2 recipes for folder 'W-UTT' in .*KEY@REC"):
        package.Folders(root, "b").read("W-UTT", ["one"])
    key = "b/audio/W/utterance/1"
    recipe = Recipe({"x": 2}).fingerprint
    chosen = package.Folders(root, "b", keys={"W-UTT": f"{key}@{recipe[:8]}", "Q": "a/face/W/utterance/1"})
    assert chosen.load("/any/W-UTT/one.npy").tolist() == [[2, 2, 2, 2]]
    assert chosen.load("Q/one.npy").tolist() == [[1, 1, 1, 1]]


def load_all(folders: Any, root: Path) -> int:
    """How many files of a tree come back as np.load gives them, from the same paths elsewhere."""
    files = sorted(root.rglob("*.npy"))
    for file in files:
        found, wanted = folders.load(f"/elsewhere/{file.relative_to(root)}"), np.load(file)
        assert (found.shape, found.dtype, found.tobytes()) == (wanted.shape, wanted.dtype, wanted.tobytes()), file
    return len(files)


def test_files_come_back_as_they_were(package: ModuleType, tmp_path: Path) -> None:
    """What an import keeps of files that are not as most of their set, in recipes and in lines."""
    rng = np.random.default_rng(0)
    store, tree = FeatureStore(tmp_path / "features"), tmp_path / "tree"
    vectors = rng.standard_normal((4, 1, 8), dtype=np.float32)
    vectors[2] = 0
    recipe: dict[str, Any] = {"imported": True, "folder": "some-UTT", "file_rank": 1}
    facts = [None, {"file_shape": [1, 8]}, {"file_dtype": "<f8"}, None]
    store.put_many("m/audio/some/utterance/1", IDS[:4], vectors, recipe=recipe, provenance=facts)  # type: ignore[arg-type]
    store.put_many("m/audio/some/utterance/1", IDS[:1], vectors[3:], recipe={**recipe, "folder": "others-UTT"})
    fine = rng.standard_normal((1, 1, 8))  # rounded in float32
    beside = {**recipe, "stored_dtype": "float64", "beside": Recipe(recipe).fingerprint}
    store.put_many("m/audio/some/utterance/1", IDS[4:5], fine, recipe=beside)
    tokens = rng.standard_normal((2, 64, 8), dtype=np.float32)
    store.put_many("m/frame/EVA-ViT-G/tokens/64", IDS[:2], tokens, recipe={"folder": "EVA-ViT-G", "file_rank": 3})
    fused = rng.standard_normal((2, 1, 8), dtype=np.float32)
    store.put_many("m/multi/CLIP_VIT_LARGE.HUBERT_LARGE/complete/1", IDS[:2], fused, recipe={"x": 1})
    store.put_many("m/face/any/every/1", IDS[:2], fused, recipe={"folder": "what I called it", "file_rank": 2})
    wanted = {
        "some-UTT": [vectors[0, 0], vectors[1], vectors[2, 0].astype("f8"), vectors[3, 0], fine[0, 0]],
        "others-UTT": [vectors[3, 0]],
        "EVA-ViT-G": list(tokens[:, None]),
        "multi_CLIP_VIT_LARGE_HUBERT_LARGE_complete": list(fused[:, 0]),
        "what I called it": list(fused),
    }
    for folder, arrays in wanted.items():
        (tree / folder).mkdir(parents=True)
        for id, array in zip(IDS, arrays, strict=False):
            np.save(tree / folder / f"{id}.npy", array)
    folders = package.Folders(str(tmp_path / "features"), "m", keys={"others-UTT": "m/audio/some/utterance/1"})
    assert load_all(folders, tree) == 12
    found = folders.read("some-UTT", [IDS[4], IDS[2], IDS[0]])
    assert [array.dtype.str for array in found] == ["<f8", "<f8", "<f4"]
    with pytest.raises(LookupError, match=r"1 of 1 ids are not stored, e\.g\. 'nobody'"):
        folders.read("some-UTT", [IDS[4], "nobody", IDS[0]])
    assert folders.exists(f"some-UTT/{IDS[4]}.npy")
    m = importlib.import_module("featurestore_reader.mertools")
    features, dim = m.FeatureReader(str(tmp_path / "features"), "m")("some-UTT", IDS[:5])
    assert (dim, {array.shape for array in features}) == (8, {(1, 8)})


def test_utterances_that_were_left_out_are_the_mean_of_their_frames(package: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((n, 8), dtype=np.float32) for n in (5, 1, 300)]
    store = FeatureStore(tmp_path)
    facts = [None, {"file_dtype": "<f8"}, None]
    recipe = {"folder": "wavlm-base-FRA", "file_rank": 2}
    store.put_many("m/audio/wavlm-base/cut10s/all", IDS[:3], rows, recipe=recipe, provenance=facts)  # type: ignore[arg-type]
    m = importlib.import_module("featurestore_reader.mertools")
    said = r"nothing of m fits folder 'wavlm-base-UTT' .*, or have it made of 'wavlm-base-FRA' with means=True"
    with pytest.raises(LookupError, match=said):
        m.FeatureReader(str(tmp_path), "m")("wavlm-base-UTT", IDS[:3])
    found, dim = m.FeatureReader(str(tmp_path), "m", means=True)("wavlm-base-UTT", IDS[:3])
    wanted = [rows[0].mean(axis=0), rows[1][0].astype("f8"), rows[2].mean(axis=0)]
    assert dim == 8
    for one, other in zip(found, wanted, strict=True):
        assert (one.shape, one.dtype, one.tobytes()) == ((1, 8), other.dtype, other.tobytes())


def test_a_path_names_the_data_set_where_nobody_else_does(package: ModuleType, lab: Path) -> None:
    folders = package.Folders(str(lab / "features"))
    path = f"/home/me/MER2026/features/resnet50face_FRA/{IDS[0]}.npy"
    assert folders.load(path).tobytes() == np.load(lab / FILES / "resnet50face_FRA" / f"{IDS[0]}.npy").tobytes()
    assert folders.exists(path)
    assert not folders.exists(path.replace(IDS[0], "nobody"))
    with pytest.raises(FileNotFoundError, match=r"nobody\.npy' is not in the store: 1 of 1 ids are not stored"):
        folders.load(path.replace(IDS[0], "nobody"))
    with pytest.raises(LookupError, match=r"whose folder is 'resnet50face_FRA'\? pass dataset=, one of mer2026"):
        folders.exists(f"elsewhere/resnet50face_FRA/{IDS[0]}.npy")


# -- in others' loaders --------------------------------------------------------------------------------------------


def test_mertools_reader_is_replaced_where_it_is_used(package: ModuleType, lab: Path) -> None:
    m = importlib.import_module("featurestore_reader.mertools")
    assert m.patch(store=str(lab / "features"), dataset="mer2026") == [
        "toolkit.data.feat_data", "toolkit.data.feat_data_topn",
    ]  # fmt: skip
    read = importlib.import_module("toolkit.data.feat_data").func_read_multiprocess
    found, dim = read(str(lab / FILES / "resnet50face_UTT") + "/", IDS, read_type="feat")
    assert type(found) is list
    assert (dim, found[0].shape, found[0].dtype) == (32, (1, 32), np.float64)
    found[0] = None  # as MERTools does
    with pytest.raises(
        ValueError, match="read_type='face' is not 'feat': read what are no features from their own files"
    ):
        read("resnet50face_UTT", IDS, read_type="face")
    with pytest.raises(ValueError, match="no names are asked of 'resnet50face_UTT'"):
        read("resnet50face_UTT", [])
    with pytest.raises(LookupError, match=r"1 of 2 ids are not stored, e\.g\. 'nobody'"):
        read("resnet50face_UTT", [IDS[0], "nobody"])
    with pytest.raises(LookupError, match="has nothing of 'mer2025', but of mer2026"):
        m.patch(store=str(lab / "features"), dataset="mer2025")


def test_without_mertools_it_is_an_error(package: ModuleType, lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    m = importlib.import_module("featurestore_reader.mertools")
    monkeypatch.setattr(m, "USERS", ("toolkit.data.no_such", "toolkit.utils"))
    with pytest.raises(
        ImportError, match=r"none of toolkit\.data\.no_such, toolkit\.utils has func_read_multiprocess: is"
    ):
        m.patch(store=str(lab / "features"), dataset="mer2026")
    monkeypatch.setattr(m, "USERS", ("no_toolkit.data.feat_data",))
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_toolkit'"):
        m.patch(store=str(lab / "features"), dataset="mer2026")


@pytest.mark.parametrize("mutant", ["another order", "another dtype", "one bit"])
def test_a_loader_that_reads_something_else_is_noticed(mutant: str, lab: Path, installed: Path, tmp_path: Path) -> None:
    """The comparison of batches looks at every bit of them, and checksums at every bit of the store."""
    copy, package = tmp_path / "lab", tmp_path / "installed"
    shutil.copytree(installed, package)
    shutil.copytree(lab, copy)
    mertools = package / "featurestore_reader" / "mertools.py"
    text, read = (
        mertools.read_text(),
        "self.folders.read(os.path.basename(os.path.normpath(feature_root)), names, copy=False)",
    )
    assert read in text
    if mutant == "another order":
        mertools.write_text(text.replace(read, read.replace("names,", "sorted(names)[::-1],")))
    elif mutant == "another dtype":
        mertools.write_text(text.replace(read, f"[each.astype('f8') for each in {read}]"))
    else:
        shard = next((copy / "features" / "data" / KEY).rglob("c.0.0.0"))
        raw = bytearray(shard.read_bytes())
        raw[700] ^= 1
        shard.write_bytes(raw)
    with pytest.raises(AssertionError, match="1 of 23 ids are not stored" if mutant == "one bit" else "AssertionError"):
        run(sys.executable, copy, [package, STAND_INS])


def made(file: str, lines: str = "") -> dict[str, Any]:
    """The names of a stand-in, once the lines of a diff were applied to it."""
    text = (STAND_INS / file).read_text(encoding="utf-8")
    removed, added = ([line[1:].strip() for line in lines.splitlines() if line[0] == sign] for sign in "-+")
    first = len(added) - len(removed)  # what is only added comes before all else
    for old, new in zip(removed, added[first:], strict=True):
        assert old in text
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile("\n".join([*added[:first], text]), file, "exec"), names)
    return names


def test_affectgpts_data_set_reads_from_a_store(
    package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    store = FeatureStore(tmp_path / "features")
    tree = tmp_path / "preextracted_features"
    for folder, key, dim in (
        ("frame_CLIP_VIT_LARGE_emotion_peak_8frms", "frame/CLIP_VIT_LARGE/emotion_peak/8", 768),
        ("face_CLIP_VIT_LARGE_8frms", "face/CLIP_VIT_LARGE/uniform/8", 768),
        ("audio_HUBERT_LARGE_8clips", "audio/HUBERT_LARGE/const_clips/8", 1024),
    ):
        values = rng.standard_normal((len(IDS), 8, dim), dtype=np.float32)
        write(tree / "mer2023" / folder, list(values))
        store.put_many(f"mer2023/{key}", IDS, values, recipe={"x": 1})
    monkeypatch.chdir(tmp_path)
    theirs = made("my_affectgpt/base_dataset.py")["BaseDataset"]("mer2023", "preextracted_features")
    ours = made("my_affectgpt/base_dataset.py", shown("AffectGPT"))["BaseDataset"]("mer2023", "features")
    for modality in ("frame", "face", "audio"):
        for id in IDS:
            assert ours.load(modality, id).tobytes() == theirs.load(modality, id).tobytes()
    assert ours.load("frame", "nobody") is None


def test_emotion_llamas_data_set_reads_from_a_store(
    package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    store = FeatureStore(tmp_path / "features")
    for folder, modality, dim in (("EVA-ViT-G", "frame", 1408), ("whisper-large-v3", "audio", 1280)):
        values = rng.standard_normal((3, 64, dim), dtype=np.float32)
        (tmp_path / "MELD" / "features" / folder).mkdir(parents=True)
        for id, tokens in zip(IDS, values, strict=False):
            np.save(tmp_path / "MELD" / "features" / folder / f"{id}.npy", tokens[None])
        store.put_many(f"meld/{modality}/{folder}/tokens/64", IDS[:3], values, recipe={"x": 1})
    monkeypatch.chdir(tmp_path)
    theirs = made("minigpt4/mer_datasets.py")["FeatureDataset"]("MELD/features", IDS[:3])
    names = made("minigpt4/mer_datasets.py")
    exec(shown("Emotion-LLaMA-v2"), names)
    ours = names["FeatureDataset"]("MELD/features", IDS[:3])
    one, other = (each.collater([each[i] for i in range(3)]) for each in (ours, theirs))
    assert {name: (each.shape, each.tobytes()) for name, each in one.items()} == {
        name: (each.shape, each.tobytes()) for name, each in other.items()
    }
    assert one["video"].shape == (3, 64, 1408)
    ours.ids = ["nobody"]
    with pytest.raises(FileNotFoundError, match=r"nobody\.npy' is not in the store"):
        ours[0]


def test_a_pytorch_data_set_gives_ids_and_tensors(package: ModuleType, lab: Path) -> None:
    torch = pytest.importorskip("torch")
    ours = importlib.import_module("featurestore_reader.torch")
    store = str(lab / "features")
    dataset = ours.FeatureDataset(store, ALL)
    assert dataset.ids == IDS
    assert dataset[3][0] == IDS[3]
    assert dataset[3][1].shape == (1, 64)
    loader = torch.utils.data.DataLoader(dataset, 8, collate_fn=ours.collate)
    batches = list(loader)
    assert [len(batch.ids) for batch in batches] == [8, 8, 7]
    for batch in batches:
        assert batch.features.shape == (len(batch.ids), int(batch.lengths.max()), 64)
        for id, features, length in zip(*batch, strict=True):
            wanted = np.load(lab / FILES / "chinese-hubert-large-FRA" / f"{id}.npy")
            assert features[:length].numpy().tobytes() == wanted.tobytes()
            assert not features[length:].any()
    chosen = ours.FeatureDataset(store, KEY, IDS[5:2:-1])
    assert [id for id, _ in chosen] == IDS[5:2:-1]
    with pytest.raises(LookupError, match=r"1 of 2 ids are not stored, e\.g\. 'nobody', under .*ids\(\) lists those"):
        ours.FeatureDataset(store, KEY, [IDS[0], "nobody"])
    with pytest.raises(LookupError, match="no ids, under "):
        ours.FeatureDataset(store, KEY, [])
