"""The guide's YAML files are read for what they mean, and every key is accounted for."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from featurestore.affectgpt.guide import Guide, read_guide
from featurestore.affectgpt.guide_dataset import MODES
from featurestore.affectgpt.strict_yaml import load_yaml
from featurestore.cli import fstore
from featurestore.cli.output import cell_width
from featurestore.errors import ConfigError

GUIDE = """
model:
  skip_encoders: False
  visual_encoder: "CLIP_VIT_LARGE"
  acoustic_encoder: "HUBERT_LARGE"
datasets:
  mer2023:
    face_or_frame: 'face_frame_audio_au'
    frame_n_frms: 8
    frame_sampling: 'emotion_peak'
    use_preextracted_features: True
    preextracted_root: './preextracted_features/mer2023'
    mer_factory_output: '/data/MER-Factory/output'
    use_au_clip_realtime: True
    visual_encoder: 'CLIP_VIT_LARGE'
    acoustic_encoder: 'HUBERT_LARGE'
    video_root: '/data/mer2023/video'
    audio_root: '/data/mer2023/audio'
    face_root: '/data/mer2023/openface_face'
    ann_paths: ['/data/mer2023/label-6way.npz']
inference:
  use_preextracted_features: True
  use_au_clip_realtime: True
  mer_factory_output: '/data/MER-Factory/output'
"""

# Keys of the evaluation and training files around the guide, with the values they have there.
PROCESSORS = """
  vis_processor: {eval: {name: alpro_video_eval, n_frms: 8, image_size: 224}}
  text_processor: {eval: {name: blip_caption}}
  img_processor: {eval: {name: blip2_image_eval, image_size: 224}}
"""
EVALUATION = (
    """
model:
  arch: affectgpt
  model_type: pretrain_vicuna
  skip_encoders: False
  llama_model: "Qwen25"
  visual_encoder: "CLIP_VIT_LARGE"
  acoustic_encoder: "HUBERT_LARGE"
  num_audio_query_token: 1
  num_video_query_token: 1
  num_multi_query_token: 1
  num_image_query_token: 1
  num_au_query_token: 1
  multi_fusion_type: attention
  video_fusion_type: attention
  audio_fusion_type: attention
  image_fusion_type: mean
  au_fusion_type: attention
  max_length: 1024"""
    + PROCESSORS
    + GUIDE.partition("\ndatasets:")[1]
    + GUIDE.partition("\ndatasets:")[2].partition("inference:")[0]
    + """
inference:
  task: video_text_pretrain
  face_or_frame: 'face_frame_audio_au'
  frame_n_frms: 8
  frame_sampling: 'emotion_peak'
  mer_factory_output: '/data/MER-Factory/output'
  use_preextracted_features: True
  use_au_clip_realtime: True
  base_root: 'output/inference_results/mer2023'
  gpu: 0"""
    + PROCESSORS
    + """
evaluation_datasets_cfg:
  mer2023:
    eval_file_path: '/data/mer2023/label-6way.npz'
    video_root: '/data/mer2023/video'
    audio_root: '/data/mer2023/audio'
    face_root: '/data/mer2023/openface_face'
"""
)
INFERENCE_ONLY = """
inference:
  task: video_text_pretrain
  face_or_frame: 'xxx'
  frame_n_frms: 8
  frame_sampling: 'emotion_peak'
  use_preextracted_features: True
  preextracted_root: './preextracted_features'
  visual_encoder: 'CLIP_VIT_LARGE'
  mer_factory_output: '/data/MER-Factory/output'
  use_au_clip_realtime: True
  base_root: 'output/inference_results'
  ckpt_root: xxx
  ckpt_name: xxx
  test_epoch: xxx
  test_epochs: xxx-xxx
  skip_epoch: 1
  gpu: 0""" + PROCESSORS.replace("eval:", "train:")
TRAINING = """
model:
  use_au_agent: False
  skip_encoders: False
  preextracted_visual_dim: 768
  preextracted_acoustic_dim: 1024
  preextracted_au_dim: 512
  frozen_video_proj: False
  frozen_llm: False
  ckpt: ""
  lora_r: 16
  llama_model: "Qwen25"
  visual_encoder: "CLIP_VIT_LARGE"
  acoustic_encoder: "HUBERT_LARGE"
