"""Peaks and descriptions out of every schema, and a name for every file that cannot be used."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from featurestore.datasets import resolve_dataset
from featurestore.datasets.files import MerFactoryFolder
from featurestore.errors import DescriptionError, SampleError, SamplingError
from featurestore.merfactory import descriptions_of, peak_of, read_json
from featurestore.sample import Sample
from featurestore.samplers.peak import emotion_peak

Rows = list[dict[str, str]]


def write(folder: Path, document: Any, name: str = "a_au_analysis.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def au_info(total: int, index: int, before: int | None = None, after: int | None = None) -> dict[str, Any]:
    peak = {
        "peak_index": index,
        "frames_before_peak": index if before is None else before,
        "frames_after_peak": total - 1 - index if after is None else after,
    }
    return {"au_info": {"total_frames": total, "peak_frames": [peak]}}


def openface(strengths: list[float], failed: tuple[int, ...] = ()) -> Rows:
    """OpenFace's columns; the strength of a row is spread over three action units."""
    return [
        {
            "frame": f"{number}",
            " face_id": "0",
            " timestamp": f"{(number - 1) / 25:.3f}",
            " confidence": "0.98",
            " success": "0" if number in failed else "1",
            " AU01_r": f"{strength / 2}",
            " AU12_r": f"{strength / 4}",
            " AU45_r": f"{strength / 4}",
            # Not an intensity: must not be added.
            " AU12_c": f"{100 - number}",
        }
        for number, strength in enumerate(strengths, 1)
    ]


def write_table(folder: Path, rows: Rows, name: str = "a.csv") -> Path:
    path = folder / name
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    return path


# -- peaks ---------------------------------------------------------------------------------------------


