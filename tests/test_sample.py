"""A manifest says what it lists, or which of its lines is wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from featurestore import Sample, read_manifest
from featurestore.errors import ManifestError
from featurestore.unread_columns import is_span


def csv_file(folder: Path, text: str | bytes, name: str = "samples.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def json_lines(folder: Path, *rows: Any) -> Path:
    return csv_file(
        folder, "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "samples.jsonl"
    )


def refused(path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=text) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


def test_all_columns_of_a_csv(tmp_path: Path) -> None:
    text = (
        'id,video,face,audio,subtitle,au_json,au_csv,label\na,v/a.mp4,f/a.npy,a.wav,"Hello, you",a.json,a.csv,happy\n'
    )
    assert read_manifest(csv_file(tmp_path, text)) == {
        "a": Sample(
            "a",
            video=tmp_path / "v/a.mp4",
            face=tmp_path / "f/a.npy",
            audio=tmp_path / "a.wav",
            subtitle="Hello, you",
            au_json=tmp_path / "a.json",
            au_csv=tmp_path / "a.csv",
            label="happy",
        )
    }


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    csv_text = "id,video,subtitle,label\na,a.mp4,Hello,sad\nb,b.mp4,,\n"
    rows = [
        {"id": "a", "video": "a.mp4", "subtitle": "Hello", "label": "sad"},
        {"id": "b", "video": "b.mp4", "subtitle": "", "label": None},
    ]
    assert read_manifest(csv_file(tmp_path, csv_text)) == read_manifest(json_lines(tmp_path, *rows))


def test_only_an_id_is_needed_and_order_is_kept(tmp_path: Path) -> None:
    assert read_manifest(csv_file(tmp_path, "id\nb\na\n")) == {"b": Sample("b"), "a": Sample("a")}
    assert list(read_manifest(csv_file(tmp_path, "id\nb\na\n"))) == ["b", "a"]


def test_paths_are_relative_to_the_manifest_and_absolute_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    csv_file(tmp_path, "id,video\na,media/a.mp4\nb,/data/b.mp4\nc,../c.mp4\n")
    monkeypatch.chdir(tmp_path)
    found = read_manifest("samples.csv")
    assert found["a"].video == tmp_path / "media/a.mp4"
    assert found["b"].video == Path("/data/b.mp4")
    assert found["c"].video == tmp_path / "../c.mp4"


def test_paths_may_begin_at_home_and_variables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = read_manifest(csv_file(tmp_path, "id,video,audio\na,~/a.mp4,./~a.wav\n"))["a"]
    assert (found.video, found.audio) == (Path("/home/me/a.mp4"), tmp_path / "~a.wav")
    refused(csv_file(tmp_path, "id,video\na,$DATA/a.mp4\n"), r"line 2: video is '\$DATA/a\.mp4': \$DATA is no folder")


@pytest.mark.parametrize("id", ["-MeTTeMJBNc_0", "../up", "a/b", "样本_1", "ümlaut", "a b", "é" * 256])
def test_ids_may_be_strange(id: str, tmp_path: Path) -> None:
    assert list(read_manifest(csv_file(tmp_path, f"id,video\n{id},a.mp4\n"))) == [id]
    assert list(read_manifest(json_lines(tmp_path, {"id": id}))) == [id]


def test_other_columns_are_named_once_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = "id,speaker,start,end,split,emotion,empty\na,Ann,0.5,2,train,happy,\n"
    read = [read_manifest(csv_file(tmp_path, rows))["a"] for _ in range(2)]
    assert read[0] == read[1]
    assert dict(read[0].extra) == {"speaker": "Ann", "start": "0.5", "end": "2", "split": "train", "emotion": "happy"}
    (said,) = caplog.messages
    assert said == (
        f"{tmp_path / 'samples.csv'}: columns that are not read: 'speaker', 'start', 'end', 'split', 'emotion'; "
        "features are of whole files, whatever start and end say; every row is a sample, whatever split says; "
        "the label is the column 'label'"
    )
    caplog.clear()
    rows = json_lines(tmp_path, {"id": "a", "label": "sad", "speaker": 7, "emotion": 1, "nested": {"x": [1, {"y": 2}]}})
    assert dict(read_manifest(rows)["a"].extra) == {"speaker": 7, "emotion": 1, "nested": {"x": [1, {"y": 2}]}}
    assert caplog.messages == [f"{rows}: columns that are not read: 'speaker', 'emotion', 'nested'"]
    caplog.clear()
    read_manifest(csv_file(tmp_path, "id,label\nb,sad\n"))
    assert caplog.messages == []


def test_what_is_kept_cannot_be_changed_and_travels(tmp_path: Path) -> None:
    sample = read_manifest(json_lines(tmp_path, {"id": "a", "take": [1, 2]}))["a"]
    again = pickle.loads(pickle.dumps(sample))
    assert (again, hash(again), repr(again)) == (sample, hash(sample), repr(sample))
    assert "extra={'take': [1, 2]}" in repr(sample)
    assert (sample.extra, Sample("b").extra) == ({"take": [1, 2]}, {})
    with pytest.raises(TypeError):
        sample.extra["take"] = 3  # type: ignore[index]


@pytest.mark.parametrize("name", ["start", "End", "start_time", "EndTime", "clip_start", "begin (s)", "start_ms"])
def test_columns_that_say_a_part_are_known(name: str) -> None:
    assert is_span(name)
    assert not is_span(f"{name}led")


@pytest.mark.parametrize("row", [{"video": "\ud83d.mp4"}, {"subtitle": "\udce9"}, {"label": "\ud800"}])
def test_half_a_character_is_refused(tmp_path: Path, row: dict[str, str]) -> None:
    with pytest.raises(ManifestError, match=r"line 1: .* holds half of a surrogate pair, no character"):
        read_manifest(json_lines(tmp_path, {"id": "a", **row}))


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    """A mark at the start, Windows line ends, spaces after commas, blank lines, quoted line breaks."""
    text = '\ufeffid, video, subtitle\r\na, a.mp4, "two\r\nlines"\r\n\r\nb, b.mp4, \r\n'
    found = read_manifest(csv_file(tmp_path, text))
    assert found == {
        "a": Sample("a", video=tmp_path / "a.mp4", subtitle="two\r\nlines"),
        "b": Sample("b", video=tmp_path / "b.mp4", subtitle=""),
    }


def test_only_line_ends_end_a_row(tmp_path: Path) -> None:
    text = "id,subtitle\na,one\u2028two\x85three\x0cfour\nb,x\n"
    assert read_manifest(csv_file(tmp_path, text))["a"].subtitle == "one\u2028two\x85three\x0cfour"


@pytest.mark.parametrize("cell", ["", '""', " "])
def test_an_empty_subtitle_means_that_nothing_is_said(tmp_path: Path, cell: str) -> None:
    """A CSV can say nothing else; whoever does not know what is said leaves the column out, or writes null in JSON."""
    found = read_manifest(csv_file(tmp_path, f"id,video,subtitle,label\na,{cell},{cell},{cell}\n"))["a"]
    assert (found.subtitle, found.video, found.label) == ("", None, None)
    assert read_manifest(csv_file(tmp_path, "id\na\n"))["a"].subtitle is None
    assert read_manifest(json_lines(tmp_path, {"id": "a", "subtitle": ""}))["a"].subtitle == ""
    assert read_manifest(json_lines(tmp_path, {"id": "a", "subtitle": None}))["a"].subtitle is None


def test_a_spreadsheet_says_the_same_as_a_csv(tmp_path: Path) -> None:
    rows = [["id", "video", "subtitle", "label"], ["a", "a.mp4", "好的, yes", "sad"], ["b", None, None, None]]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "samples.xlsx")
    text = "\n".join(",".join('"' + (cell or "") + '"' for cell in row) for row in rows)
    found = read_manifest(tmp_path / "samples.xlsx")
    assert found == read_manifest(csv_file(tmp_path, text))
    assert found["b"].subtitle == ""


WRONG_CSV = {
    "nothing": (b"", "no column 'id' among none"),
    "no samples": (b"id,video\n", "lists no samples"),
    "no id column": (b"name,video\na,a.mp4\n", "line 1: no column 'id' among 'name', 'video'"),
    "a misspelt column": (b"id,vidoe\na,a.mp4\n", "line 1: column 'vidoe' is not known; is 'video' meant"),
    "another case": (b"id,Video\na,a.mp4\n", "column 'Video' is not known; is 'video' meant"),
    "a plural": (b"id,labels\na,x\n", "column 'labels' is not known; is 'label' meant"),
    "a column twice": (b"id,video,video\na,a,b\n", "line 1: column 'video' is there twice"),
    "an id twice": (b"id,video\na,a.mp4\nb,b.mp4\na,c.mp4\n", "line 4: id 'a' is already on line 2"),
    "an id twice after a quoted line break": (b'id,subtitle\na,"x\ny"\n\na,z\n', "line 5: id 'a' is already on line 2"),
    "no id in a row": (b"id,video\n,a.mp4\n", "line 2: sample id ''"),
    "a control character": (b"id\na\tb\n", r"line 2: sample id 'a\\tb'"),
    "an id too long": (b"id\n" + b"x" * 513 + b"\n", "1 to 512 bytes"),
    "a row too long": (b"id,subtitle\na,Hello, you\n", "line 2: 3 cells, but the header has 2 columns"),
    "a row too short": (b"id,video,label\na,a.mp4\n", "line 2: 2 cells, but the header has 3"),
    "an open quote": (b'id,subtitle\na,"Hello\n', "line 2: not CSV"),
    "another encoding": ("id,label\na,fröhlich\n".encode("latin-1"), "line 2: not UTF-8 .byte 0xf6.; save"),
    "UTF-16": ("id\na\n".encode("utf-16"), "line 1: not UTF-8 but UTF-16; .iconv -f UTF-16 -t UTF-8 samples.csv > "),
    "GBK": ("id,label\na,高兴\n".encode("gbk"), "line 2: not UTF-8 .byte 0xb8. but GB18030 .*iconv -f GB18030 -t"),
    "a NUL in a path": (b"id,video\na,a\0b.mp4\n", "line 2: "),
}


@pytest.mark.parametrize("kind", WRONG_CSV)
def test_a_csv_that_is_wrong_is_refused_with_its_line(kind: str, tmp_path: Path) -> None:
    data, text = WRONG_CSV[kind]
    refused(csv_file(tmp_path, data), text)


WRONG_LINES: dict[str, tuple[list[Any], str]] = {
    "not JSON": ([{"id": "a"}, "{'id': 'b'}"], "line 2: not JSON"),
    "no object": ([{"id": "a"}, ["b"]], "line 2: not a JSON object"),
    "a key twice": (['{"id": "a", "video": "a.mp4", "video": "b.mp4"}'], "line 1: column 'video' is there twice"),
    "no id": ([{"video": "a.mp4"}], "line 1: no column 'id' among 'video'"),
    "an empty id": ([{"id": None}], "line 1: sample id ''"),
    "a number for an id": ([{"id": 12}], "line 1: id is 12, not text"),
    "a list of paths": ([{"id": "a", "video": ["a.mp4"]}], "line 1: video is ..a.mp4.., not text"),
    "a misspelt key": ([{"id": "a", "audoi": "a.wav"}], "column 'audoi' is not known; is 'audio' meant"),
    "half a surrogate": (['{"id": "\\ud800"}'], "not valid UTF-8"),
    "deep nesting": ([{"id": "a"}, '{"id": "b", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"], "line 2: not JSON"),
}


@pytest.mark.parametrize("kind", WRONG_LINES)
def test_json_lines_that_are_wrong_are_refused_with_their_line(kind: str, tmp_path: Path) -> None:
    rows, text = WRONG_LINES[kind]
    refused(json_lines(tmp_path, *rows), text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "missing.csv", "cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")


def test_a_sample_knows_its_files(tmp_path: Path) -> None:
    sample = Sample("a", video=tmp_path / "a.mp4", au_csv=tmp_path / "a.csv", label="x", subtitle="y")
    assert list(sample.paths()) == [tmp_path / "a.mp4", tmp_path / "a.csv"]
    assert list(Sample("a").paths()) == []


def test_a_large_manifest_is_read_at_once(tmp_path: Path) -> None:
    lines = "".join(f"sample_{i:08d},video/sample_{i:08d}.mp4,label\n" for i in range(50_000))
    found = read_manifest(csv_file(tmp_path, "id,video,label\n" + lines))
    assert len(found) == 50_000
    assert found["sample_00049999"].video == tmp_path / "video" / "sample_00049999.mp4"


def test_no_path_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert read_manifest(csv_file(tmp_path, "id,video\na,a.mp4\n"))["a"].video == tmp_path / "a.mp4"
