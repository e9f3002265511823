"""The declared datasets say what the published scripts say, and nothing in a dataset's files is executed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from click.testing import CliRunner

from featurestore.cli import fstore
from featurestore.datasets import (
    dataset_names,
    load_dataset,
    read_declaration,
    resolve_dataset,
    survey_dataset,
    unibench_names,
)
from featurestore.datasets.files import MerFactoryFolder
from featurestore.datasets.label_npz import read_label_array
from featurestore.errors import ConfigError, ManifestError, UnknownDatasetError

# name, class name, label file, test count, video folder, extensions, audio folder, subtitles, column, faces
PUBLISHED = [
    ("mer2023", "MER2023", "label-6way.npz", 411, "video", (".mp4", ".avi"), "audio", "polish", "english", "flat"),
    ("mer2024", "MER2024", "label-6way.npz", 1169, "video", (".mp4", ".avi"), "audio", "merge", "chinese", "flat"),
    ("meld", "MELD", "label.npz", 2610, "subvideo", (".mp4",), "subaudio", "polish", "english", "flat"),
    (
        "iemocap",
        "IEMOCAPFour",
        "label_4way.npz",
        1241,
        "subvideo-tgt",
        (".avi",),
        "subaudio",
        "polish",
        "english",
        "flat",
    ),
    ("cmumosi", "CMUMOSI", "label.npz", 686, "subvideo", (".mp4",), "subaudio", "polish", "english", "flat"),
    ("cmumosei", "CMUMOSEI", "label.npz", 4659, "subvideo_new", (".mp4",), "subaudio", "polish", "english", "flat"),
    ("sims", "SIMS", "label.npz", 457, "video", (".mp4",), "audio", "polish", "english", "flat"),
    ("simsv2", "SIMSv2", "label.npz", 1034, "video_new", (".mp4",), "audio", "polish", "english", "flat"),
    ("ovmerdplus", "OVMERDPlus", "ovlabel.csv", 532, "video", (".mp4",), "audio", "subtitle_eng", "sentence", "flat"),
]
ALIASES = {
    "mer2023": ["MER2023", "Mer2023", "mer2023-dataset-process"],
    "iemocap": ["IEMOCAPFour", "iemocapfour", "IEMOCAP", "iemocap-process"],
    "cmumosi": ["CMUMOSI", "CMU-MOSI", "cmu-mosi"],
    "cmumosei": ["CMU-MOSEI"],
    "sims": ["SIMS", "CH-SIMS"],
    "simsv2": ["SIMSv2", "CH-SIMS v2", "simsv2-process"],
    "ovmerdplus": ["OVMERDPlus", "OVMERDPLUS"],
    "mercaptionplus": ["MERCaptionPlus"],
    "mer2025ov": ["MER2025OV"],
}


def save_labels(path: Path, **arrays: dict[str, Any]) -> None:
    """A label .npz as the published ones are: 0-d object arrays of dicts."""
    np.savez_compressed(path, **{name: np.array(value, dtype=object) for name, value in arrays.items()})


def save_csv(path: Path, header: list[str], *rows: list[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def mer2023(tmp_path: Path) -> Path:
    """Three samples in the layout of MER2023: one has every file, one an .avi, one nothing."""
    root = tmp_path / "mer2023-dataset-process"
    for folder in ("video", "audio", "openface_face"):
        (root / folder).mkdir(parents=True)
    names = ["sample_00000001", "sample_00000002", "sample_00000003"]
    labels = {
        name: {"emo": emo, "val": np.float64(0.5)} for name, emo in zip(names, ["happy", "sad", "neutral"], strict=True)
    }
    train = {"sample_00000009": {"emo": "angry", "val": 1.0}}
    save_labels(root / "label-6way.npz", test1_corpus=labels, train_corpus=train, test2_corpus={}, test3_corpus={})
    save_csv(
        root / "transcription-engchi-polish.csv",
        ["name", "chinese", "english"],
        [names[0], "你好", "hello"],
        [names[1], "", ""],
    )
    for file in (
        "video/sample_00000001.mp4",
        "video/sample_00000002.avi",
        "audio/sample_00000001.wav",
        "openface_face/sample_00000001.npy",
    ):
        (root / file).touch()
    return root


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row[0])
def test_the_nine_test_sets_are_declared_as_published(row: tuple[Any, ...]) -> None:
    name, title, labels, count, video, extensions, audio, subtitles, column, layout = row
    dataset = resolve_dataset(name)
    assert dataset.title == title
    assert dataset.labels is not None
    assert dataset.labels.file == labels
    assert dataset.split("test").count == count
    assert dataset.video is not None
    assert (dataset.video.folder, dataset.video.extensions) == (video, extensions)
    assert dataset.audio is not None
    assert dataset.audio.folder == audio
    assert dataset.subtitles is not None
    assert subtitles in dataset.subtitles.file
    assert dataset.subtitles.column == column
    assert dataset.face is not None
    assert (dataset.face.folder, dataset.face.layout) == ("openface_face", layout)


def test_the_nine_test_sets_have_12799_samples() -> None:
    assert sum(row[3] for row in PUBLISHED) == 12_799
    assert sorted(row[0] for row in PUBLISHED) == unibench_names()
    assert sum(resolve_dataset(row[0]).split("test").count or 0 for row in PUBLISHED) == 12_799


def test_training_and_challenge_sets_are_declared() -> None:
    assert len(dataset_names()) == 12
    assert resolve_dataset("MERCaptionPlus").split("train").count == 31_327
    assert resolve_dataset("MERCaptionPlus").default_split == "train"
    assert resolve_dataset("OVMERD").default_split == "train"
    assert resolve_dataset("MER2025OV").split("test").count == 20_000
    for name in ("mercaptionplus", "ovmerd", "mer2025ov"):
        dataset = resolve_dataset(name)
        assert dataset.face is not None
        assert dataset.face.layout == "nested"


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name, group in ALIASES.items() for alias in group])
def test_any_alias_in_any_case_means_the_canonical_name(name: str, alias: str) -> None:
    assert resolve_dataset(alias).name == name
    assert resolve_dataset(alias.upper()).name == name


def test_an_unknown_dataset_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(
        UnknownDatasetError, match=r"'mer-2023' is not known; did you mean 'mer2023'\? known: cmumosei, "
    ):
        resolve_dataset("mer-2023")
    with pytest.raises(UnknownDatasetError, match="did you mean 'mer2023'"):  # and not mer2024, as near to difflib
        resolve_dataset("mer2032")
    with pytest.raises(UnknownDatasetError):
        resolve_dataset("mer2025-dataset")  # the data folder of three datasets names none of them


def test_samples_have_labels_subtitles_and_media_paths(mer2023: Path) -> None:
    samples = load_dataset("MER2023", mer2023)
    assert list(samples) == ["sample_00000001", "sample_00000002", "sample_00000003"]
    first, second, third = samples.values()
    assert (first.id, first.label, first.subtitle) == ("sample_00000001", "happy", "hello")
    assert first.video == mer2023 / "video" / "sample_00000001.mp4"
    assert first.face == mer2023 / "openface_face" / "sample_00000001.npy"
    assert second.video == mer2023 / "video" / "sample_00000002.avi"
    assert second.subtitle == ""  # an empty cell is not an absent row
    assert third.subtitle is None
    assert third.video == mer2023 / "video" / "sample_00000003.mp4"  # where it should be, for the message
    assert list(load_dataset("mer2023", mer2023, "train")) == ["sample_00000009"]
    assert len(load_dataset("mer2023", mer2023, "all")) == 4


def test_the_root_may_be_the_folder_above(mer2023: Path) -> None:
    assert load_dataset("mer2023", mer2023.parent) == load_dataset("mer2023", mer2023)
    mer2023.rename(mer2023.parent / "MER2023")
    assert len(load_dataset("mer2023", mer2023.parent)) == 3
    with pytest.raises(ManifestError, match=r"holds neither label.npz.* nor a folder meld-process or MELD"):
        load_dataset("meld", mer2023.parent)
    with pytest.raises(ManifestError, match="is not a folder"):
        load_dataset("meld", mer2023.parent / "nowhere")


@pytest.mark.parametrize("level", ["", "MER2023", "mer2023"])
def test_mer_factory_files_are_found_with_and_without_a_dataset_level(mer2023: Path, level: str) -> None:
    output = mer2023.parent / "output"
    folder = output / level / "sample_00000001"
    folder.mkdir(parents=True)
    (folder / "sample_00000001_au_analysis.json").touch()
    (folder / "sample_00000001.csv").touch()
    (output / level / "sample_00000002").mkdir()
    (output / level / "sample_00000002" / "sample_00000002_merr_data.json").touch()
    first, second, third = load_dataset("mer2023", mer2023, mer_factory=output).values()
    assert first.au_json == folder / "sample_00000001_au_analysis.json"
    assert first.au_csv == folder / "sample_00000001.csv"
    assert second.au_json == output / level / "sample_00000002" / "sample_00000002_merr_data.json"
    assert third.au_json is not None
    assert third.au_json.name == "sample_00000003_au_analysis.json"
    assert third.au_csv is None
    part = {part.name: part for part in survey_dataset(resolve_dataset("mer2023"), mer2023, mer_factory=output).parts}
    assert (part["descriptions"].found, part["descriptions"].first_missing) == (2, ("sample_00000003",))


def test_the_dataset_level_of_mer_factory_comes_first(tmp_path: Path) -> None:
    """One id may be in several datasets: all of SIMS are in SIMSv2 too."""
    for level in ("SIMS", "simsv2", ""):
        (tmp_path / level / "v").mkdir(parents=True)
        (tmp_path / level / "v" / "v.csv").touch()
    for name, level in (("sims", "SIMS"), ("simsv2", "simsv2"), ("meld", "")):
        found = MerFactoryFolder(tmp_path, resolve_dataset(name)).find("v")
        assert found == (None, tmp_path / level / "v" / "v.csv", True)
    (tmp_path / "SIMS" / "v" / "v.csv").unlink()  # an empty folder of the sample holds nothing back
    assert MerFactoryFolder(tmp_path, resolve_dataset("sims")).find("v")[1] == tmp_path / "v" / "v.csv"


@pytest.mark.parametrize("id", ["..", ".", "a/b", "../a"])
def test_an_id_that_is_no_file_name_has_no_mer_factory_files(id: str, tmp_path: Path) -> None:
    (tmp_path / "x" / "a" / "b").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.csv").touch()
    assert MerFactoryFolder(tmp_path / "x", resolve_dataset("sims")).find(id)[1:] == (None, False)


def test_iemocap_is_tested_on_session_5(tmp_path: Path) -> None:
    corpus = {
        "Ses05F_impro01_F000": {"emo": 3},
        "Ses01F_impro01_F000": {"emo": 0},
        "Ses05M_script01_1_M001": {"emo": np.int64(2)},
    }
    save_labels(tmp_path / "label_4way.npz", whole_corpus=corpus)
    samples = load_dataset("iemocap", tmp_path)
    assert {name: sample.label for name, sample in samples.items()} == {
        "Ses05F_impro01_F000": "anger",
        "Ses05M_script01_1_M001": "neutral",
    }


def test_valence_and_open_vocabulary_labels(tmp_path: Path) -> None:
    save_labels(tmp_path / "label.npz", test_corpus={"-MeTTeMJBNc_0": {"val": np.float32(-1.5)}}, train_corpus={})
    assert load_dataset("cmumosei", tmp_path)["-MeTTeMJBNc_0"].label == "-1.5"
    plus = tmp_path / "ovmerdplus-process"
    plus.mkdir()
    save_csv(plus / "subtitle_eng.csv", ["name", "sentence"], ["a", "well, hello"], ["b", ""])
    save_csv(plus / "ovlabel.csv", ["name", "openset"], ["b", "[]"], ["a", "[calm, happy]"])
    samples = load_dataset("ovmerdplus", tmp_path)
    assert [(s.id, s.label, s.subtitle) for s in samples.values()] == [
        ("a", "[calm, happy]", "well, hello"),
        ("b", "[]", ""),
    ]


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_faces_are_found_flat_or_nested_whatever_is_declared(tmp_path: Path, layout: str) -> None:
    (tmp_path / "openface_face").mkdir()
    file = tmp_path / "openface_face" / ("a/a.npy" if layout == "nested" else "a.npy")
    file.parent.mkdir(exist_ok=True)
    file.touch()
    save_csv(tmp_path / "track2_train_mercaptionplus.csv", ["name", "openset"], ["a", "[x]"])
    assert load_dataset("mercaptionplus", tmp_path)["a"].face == file
    save_labels(tmp_path / "label-6way.npz", test1_corpus={"a": {"emo": "happy"}})
    assert load_dataset("mer2023", tmp_path)["a"].face == file


def test_the_survey_counts_found_and_missing(mer2023: Path) -> None:
    survey = survey_dataset(resolve_dataset("mer2023"), mer2023)
    parts = {part.name: (part.found, part.missing, part.first_missing) for part in survey.parts}
    assert (survey.split, survey.expected, survey.listed) == ("test", 411, 3)
    assert parts == {
        "video": (2, 1, ("sample_00000003",)),
        "audio": (1, 2, ("sample_00000002", "sample_00000003")),
        "face": (1, 2, ("sample_00000002", "sample_00000003")),
        "subtitles": (2, 1, ("sample_00000003",)),  # of the second it is known that nothing is said
    }
    assert survey.findings[0] == "split test lists 3 samples; the published one has 411"
    assert len(survey.findings) == 5
    assert survey.as_json()["parts"]["video"]["missing"] == 1


def test_the_survey_names_a_broken_label_file_and_a_missing_folder(mer2023: Path) -> None:
    (mer2023 / "label-6way.npz").write_bytes(b"<html>not found</html>")
    (mer2023 / "audio" / "sample_00000001.wav").unlink()
    (mer2023 / "audio").rmdir()
    (mer2023 / "transcription-engchi-polish.csv").unlink()
    survey = survey_dataset(resolve_dataset("mer2023"), mer2023)
    assert survey.listed == 0
    assert any("label-6way.npz" in finding and "zip" in finding for finding in survey.findings)
    assert any(finding.startswith("audio: ") and finding.endswith("no such folder") for finding in survey.findings)
    assert f"subtitles: {mer2023 / 'transcription-engchi-polish.csv'}: no such file" in survey.findings


OWN = """
name = "mine"
[splits.test]
file = "list.csv"
column = "clip"
[video]
folder = "clips"
extensions = [".mkv"]
"""


def test_a_dataset_of_ones_own_is_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(OWN)
    save_csv(tmp_path / "list.csv", ["clip", "note"], ["x", "1"], ["y", "2"])
    samples = load_dataset(tmp_path / "mine.toml", None)
    assert [sample.video for sample in samples.values()] == [tmp_path / "clips" / "x.mkv", tmp_path / "clips" / "y.mkv"]
    assert read_declaration(tmp_path / "mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("column", "colum"), r"\[splits.test\]: unknown key 'colum'; did you mean 'column'"),
        (('name = "mine"', ""), "'name' is missing"),
        (('name = "mine"', 'name = "a/b"'), "dataset name 'a/b' must be"),
        (('[".mkv"]', '["mkv"]'), r"\[video\]: 'extensions' must be a list like"),
        (('[".mkv"]', '".mkv"'), r"\[video\]: 'extensions' must be a list"),
        (('file = "list.csv"', "count = true"), "'count' must be a int"),
        (('file = "list.csv"', "count = 3"), "give either 'arrays'"),
        (('file = "list.csv"', 'arrays = ["a"]'), r"'arrays' needs \[labels\]"),
        (("[splits.test]", "[splits.all]"), "'all' is taken"),
        (("[video]", "[vidoe]"), "unknown key 'vidoe'; did you mean 'video'"),
        (("[video]", "[video"), "cannot be read"),
    ],
)
def test_a_mistake_in_a_declaration_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "mine.toml").write_text(OWN.replace(*change))
    with pytest.raises((ConfigError, ValueError), match=message) as raised:
        resolve_dataset(tmp_path / "mine.toml")
    assert "mine.toml" in str(raised.value) or "dataset name" in str(raised.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": {"emo": "glad"}}, "sample 'a' has emo='glad', not class: neutral, angry"),
        ({"a": {"emo": 6}}, "emo=6"),
        ({"a": {"emo": True}}, "emo=True"),
        ({"a": "happy"}, "emo=None"),
        ({"": {"emo": "happy"}}, "sample id ''"),
        ({"a\nb": {"emo": "happy"}}, "sample id"),
        ({"../../up": {"emo": "happy"}}, r"sample name '\.\./\.\./up' cannot be the name of a file"),
        ({1: {"emo": "happy"}}, "not a dict of sample names"),
    ],
)
def test_a_label_that_is_not_what_it_claims_is_named(tmp_path: Path, labels: Any, message: str) -> None:
    save_labels(tmp_path / "label-6way.npz", test1_corpus=labels)
    with pytest.raises(ValueError, match=message):
        load_dataset("mer2023", tmp_path)


def test_tables_that_are_not_what_they_claim_are_named(tmp_path: Path) -> None:
    save_csv(tmp_path / "track_all_candidates.csv", ["name"], ["a"], ["a"])
    with pytest.raises(ManifestError, match="lists sample 'a' twice"):
        load_dataset("mer2025ov", tmp_path)
    save_csv(tmp_path / "track_all_candidates.csv", ["names"], ["a"])
    with pytest.raises(ManifestError, match="no column 'name'; it has names"):
        load_dataset("mer2025ov", tmp_path)
    save_csv(tmp_path / "track_all_candidates.csv", ["name"], ["a", "b"])
    with pytest.raises(ManifestError, match=r"line 2: 2 cells, but the header has 1 columns"):
        load_dataset("mer2025ov", tmp_path)
    (tmp_path / "track_all_candidates.csv").write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(ManifestError, match=r"track_all_candidates\.csv, line 2: not UTF-8 \(byte 0xff\)"):
        load_dataset("mer2025ov", tmp_path)
    with pytest.raises(ConfigError, match="has no split 'train'; it has test, all"):
        load_dataset("mer2025ov", tmp_path, "train")


def test_tables_of_a_dataset_may_be_spreadsheets(tmp_path: Path) -> None:
    def save(name: str, *rows: list[object]) -> None:
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(tmp_path / name)

    save("ovlabel.xlsx", ["name", "openset"], ["a", "[happy, calm]"], ["b", None])
    save("subtitle_eng.xlsx", ["name", "sentence"], ["a", "你好"], ["b", None])
    samples = load_dataset("ovmerdplus", tmp_path)
    assert [(s.id, s.label, s.subtitle) for s in samples.values()] == [("a", "[happy, calm]", "你好"), ("b", "", "")]
    own = tmp_path / "mine.toml"
    own.write_text(
        'name = "mine"\nlabels = {file = "ovlabel.xlsx", field = "openset", kind = "openset"}\n'
        '[splits.test]\nfile = "ovlabel.xlsx"\n'
    )
    assert load_dataset(own, None)["a"].label == "[happy, calm]"


# ---- label .npz: nothing in the file is executed ----


def npz(path: Path, pickled: bytes, name: str = "x") -> Path:
    """An .npz whose array `name` is a 0-d object array with this pickle."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", stream.getvalue() + pickled)
    return path


