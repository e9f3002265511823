"""What folder names of MERTools, Emotion-LLaMA-v2 and EmoBox mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from folder_factories import IDS, array, lab, write

from featurestore.affectgpt.importing import import_tree
from featurestore.affectgpt.model_folders import folder_of, has_level, model_folder
from featurestore.affectgpt.tree import scan_tree
from featurestore.quality.findings import Findings

NAMES = {
    "clip-vit-base-patch32-UTT": "face/clip-vit-base-patch32/utterance/1",
    "clip-vit-large-patch14-FRA": "face/clip-vit-large-patch14/every/all",
    "videomae-large-FRA": "face/videomae-large/uniform-16x2/all",
    "sunlicai-videomae-base-FRA": "face/sunlicai-videomae-base/every4-2x16/all",
    "dinov2-giant-FRA": "face/dinov2-giant/uniform-64/all",
    "data2vec-vision-base-ft1k-FRA": "face/data2vec-vision-base-ft1k/every/all",
    "eva02_base_patch14_224-FRA": "face/eva02_base_patch14_224/every/all",
    "emonet_UTT": "face/emonet/utterance/1",
    "senet50face_FRA": "face/senet50face/every/all",
    "videomae-base-VoxCeleb2-99-UTT": "face/videomae-base-VoxCeleb2-99/utterance/1",
    "chinese-hubert-large-FRA": "audio/chinese-hubert-large/cut10s/all",
    "chinese-wav2vec2-base-UTT": "audio/chinese-wav2vec2-base/utterance/1",
    "wav2vec2-large-960h-FRA": "audio/wav2vec2-large-960h/cut10s/all",
    "whisper-large-v2-FRA": "audio/whisper-large-v2/decoder2/all",
    "emotion2vec-finetune-UTT": "audio/emotion2vec-finetune/utterance/1",
    "wav2vec-large-z-FRA": "audio/wav2vec-large-z/every/all",
    "eGeMAPS_UTT": "audio/eGeMAPS/utterance/1",
    "chinese-macbert-large-FRA": "text/chinese-macbert-large/tokens/all",
    "Baichuan-13B-Base-UTT": "text/Baichuan-13B-Base/utterance/1",
    # The input was changed, which is part of the name.
    "chinese-hubert-large-noise5db-UTT": "audio/chinese-hubert-large-noise5db/utterance/1",
    "eGeMAPS_noise0db_UTT": "audio/eGeMAPS_noise0db/utterance/1",
    "wavlm-base-ttschi-UTT": "audio/wavlm-base-ttschi/utterance/1",
    "chinese-roberta-wwm-ext-langeng-UTT": "text/chinese-roberta-wwm-ext-langeng/utterance/1",
    "chinese-macbert-base-punccase2-FRA": "text/chinese-macbert-base-punccase2/tokens/all",
    "saved-step3-chinese-macbert-base-UTT": "text/saved-step3-chinese-macbert-base/utterance/1",
    "whisper-large-v3": "audio/whisper-large-v3/tokens/64",
    "EVA-ViT-G": "frame/EVA-ViT-G/tokens/64",
    "wavlm-base-plus": "audio/wavlm-base-plus/every/all",
}


def test_every_name_is_the_key_that_it_means(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / "mer2023" / "features" / name).mkdir(parents=True)
    findings = Findings()
    tree = scan_tree(tmp_path, findings)
    assert {folder.path.name: str(folder.key) for folder in tree.folders} == {
        name: f"mer2023/{key}" for name, key in NAMES.items()
    }
    assert not findings


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("chinese-hubert-large-noise5db-UTT", {"noise": "5db"}),
        ("wavlm-base-ttseng-UTT", {"speech": "eng"}),
        ("chinese-macbert-base-langeng-UTT", {"language": "eng"}),
        ("chinese-macbert-base-punccase3-UTT", {"punctuation": "3"}),
        ("chinese-macbert-base-UTT", {}),
    ],
)
def test_what_was_done_to_the_input_is_told(name: str, variants: dict[str, str]) -> None:
    found = model_folder(name)
    assert found is not None
    assert dict(found.variants) == variants
    assert found.facts == {"pooling": "sum of the last four layers", "mean_of": found.mean_of, **variants}


def test_names_of_no_model_are_none() -> None:
    for name in ("notes", "frame_CLIP_VIT_LARGE_uniform_8frms", "features", "whisper-large", "UTT", "-UTT"):
        assert model_folder(name) is None, name
    assert model_folder("mine-UTT") is None
    assert has_level("mine-UTT")


def test_an_unknown_model_is_met_with_the_key_to_give_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "mer2023" / "mine-FRA", {id: array(0, 3, 4) for id in IDS})
    report = import_tree(tmp_path, None)
    (finding,) = report.findings
    assert (finding.kind, finding.where) == ("unknown_folder", f"mer2023/{folder.name}")
    assert "`--as mer2023/MODALITY/mine/every/all`" in finding.what


def test_features_made_here_have_a_name_that_their_code_looks_for() -> None:
    assert folder_of("audio", "X", "utterance", 1) == "X-UTT"
    assert folder_of("text", "X", "tokens", "all") == "X-FRA"
    assert folder_of("audio", "whisper-large-v3", "tokens", 64) == "whisper-large-v3"
    assert folder_of("frame", "X", "uniform", 8) is None


def test_two_spellings_of_one_model_are_not_mixed(tmp_path: Path) -> None:
    for name in ("emonet_UTT", "emonet-UTT"):
        write(tmp_path / "mer2023" / name, {id: array(0, 4) for id in IDS})
    report = import_tree(tmp_path, None)
    assert [finding.kind for finding in report.findings] == ["two_folders"]
    assert report.folders == []


def test_one_folder_and_the_folder_of_a_data_set_are_trees_too(tmp_path: Path) -> None:
    lab(tmp_path / "mine" / "features")
    for path, name in ((tmp_path / "mine", "mine"), (tmp_path / "mine" / "features" / "resnet50face_UTT", "mine")):
        tree = scan_tree(path, Findings(), name)
        assert "mine/face/resnet50face/utterance/1" in {str(folder.key) for folder in tree.folders}