def test_a_peak_of_au_info(tmp_path: Path) -> None:
    path = write(tmp_path, au_info(45, 10))
    peak = peak_of(Sample("a", au_json=path))
    assert (peak.index, peak.total, peak.before, peak.after, peak.source) == (10, 45, 10, 34, "au_info")
    status = path.stat()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert peak.file == {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": digest}


def test_only_the_first_peak_counts(tmp_path: Path) -> None:
    document = au_info(45, 10)
    document["au_info"]["peak_frames"].append({"peak_index": 40, "frames_before_peak": 40, "frames_after_peak": 4})
    assert peak_of(Sample("a", au_json=write(tmp_path, document))).index == 10


def test_the_frame_numbers_of_listed_frames_come_along(tmp_path: Path) -> None:
    document = au_info(3, 1) | {"per_frame_au_descriptions": [{"frame": 1}, {"frame": 35}, {"frame": 69}]}
    assert peak_of(Sample("a", au_json=write(tmp_path, document))).frame_numbers == (1, 35, 69)


def test_a_peak_of_openface_is_the_highest_sum_where_a_face_was_found(tmp_path: Path) -> None:
    """Frame 4 is 0-based 3; frame 2 is higher, but no face was found; columns have leading spaces."""
    path = write_table(tmp_path, openface([1, 9, 2, 5, 5, 1], failed=(2,)))
    peak = peak_of(Sample("a", au_csv=path))
    assert (peak.index, peak.total, peak.before, peak.after, peak.source) == (3, 6, 3, 2, "openface_csv")


def test_a_row_that_is_no_number_cannot_win(tmp_path: Path) -> None:
    rows = openface([1, 2, 3])
    rows[1][" AU01_r"] = "nan"
    assert peak_of(Sample("a", au_csv=write_table(tmp_path, rows))).index == 2


def test_a_peak_of_merr_data_counts_from_0(tmp_path: Path) -> None:
    document = {"overall_peak_frame_info": {"frame_number": 88, "timestamp": 3.48}}
    peak = peak_of(Sample("a", au_json=write(tmp_path, document, "a_merr_data.json")))
    assert (peak.index, peak.total, peak.source) == (87, None, "merr_data")
    assert peak.index / 25 == pytest.approx(3.48)


def test_one_comes_after_the_other(tmp_path: Path) -> None:
    """au_info, then OpenFace's table, then merr_data; beside each other as MER-Factory writes them."""
    upstream = {"source_path": "a.mp4", "chronological_emotion_peaks": ["neutral"]}
    sample = Sample("a", au_json=write(tmp_path, upstream))
    with pytest.raises(SamplingError, match="no peak"):
        peak_of(sample)
    write(tmp_path, {"overall_peak_frame_info": {"frame_number": 5}}, "a_merr_data.json")
    assert (peak_of(sample).index, peak_of(sample).source) == (4, "merr_data")
    write_table(tmp_path, openface([1, 1, 7, 1]))
    assert (peak_of(sample).index, peak_of(sample).source) == (2, "openface_csv")
    for empty in ({"au_info": {}}, {"au_info": None}, {"au_info": {"total_frames": 4, "peak_frames": []}}):
        write(tmp_path, upstream | empty)
        assert peak_of(sample).source == "openface_csv"
    write(tmp_path, upstream | au_info(4, 1))
    assert (peak_of(sample).index, peak_of(sample).source) == (1, "au_info")


def test_a_table_of_its_own_place_is_preferred_to_one_beside(tmp_path: Path) -> None:
    write_table(tmp_path, openface([9, 1]))
    elsewhere = write_table(tmp_path, openface([1, 9]), "other.csv")
    sample = Sample("a", au_json=write(tmp_path, {}), au_csv=elsewhere)
    assert peak_of(sample).index == 1


def test_no_peak_says_what_was_looked_for_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match=r"'a' has no MER-Factory output.*'au_json'.*--mer-factory") as caught:
        peak_of(Sample("a"))
    assert not caught.value.deterministic  # the next manifest may name one
    missing = tmp_path / "a_au_analysis.json"
    with pytest.raises(SamplingError, match=r"a_au_analysis\.json.*a\.csv.*run MER-Factory") as caught:
        peak_of(Sample("a", au_json=missing))
    assert not caught.value.deterministic  # it may be made later
    with pytest.raises(SamplingError, match=r"no au_info\.peak_frames") as caught:
        peak_of(Sample("a", au_json=write(tmp_path, {})))
    assert caught.value.deterministic
    assert caught.value.path == str(missing)


def changed(**changes: Any) -> dict[str, Any]:
    document = au_info(45, 10)
    for name, value in changes.items():
        target = document["au_info"] if name == "total_frames" else document["au_info"]["peak_frames"][0]
        if value is None:
            del target[name]
        else:
            target[name] = value
    return document


WRONG_PEAKS = {
    "no total": (changed(total_frames=None), "au_info has no total_frames"),
    "no index": (changed(peak_index=None), r"peak_frames\[0\] has no peak_index"),
    "no frames before": (changed(frames_before_peak=None), "has no frames_before_peak"),
    "a float": (changed(peak_index=10.5), "peak_index is 10.5, not a whole number"),
    "true": (changed(peak_index=True), "peak_index is True, not a whole number"),
    "text": (changed(total_frames="45"), "total_frames is '45', not a whole number"),
    "behind the end": (changed(peak_index=60), "contradicts itself"),
    "negative": (changed(peak_index=-1), "contradicts itself"),
    "more before than there are": (changed(frames_before_peak=11), "contradicts itself"),
    "more after than there are": (changed(frames_after_peak=35), "contradicts itself"),
    "no object": ({"au_info": [1]}, "au_info is not an object"),
    "no list": ({"au_info": {"total_frames": 4, "peak_frames": {"peak_index": 1}}}, "peak_frames is not a list"),
    "no list of frames": (au_info(45, 10) | {"per_frame_au_descriptions": "x"}, "per_frame_au_descriptions is not"),
    "no frame number": (au_info(45, 10) | {"per_frame_au_descriptions": [{}]}, r"descriptions\[0\] has no frame"),
    "frame 0": ({"overall_peak_frame_info": {"frame_number": 0}}, "frames count from 1"),
    "no frame": ({"overall_peak_frame_info": {"timestamp": 1.0}}, "has no frame_number"),
    "no info": ({"overall_peak_frame_info": 88}, "overall_peak_frame_info is not an object"),
}