class Touch:
    """A pickle that makes a file when it is loaded in the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_the_canary_sings_without_the_restriction_and_not_with_it(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "label.npz"
    np.savez(path, x=np.array({"a": Touch(canary)}, dtype=object))
    with pytest.raises(ManifestError, match=r"label.npz, array 'x': .*asks for posix.mkdir, which labels do not need"):
        read_label_array(path, "x")
    assert not canary.exists()
    np.load(path, allow_pickle=True)["x"]  # the mutant: numpy's own reader
    assert canary.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cbuiltins\n__import__\n(S'os'\ntR.",
        b"cnumpy\nload\n(S'/etc/hostname'\ntR.",
        b"cnumpy\nfromfile\n(S'/etc/hostname'\ntR.",
        b"cnumpy.core.multiarray\n__builtins__\n.",
        b"cnumpy.core.multiarray\n_reconstruct.__class__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__subclasshook__\x93.",  # STACK_GLOBAL with dots
        b"(S'x'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"Pid\n.",  # PERSID
        b"cnumpy\nndarray\n(I1000000000\ntR.",  # would allocate
        b"cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000\ntS'b'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n}S'__call__'\ncnumpy\ndtype\nsb.",  # BUILD on a stand-in
        b"cnumpy\ndtype\n(S'V8'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O'\ntRS'x'\ntR.",
        b"(" * 100_000 + b".",
        b"Nr\xff\xff\xff\xff.",  # LONG_BINPUT at 4 G: the unpickler in C allocates 64 GiB for it
        b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",  # BYTEARRAY8 of 64 GiB
        b"\x80\x02}\x8b\xff\xff\xff\x7f.",  # LONG4
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame larger than memory
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BINBYTES8 of 8 EiB
        b"",
        b"not a pickle",
    ],
)
def test_hostile_pickles_are_refused_by_name(tmp_path: Path, pickled: bytes) -> None:
    path = npz(tmp_path / "label.npz", pickled)
    with pytest.raises(ManifestError, match=r"label\.npz"):
        read_label_array(path, "x")


@pytest.mark.parametrize(("protocol", "core"), [(3, b"numpy.core"), (3, b"numpy._core"), (4, b"numpy._core")])
def test_what_numpy_1_and_2_write_is_read(tmp_path: Path, protocol: int, core: bytes) -> None:
    value = {"a": {"emo": 3, "val": np.float64(0.25), "tags": ["x"], "s": np.str_("é")}, "b": {"emo": np.int64(1)}}
    array = np.empty((), dtype=object)
    array[()] = value
    pickled = pickle.dumps(array, protocol).replace(b"numpy._core", core)
    assert core in pickled
    assert read_label_array(npz(tmp_path / "label.npz", pickled), "x") == value


def test_mutated_label_files_are_read_or_refused(tmp_path: Path) -> None:
    """numpy's own `__setstate__` of arrays and dtypes ends the process on some of these, so that it is not called."""
    array = np.empty((), dtype=object)
    array[()] = {f"s{number}": {"emo": number, "val": np.float64(number), "text": np.str_("é")} for number in range(9)}
    generator = np.random.default_rng(0)
    for number in range(600):
        pickled = bytearray(pickle.dumps(array, 3 + number % 2))
        for at in generator.integers(len(pickled), size=1 + number % 4):
            pickled[at] = generator.integers(256)
        with contextlib.suppress(ManifestError):
            found = read_label_array(npz(tmp_path / "label.npz", bytes(pickled)), "x")
            assert all(isinstance(name, str) for name in found)