datasets:
  mercaptionplus:
    data_type: video
    face_or_frame: 'multiface_audio_face_frame_au_text'
    label_type: 'hybird'
    frame_n_frms: 8
    frame_sampling: 'emotion_peak'
    mer_factory_output: '/data/MER-Factory/output'
    use_preextracted_frame: True
    use_preextracted_face: True
    use_preextracted_audio: True
    use_preextracted_au: True
    preextracted_root: './preextracted_features/mercaptionplus'
    clips_per_video: 8
run:
  task: video_text_pretrain
  lr_sched: "linear_warmup_cosine_lr"
  init_lr: 1e-5
  max_epoch: 60
  batch_size_train: 1
  seed: 42
  amp: True
  resume_ckpt_path: null
  device: "cuda"
  world_size: 1
  dist_url: "env://"
  distributed: True
inference:
  frame_sampling: 'uniform'
  use_preextracted_face: False
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def guide(tmp_path: Path, text: str = GUIDE, **changes: str) -> Guide:
    for old, new in changes.items():
        text = text.replace(old, new)
    return read_guide(write(tmp_path, text))


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is printed fits the terminal that somebody's shell had."""
    monkeypatch.delenv("COLUMNS", raising=False)


def run(*words: object) -> Result:
    return CliRunner().invoke(fstore, [str(word) for word in words])


def statuses(found: Guide) -> dict[str, str]:
    return {setting.key: setting.status for setting in found.settings}


def test_the_guides_file_means_what_the_guide_says(tmp_path: Path) -> None:
    found = guide(tmp_path)
    assert set(statuses(found).values()) == {"used"}
    assert found.check() is found
    entry = found.datasets["mer2023"]
    assert entry.mode == "face_frame_audio_au"
    assert entry.policies == {"frame": "store", "face": "live", "audio": "live", "au": "live"}
    assert {modality: str(key) for modality, key in entry.keys.items()} == {
        "frame": "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8",
        "face": "mer2023/face/CLIP_VIT_LARGE/uniform/8",
        "audio": "mer2023/audio/HUBERT_LARGE/const_clips/8",
        "au": "mer2023/au/CLIP_TEXT/au_summary/all",
    }
    assert entry.store == Path("preextracted_features")
    assert entry.roots.mer_factory == Path("/data/MER-Factory/output")
    assert entry.roots.labels == Path("/data/mer2023")


@pytest.mark.parametrize("root", [f"./preextracted_features{end}" for end in ("", "/", "/mer2023", "/MER2023")])
def test_the_store_is_found_with_and_without_the_dataset_at_its_end(tmp_path: Path, root: str) -> None:
    found = guide(tmp_path, **{"./preextracted_features/mer2023": root})
    assert found.datasets["mer2023"].store == Path("preextracted_features")


def test_the_evaluation_file_is_accounted_for_key_by_key(tmp_path: Path) -> None:
    found = guide(tmp_path, EVALUATION)
    assert found.contradictions == []
    status = statuses(found)
    assert len(status) == sum(1 for _ in leaves(yaml.safe_load(EVALUATION)))
    assert status["model.arch"] == "ignored"
    assert status["model.vis_processor.eval.n_frms"] == "used"
    assert status["model.num_au_query_token"] == "ignored"
    assert status["datasets.mer2023.face_or_frame"] == "used"
    assert status["evaluation_datasets_cfg.mer2023.video_root"] == "ignored"
    assert (found.device, found.output) == ("cuda:0", Path("output/inference_results/mer2023"))


