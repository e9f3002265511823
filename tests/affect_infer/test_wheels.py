"""The wheels of a tiny folder made here, and the published quirks on the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from affect_infer.scores.wheels import Wheels, read_wheels, split_labels
from featurestore.errors import InputError


@pytest.fixture(scope="session")
def real_wheels() -> Wheels:
    root = Path(__file__).resolve().parents[2].parent / "shared" / "emotion_wheel"
    if not root.is_dir():
        pytest.skip(f"no emotion wheels at {root}")
    return read_wheels(root)


def write_sheet(path: Path, rows: list[list[str | None]]) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in rows:
        book.active.append(row)
    book.save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    header: list[str | None] = ["level1", "level2", "level3"]
    wheel = [
        header,
        ["Joy ", " Calm", "At ease"],
        [None, None, "Safe"],
        [None, "Glad", "Proud"],
        ["Fear", "Awe", "Safe"],
    ]
    for number in range(1, 6):
        write_sheet(tmp_path / f"wheel{number}.xlsx", wheel)
    runs = [f"{kind}_run{n}" for n in range(1, 9) for kind in ("word", "synonym")]
    glad: list[str | None] = ["Glad", "pleased, content"]
    awe: list[str | None] = ["awe", "Wonder"]
    write_sheet(tmp_path / "synonym.xlsx", [list(runs), glad * 8, awe * 4 + ["Awe", "pleased"] * 4])
    forms = 'name,format\nglad,"glad,gladly"\npleased,"pleased,pleasing"\nwonder,"wonder"\nawe,"awe,awed"\n'
    (tmp_path / "format.csv").write_text(forms)
    return tmp_path


def test_a_form_leads_to_words_and_the_first_on_the_wheel_decides(folder: Path) -> None:
    wheels = read_wheels(folder)
    assert wheels.cluster("gladly", 0) == "joy"
    assert wheels.cluster("wonder", 0) == "fear"
    # pleased -> {awe, glad}; awe comes first by code point.
    assert wheels.cluster("pleasing", 4) == "fear"
    assert wheels.cluster("Gladly", 0) is None
    assert wheels.clusters_of([" Gladly", "awed", "unknown"], 0) == {"joy", "fear"}


def test_a_word_twice_on_a_wheel_belongs_to_the_last_centre(folder: Path) -> None:
    assert read_wheels(folder).clusters[0]["safe"] == "fear"


def test_label_lists_as_they_are_written() -> None:
    assert split_labels("[happy, 'at ease']") == ["happy", "at ease"]
    assert split_labels('["calm", "sad"]') == ["calm", "sad"]
    assert split_labels("[]") == []
    assert split_labels("worried") == ["worried"]


def test_a_missing_or_broken_file_is_named(folder: Path) -> None:
    (folder / "wheel3.xlsx").write_bytes(b"not a spreadsheet")
    with pytest.raises(InputError, match=r"wheel3\.xlsx cannot be read as a spreadsheet"):
        read_wheels(folder)
    write_sheet(folder / "wheel3.xlsx", [["level1", "level2"], ["a", "b"]])
    with pytest.raises(InputError, match=r"wheel3\.xlsx has no column level3; it has level1, level2"):
        read_wheels(folder)
    (folder / "format.csv").unlink()
    (folder / "wheel2.xlsx").unlink()
    with pytest.raises(InputError, match=r"lacks 2 of the 7 files .*: wheel2\.xlsx, format\.csv; .* AffectGPT"):
        read_wheels(folder)


def test_sizes_of_the_published_wheels(real_wheels: Wheels) -> None:
    assert len(real_wheels.forms) == 7386
    assert len(real_wheels.synonyms) == 1255
    assert [len(wheel) for wheel in real_wheels.clusters] == [114, 126, 78, 102, 77]
    assert [len(set(wheel.values())) for wheel in real_wheels.clusters] == [6, 7, 6, 6, 6]
    assert len({word for wheel in real_wheels.clusters for word in wheel}) == 253


@pytest.mark.parametrize(
    ("label", "clusters"),
    [
        ("fear", ["scared", "happy", "joyful", "genius", "joyful"]),
        ("surprise", ["surprised", "surprised", "powerful", "fear", None]),
        ("confused", ["surprised", "surprised", "scared", "sad", "scared"]),
        ("neutral", [None] * 5),
        ("anger", ["mad", "angry", "mad", "anger", "mad"]),
    ],
)
def test_published_quirks_are_kept(real_wheels: Wheels, label: str, clusters: list[str | None]) -> None:
    assert [real_wheels.cluster(label, wheel) for wheel in range(5)] == clusters
    assert [real_wheels.cluster("disgust", wheel) for wheel in (2, 4)] == [None, None]
