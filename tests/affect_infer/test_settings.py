"""Settings: the guide's YAML as it stands, a file of our own, and the command line on top."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from affect_infer.model.prompt import QUESTIONS
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes, Settings
from featurestore.errors import ConfigError

Guide = Callable[..., Settings]

OWN = """\
affect_infer: 1
checkpoint: model/checkpoint.pth
llm: model/llm
store: features
mode: face_frame_audio
question: description
policy: {face: store}
encoders: {frame: ViT-S-32.none, face: ViT-S-32.none}
frame: {sampling: uniform, n_frames: 4}
weights: {ViT-S-32.none: "random:0"}
generation: {greedy: true, max_new_tokens: 20}
batch_size: auto
output: results
datasets:
  mer2023: {manifest: manifest.csv}
  my_clips: {manifest: manifest.csv, mode: frameonly}
"""


def test_the_guides_yaml_as_it_stands(demo_files: Path) -> None:
    settings = read_settings(demo_files / "mer2023.yaml")
    (task,) = settings.tasks
    assert (task.name, task.mode.name, task.mode.au, len(task.samples)) == (
        "mer2023",
        "face_frame_audio_au",
        "features",
        12,
    )
    assert task.policies == {"frame": "store", "face": "live", "audio": "live", "au": "live"}
    assert {name: str(key) for name, key in task.keys.items()} == {
        "frame": "mer2023/frame/ViT-S-32.none/emotion_peak/8",
        "face": "mer2023/face/ViT-S-32.none/uniform/8",
        "audio": "mer2023/audio/HUBERT_LARGE/const_clips/8",
        "au": "mer2023/au/CLIP_TEXT/au_summary/all",
    }
    assert task.store == demo_files / "features"
    assert settings.question == QUESTIONS["labels"]
    sample = task.samples["sample_00000001"]
    assert sample.subtitle == "We did it, we really did it!"
    assert sample.au_json is not None
    assert sample.au_json.is_file()


@pytest.mark.parametrize(
    ("mode", "wanted", "keys"),
    [
        ("face_frame_audio_au", ["audio", "face", "frame", "au", "subtitle"], {"frame", "face", "audio", "au"}),
        ("face_frame_audio", ["audio", "face", "frame", "subtitle"], {"frame", "face", "audio"}),
        ("frame", ["audio", "frame", "subtitle"], {"frame", "audio"}),
    ],
)
def test_the_guides_modes(demo_files: Path, mode: str, wanted: list[str], keys: set[str]) -> None:
    (task,) = read_settings(demo_files / "mer2023.yaml", Changes(mode=mode)).tasks
    assert list(task.mode.needs) == wanted
    assert set(task.keys) == keys


def test_the_guides_four_ways_to_run_are_one_flag_apart(demo_files: Path) -> None:
    def policies(**changes: object) -> tuple[dict[str, str], str]:
        (task,) = read_settings(demo_files / "mer2023.yaml", Changes(**changes)).tasks  # type: ignore[arg-type]
        return dict(task.policies), task.keys["frame"].sampling

    live = {"frame": "live", "face": "live", "audio": "live", "au": "live"}
    uniform = ["datasets.mer2023.frame_sampling=uniform"]
    assert policies(policies={"frame": "live"}, options=uniform) == (live, "uniform")
    assert policies(policies={"frame": "live"}) == (live, "emotion_peak")
    assert policies() == ({**live, "frame": "store"}, "emotion_peak")
    everything = dict.fromkeys(live, "store")
    assert policies(policies=everything) == (everything, "emotion_peak")


def test_an_unknown_key_is_an_error_with_a_suggestion(demo_files: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'frame_n_frames'; did you mean 'frame_n_frms'"):
        read_settings(demo_files / "mer2023.yaml", Changes(options=["datasets.mer2023.frame_n_frames=8"]))


def test_contradictions_are_errors(demo_files: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"contradicts itself:\n  inference\.use_preextracted_features: datasets.mer2023"
    ):
        read_settings(demo_files / "mer2023.yaml", Changes(options=["inference.use_preextracted_features=False"]))


def test_keys_without_effect_are_reported(demo_files: Path) -> None:
    settings = read_settings(demo_files / "mer2023.yaml", Changes(options=["model.max_length=2048"]))
    assert settings.notes == ("model.max_length: ignored, training only",)


def test_skip_encoders_is_judged_by_the_policies_that_count(demo_files: Path) -> None:
    skipping = ["model.skip_encoders=True"]
    with pytest.raises(ConfigError, match=r"audio, face, au of mer2023 are live .* set skip_encoders to False"):
        read_settings(demo_files / "mer2023.yaml", Changes(options=skipping))
    stored = dict.fromkeys(("frame", "face", "audio", "au"), "store_only")
    assert read_settings(demo_files / "mer2023.yaml", Changes(options=skipping, policies=stored)).skip_encoders


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"frame": "stored"}, "policy frame=stored: write MODALITY=POLICY"),
        ({"frames": "store"}, "policy frames=store: write MODALITY=POLICY"),
    ],
)
def test_policies_are_checked(demo_files: Path, policies: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(demo_files / "mer2023.yaml", Changes(policies=policies))


def test_a_policy_for_what_the_mode_has_not_is_an_error(demo_files: Path) -> None:
    with pytest.raises(ConfigError, match="policy face=live, but mode frame of mer2023 has no face"):
        read_settings(demo_files / "mer2023.yaml", Changes(mode="frame", policies={"face": "live"}))


def test_au_as_text_is_not_stored(demo_files: Path) -> None:
    with pytest.raises(ConfigError, match="use --policy au=live or au=off"):
        read_settings(demo_files / "mer2023.yaml", Changes(au="text", policies={"au": "store"}))
    (task,) = read_settings(demo_files / "mer2023.yaml", Changes(au="text")).tasks
    assert "au" not in task.keys


def test_datasets_are_chosen_by_any_of_their_names(demo_files: Path) -> None:
    assert [task.name for task in read_settings(demo_files / "mer2023.yaml", Changes(datasets=["MER2023"])).tasks] == [
        "mer2023"
    ]
    assert len(read_settings(demo_files / "mer2023.yaml", Changes(datasets=["all"])).tasks) == 1
    with pytest.raises(ConfigError, match=r"--dataset meld is not in .*, which has mer2023"):
        read_settings(demo_files / "mer2023.yaml", Changes(datasets=["meld"]))


def test_a_manifest_replaces_the_label_file(demo_files: Path) -> None:
    (task,) = read_settings(demo_files / "mer2023.yaml", Changes(manifest=demo_files / "manifest.csv", limit=3)).tasks
    assert list(task.samples) == ["sample_00000001", "sample_00000002", "sample_00000003"]
    assert task.samples["sample_00000001"].label == "happy"


@pytest.fixture
def own(demo_files: Path) -> Path:
    path = demo_files / "own.yaml"
    path.write_text(OWN)
    return path


def test_a_file_of_our_own(own: Path) -> None:
    settings = read_settings(own)
    assert settings.checkpoint == own.parent / "model/checkpoint.pth"
    assert settings.question == QUESTIONS["description"]
    assert (settings.sampling.greedy, settings.sampling.max_new_tokens) == (True, 20)
    assert settings.batch_size is None
    first, second = settings.tasks
    assert first.policies == {"frame": "store", "face": "store", "audio": "live", "au": "off"}
    assert str(first.keys["frame"]) == "mer2023/frame/ViT-S-32.none/uniform/4"
    assert (second.name, second.mode.name, set(second.keys)) == ("my_clips", "frameonly", {"frame"})
    assert first.store == own.parent / "features"


def test_the_command_line_comes_last(own: Path) -> None:
    changes = Changes(
        options=["generation.seed=5", "frame.n_frames=6"],
        values={"device": "cpu"},
        generation={"max_new_tokens": 7},
        store=Path("elsewhere"),
        datasets=["mer2023"],
    )
    settings = read_settings(own, changes)
    assert (settings.sampling.seed, settings.sampling.max_new_tokens, settings.device) == (5, 7, "cpu")
    assert settings.tasks[0].store == Path("elsewhere")
    assert settings.tasks[0].keys["frame"].n_frames == 6


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("polcy={}", "unknown key 'polcy'; did you mean 'policy'"),
        ("affect_infer=2", "version of the file's form, 1, not 2"),
        ("policy.frames=store", "policy frames=store: write MODALITY=POLICY .*; did you mean 'frame'"),
        (
            "policy.frame=store_onyl",
            "policy frame=store_onyl: .* store, store_only, live, off; did you mean 'store_only'",
        ),
        ("policy.frame=bogus", "policy frame=bogus: write MODALITY=POLICY"),
        ("policy.face=true", "policy face=True: write MODALITY=POLICY"),
        ("policy.face=[off]", "policy face="),
        ("generation.top=1", "generation: unknown key 'top'"),
        ("generation.max_new_tokens=[5]", "max_new_tokens must be an integer, not \\[5\\]"),
        ("generation.top_p=high", "top_p must be a number, not 'high'"),
        ("generation.max_new_tokens=0", "max_new_tokens 0 must be 1 to 1999"),
        ("batch_size=many", "batch_size must be an integer, not 'many'"),
        ("batch_size=0", "batch_size 0 must be at least 1"),
        ("on_missing=ignore", "on_missing 'ignore' is not one of error, skip, mask"),
        ("dtype=int8", "dtype 'int8' is not one of"),
        ("datasets.mer2023.manifests=x", "unknown key 'manifests'; did you mean 'manifest'"),
        ("mode=everything", "face_or_frame 'everything' is no mode"),
        ("mode=[frame]", "face_or_frame \\['frame'\\] is no mode"),
        ("au=feature", "au 'feature' is not one of features, text"),
        ("mode=image", "mode image needs one image per sample"),
        ("frame=8", "frame must be a mapping, not 8"),
        ("nonsense", "option 'nonsense' is not of the form a.b=value"),
    ],
)
def test_mistakes_in_a_file_of_our_own(own: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(own, Changes(options=[option]))


@pytest.mark.parametrize("said", ["off", '"off"', "False"])
def test_off_in_a_file_is_off_on_the_command_line(own: Path, said: str) -> None:
    by_option = read_settings(own, Changes(policies={"face": "off"}))
    own.write_text(OWN.replace("policy: {face: store}", f"policy: {{face: {said}}}"), encoding="utf-8")
    by_file = read_settings(own)
    assert by_file.tasks[0] == by_option.tasks[0]
    assert by_file.tasks[0].policies["face"] == "off"
    assert by_file.tasks[0].masked() == ["face"]


def test_a_dataset_needs_samples(own: Path) -> None:
    with pytest.raises(ConfigError, match=r"datasets\.mer2023 needs a manifest, or the root"):
        read_settings(own, Changes(options=["datasets.mer2023.manifest="]))


def test_weights_of_an_encoder_that_is_none_are_an_error(demo_files: Path, own: Path) -> None:
    told = r"weights: HUBERT_LARG is no encoder of this run: CLIP_TEXT, .*; did you mean 'HUBERT_LARGE'\?"
    with pytest.raises(ConfigError, match=told):
        read_settings(demo_files / "mer2023.yaml", Changes(values={"weights": {"HUBERT_LARG": "random:0"}}))
    with pytest.raises(ConfigError, match=r"weights: ViT-S-23\.none is no encoder .* did you mean 'ViT-S-32\.none'\?"):
        read_settings(own, Changes(values={"weights": {"ViT-S-23.none": "random:0"}}))
    own.write_text(OWN.replace("weights: {", "weights: {HUBERT_LARG: models, "), encoding="utf-8")
    with pytest.raises(ConfigError, match="HUBERT_LARG is no encoder of this run"):
        read_settings(own)


def test_weights_of_encoders_without_use_are_told(demo_files: Path) -> None:
    given = {"WAVLM_LARGE": "models", "ViT-B-32.openai": "random:0", "HUBERT_LARGE": "random:0"}
    settings = read_settings(demo_files / "mer2023.yaml", Changes(values={"weights": given}))
    used = "are not used: the encoders of this run are CLIP_TEXT, HUBERT_LARGE, ViT-S-32.none"
    assert settings.notes == (f"weights of WAVLM_LARGE {used}", f"weights of ViT-B-32.openai {used}")


def test_a_misspelt_mode_is_blamed_on_its_option(demo_files: Path) -> None:
    told = r"^--mode face_frame is no mode; did you mean '\w*frame\w*'\? modes are "
    with pytest.raises(ConfigError, match=told):
        read_settings(demo_files / "mer2023.yaml", Changes(mode="face_frame"))


def test_paths_of_a_file_and_of_the_environment_may_begin_at_home(
    demo_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    own = demo_files / "own.yaml"
    own.write_text(
        "affect_infer: 1\nmode: textonly\nstore: ~/features\noutput: ${oc.env:DATA}/answers\nllm: ~/llm\n"
        "checkpoint: ~/c.pth\ndatasets: {mine: {manifest: manifest.csv}}\n"
    )
    settings = read_settings(own)
    assert settings.tasks[0].store == tmp_path / "features"
    assert (settings.output, settings.llm) == (tmp_path / "data/answers", str(tmp_path / "llm"))
    assert settings.checkpoint == tmp_path / "c.pth"
    own.write_text(own.read_text().replace("store: ~/features", "").replace("~/llm", "$LLM/7b"))
    monkeypatch.setenv("FEATURESTORE_ROOT", "~/else")
    with pytest.raises(ConfigError, match=r"\$LLM is no folder"):
        read_settings(own)
    own.write_text(own.read_text().replace("$LLM", "~"))
    assert read_settings(own).tasks[0].store == tmp_path / "else"
    monkeypatch.setenv("FEATURESTORE_ROOT", "$DATA/else")
    with pytest.raises(ConfigError, match=r"^\$FEATURESTORE_ROOT is '\$DATA/else': \$DATA is no folder"):
        read_settings(own)