def leaves(data: dict[str, Any]) -> Any:
    for value in data.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def test_placeholders_are_ignored(tmp_path: Path) -> None:
    found = guide(tmp_path, INFERENCE_ONLY)
    assert found.datasets == {}
    notes = {setting.key: setting.note for setting in found.settings if setting.status == "ignored"}
    assert notes["inference.face_or_frame"] == "a placeholder"
    assert notes["inference.test_epochs"] == "a placeholder"
    assert found.contradictions == []


def test_a_training_file_may_differ_between_training_and_inference(tmp_path: Path) -> None:
    found = guide(tmp_path, TRAINING)
    assert found.contradictions == []
    entry = found.datasets["mercaptionplus"]
    assert set(entry.policies.values()) == {"store"}
    assert str(entry.keys["frame"]) == "mercaptionplus/frame/CLIP_VIT_LARGE/emotion_peak/8"
    assert entry.store == Path("preextracted_features")


@pytest.mark.parametrize(
    ("old", "new", "key", "note"),
    [
        ("skip_encoders: False", "skip_encoders: True", "model.skip_encoders", "face, audio, au; set it to False"),
        ("visual_encoder: 'CLIP", "visual_encoder: 'X", "model.visual_encoder", "datasets.mer2023.visual_encoder says"),
        ("inference:\n  use_preextracted_features: True", "inference:\n  use_preextracted_features: False",
         "inference.use_preextracted_features", "datasets.mer2023.use_preextracted_features says True"),
        ("inference:\n", "inference:\n  frame_n_frms: 6\n", "inference.frame_n_frms", "mer2023.frame_n_frms says 8"),
        ("inference:\n", "inference:\n  frame_sampling: uniform\n", "inference.frame_sampling", "says 'emotion_peak'"),
        ("use_au_clip_realtime: True", "use_au_clip_realtime: False", "datasets.mer2023.use_au_clip_realtime",
         "mode face_frame_audio_au needs AU, which is neither stored nor live"),
        ("    preextracted_root: './preextracted_features/mer2023'\n", "", "datasets.mer2023.preextracted_root",
         "features are to be read from it, and it is not given"),
        ("model:\n", "model:\n  video_fusion_type: qformer\n", "model.video_fusion_type", "Q-Former"),
        ("model:\n", "model:\n  use_au_agent: True\n", "model.use_au_agent", "does not exist here"),
        ("model:\n", "model:\n  llama_model: Vicuna\n", "model.llama_model", "--llm"),
        ("model:\n", "model:\n  img_processor: {eval: {image_size: 9}}\n", "model.img_processor.eval.image_size", "22"),
        ("inference:\n", "evaluation_datasets_cfg: {mer2023: {video_root: /elsewhere}}\ninference:\n",
         "evaluation_datasets_cfg.mer2023.video_root", "datasets.mer2023.video_root says '/data/mer2023/video'"),
    ],
)  # fmt: skip
def test_each_contradiction_is_named_with_its_opposite(tmp_path: Path, old: str, new: str, key: str, note: str) -> None:
    found = guide(tmp_path, **{old: new})
    wrong = {setting.key: setting.note for setting in found.contradictions}
    assert note in wrong[key]
    with pytest.raises(ConfigError, match="contradicts itself") as raised:
        found.check()
    assert key in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "key", "note"),
    [
        ("frame_sampling: 'emotion_peak'", "frame_sampling: 'emotionpeak'", "datasets.mer2023.frame_sampling",
         "sampler 'emotionpeak' is not known; did you mean 'emotion_peak'?"),
        ("\"CLIP_VIT_LARGE\"", "\"CLIP_VIT_LARG\"", "model.visual_encoder", "did you mean 'CLIP_VIT_LARGE'?"),
        ("HUBERT_LARGE", "HUBRT_LARGE", "model.acoustic_encoder", "did you mean 'HUBERT_LARGE'?"),
        ("CLIP_VIT_LARGE", "ViT-B-23.openai", "model.visual_encoder", "did you mean 'ViT-B-32.openai'"),
        # The old scripts' encoder: imported frames of it would do, but faces are to be computed.
        ("CLIP_VIT_LARGE", "EVA_CLIP_G", "datasets.mer2023.visual_encoder", "no encoder is called 'EVA_CLIP_G'"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_is_told_with_the_one_that_is_meant(
    tmp_path: Path, old: str, new: str, key: str, note: str
) -> None:
    found = guide(tmp_path, **{old: new})
    assert note in {setting.key: setting.note for setting in [*found.unknown, *found.contradictions]}[key]
    with pytest.raises(ConfigError, match=r"contradicts itself|names what is not known"):
        found.check()
    result = run("config", "explain", write(tmp_path, GUIDE.replace(old, new)))
    assert result.exit_code == 1, result.output
    assert "unknown" in result.stdout


@pytest.mark.parametrize("name", ["ViT-B-32.openai", "DINO2_LARGE"])
def test_every_encoder_that_there_is_may_be_named(tmp_path: Path, name: str) -> None:
    assert guide(tmp_path, CLIP_VIT_LARGE=name).check().unknown == []


def test_frames_of_an_old_encoder_may_come_from_the_store(tmp_path: Path) -> None:
    found = guide(tmp_path, CLIP_VIT_LARGE="EVA_CLIP_G", face_frame_audio_au="frameonly")
    assert found.check().unknown == []


def test_a_file_of_affect_infers_own_form_is_sent_to_it(tmp_path: Path) -> None:
    path = write(tmp_path, "affect_infer: 1\ndatasets: {}\n")
    result = run("config", "explain", path)
    assert result.exit_code == 2
    assert "is a settings file of affect-infer, not one of AffectGPT's; " in result.stderr
    assert f"`affect-infer inspect --cfg-path {shlex.quote(str(path))}` and " in result.stderr


def test_au_without_a_place_to_read_from_is_contradictory(tmp_path: Path) -> None:
    text = GUIDE.replace("mer_factory_output: '/data/MER-Factory/output'", "frame_n_frms: 8", 1)
    text = text.replace("    frame_n_frms: 8\n", "", 1).replace(
        "  mer_factory_output: '/data/MER-Factory/output'\n", ""
    )
    wrong = {setting.key: setting.note for setting in guide(tmp_path, text).contradictions}
    told = "live au needs it, and it is not given; AU as text need use_nonverbal_text: True and nonverbal_json, or "
    told += "--au text"
    assert wrong == {"datasets.mer2023.mer_factory_output": told}


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [("face_frame_audio_au", "frame face audio au"), ("face_frame_audio", "frame face audio"), ("frame", "frame audio"),
     ("frameonly", "frame"), ("textonly", "")],
)  # fmt: skip
def test_modes_bring_their_modalities(tmp_path: Path, mode: str, wanted: str) -> None:
    entry = guide(tmp_path, face_frame_audio_au=mode).datasets["mer2023"]
    assert [modality for modality, policy in entry.policies.items() if policy != "off"] == wanted.split()
    assert mode in MODES


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "frame_sampling:",
            "frame_samplng:",
            r"datasets\.mer2023: unknown key 'frame_samplng'; did you mean 'frame_sampling'",
        ),
        ("model:", "modle:", r"unknown section 'modle'; did you mean 'model'"),
        ("face_frame_audio_au", "frame_au", r"face_or_frame 'frame_au' of mer2023 is not one of frame, face"),
        ("frame_n_frms: 8", "frame_n_frms: '8'", r"datasets\.mer2023\.frame_n_frms must be a int, not '8'"),
        ("frame_n_frms: 8", "frame_n_frms: True", r"frame_n_frms must be a int, not True"),
        ("frame_n_frms: 8", "frame_n_frms: {a: 1}", r"frame_n_frms must be a value, not a mapping"),
        ("skip_encoders: False", "skip_encoders: False\n  vis_processor: 3", r"vis_processor must be a mapping, not 3"),
        (
            "ann_paths: ['/data/mer2023/label-6way.npz']",
            "ann_paths: [a, b]",
            r"ann_paths must be a list of one label file",
        ),
        ("frame_sampling: 'emotion_peak'", "frame_sampling: 'emotion/peak'", r"sampling 'emotion/peak' must be"),
    ],
)
def test_mistakes_are_errors_with_the_nearest_right_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guide(tmp_path, **{old: new})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model: {skip_encoders: True, skip_encoders: False}",
            r"line 1, column 30: key 'skip_encoders' is given twice",
        ),
        ("model: &a {arch: x}\ninference: *a", r"line 1, column 8: anchors and aliases are refused"),
        ("model: *a", "anchors and aliases are refused"),
        ("model:\n  <<: {arch: x}", "yaml.org,2002:merge"),
        ("a: !!python/object/apply:os.system ['true']", r"could not determine a constructor"),
        ("a: !!python/name:os.system", r"could not determine a constructor"),
        ("[" * 2000, "nested deeper than 32"),
        ("model: {a: [1, 2", r"line 1"),
        ("- 1", "holds list, not a mapping"),
        ("", "holds NoneType, not a mapping"),
        ("1: 2", "key 1 is not text"),
        ("a: 2001-99-99", "cannot be read as YAML"),
        ("\ttab: x", "line 1"),
        ("a: '\x00'", "cannot be read as YAML"),
        ("x: " + "y" * (1 << 20), "and more than 1048576 are not read"),
    ],
)
def test_yaml_that_is_not_plain_data_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        read_guide(write(tmp_path, text))
    assert "settings.yaml" in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read"):
        load_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "settings.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "settings.yaml")