@pytest.mark.parametrize("kind", WRONG_PEAKS)
def test_a_peak_that_is_wrong_is_refused_and_not_replaced(kind: str, tmp_path: Path) -> None:
    document, text = WRONG_PEAKS[kind]
    path = write(tmp_path, document)
    with pytest.raises(DescriptionError, match=text) as caught:
        peak_of(Sample("a", au_json=path))
    assert str(path) in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.deterministic


def cut_rows(rows: Rows) -> str:
    text = "\n".join(",".join(row.values()) for row in rows)
    return ",".join(rows[0]) + "\n" + text[:-12]


WRONG_TABLES = {
    "no rows": (",".join(openface([1])[0]) + "\n", "has no rows"),
    "no text": ("", "no column frame, success"),
    "another table": ("id,video\na,a.mp4\n", "not a table of OpenFace"),
    "no action units": ("frame, success, gaze_0_x\n1, 1, 0.1\n", r"no column AU\*_r"),
    "no success": ("frame, AU01_r\n1, 0.1\n", "no column success"),
    "cut off in a row": (cut_rows(openface([1, 2, 3, 4, 5, 6, 7, 8])), r"line \d: \d of 9 cells: the table is cut off"),
    "words for numbers": ("frame, success, AU01_r\n1, 1, 0.1\n2, 1, high\n", "line 3: .*'?high"),
    "frame 0": ("frame, success, AU01_r\n0, 1, 0.1\n", "line 2: frame '0'"),
    "half a frame": ("frame, success, AU01_r\n1.5, 1, 0.1\n", "line 2: frame '1.5'"),
    "endless frames": ("frame, success, AU01_r\ninf, 1, 0.1\n", "line 2: "),
    "no face": ("frame, success, AU01_r\n1, 0, 0.1\n2, 0, 0.2\n", "no face in any of its 2 rows"),
}


@pytest.mark.parametrize("kind", WRONG_TABLES)
def test_a_table_that_is_wrong_is_refused(kind: str, tmp_path: Path) -> None:
    content, text = WRONG_TABLES[kind]
    path = write(tmp_path, content, "a.csv")
    with pytest.raises(DescriptionError, match=text) as caught:
        peak_of(Sample("a", au_csv=path))
    assert str(path) in str(caught.value)


def table(folder: Path, *rows: str, header: str = "frame, face_id, timestamp, success, AU01_r, AU12_r") -> Sample:
    return Sample("a", au_csv=write(folder, "\n".join([header, *rows]) + "\n", "a.csv"))