def test_zip_bombs_and_lying_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "label.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(30_000_000))
    with pytest.raises(ManifestError, match=r"would inflate from \d+ to 30000000 bytes"):
        read_label_array(path, "x")
    save_labels(path, x={"a": {"emo": 1}})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02") + 24  # the size in the central directory
    size = struct.unpack_from("<I", raw, at)[0]
    for lie in (size - 1, size + 1000):
        struct.pack_into("<I", raw, at, lie)
        path.write_bytes(raw)
        with pytest.raises(ManifestError, match=r"label\.npz"):
            read_label_array(path, "x")


def test_other_wrong_label_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not exist"):
        read_label_array(tmp_path / "label.npz", "x")
    path = tmp_path / "label.npz"
    np.savez(path, y=np.zeros(3))
    with pytest.raises(ManifestError, match="no single array 'x'; it has y"):
        read_label_array(path, "x")
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ManifestError, match="not one pickled dict"):
        read_label_array(path, "x")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ManifestError, match=r"label\.npz"):
        read_label_array(path, "x")


# ---- the command ----


def test_the_command_lists_and_shows_declarations(tmp_path: Path) -> None:
    listed = CliRunner().invoke(fstore, ["datasets"]).stdout.splitlines()
    assert len(listed) == 13
    assert listed[3].split() == ["iemocap", "test", "1,241", "class", "IEMOCAPFour,", "iemocapfour"]
    shown = CliRunner().invoke(fstore, ["datasets", "CMU-MOSI"]).stdout
    assert 'name = "cmumosi"' in shown.splitlines()
    (tmp_path / "mine.toml").write_text(OWN)
    path = str(tmp_path / "mine.toml")
    assert CliRunner().invoke(fstore, ["datasets", path]).stdout == OWN
    data = json.loads(CliRunner().invoke(fstore, ["datasets", path, "iemocap", "--json"]).stdout)
    assert [entry["name"] for entry in data] == ["mine", "iemocap"]
    assert data[1]["splits"]["test"]["count"] == 1241
    assert data[1]["names"] == ["iemocap", "IEMOCAPFour", "iemocapfour", "IEMOCAP"]
    result = CliRunner().invoke(fstore, ["datasets", "nothing"])
    assert (result.exit_code, "is not known" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("a." * 2_000 + "b = 1", "a line with more than 256 dots"),  # took gigabytes: the square of their number
        ("x = " + "9" * 5_000, "cannot be read"),
        ("#" * 300_000, "and more than 262144 are not read"),
    ],
)
def test_a_declaration_that_would_take_the_machine_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.toml.*{message}"):
        read_declaration(tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["mer2023", "MER2023"])
def test_doctor_counts_what_a_published_dataset_has_here(mer2023: Path, name: str) -> None:
    result = CliRunner().invoke(fstore, ["doctor", "--dataset", name, "--root", str(mer2023)])
    assert result.exit_code == 1
    table = {line.split()[0]: line.split()[1:3] for line in result.stdout.splitlines()[2:6]}
    assert table == {"video": ["2", "1"], "audio": ["1", "2"], "face": ["1", "2"], "subtitles": ["2", "1"]}
    assert "split test lists 3 samples; the published one has 411" in result.stdout
    assert f"video: 1 missing in {mer2023 / 'video'}: sample_00000003" in result.stdout
