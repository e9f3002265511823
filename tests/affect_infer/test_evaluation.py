"""Tables of scores from result files, labels by rules or by a language model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_wheels import real_wheels  # noqa: F401  # a fixture

from affect_infer.results import Results, read_results
from affect_infer.scores.evaluation import evaluate
from affect_infer.scores.labelling import label_results, read_list, read_sentiment
from affect_infer.scores.wheels import Wheels
from featurestore.errors import ConfigError, InputError

WHEELS = Path(__file__).resolve().parents[2].parent / "shared" / "emotion_wheel"


@pytest.fixture
def wheel_root(real_wheels: Wheels) -> Path:  # noqa: F811
    return WHEELS


def write_results(path: Path, dataset: str, answers: dict[str, str]) -> Path:
    with Results(path, {"dataset": dataset}) as results:
        for id, answer in answers.items():
            results.append({"id": id, "answer": answer})
    return path


def write_manifest(path: Path, labels: dict[str, str]) -> Path:
    rows = "".join(f'{id},"{label}"\n' for id, label in labels.items())
    path.write_text("id,label\n" + rows, encoding="utf-8")
    return path


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """Results of a set of each kind: words, valences, open vocabulary."""
    folder = tmp_path / "results"
    write_results(
        folder / "results-mer2023/run/a.jsonl",
        "mer2023",
        {"s1": "happy, excited", "s2": "[sad]", "s3": "The person looks calm.", "s4": "not angry but worried"},
    )
    write_results(
        folder / "results-cmumosi/run/a.jsonl", "cmumosi", {"v1": "joyful", "v2": "angry", "v3": "sad", "v4": "?"}
    )
    write_results(folder / "results-ovmerdplus/run/a.jsonl", "ovmerdplus", {"o1": "happy, sad", "o2": "angry"})
    manifests = {
        "mer2023": write_manifest(tmp_path / "a.csv", {"s1": "happy", "s2": "sad", "s3": "neutral", "s4": "angry"}),
        "cmumosi": write_manifest(tmp_path / "b.csv", {"v1": "1.8", "v2": "-0.4", "v3": "0.6", "v4": "0.0"}),
        "ovmerdplus": write_manifest(tmp_path / "c.csv", {"o1": "[happy]", "o2": "[angry, sad]"}),
    }
    return folder, manifests


def test_one_row_per_set_with_its_own_metric(wheel_root: Path, three: tuple[Path, dict[str, Path]]) -> None:
    folder, manifests = three
    table = evaluate([folder], wheel_root, manifests)
    rows = {row.dataset: row for row in table.rows}
    assert [row.dataset for row in table.rows] == ["mer2023", "cmumosi", "ovmerdplus"]
    # happy and sad hit; neutral does not count; "not angry" is no label, worried is another emotion.
    assert rows["mer2023"].score.value == pytest.approx(2 / 3)
    assert rows["mer2023"].score.samples == 3
    # signs + - -, and a valence of 0 that does not count; true + - +
    assert rows["cmumosi"].score.details["ACC"] == pytest.approx(2 / 3)
    assert rows["cmumosi"].score.samples == 3
    assert rows["ovmerdplus"].score.details == pytest.approx({"precision": 0.75, "recall": 0.75})
    assert table.mean == pytest.approx(100 * sum(row.score.value for row in table.rows) / 3)


def test_the_table_names_all_nine_sets(wheel_root: Path, three: tuple[Path, dict[str, Path]]) -> None:
    folder, manifests = three
    text = evaluate([folder], wheel_root, manifests).markdown()
    assert "| mer2023 | hit rate | 66.67 | wheel1 66.67" in text
    assert text.count("not run") == 6
    assert "Mean over 3 of nine sets" in text
    assert "not comparable with published scores" in text
    data = json.loads(json.dumps(evaluate([folder], wheel_root, manifests).as_dict()))
    assert data["rows"][0]["answered"] == 4
    assert data["absent"] == ["mer2024", "meld", "iemocap", "cmumosei", "sims", "simsv2"]


def test_missing_answers_are_an_error_unless_said_otherwise(
    wheel_root: Path, three: tuple[Path, dict[str, Path]]
) -> None:
    folder, manifests = three
    write_manifest(manifests["mer2023"], {"s1": "happy", "s2": "sad", "s9": "angry"})
    path = folder / "results-mer2023/run/a.jsonl"
    with pytest.raises(InputError, match=r"no answer for 1 of 3 samples of mer2023, e.g. 's9'; .*--partial"):
        evaluate([path], wheel_root, manifests)
    (row,) = evaluate([path], wheel_root, manifests, partial=True).rows
    assert (row.answered, row.total) == (2, 3)


def test_labels_are_needed(wheel_root: Path, three: tuple[Path, dict[str, Path]], tmp_path: Path) -> None:
    folder, manifests = three
    with pytest.raises(ConfigError, match="labels of cmumosi are needed: give --manifest cmumosi=FILE or --root DIR"):
        evaluate([folder], wheel_root, {"mer2023": manifests["mer2023"]})
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="holds no results"):
        evaluate([tmp_path / "nothing"], wheel_root)


def test_labels_by_a_language_model_are_a_step_that_goes_on(
    wheel_root: Path, three: tuple[Path, dict[str, Path]], tiny_files: tuple[Path, Path]
) -> None:
    folder, manifests = three
    with pytest.raises(InputError, match=r"labels\.jsonl holds no results"):
        evaluate([folder], wheel_root, manifests, labels="llm")
    paths = label_results([folder], llm=str(tiny_files[0]), device="cpu", batch_size=3)
    assert [path.name for path in paths] == ["a.labels.jsonl"] * 3
    before = {path: path.read_bytes() for path in paths}
    table = evaluate([folder], wheel_root, manifests, labels="llm")
    assert len(table.rows) == 3
    assert "by a language model" in table.markdown()
    # A random model names no labels worth having; its sentiments are of the three allowed.
    _, lines = read_results(paths[0])
    assert {line["sentiment"] for line in lines.values()} <= {"positive", "negative", "neutral"}
    torn = paths[0].read_bytes()
    paths[0].write_bytes(torn[:-9])
    label_results([folder], llm=str(tiny_files[0]), device="cpu", batch_size=3)
    assert {path: path.read_bytes() for path in paths} == before


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("[Happy, Excited]", ["happy", "excited"]),
        ("The list: ['at ease']\n", ["at ease"]),
        ("[]", []),
        ("sad", ["sad"]),
    ],
)
def test_lists_are_read_from_answers(answer: str, labels: list[str]) -> None:
    assert read_list(answer) == labels


def test_sentiments_are_read_from_answers() -> None:
    assert read_sentiment("Positive.") == "positive"
    assert read_sentiment("It is negative, not positive") == "negative"
    assert read_sentiment("who knows") == "neutral"


def test_means_of_one_set_twice_are_not_made(wheel_root: Path, three: tuple[Path, dict[str, Path]]) -> None:
    folder, manifests = three
    write_results(folder / "results-mer2023/run/b.jsonl", "mer2023", {"s1": "sad", "s2": "x", "s3": "x", "s4": "x"})
    table = evaluate([folder / "results-mer2023"], wheel_root, manifests)
    assert [row.path.name for row in table.rows] == ["a.jsonl", "b.jsonl"]
    assert table.mean is None
    assert np.isfinite([row.score.value for row in table.rows]).all()


@pytest.mark.parametrize("label", ["nan", "inf", "positive"])
def test_a_valence_that_is_no_number_is_named(
    wheel_root: Path, three: tuple[Path, dict[str, Path]], tmp_path: Path, label: str
) -> None:
    folder, manifests = three
    odd = write_manifest(tmp_path / "odd.csv", {"v1": "1.8", "v2": label, "v3": "0.6", "v4": "0.0"})
    with pytest.raises(InputError, match=rf"label of sample 'v2' of cmumosi is '{label}', not a number; mend"):
        evaluate([folder], wheel_root, {**manifests, "cmumosi": odd})


def test_labels_of_other_answers_are_not_scored(wheel_root: Path, three: tuple[Path, dict[str, Path]]) -> None:
    folder, manifests = three
    path = folder / "results-cmumosi/run/a.jsonl"
    for said in ({"labels_of": "a.jsonl"}, {"labels_of": "a.jsonl", "run": {"dataset": "cmumosi", "question": "?"}}):
        target = path.with_suffix(".labels.jsonl")
        target.unlink(missing_ok=True)
        with Results(target, said) as results:
            for id in ("v1", "v2", "v3", "v4"):
                results.append({"id": id, "labels": ["sad"], "sentiment": "negative"})
        with pytest.raises(InputError, match=r"a\.labels\.jsonl holds labels of other answers .*move it away and run"):
            evaluate([path], wheel_root, manifests, labels="llm")