SEVERAL = {
    "a second face behind": ["1, 0, 0, 1, 1, 1", "1, 1, 0, 1, 4, 4", "2, 0, 0, 1, 3, 1", "2, 1, 0, 1, 1, 1"],
    "a second face that was lost": ["1, 0, 0, 1, 1, 1", "1, 1, 0, 0, 4, 4", "2, 0, 0, 1, 3, 1"],
    "one face after the other": ["1, 0, 0, 1, 1, 1", "2, 1, 0, 1, 4, 4"],
    "a frame twice": ["1, 0, 0, 1, 1, 1", "2, 0, 0, 1, 2, 2", "2, 0, 0, 1, 3, 3"],
    "two runs": ["1, 0, 0, 1, 1, 1", "2, 0, 0, 1, 2, 2", "1, 0, 0, 1, 1, 1", "2, 0, 0, 1, 2, 2"],
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_table_of_several_faces_does_not_say_whose_peak_is_meant(kind: str, tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"does not say whose peak is meant; run .*FeatureExtraction") as caught:
        peak_of(table(tmp_path, *SEVERAL[kind]))
    assert caught.value.deterministic
    with pytest.raises(DescriptionError):
        emotion_peak(table(tmp_path, *SEVERAL[kind]), 30, 8)


def test_frames_left_out_and_another_face_without_success_are_no_second_face(tmp_path: Path) -> None:
    peak = peak_of(table(tmp_path, "1, 0, 0, 1, 1, 1", "4, 3, 0, 0, 9, 9", "7, 0, 0, 1, 2, 2", "9, 0, 0, 1, 0, 0"))
    assert (peak.index, peak.total) == (6, 9)


NAN = ["nan", "NaN", "-nan", "-nan(ind)", "nan(snan)", "nan(0x8000)", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#J", "1.#R"]


@pytest.mark.parametrize("cell", [*NAN, "inf", "1.#INF"])
def test_a_row_with_nan_as_any_compiler_prints_it_does_not_count(cell: str, tmp_path: Path) -> None:
    peak = peak_of(table(tmp_path, "1, 0, 0, 1, 1, 1", f"2, 0, 0, 1, {cell}, 9", f"3, 0, {cell}, 1, 2, 2"))
    assert (peak.index, peak.total) == (2, 3)


@pytest.mark.parametrize("cell", [*NAN, "", "-", "a word"])
def test_a_row_without_success_is_not_looked_at_further(cell: str, tmp_path: Path) -> None:
    """Of the case that this stands for, the peak is index 1 of 3."""
    peak = peak_of(table(tmp_path, "1, 0, 0, 1, 1, 1", "2, 0, 0, 1, 2, 2", f"3, {cell}, {cell}, 0, {cell}, {cell}"))
    assert (peak.index, peak.total) == (1, 3)


@pytest.mark.parametrize("end", ["", "\n", "  \n", "\r\n\r\n"])
def test_an_empty_line_is_no_sign_of_a_table_cut_off(end: str, tmp_path: Path) -> None:
    sample = table(tmp_path, "1, 0, 0, 1, 1, 1", "2, 0, 0, 1, 2, 2", end)
    assert (peak_of(sample).index, peak_of(sample).total) == (1, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2, 0, 0, 1, high, 1", r"line 3: AU01_r is ' high', not a number; run OpenFace again"),
        ("2, 0, 0, , 1, 1", r"line 3: success is ' ', not a number; run OpenFace again"),
        ("nan, 0, 0, 1, 1, 1", r"line 3: frame 'nan' is no number from 1 on; run OpenFace again"),
        ("2, 0, 0, 1, 1", r"line 3: 5 of 6 cells: the table is cut off; run OpenFace again"),
    ],
)
def test_a_message_about_a_cell_says_what_to_do(row: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=message):
        peak_of(table(tmp_path, "1, 0, 0, 1, 1, 1", row))


def test_a_table_of_openface_3_is_refused_with_what_to_run(tmp_path: Path) -> None:
    header = "timestamp\timage_path\tface_id\tface_detection\tlandmarks\temotion\tgaze_yaw\tgaze_pitch\taction_units"
    with pytest.raises(DescriptionError, match=r"not a table of OpenFace 2 .* run FeatureExtraction of OpenFace 2"):
        peak_of(table(tmp_path, "x", header=header))


# -- JSON ----------------------------------------------------------------------------------------------

WRONG_JSON = {
    "cut off": ('{"au_info": {"total', "is not JSON"),
    "NaN": ('{"a": NaN}', "NaN is not a JSON number"),
    "infinity": ('{"a": -Infinity}', "-Infinity is not a JSON number"),
    "too large a number": ('{"a": 1e999}', "1e999 is not a JSON number"),
    "a key twice": ('{"au_info": {"peak_index": 1, "peak_index": 2}}', "key 'peak_index' is there twice"),
    "deep nesting": ('{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
    "no object": ("[1, 2]", "holds a list, not a JSON object"),
    "no text": ("", "is not JSON"),
    "endless digits": ('{"a": ' + "9" * 10_000 + "}", "is not JSON"),
}


@pytest.mark.parametrize("kind", WRONG_JSON)
def test_json_is_read_strictly(kind: str, tmp_path: Path) -> None:
    content, text = WRONG_JSON[kind]
    path = write(tmp_path, content)
    for use in (
        read_json,
        lambda path: peak_of(Sample("a", au_json=path)),
        lambda path: descriptions_of(Sample("a", au_json=path)),
    ):
        with pytest.raises(DescriptionError, match=text) as caught:
            use(path)
        assert str(path) in str(caught.value)


def test_json_that_is_not_utf8_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a_au_analysis.json"
    path.write_bytes('{"a": "fröhlich"}'.encode("latin-1"))
    with pytest.raises(DescriptionError, match="not UTF-8"):
        read_json(path)
    with open(path, "wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(DescriptionError, match="104857600 bytes; more than 33554432 are not read"):
        read_json(path)


def test_a_missing_file_is_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"No such file.*run MER-Factory") as caught:
        descriptions_of(Sample("a", au_json=tmp_path / "a_au_analysis.json"))
    assert not caught.value.deterministic


# -- descriptions --------------------------------------------------------------------------------------

TEXT = "The person shows happiness with a slight smile"
SCHEMAS: dict[str, tuple[dict[str, Any], list[int | None], list[str], str]] = {
    "the fork's": (
        {"summary_description": {"35": "b", "1": "a", "9": "c"}},
        [1, 9, 35],
        ["a", "c", "b"],
        "summary_description",
    ),
    "a text": ({"summary_description": TEXT}, [None], [TEXT], "summary_description"),
    "the fork's older": (
        {"fine_grained_descriptions": {"10": "b", "9": "a"}},
        [9, 10],
        ["a", "b"],
        "fine_grained_descriptions",
    ),
    "a fine text": ({"fine_grained_descriptions": TEXT}, [None], [TEXT], "fine_grained_descriptions"),
    "the guide's": (
        {"fine_grained_descriptions": {"summary_description": TEXT}},
        [None],
        [TEXT],
        "fine_grained_descriptions.summary_description",
    ),
    "upstream's": (
        {"chronological_emotion_peaks": ["neutral"], "overall_peak_au_description": "Brow lowerer (intensity: 1.35)"},
        [None],
        ["Brow lowerer (intensity: 1.35)"],
        "overall_peak_au_description",
    ),
    "merr_data": (
        {"coarse_descriptions_at_peak": {"visual_expression": "Cheek raiser", "audio_analysis": "calm"}},
        [None],
        ["Cheek raiser"],
        "coarse_descriptions_at_peak.visual_expression",
    ),
    "the first that is not empty": (
        {"summary_description": {}, "fine_grained_descriptions": " ", "overall_peak_au_description": "x"},
        [None],
        ["x"],
        "overall_peak_au_description",
    ),
    "the summary before the rest": (
        {"fine_grained_descriptions": {"1": "fine"}, "summary_description": {"2": "summary"}},
        [2],
        ["summary"],
        "summary_description",
    ),
}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_descriptions_of_every_schema(kind: str, tmp_path: Path) -> None:
    document, frames, texts, field = SCHEMAS[kind]
    path = write(tmp_path, document)
    found = descriptions_of(Sample("a", au_json=path))
    assert (list(found.frames), list(found.texts), found.field) == (frames, texts, field)
    assert found.source["path"] == str(path)
    assert found.note == {"field": field, "described_frames": frames}


def test_frames_are_sorted_as_numbers_not_as_text(tmp_path: Path) -> None:
    """As text, 10 comes before 9: the mutant."""
    texts = {str(frame): f"text {frame}" for frame in (100, 9, 10, 1)}
    found = descriptions_of(Sample("a", au_json=write(tmp_path, {"summary_description": texts})))
    assert found.frames == [1, 9, 10, 100] != [int(key) for key in sorted(texts)]


WRONG_DESCRIPTIONS = {
    "none": ({"au_info": {}}, "has no descriptions: none of summary_description, fine_grained_descriptions"),
    "keys that are words": ({"summary_description": {"first": "x"}}, "keys that are no frame numbers"),
    "one frame twice": ({"summary_description": {"1": "x", "01": "y"}}, "one frame under two keys"),
    "a number for a text": ({"summary_description": {"1": 7}}, r"summary_description\['1'\] is 7, not text"),
    "a list": ({"summary_description": ["x"]}, "not text"),
    "half a character": ('{"summary_description": {"1": "\\ud83d"}}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("kind", WRONG_DESCRIPTIONS)
def test_descriptions_that_are_wrong_are_refused(kind: str, tmp_path: Path) -> None:
    document, text = WRONG_DESCRIPTIONS[kind]
    path = write(tmp_path, document)
    with pytest.raises(DescriptionError, match=text) as caught:
        descriptions_of(Sample("a", au_json=path))
    assert str(path) in str(caught.value)


NOTHING = [None, "", " ", "N/A", "n/a", " N/A.\n", "n.a.", "NA", "None", "null", "NaN", "Not available.", "-"]
FIELDS = ("summary_description", "fine_grained_descriptions", "overall_peak_au_description")


@pytest.mark.parametrize("nothing", NOTHING)
def test_n_a_is_the_absence_of_a_description(nothing: str | None, tmp_path: Path) -> None:
    """In every schema, as the whole text or as that of a frame; CLIP would encode it like any other text."""
    documents: list[dict[str, Any]] = [{field: nothing} for field in FIELDS]
    documents += [{field: {"1": nothing, "2": nothing}} for field in FIELDS[:2]]
    documents.append({"fine_grained_descriptions": {"summary_description": nothing}})
    documents.append({"coarse_descriptions_at_peak": {"visual_expression": nothing, "video_content": "A person."}})
    documents.append({"coarse_descriptions_at_peak": nothing, "final_summary": "A person."})
    for document in documents:
        with pytest.raises(DescriptionError, match=r"has no descriptions: none of .*run MER-Factory again") as caught:
            descriptions_of(Sample("a", au_json=write(tmp_path, document)))
        assert caught.value.deterministic
        # The next field is asked, as where the first is not there.
        after = {"coarse_descriptions_at_peak": {"visual_expression": TEXT}}
        found = descriptions_of(Sample("a", au_json=write(tmp_path, document | after)))
        assert (found.texts, found.field) == ([TEXT], "coarse_descriptions_at_peak.visual_expression")


def test_frames_without_a_description_are_left_out(tmp_path: Path) -> None:
    texts = {"9": "b", "1": "N/A", "4": "a", "7": None, "12": " "}
    found = descriptions_of(Sample("a", au_json=write(tmp_path, {"summary_description": texts})))
    assert (found.texts, found.frames) == (["a", "b"], [4, 9])
    assert found.note["described_frames"] == [4, 9]


@pytest.mark.parametrize(
    "text", ["Neutral expression at the overall peak frame.", "None of the action units is active.", "Nasal folds"]
)
def test_a_text_that_begins_like_one_of_them_is_a_description(text: str, tmp_path: Path) -> None:
    document = {"overall_peak_au_description": text}
    assert descriptions_of(Sample("a", au_json=write(tmp_path, document))).texts == [text]


@pytest.mark.parametrize(
    "document",
    [
        {"overall_peak_frame_info": "N/A"},
        {"overall_peak_frame_info": {"frame_number": "N/A", "timestamp": "N/A"}},
        {"overall_peak_frame_info": {"frame_number": None}},
        {"au_info": "N/A"},
        {"au_info": {"total_frames": 3, "peak_frames": "N/A"}},
    ],
)
def test_n_a_is_the_absence_of_a_peak(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="has no peak"):
        peak_of(Sample("a", au_json=write(tmp_path, document)))


def test_a_sample_without_a_file_is_told_what_to_add() -> None:
    with pytest.raises(DescriptionError, match=r"'a'.*'au_json'.*--mer-factory"):
        descriptions_of(Sample("a"))


# -- files that are not made here ----------------------------------------------------------------------

# Peaks as upstream's analyzer found them in the same tables, 1-based in merr_data.
SHARED_PEAKS = {"cfr_gop12": (0, 96), "cfr_bf3_longgop": (97, 150), "short3": (1, 3), "pyfeat_OpenFace_Test": (12, 100)}


@pytest.mark.parametrize("name", SHARED_PEAKS)
def test_shared_files_agree_on_the_peak(name: str, shared_media: Path, tmp_path: Path) -> None:
    folder = shared_media / "merfactory" / name
    index, total = SHARED_PEAKS[name]
    by_au_info = peak_of(Sample(name, au_json=folder / f"{name}_au_analysis.fork_schema.json"))
    by_table = peak_of(Sample(name, au_csv=shared_media / "openface" / f"{name}.csv"))
    by_merr_data = peak_of(Sample(name, au_json=folder / f"{name}_merr_data.json"))
    assert (by_au_info.index, by_au_info.total, by_au_info.source) == (index, total, "au_info")
    assert (by_table.index, by_table.total, by_table.source) == (index, total, "openface_csv")
    assert (by_merr_data.index, by_merr_data.source) == (index, "merr_data")
    # Laid out as MER-Factory does, upstream's JSON has no peak, and the table beside it has.
    copied = tmp_path / "MER2023" / name
    shutil.copytree(folder, copied)
    shutil.copy(shared_media / "openface" / f"{name}.csv", copied)
    au_json, au_csv, _ = MerFactoryFolder(tmp_path, resolve_dataset("mer2023")).find(name)
    assert au_csv is not None
    assert peak_of(Sample(name, au_json=au_json)).source == "openface_csv"


@pytest.mark.parametrize("name", SHARED_PEAKS)
def test_shared_descriptions(name: str, shared_media: Path) -> None:
    folder = shared_media / "merfactory" / name
    fork = descriptions_of(Sample(name, au_json=folder / f"{name}_au_analysis.fork_schema.json"))
    assert fork.field == "summary_description"
    assert list(fork.frames) == sorted(fork.frames)
    upstream = descriptions_of(Sample(name, au_json=folder / f"{name}_au_analysis.json"))
    merr_data = descriptions_of(Sample(name, au_json=folder / f"{name}_merr_data.json"))
    assert upstream.texts == merr_data.texts
    assert "intensity" in upstream.texts[0]


def test_leading_spaces_in_the_shared_table_change_nothing(shared_media: Path) -> None:
    spaced, plain = (
        peak_of(Sample("a", au_csv=shared_media / "openface" / f"{name}.csv"))
        for name in ("spaced_header_of21", "cfr_gop12")
    )
    assert (spaced.index, spaced.total) == (plain.index, plain.total)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("all_failed", "no face in any of its 30 rows"),
        ("no_rows", "has no rows"),
        ("truncated_row", "line 21: .* of 40 cells"),
    ],
)
def test_shared_tables_that_are_wrong_are_refused(name: str, text: str, shared_media: Path) -> None:
    with pytest.raises(DescriptionError, match=text):
        peak_of(Sample("a", au_csv=shared_media / "openface" / f"{name}.csv"))


def test_shared_json_that_is_wrong_is_refused(shared_media: Path) -> None:
    folder = shared_media / "merfactory"
    for name in ("bad_truncated.json", "neutral_no_peak.json"):
        with pytest.raises(SampleError, match=name):
            peak_of(Sample("a", au_json=folder / name))
    assert peak_of(Sample("a", au_json=folder / "gemini_merr.json")).index == 87
