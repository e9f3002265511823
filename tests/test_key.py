"""FeatureKey: five facts, one spelling, and every folder name of the old layout."""

from __future__ import annotations

import pickle
from typing import Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore import FeatureKey
from featurestore.errors import InvalidIdError, InvalidKeyError, LegacyNameError
from featurestore.key import MODALITIES, check_id

KEY = FeatureKey(dataset="mer2023", modality="frame", encoder="CLIP_VIT_LARGE", sampling="emotion_peak", n_frames=8)

VISUAL = ["CLIP_VIT_LARGE", "EVA_CLIP_G", "EVA_CLIP_G_NO_QFORMER", "DINO2_LARGE", "SigLIP_SO"]
ACOUSTIC = ["HUBERT_LARGE", "WAVLM_LARGE", "DATA2VEC_BASE", "IMAGEBIND"]

part = st.text("ABCxyz019._-", min_size=1, max_size=80).filter(lambda text: text not in (".", ".."))
keys = st.builds(
    FeatureKey,
    dataset=part,
    modality=st.sampled_from(MODALITIES),
    encoder=part,
    sampling=part,
    n_frames=st.integers(1, 10**9 - 1) | st.just("all"),
)


def test_text_of_a_key() -> None:
    assert str(KEY) == "mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8"
    assert FeatureKey.parse(str(KEY)) == KEY
    assert KEY.parts == ("mer2023", "frame", "CLIP_VIT_LARGE", "emotion_peak", "8")
    assert str(FeatureKey("mer2023", "au", "CLIP_TEXT", "au_summary", "all")) == "mer2023/au/CLIP_TEXT/au_summary/all"


@given(keys)
def test_parse_is_the_inverse_of_str(key: FeatureKey) -> None:
    again = FeatureKey.parse(str(key))
    assert again == key
    assert hash(again) == hash(key)
    assert type(again.n_frames) is type(key.n_frames)
    assert pickle.loads(pickle.dumps(key)) == key


def test_the_types_say_what_a_part_may_be() -> None:
    hints = get_type_hints(FeatureKey)
    assert hints["modality"] == Literal["frame", "face", "audio", "au", "text", "multi"]
    assert hints["n_frames"] == int | Literal["all"]
    for text in ("mer2023/video/X/uniform/8", "mer2023/frame/X/uniform/any"):  # checked, whatever the types say
        with pytest.raises(InvalidKeyError):
            FeatureKey.parse(text)


def test_keys_are_values() -> None:
    with pytest.raises(AttributeError):
        KEY.n_frames = 16  # type: ignore[misc]
    assert {KEY: 1}[FeatureKey.parse("mer2023/frame/CLIP_VIT_LARGE/emotion_peak/8")] == 1
    assert sorted([KEY, FeatureKey.parse("cmumosi/frame/CLIP_VIT_LARGE/uniform/8")])[1] == KEY


@pytest.mark.parametrize("field", ["dataset", "encoder", "sampling"])
@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "é", "a\n", "x" * 81, "a\x00", "*", "a:b", None, 8])
def test_a_part_that_could_leave_its_directory_is_refused(field: str, bad: object) -> None:
    parts: dict[str, object] = {
        "dataset": "mer2023", "modality": "frame", "encoder": "CLIP_VIT_LARGE", "sampling": "uniform", "n_frames": 8
    }  # fmt: skip
    with pytest.raises(InvalidKeyError, match=f"^{field} .* must be 1 to 80 characters"):
        FeatureKey(**{**parts, field: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["video", "FRAME", "multiface"])
def test_an_unknown_modality_lists_the_known_ones(bad: str) -> None:
    with pytest.raises(InvalidKeyError, match=f"modality '{bad}' is not one of frame, face, audio, au, text, multi"):
        FeatureKey("mer2023", bad, "CLIP_VIT_LARGE", "uniform", 8)


@pytest.mark.parametrize("bad", [0, -1, 10**9, 8.0, True, "8", "ALL", "", None])
def test_n_frames_is_a_positive_integer_or_all(bad: object) -> None:
    with pytest.raises(InvalidKeyError, match="neither a positive integer nor 'all'"):
        FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["08", "+8", "8.0", " 8", "８", "1_0", "0", "1000000000"])
def test_a_count_has_one_spelling(bad: str) -> None:
    with pytest.raises(InvalidKeyError):
        FeatureKey.parse(f"mer2023/frame/CLIP_VIT_LARGE/uniform/{bad}")


@pytest.mark.parametrize("bad", ["", "mer2023", "a/b/c/d", "mer2023/frame/CLIP_VIT_LARGE/uniform/8/x", "/frame/C/u/8"])
def test_a_text_that_is_no_key_says_what_one_looks_like(bad: str) -> None:
    with pytest.raises(InvalidKeyError, match=r"DATASET/MODALITY/ENCODER|dataset ''"):
        FeatureKey.parse(bad)


@pytest.mark.parametrize("encoder", [*VISUAL, "ViT-B-32.laion2b_s34b_b79k", "my_own_encoder"])
@pytest.mark.parametrize("sampling", ["uniform", "headtail", "emotion_peak"])
@pytest.mark.parametrize("n", [1, 8, 16])
def test_frame_folders_and_back(encoder: str, sampling: str, n: int) -> None:
    key = FeatureKey.from_legacy("mer2023", f"frame_{encoder}_{sampling}_{n}frms")
    assert key == FeatureKey("mer2023", "frame", encoder, sampling, n)
    assert FeatureKey.from_legacy("mer2023", key.legacy_name) == key
    assert key.legacy_name == f"frame_{encoder}_{sampling}_{n}frms"


