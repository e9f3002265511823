"""What AffectGPT does between encoders and language model, written from its description in numpy alone.

Nothing of affect_infer is used here.  `mutant` breaks one step on purpose: the comparison must notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Weights = Mapping[str, Array]

LETTERS = {
    "H": "###Human: ",
    "M": "The audio and video merged info is: <Multi><MultiHere></Multi>. ",
    "A": "The audio content is as follows: <Audio><AudioHere></Audio>. ",
    "F": "Meanwhile, we uniformly sample raw frames from the video and extract faces from these frames: "
    "<Video><FaceHere></Video>. ",
    "R": "Meanwhile, we uniformly sample raw frames from the video: <Video><FrameHere></Video>. ",
    "U": "The AU (Action Unit) features are: <AU><AUHere></AU>. ",
    "N": "The nonverbal clues (facial action units and audio emotion clues) are: <Nonverbal>{n}</Nonverbal>. ",
    "S": "The subtitle of this video is: <Subtitle>{s}</Subtitle>. ",
    "Q": "Now, please answer my question based on all the provided information. {q} ###Assistant: ",
}
MODES = {
    "frame": "H A R S Q",
    "face": "H A F S Q",
    "face_frame_audio": "H A F R S Q",
    "face_frame_audio_au": "H A F R U S Q",
    "multiface_audio_face_text": "H M A F S Q",
    "multiframe_audio_frame_text": "H M A R S Q",
    "multiface_audio_face_frame_au_text": "H M A F R U S Q",
}


def prompt(mode: str, question: str, subtitle: str) -> str:
    text = "".join(LETTERS[letter] for letter in MODES[mode].split())
    return text.replace("{s}", subtitle).replace("{q}", question)


def linear(weights: Weights, name: str, x: Array) -> Array:
    result: Array = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return result


def attended(weights: Weights, name: str, rows: Array, mutant: str = "") -> Array:
    """x^T (W x), without softmax, for one row too."""
    if f"{name}.weight" not in weights:
        mean: Array = rows.mean(0)
        return mean
    if mutant == "one row skips its weight" and len(rows) == 1:
        return rows[0]
    a = linear(weights, name, rows)
    if mutant == "softmax":
        a = np.exp(a - a.max())
        a /= a.sum()
    result: Array = (rows.T @ a)[:, 0]
    return result


def visual_token(weights: Weights, rows: Array, mutant: str = "") -> Array:
    return linear(weights, "affectgpt_proj", attended(weights, "video_attention_mlp", rows, mutant))


def audio_token(weights: Weights, rows: Array, mutant: str = "") -> Array:
    return linear(weights, "audio_llama_proj", attended(weights, "audio_attention_mlp", rows, mutant))


def au_token(weights: Weights, rows: Array, mutant: str = "") -> Array:
    return linear(weights, "au_llama_proj", attended(weights, "au_attention_mlp", rows, mutant))


def multi_token(weights: Weights, visual: Array, acoustic: Array, mutant: str = "") -> Array:
    v = linear(weights, "multi_video_embs", visual.mean(0))
    u = linear(weights, "multi_audio_embs", acoustic.mean(0))
    w = linear(weights, "fc_att", linear(weights, "attention_mlp", np.concatenate([v, u])))
    if mutant == "softmax":
        w = np.exp(w - w.max()) / np.exp(w - w.max()).sum()
    return linear(weights, "multi_llama_proj", w[0] * v + w[1] * u)


def tokens(weights: Weights, features: Mapping[str, Array], merges: str | None, mutant: str = "") -> dict[str, Array]:
    """{placeholder: token} of one sample."""
    found = {}
    if "frame" in features:
        found["<FrameHere>"] = visual_token(weights, features["frame"], mutant)
    if "face" in features:
        found["<FaceHere>"] = visual_token(weights, features["face"], mutant)
    if "audio" in features:
        found["<AudioHere>"] = audio_token(weights, features["audio"], mutant)
    if "au" in features:
        found["<AUHere>"] = au_token(weights, features["au"], mutant)
    if merges:
        found["<MultiHere>"] = multi_token(weights, features[merges], features["audio"], mutant)
    return found


def embedded(
    ids: Sequence[int], table: Array, token_of: Mapping[int, Array], max_new_tokens: int, bos: int, mutant: str = ""
) -> Array:
    """(length, hidden): rows of the embedding table, tokens where placeholder ids stand, cut to what fits."""
    ids = [bos, *ids] if mutant == "bos" else list(ids)
    ids = ids[:2000]
    ids = ids[max(0, len(ids) + max_new_tokens - 2000) :]
    return np.stack([token_of[id] if id in token_of else table[id] for id in ids])


def audio_windows(samples: Array) -> Array:
    """(8, 32000): two-second windows of mono 16 kHz sound, evenly over it, each with its own mean taken away."""
    if len(samples) < 32000:
        samples = np.concatenate([samples, np.zeros(32000 - len(samples), np.float32)])
    # The clip sampler is given the duration as a float and goes on in fractions: 4.76 s leave a little less than 2.76.
    spare = Fraction(len(samples) / 16000 - 2)
    starts = [int(spare * i / 8 * 16000) for i in range(8)]
    windows = np.stack([samples[start : start + 32000] for start in starts]).astype(np.float64)
    result: Array = (windows - windows.mean(1, keepdims=True)).astype(np.float32)
    return result


def normalised(windows: Array, mutant: str = "") -> Array:
    """Zero mean and unit variance over all windows of the sample together, as Wav2Vec2FeatureExtractor does it."""
    axis: Any = 1 if mutant == "each window normalised" else None
    mean, variance = windows.mean(axis, keepdims=True), windows.var(axis, keepdims=True)
    result: Array = (windows - mean) / np.sqrt(variance + 1e-7)
    return result


def uniform_rows(total: int, n: int = 8) -> list[int]:
    """floor(i * total / k), k = min(n, total); a short file repeats its last row."""
    k = min(n, total)
    rows = [int(i * total / k) for i in range(k)]
    return rows + [rows[-1]] * (n - k)
