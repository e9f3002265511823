"""Every mode written out in full: the words are an interface, the trailing blanks too."""

from __future__ import annotations

import pytest

from affect_infer.model import prompt
from affect_infer.model.prompt import QUESTIONS, AuAs, expand, get_mode, mode_names
from featurestore.errors import ConfigError, InputError

H = "###Human: "
M = "The audio and video merged info is: <Multi><MultiHere></Multi>. "
A = "The audio content is as follows: <Audio><AudioHere></Audio>. "
F = (
    "Meanwhile, we uniformly sample raw frames from the video and extract faces from these frames: "
    "<Video><FaceHere></Video>. "
)
F_TOO = (
    "Additionally, we uniformly sample raw frames from the video and extract faces from these frames: "
    "<Video><FaceHere></Video>. "
)
F_FIRST = (
    "We uniformly sample raw frames from the video and extract faces from these frames: <Video><FaceHere></Video>. "
)
R = "Meanwhile, we uniformly sample raw frames from the video: <Video><FrameHere></Video>. "
R_FIRST = "We uniformly sample raw frames from the video: <Video><FrameHere></Video>. "
R_SMALL = "we uniformly sample raw frames from the video: <Video><FrameHere></Video>. "
I = "The image content is as follows: <Image><ImageHere></Image>. "  # noqa: E741
S = "The subtitle of this video is: <Subtitle>I {really} mean it.</Subtitle>. "
Q = "Now, please answer my question based on all the provided information. What now? ###Assistant: "
N = (
    "The nonverbal clues (facial action units and audio emotion clues) are: "
    "<Nonverbal>A wide {question} smile</Nonverbal>. "
)
N_SHORT = "The nonverbal clues (facial action units) are: <Nonverbal>A wide {question} smile</Nonverbal>. "
U = "The AU (Action Unit) features are: <AU><AUHere></AU>. "

EXPECTED = {
    "faceframe": H + A + R + F_TOO + S + Q,
    "face": H + A + F + S + Q,
    "frame": H + A + R + S + Q,
    "audioonly": H + A + Q,
    "textonly": H + S + Q,
    "faceonly": H + F_FIRST + Q,
    "frameonly": H + R_FIRST + Q,
    "image": H + I + Q,
    "audio_text": A + S + Q,
    "face_text": F_FIRST + S + Q,
    "frame_text": R_SMALL + S + Q,
    "multiface_text": H + M + S + Q,
    "multiface_audio_face_text": H + M + A + F + S + Q,
    "multiframe_audio_frame_text": H + M + A + R + S + Q,
    "multiface_audio_face_frame_text": H + M + A + F + R + S + Q,
    "face_frame_audio": H + A + F + R + S + Q,
}
WITH_AU_TEXT = {
    "multiface_audio_face_frame_au_text": H + M + A + F + R + N + S + Q,
    "multiface_audio_face_au_text": H + M + A + F + N + S + Q,
    "auonly": H + N + Q,
    "audio_au_text": A + N + S + Q,
    "face_frame_au_text": H + R_FIRST + F_TOO + N_SHORT + S + Q,
    "multiframe_audio_frame_au_text": H + M + A + R + N + S + Q,
    "face_frame_audio_au": H + A + F + R + N + S + Q,
}
TEXTS = {"question": "What now?", "subtitle": "I {really} mean it.", "au_text": "A wide {question} smile"}


def test_every_mode_is_written_out_here() -> None:
    assert sorted(EXPECTED | WITH_AU_TEXT) == mode_names()


@pytest.mark.parametrize("au", ["features", "text"])
@pytest.mark.parametrize("name", EXPECTED)
def test_modes_without_au(name: str, au: AuAs) -> None:
    assert get_mode(name, au).build(**TEXTS) == EXPECTED[name]


@pytest.mark.parametrize("name", WITH_AU_TEXT)
def test_modes_with_au_as_text(name: str) -> None:
    assert get_mode(name, "text").build(**TEXTS) == WITH_AU_TEXT[name]