def test_samples_come_from_the_places_in_the_file(tmp_path: Path) -> None:
    data = tmp_path / "data" / "mer2023"
    (data / "video").mkdir(parents=True)
    (data / "video" / "s1.avi").touch()
    np.savez(data / "label-6way.npz", test1_corpus=np.array({"s1": {"emo": "sad"}}, dtype=object))
    entry = guide(tmp_path, **{"/data": str(tmp_path / "data")}).datasets["mer2023"]
    sample = entry.samples()["s1"]
    assert (sample.video, sample.label) == (data / "video" / "s1.avi", "sad")
    assert sample.au_json == tmp_path / "data/MER-Factory/output/s1/s1_au_analysis.json"


# ---- the command ----


def test_explain_prints_every_key_and_the_commands(tmp_path: Path) -> None:
    result = run("config", "explain", write(tmp_path, EVALUATION))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert any(line.split()[:2] == ["ignored", "model.arch"] for line in lines)
    assert any(line.split()[:2] == ["used", "datasets.mer2023.frame_n_frms"] for line in lines)
    assert "mer2023 (face_frame_audio_au)" in lines
    command = "fstore extract mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8 --dataset mer2023 --root /data/mer2023"
    assert f"  {command} --store preextracted_features --mer-factory /data/MER-Factory/output --device cuda:0" in lines