@pytest.mark.parametrize("encoder", VISUAL)
def test_face_folders_and_back(encoder: str) -> None:
    key = FeatureKey.from_legacy("meld", f"face_{encoder}_8frms")
    assert key == FeatureKey("meld", "face", encoder, "uniform", 8)
    assert key.legacy_name == f"face_{encoder}_8frms"


@pytest.mark.parametrize("encoder", ACOUSTIC)
def test_audio_folders_and_back(encoder: str) -> None:
    key = FeatureKey.from_legacy("meld", f"audio_{encoder}_8clips")
    assert key == FeatureKey("meld", "audio", encoder, "const_clips", 8)
    assert key.legacy_name == f"audio_{encoder}_8clips"


@pytest.mark.parametrize("visual", VISUAL)
@pytest.mark.parametrize("acoustic", ACOUSTIC)
@pytest.mark.parametrize("kind", ["complete", "simple"])
def test_fused_folders_and_back(visual: str, acoustic: str, kind: str) -> None:
    key = FeatureKey.from_legacy("sims", f"multi_{visual}_{acoustic}_{kind}")
    assert key == FeatureKey("sims", "multi", f"{visual}.{acoustic}", kind, 1)
    assert key.legacy_name == f"multi_{visual}_{acoustic}_{kind}"


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        # Seen only in documents of the old scripts, never written by the extraction itself.
        ("frame_CLIP_VIT_LARGE_8frms", "mer2023/frame/CLIP_VIT_LARGE/uniform/8"),
        ("face_CLIP_VIT_LARGE_uniform_8frms", "mer2023/face/CLIP_VIT_LARGE/uniform/8"),
        ("au_CLIP_VITB32_8frms", "mer2023/au/CLIP_TEXT/au_summary/all"),
        ("au_CLIP_VITB32_512d_8frms", "mer2023/au/CLIP_TEXT/au_summary/all"),
        ("au", "mer2023/au/CLIP_TEXT/au_summary/all"),
    ],
)
def test_variants_of_folder_names_are_recognised(folder: str, key: str) -> None:
    assert str(FeatureKey.from_legacy("mer2023", folder)) == key


@pytest.mark.parametrize(
    "folder",
    [
        "",
        "frames",
        "frame_CLIP_VIT_LARGE",
        "frame_CLIP_VIT_LARGE_uniform_8clips",
        "frame_CLIP_VIT_LARGE_uniform_0frms",
        "audio_HUBERT_LARGE_8frms",
        "multi_CLIP_VIT_LARGE_HUBERT_LARGE",
        "multi_CLIP_VIT_LARGE_UNKNOWN_complete",
        "au_CLIP_VITB32",
        "Frame_CLIP_VIT_LARGE_uniform_8frms",
        "frame_../../etc_uniform_8frms",
        "frame_CLIP_VIT_LARGE_uniform_8frms\n",
    ],
)
def test_other_folder_names_are_refused(folder: str) -> None:
    with pytest.raises(InvalidKeyError):
        FeatureKey.from_legacy("mer2023", folder)


@pytest.mark.parametrize(
    "text",
    [
        "mer2023/frame/CLIP_VIT_LARGE/emotion_peak_fork/8",
        "mer2023/frame/CLIP_VIT_LARGE/uniform/all",
        "mer2023/face/CLIP_VIT_LARGE/headtail/8",
        "mer2023/au/CLIP_TEXT/au_summary/all",
        "mer2023/audio/HUBERT_LARGE/uniform/8",
        "mer2023/multi/CLIP_VIT_LARGE.HUBERT_LARGE/complete/8",
    ],
)
def test_keys_without_an_old_name_say_so(text: str) -> None:
    with pytest.raises(LegacyNameError, match=f"^{text} has no folder name in the old layout"):
        _ = FeatureKey.parse(text).legacy_name


@pytest.mark.parametrize(
    "good", ["sample_00000001", "-MeTTeMJBNc_0", "a/b", "../x", ".", "例え", "é", "a b", "x" * 512]
)
def test_ids_are_any_short_text(good: str) -> None:
    assert check_id(good) == good


@pytest.mark.parametrize(
    "bad", ["", "x" * 513, "é" * 257, "a\nb", "a\x00b", "a\x7f", "a\u0085", "a\u2028b", "\ud800", None, 7, b"a"]
)
def test_ids_with_control_characters_or_without_text_are_refused(bad: object) -> None:
    with pytest.raises(InvalidIdError, match="sample id"):
        check_id(bad)


def test_ids_are_compared_as_they_are() -> None:
    composed, decomposed = "é", "e\u0301"
    assert check_id(composed) != check_id(decomposed)


def test_text_is_a_modality_and_encoders_may_hold_a_plus() -> None:
    key = FeatureKey.parse("mer2026/text/chinese-macbert-base+pos/utterance/1")
    assert key.modality == "text"
    assert FeatureKey.parse(str(key)) == key
    for text in ("mer+2026/text/x/utterance/1", "mer2026/text/x/utter+ance/1", "mer2026/te+xt/x/utterance/1"):
        with pytest.raises(InvalidKeyError):
            FeatureKey.parse(text)
    with pytest.raises(InvalidKeyError, match=r"encoder 'a b' must be 1 to 80 characters of A-Z a-z 0-9 \. _ - \+"):
        FeatureKey.parse("mer2026/text/a b/utterance/1")