@pytest.mark.parametrize("name", WITH_AU_TEXT)
def test_modes_with_au_as_features_have_the_placeholder_in_its_place(name: str) -> None:
    assert get_mode(name, "features").build(**TEXTS) == WITH_AU_TEXT[name].replace(N, U).replace(N_SHORT, U)


def test_the_guides_first_mode_letter_by_letter() -> None:
    built = get_mode("face_frame_audio_au").build(question=QUESTIONS["labels"], subtitle="你好, what?")
    assert built == (
        "###Human: The audio content is as follows: <Audio><AudioHere></Audio>. Meanwhile, we uniformly sample raw "
        "frames from the video and extract faces from these frames: <Video><FaceHere></Video>. Meanwhile, we uniformly "
        "sample raw frames from the video: <Video><FrameHere></Video>. The AU (Action Unit) features are: "
        "<AU><AUHere></AU>. The subtitle of this video is: <Subtitle>你好, what?</Subtitle>. Now, please answer my "
        "question based on all the provided information. Please recognize all possible emotional states of the "
        "character. ###Assistant: "
    )


@pytest.mark.parametrize(
    ("name", "needs", "merges"),
    [
        ("face_frame_audio_au", ("audio", "face", "frame", "au", "subtitle"), None),
        ("multiframe_audio_frame_text", ("frame", "audio", "subtitle"), "frame"),
        ("multiface_text", ("face", "audio", "subtitle"), "face"),
        ("image", ("image",), None),
    ],
)
def test_a_mode_says_what_a_sample_must_bring(name: str, needs: tuple[str, ...], merges: str | None) -> None:
    mode = get_mode(name)
    assert (mode.needs, mode.merges) == (needs, merges)


def test_a_masked_input_takes_its_sentence_and_the_merged_token_with_it() -> None:
    mode = get_mode("multiface_audio_face_frame_au_text", "features")
    assert mode.build(**TEXTS, masked={"face"}) == H + A + R + U + S + Q
    assert mode.build(**TEXTS, masked={"audio"}) == H + F + R + U + S + Q
    assert mode.build(**TEXTS, masked={"frame", "au"}) == H + M + A + F + S + Q
    assert mode.build(question="What now?", masked={"face", "subtitle"}) == H + A + R + U + Q


def test_masking_everything_is_an_error_and_not_a_question_about_nothing() -> None:
    with pytest.raises(InputError, match=r"nothing is left of the sample but the question \(without audio\)"):
        get_mode("audioonly").build(question="What now?", masked={"audio"})


def test_an_empty_au_text_is_left_out() -> None:
    built = get_mode("face_frame_audio_au", "text").build(question="What now?", subtitle="", au_text="")
    assert built == H + A + F + R + "The subtitle of this video is: <Subtitle></Subtitle>. " + Q


def test_absent_texts_are_errors() -> None:
    with pytest.raises(InputError, match="needs a subtitle"):
        get_mode("frame").build(question="What now?")
    with pytest.raises(InputError, match="needs a description of the face"):
        get_mode("auonly", "text").build(question="What now?")


def test_a_placeholder_inside_a_text_is_refused() -> None:
    with pytest.raises(InputError, match="subtitle holds <FaceHere>"):
        get_mode("frame").build(question="What now?", subtitle="see <FaceHere>")


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'face_audio' is no mode; modes are .*face_frame_audio_au"):
        get_mode("face_audio")


def test_placeholders_are_repeated_per_token() -> None:
    built = get_mode("frame").build(question="What now?", subtitle="x")
    assert expand(built, {"audio": 1, "frame": 3, "multi": 8}).count("<FrameHere><FrameHere><FrameHere></Video>") == 1
    assert expand(built, {"frame": 1}) == built


def test_placeholders_keep_the_order_that_fixes_their_ids() -> None:
    assert prompt.PLACEHOLDERS == (
        "<ImageHere>",
        "<AudioHere>",
        "<FrameHere>",
        "<FaceHere>",
        "<MultiHere>",
        "<NonverbalHere>",
    )