def test_explain_says_where_weights_must_be_given(tmp_path: Path) -> None:
    remark = "ViT-S-32.none has no published weights: add --weights DIR, or random:SEED to try things out"
    result = run("config", "explain", write(tmp_path, GUIDE.replace("CLIP_VIT_LARGE", "ViT-S-32.none")))
    assert result.exit_code == 0, result.output
    assert f"  {remark}" in result.stdout.splitlines()
    assert "no published weights" not in run("config", "explain", write(tmp_path, GUIDE)).stdout


def test_explain_exits_1_on_contradictions_and_2_on_errors(tmp_path: Path) -> None:
    result = run("config", "explain", write(tmp_path, GUIDE.replace("skip_encoders: False", "skip_encoders: True")))
    assert result.exit_code == 1
    assert "contradictory  model.skip_encoders" in result.stdout
    result = run("config", "explain", write(tmp_path, GUIDE.replace("frame_n_frms", "frame_n_frame")))
    assert result.exit_code == 2
    assert "did you mean 'frame_n_frms'?" in result.stderr


def test_explain_as_json(tmp_path: Path) -> None:
    data = json.loads(run("config", "explain", write(tmp_path, GUIDE), "--json").stdout)
    assert data["datasets"]["mer2023"]["policies"]["frame"] == "store"
    assert {setting["status"] for setting in data["settings"]} == {"used"}


