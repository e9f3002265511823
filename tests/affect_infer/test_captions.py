"""Action units as text, from the file in which the old code keeps such texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from affect_infer.run.hybrid import make_extractor, make_request
from affect_infer.run.plan import check_inputs, make_plan
from affect_infer.settings.captions import read_captions
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes, Settings
from featurestore.datasets import Dataset, resolve_dataset
from featurestore.errors import ConfigError, InputError

TEXT = "Brows raised, lips apart; a bright, quick voice."


def save(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "key"),
    [("mer2023", "MER2023"), ("iemocap", "IEMOCAP"), ("iemocap", "IEMOCAPFour"), ("cmumosi", "CMU-MOSI"),
     ("sims", "CH-SIMS"), ("simsv2", "CH-SIMS v2"), ("simsv2", "simsv2"), ("ovmerdplus", "ovmerdplus")],
)  # fmt: skip
def test_a_dataset_is_found_by_any_of_its_names(tmp_path: Path, name: str, key: str) -> None:
    path = save(tmp_path / "c.json", {"MER2024": {}, key: {"a": {"caption": TEXT, "other": 1}, "b": {"caption": ""}}})
    assert read_captions(path, resolve_dataset(name)) == {"a": TEXT}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"MELD": {}}, "has nothing of mer2023; its datasets are MELD"),
        ({"MER2023": {}, "mer2023": {}}, "has MER2023 and mer2023, which are one dataset"),
        ([], r"is not of the form \{dataset: \{sample: "),
        ({"MER2023": {"a": TEXT}}, r"MER2023\.a is not \{\"caption\": text\}"),
        ({"MER2023": {"a": {"caption": 3}}}, r"MER2023\.a is not"),
        ({"MER2023": {"a": {"caption": "\ud800"}}}, "half of a surrogate pair"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_captions(save(tmp_path / "c.json", data), resolve_dataset("mer2023"))


def test_a_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(json.dumps({"MER2023": {"a": {"caption": "\u4f60\u597d"}}}, ensure_ascii=False).encode("gbk"))
    with pytest.raises(InputError, match=r"nonverbal_json .*c\.json cannot be read: line 1: not UTF-8 .* GB18030"):
        read_captions(path, Dataset("mer2023"))


@pytest.fixture
def fork(demo_files: Path) -> Path:
    """A settings file of the fork's last commit: captions for one of the demo's samples, training on another set."""
    save(demo_files / "c.json", {"MER2023": {"sample_00000001": {"caption": TEXT}}})
    path = demo_files / "fork.yaml"
    path.write_text(f"""
datasets:
  mercaptionplus: {{face_or_frame: multiface_audio_face_frame_au_text, use_preextracted_frame: True,
                   preextracted_root: ./pre/mercaptionplus, nonverbal_json: /home/x.json, use_nonverbal_text: True}}
inference:
  face_or_frame: 'xxx'
  frame_sampling: 'uniform'
  visual_encoder: 'ViT-S-32.none'
  nonverbal_json: '{demo_files}/c.json'
  use_nonverbal_text: True
""")
    return path


def asked(fork: Path, **changes: Any) -> Settings:
    root = fork.parent / "mer2023-dataset-process"
    return read_settings(fork, Changes(datasets=["MER2023"], root=root, **changes))


def prompt_of(settings: Settings, id: str) -> str:
    settings = Settings(tasks=settings.tasks, weights={"ViT-S-32.none": "random:0"}, on_missing="mask")
    (task,) = settings.tasks
    with make_extractor(settings) as extractor:
        plan = make_plan(task, settings, extractor)
        check_inputs(plan, [id])
        (inputs,) = plan.supply([id]).prepare([id], plan.problems)
        return make_request(plan, inputs, []).prompt


def test_a_file_of_the_fork_runs_for_a_dataset_that_it_does_not_name(fork: Path) -> None:
    text = asked(fork, policies={"frame": "off", "face": "off", "audio": "off"})
    (task,) = text.tasks
    assert (task.name, task.mode.name, task.mode.au) == ("mer2023", "multiface_audio_face_frame_au_text", "text")
    assert "au" not in task.keys
    assert text.notes[-1] == (
        "mer2023: nonverbal_json has no text for 11 of 12 samples, e.g. 'sample_00000002': their prompts have no such "
        "sentence"
    )
    (plain,) = asked(fork, mode="auonly").tasks
    assert plain.captions == {"sample_00000001": TEXT}


def test_the_caption_is_in_the_sentence_and_a_sample_without_one_has_no_sentence(fork: Path) -> None:
    settings = asked(fork, mode="auonly")
    sentence = f"The nonverbal clues (facial action units and audio emotion clues) are: <Nonverbal>{TEXT}</Nonverbal>. "
    assert sentence in prompt_of(settings, "sample_00000001")
    settings = asked(fork, mode="audio_au_text", policies={"audio": "off"})
    with_text, without = (prompt_of(settings, f"sample_0000000{number}") for number in (1, 2))
    assert sentence in with_text
    assert "<Nonverbal>" not in without
    assert "AUHere" not in with_text + without


def test_the_command_line_decides_between_text_and_features(fork: Path) -> None:
    with pytest.raises(ConfigError, match=r"mer_factory_output: live au needs it, .*--au text"):
        asked(fork, au="features")
    off = asked(fork, policies={"au": "off"}).tasks[0]
    assert (off.captions, off.policies["au"]) == (None, "off")


def test_a_file_of_our_own_may_name_captions_too(demo_files: Path) -> None:
    save(demo_files / "c.json", {"mine": {"sample_00000001": {"caption": TEXT}}})
    own = demo_files / "own.yaml"
    own.write_text(
        "affect_infer: 1\nmode: auonly\nau: text\ndatasets: {mine: {manifest: manifest.csv, nonverbal_json: c.json}}\n"
    )
    (task,) = read_settings(own).tasks
    assert task.captions == {"sample_00000001": TEXT}
