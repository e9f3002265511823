"""The audit names the faults that published scripts leave in features without a word, each planted here."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from folder_factories import HUBERT, IDS, MACBERT, array, frames, kinds, lab, means, write

from featurestore.affectgpt import set_audit
from featurestore.affectgpt.importing import SUSPECT, import_tree
from featurestore.affectgpt.sources import Sources

Spoil = Callable[[Path], object]


def _zero_utterance(tree: Path) -> None:
    np.save(tree / f"{HUBERT}-UTT" / f"{IDS[2]}.npy", np.zeros(16, np.float32))
    np.save(tree / f"{HUBERT}-FRA" / f"{IDS[2]}.npy", np.zeros((1, 16), np.float32))


def _empty_text(tree: Path) -> None:
    np.save(tree / f"{MACBERT}-UTT" / f"{IDS[3]}.npy", np.zeros(16))
    np.save(tree / f"{MACBERT}-FRA" / f"{IDS[3]}.npy", np.zeros((1, 16)))


def _sum_of_layers(tree: Path) -> None:
    for path in sorted((tree / "resnet50face_UTT").iterdir()):
        write(tree / "senet50face_UTT", {path.stem: np.load(path) * 4})


def _copied_utterance(tree: Path) -> None:
    folder = tree / f"{HUBERT}-UTT"
    (folder / f"{IDS[5]}.npy").write_bytes((folder / f"{IDS[4]}.npy").read_bytes())


def _shifted_by_one(tree: Path) -> None:
    folder = tree / f"{HUBERT}-UTT"
    held = [np.load(folder / f"{id}.npy") for id in IDS]
    write(folder, {id: held[number - 1] for number, id in enumerate(IDS)})


def _made_by_another_run(tree: Path) -> None:
    folder = tree / f"{MACBERT}-UTT"
    np.save(folder / f"{IDS[1]}.npy", np.nextafter(np.load(folder / f"{IDS[1]}.npy"), np.float32(9)))


def _repeated_last_frame(tree: Path) -> None:
    path = tree / "videomae-base-FRA" / f"{IDS[6]}.npy"
    values = np.load(path)
    values[-1] = values[-2]
    np.save(path, values)


def _one_frame(tree: Path) -> None:
    values = array(0, 1, 16)
    np.save(tree / f"{HUBERT}-FRA" / f"{IDS[7]}.npy", values)
    np.save(tree / f"{HUBERT}-UTT" / f"{IDS[7]}.npy", values[0])


def _too_few_frames(tree: Path) -> None:
    write(tree / "whisper-base-FRA", {id: array(number, 2 if number else 3, 4) for number, id in enumerate(IDS)})


def _cut_names(tree: Path) -> None:
    names = {"clip_a.1", "clip_b.2"}
    for name in (f"{HUBERT}-FRA", f"{HUBERT}-UTT", "resnet50face_UTT", "videomae-base-FRA", "whisper-large-v3"):
        like = np.load(tree / name / f"{IDS[0]}.npy")
        write(tree / name, {id: array(ord(id[5]), *like.shape, dtype=like.dtype.str) for id in names})
    for level in ("FRA", "UTT"):
        like = np.load(tree / f"{MACBERT}-{level}" / f"{IDS[0]}.npy")
        write(tree / f"{MACBERT}-{level}", {id.partition(".")[0]: array(ord(id[5]), *like.shape) for id in names})


def _ids_in_two_cases(tree: Path) -> None:
    for path in list(tree.iterdir()):
        write(path, {IDS[0].upper(): np.load(path / f"{IDS[1]}.npy") * 2})


def _ids_of_two_data_sets(tree: Path) -> None:
    write(tree / "resnet50face_UTT", {f"dia{n}_utt0": array(n, 12, dtype="<f8") for n in range(2)})


def _half_copied(tree: Path) -> None:
    for id in IDS[8:]:
        (tree / "videomae-base-FRA" / f"{id}.npy").unlink()


def _long_sound(tree: Path) -> None:
    path = tree / f"{HUBERT}-FRA" / f"{IDS[9]}.npy"
    values = array(1, 998, 16)
    np.save(path, values)
    np.save(tree / f"{HUBERT}-UTT" / path.name, values.mean(axis=0))


FAULTS: dict[Spoil, tuple[str, list[str], str, str]] = {
    # how it is spoilt: kind, ids, what is said, what to do
    _zero_utterance: ("zero", [IDS[2]], "rows of zeros, as scripts store for media they could not read", "make them"),
    _empty_text: ("empty_text", [IDS[3]], "zeros in float64: the text was empty, blank, or a word", "keep_default_na"),
    _sum_of_layers: ("layers", [], "exactly four times resnet50face_UTT in each of 12 rows", "MERTools sums"),
    _copied_utterance: ("another_id", [IDS[5]], f"{IDS[5]} has {IDS[4]}'s", "copied or renamed"),
    _shifted_by_one: ("order", list(IDS), "the means of other samples' frames, in another order", "by position"),
    _made_by_another_run: ("mean", [IDS[1]], "made by different runs, versions or devices", "find out which is right"),
    _repeated_last_frame: ("last_frames", [IDS[6]], "the clip has fewer than 16 frames", "counts that frame more"),
    _one_frame: ("one_frame", [IDS[7]], "less than 45 ms of sound", "listen to them"),
    _too_few_frames: ("rows", [IDS[0]], "3 frames, where whisper-base makes 2", "--as KEY"),
    _cut_names: ("cut_name", ["clip_a.1", "clip_b.2"], "whose names are there up to the first dot", "rename the files"),
    _ids_in_two_cases: ("case_ids", [IDS[0].upper(), IDS[0]], "differ in case only", "some disks keep one file"),
    _ids_of_two_data_sets: ("mixed_ids", ["dia0_utt0", "dia1_utt0"], "perhaps of two data sets", "--dataset NAME"),
    _half_copied: ("uneven", list(IDS[8:]), "samples that other folders of the data set have", "import again"),
    _long_sound: ("padding", [IDS[9]], "zeros behind its end are averaged in", "the wavs tell how much"),
}


def test_a_sound_tree_has_no_finding(tmp_path: Path) -> None:
    report = import_tree(lab(tmp_path / "features"), None, dataset="mine", audit=True)
    assert report.findings == []
    assert {row.suspect for row in report.folders} == {0}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_fault_is_named_with_its_samples_and_what_to_do(tmp_path: Path, spoil: Spoil) -> None:
    kind, ids, what, advice = FAULTS[spoil]
    tree = lab(tmp_path / "features")
    spoil(tree)
    report = import_tree(tree, None, dataset="mine", audit=True)
    found = [finding for finding in report.findings if finding.kind == kind]
    assert found, kinds(report)
    for finding in found:
        assert finding.ids == sorted(ids) or finding.ids == ids
        assert what in finding.message
        assert advice in finding.message or advice in finding.advice
    suspect = max(row.suspect or 0 for row in report.folders)
    assert suspect == ((2 if spoil is _copied_utterance else len(ids)) if kind in SUSPECT else 0)  # the one it equals
    # Nothing of it keeps a row from being imported, and without --audit nothing is said.
    assert [finding.kind for finding in import_tree(tree, None, dataset="mine").findings if finding.kind == kind] == []


@pytest.mark.parametrize("blind", ["_wrong_means", "_duplicates"])
def test_an_audit_that_does_not_look_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: str) -> None:
    """The deliberately broken audit: the copied file is not named for what it is."""
    tree = lab(tmp_path / "features")
    _copied_utterance(tree)
    monkeypatch.setattr(set_audit.SetAudit, blind, lambda self: None)
    found = kinds(import_tree(tree, None, dataset="mine", audit=True))
    assert set(found) == {"duplicate" if blind == "_wrong_means" else "another_id"}


# ---- what only the sound can tell ----


def write_wav(path: Path, samples: int, rate_hz: int = 16_000, loud: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = (np.sin(np.arange(samples) / 7) * 9000 * loud).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(values.tobytes())
    return path


def rows_of(samples: int) -> int:
    """As the published script: one piece as it is, several filled up to 10 s each."""
    pieces = -(-samples // 160_000)
    return 499 * pieces if pieces > 1 else (samples - 400) // 320 + 1


def test_the_sound_tells_silence_padding_and_what_was_cut_since(tmp_path: Path) -> None:
    lengths = dict(zip(IDS, [16_000, 40_000, 170_000, 330_000, *[8_000] * 8], strict=True))
    made = {id: array(number, rows_of(samples), 16) for number, (id, samples) in enumerate(lengths.items())}
    tree = tmp_path / "features"
    write(tree / f"{HUBERT}-FRA", made)
    write(tree / f"{HUBERT}-UTT", means(made))
    lines = ["id,audio"]
    for id, samples in lengths.items():
        path = write_wav(tmp_path / "wav" / f"{id}.wav", samples // 2 if id == IDS[1] else samples, loud=id != IDS[4])
        lines.append(f"{id},{path}")
    manifest = tmp_path / "samples.csv"
    manifest.write_text("\n".join(lines) + "\n")
    report = import_tree(tree, None, dataset="mine", audit=True, known=Sources(manifest=manifest).known)
    by_folder = {(finding.where, finding.kind): finding for finding in report.findings}
    for level in ("FRA", "UTT"):
        padding = by_folder.pop((f"{HUBERT}-{level}", "padding"))
        assert padding.ids == [IDS[2], IDS[3]]
        assert "31.2% to 46.9% of what went in" in padding.message
        silence = by_folder.pop((f"{HUBERT}-{level}", "silence"))
        assert silence.ids == [IDS[4]]
        assert "features look like any other" in silence.message
    rows = by_folder.pop((f"{HUBERT}-FRA", "rows"))
    assert rows.ids == [IDS[1]]
    assert "cut, resampled or replaced since" in rows.message
    assert by_folder == {}


def test_tokens_of_thirty_seconds_for_a_short_clip_are_mostly_silence(tmp_path: Path) -> None:
    tree = tmp_path / "features"
    write(tree / "whisper-large-v3", {id: array(number, 1, 64, 4) for number, id in enumerate(IDS[:2])})
    lines = ["id,audio"]
    for id, samples in zip(IDS, (48_000, 480_000), strict=False):
        lines.append(f"{id},{write_wav(tmp_path / f'{id}.wav', samples)}")
    (tmp_path / "samples.csv").write_text("\n".join(lines) + "\n")
    known = Sources(manifest=tmp_path / "samples.csv").known
    (finding,) = import_tree(tree, None, dataset="mine", audit=True, known=known).findings
    assert (finding.kind, finding.ids) == ("silence", [IDS[0]])
    assert "up to 90% of them are of silence" in finding.message


def test_frames_of_another_model_are_not_compared_with_utterances(tmp_path: Path) -> None:
    tree = tmp_path / "features"
    write(tree / f"{HUBERT}-FRA", frames())
    write(tree / "chinese-hubert-base-UTT", means(frames(seed=50)))
    assert import_tree(tree, None, dataset="mine", audit=True).findings == []