def test_names_are_judged_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path, GUIDE.replace("emotion_peak", "emotionpeak").replace("CLIP_VIT_LARGE", "ViT-B-23.openai"))
    code = (
        "import sys; from click.testing import CliRunner; from featurestore.cli import fstore;"
        f"result = CliRunner().invoke(fstore, ['config', 'explain', {str(path)!r}]);"
        "assert result.exit_code == 1, result; print(sorted({'torch', 'zarr'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.serial
def test_an_error_comes_in_less_than_a_second_and_without_torch(tmp_path: Path) -> None:
    path = write(tmp_path, GUIDE.replace("frame_n_frms", "frame_n_frame"))
    code = (
        "import sys; from click.testing import CliRunner; from featurestore.cli import fstore;"
        f"result = CliRunner().invoke(fstore, ['config', 'explain', {str(path)!r}]);"
        "assert result.exit_code == 2, result; print(sorted({'torch', 'zarr', 'numpy'} & set(sys.modules)))"
    )
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        taken.append(time.perf_counter() - started)
        assert done.stdout.strip() == "[]"
    assert min(taken) < 1.0


def test_npy_folders_at_the_place_stop_with_the_line_that_imports_them(tmp_path: Path) -> None:
    folder = tmp_path / "pre" / "mer2023" / "frame_CLIP_VIT_LARGE_emotion_peak_8frms"
    folder.mkdir(parents=True)
    np.save(folder / "s1.npy", np.ones((8, 768), np.float32))
    for end in ("", "/mer2023"):
        path = write(tmp_path, GUIDE.replace("./preextracted_features/mer2023", f"{tmp_path}/pre{end}"))
        entry = read_guide(path).datasets["mer2023"]
        with pytest.raises(ConfigError, match=r"holds \.npy folders, not a store") as raised:
            _ = entry.store
        said = run("config", "explain", path)
        assert said.exit_code == 2
    assert raised.value.advice == f"`import_tree('{tmp_path}/pre/mer2023', FeatureStore('{tmp_path}/pre'))`"
    command = shlex.split(said.stderr.rpartition("`fstore ")[2].rstrip("`\n"))
    command.insert(0, "fstore")
    assert command == ["fstore", "import", f"{tmp_path}/pre/mer2023", "--store", f"{tmp_path}/pre"]
    assert run(*command[1:]).exit_code == 0
    assert entry.store == tmp_path / "pre"  # the same file, unchanged, now means the store
    assert run("config", "explain", path).exit_code == 0
    again = run("import", tmp_path / "pre", "--store", tmp_path / "pre", "--origin", "pre/mer2023")
    assert again.exit_code == 0, again.output  # the store inside the tree is no dataset


def test_options_change_a_file_before_it_is_judged(tmp_path: Path) -> None:
    path = write(tmp_path, GUIDE)
    found = read_guide(path, ["datasets.mer2023.frame_n_frms=16", "model.skip_encoders=True"])
    assert str(found.datasets["mer2023"].keys["frame"]) == "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/16"
    assert [setting.key for setting in found.contradictions] == ["model.skip_encoders"]
    assert read_guide(path).contradictions == []
    for option, message in (
        ("model.skip_encoders", "not of the form a.b=value"),
        ("model..x=1", "not of the form a.b=value"),
        ("model.skip_encoders.x=1", "is a value, not a mapping"),
        ("model.skip_encoders=[", "cannot be read as YAML"),
        ("model.skip_encoder=1", "did you mean 'skip_encoders'"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_guide(path, [option])


# ---- action units as text ----

TEXTS = "\n".join(
    line.replace("use_au_clip_realtime", "use_nonverbal_text").replace("emotion_peak", "uniform")
    for line in GUIDE.splitlines()
    if "mer_factory_output" not in line
).replace("    use_nonverbal", "    nonverbal_json: '/data/c.json'\n    use_nonverbal")


def test_action_units_as_text_are_no_features(tmp_path: Path) -> None:
    found = guide(tmp_path, TEXTS).check()
    entry = found.datasets["mer2023"]
    assert (entry.au_as_text, entry.nonverbal, entry.policies["au"]) == (True, Path("/data/c.json"), "live")
    assert "au" not in entry.keys
    assert statuses(found)["datasets.mer2023.nonverbal_json"] == "used"
    assert "au     live   as text, /data/c.json" in run("config", "explain", write(tmp_path, TEXTS)).stdout
    other = read_guide(write(tmp_path, TEXTS), au="features")
    assert "datasets.mer2023.mer_factory_output" in {setting.key for setting in other.contradictions}


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("    nonverbal_json: '/data/c.json'\n", "", "nonverbal_json", ["use_nonverbal_text: True", "--au text"]),
        ("    nonverbal_json", "    use_au_clip_realtime: True\n    nonverbal_json", "use_au_clip_realtime",
         ["use_nonverbal_text: True", "--au text", "--au features"]),
    ],
)  # fmt: skip
def test_what_contradicts_action_units_as_text_is_told(
    tmp_path: Path, old: str, new: str, key: str, words: list[str]
) -> None:
    wrong = {setting.key: setting.note for setting in guide(tmp_path, TEXTS.replace(old, new)).contradictions}
    assert list(wrong) == [f"datasets.mer2023.{key}"]
    assert all(word in wrong[f"datasets.mer2023.{key}"] for word in words)


def test_keys_about_action_units_without_effect_say_why(tmp_path: Path) -> None:
    text = TEXTS.replace("    nonverbal_json", "    use_preextracted_au: True\n    nonverbal_json")
    notes = {setting.key: setting.note for setting in guide(tmp_path, text).settings if setting.status == "ignored"}
    assert "AU enter the prompt as text" in notes["datasets.mer2023.use_preextracted_au"]
    notes = {s.key: s.note for s in guide(tmp_path, TEXTS, face_frame_audio_au="frame").settings if s.note}
    assert notes["datasets.mer2023.nonverbal_json"] == "the mode has no AU"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("    frame_n_frms", "    use_realtime_extraction: True\n    frame_n_frms", "use_realtime_extraction"),
        ("    frame_n_frms", "    data_type: image\n    frame_n_frms", "data_type"),
    ],
)
def test_keys_that_would_change_the_features_are_not_ignored(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert f"datasets.mer2023.{key}" in {s.key for s in guide(tmp_path, GUIDE.replace(old, new)).contradictions}


# ---- files without a block for the dataset, and paths ----


def test_a_file_without_datasets_runs_with_one_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, INFERENCE_ONLY)
    result = run("config", "explain", path)
    assert "missing: which dataset: --dataset NAME --root DIR" in result.stdout
    result = run("config", "explain", path, "--dataset", "MELD")
    assert "missing: how to ask, face_or_frame: --mode MODE" in result.stdout
    assert "missing: where its files are, ann_paths: --root DIR" in result.stdout
    entry = read_guide(path, ["inference.face_or_frame=face_frame_audio"], datasets=["MELD"]).datasets["meld"]
    assert str(entry.keys["frame"]) == "meld/frame/CLIP_VIT_LARGE/emotion_peak/8"
    assert entry.policies["frame"] == "store"


def test_another_dataset_than_that_of_training_takes_its_mode_and_the_settings_of_inference(tmp_path: Path) -> None:
    entry = read_guide(write(tmp_path, TRAINING), datasets=["mer2023"]).datasets["mer2023"]
    assert entry.mode == "multiface_audio_face_frame_au_text"
    assert entry.keys["frame"].sampling == "uniform"


def test_media_that_only_the_evaluation_part_places_are_used(tmp_path: Path) -> None:
    text = GUIDE.replace("    video_root: '/data/mer2023/video'\n", "")
    text += "evaluation_datasets_cfg: {mer2023: {video_root: /v}, meld: {eval_file_path: /m/label.npz}}\n"
    found = guide(tmp_path, text)
    assert found.datasets["mer2023"].roots.video == Path("/v")
    assert found.datasets["meld"].roots.labels == Path("/m")
    assert statuses(found)["evaluation_datasets_cfg.mer2023.video_root"] == "used"


def test_an_unknown_dataset_is_a_finding_beside_all_others(tmp_path: Path) -> None:
    path = write(tmp_path, GUIDE.replace("  mer2023:", "  mer2026:"))
    result = run("config", "explain", path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[1].split()[:2] == ["unknown", "datasets.mer2026"]  # problems first
    assert "did you mean" not in lines[1]
    assert any(line.split()[:2] == ["used", "datasets.mer2026.frame_n_frms"] for line in lines)
    assert "mer2026/frame/CLIP_VIT_LARGE/emotion_peak/8" in result.stdout
    with pytest.raises(ConfigError, match=r"datasets\.mer2026: dataset 'mer2026' is not known"):
        read_guide(path).check()
    misspelt = guide(tmp_path, GUIDE.replace("  mer2023:", "  mer2032:"))
    assert "did you mean 'mer2023'?" in misspelt.unknown[0].note


@pytest.mark.parametrize("width", [120, 80, 40, 24])
def test_the_table_fits_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    path = write(tmp_path, GUIDE.replace("/data/mer2023/video", "/data/\u6570\u636e" + "/x" * 40))
    result = run("config", "explain", path)
    assert result.exit_code == 0, result.output
    words = [word for line in result.stdout.splitlines() if cell_width(line) > width for word in line.split()]
    assert all(cell_width(word) + 8 > width for word in words if word != "\\"), "only what cannot be broken is longer"
    joined = "".join(result.stdout.split())
    assert "datasets.mer2023.use_preextracted_features" in joined
    assert "/data/\u6570\u636e" in joined


def test_paths_are_those_of_the_home_directory_and_variables_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "/the data")
    text = GUIDE.replace("'./preextracted_features/mer2023'", "'~/pre'")
    text = text.replace("'/data/mer2023/video'", "'${oc.env:DATA}/v'")
    text = text.replace("['/data/mer2023/label-6way.npz']", "['~/l/label-6way.npz']")
    text = text.replace("frame_n_frms: 8", "frame_n_frms: ${oc.decode:${oc.env:N,16}}") + "  base_root: ~/out\n"
    found = guide(tmp_path, text)
    entry = found.datasets["mer2023"]
    assert entry.store == tmp_path / "home/pre"
    assert (entry.roots.video, entry.roots.labels) == (Path("/the data/v"), tmp_path / "home/l")
    assert (found.output, entry.keys["frame"].n_frames) == (tmp_path / "home/out", 16)
    with pytest.raises(ConfigError, match=r"datasets\.mer2023\.video_root is '\$DATA/v': \$DATA is no folder"):
        guide(tmp_path, GUIDE.replace("/data/mer2023/video", "$DATA/v"))
    monkeypatch.delenv("DATA")
    with pytest.raises(ConfigError, match=r"datasets\.mer2023\.video_root is .*which has no value here: .*DATA"):
        guide(tmp_path, text)
