"""Who appears in the demo dataset, what they feel, and when they show it most."""

from __future__ import annotations

from dataclasses import dataclass

FPS = 25


@dataclass(frozen=True, slots=True)
class Expression:
    """How far a face departs from rest: 0 at rest, 1 (or -1) at most."""

    smile: float = 0.0
    """corners of the mouth up, or down when negative"""
    open_mouth: float = 0.0
    raised_brows: float = 0.0
    lowered_brows: float = 0.0
    wide_eyes: float = 0.0
    """or narrow when negative"""

    def times(self, amount: float) -> Expression:
        return Expression(
            self.smile * amount,
            self.open_mouth * amount,
            self.raised_brows * amount,
            self.lowered_brows * amount,
            self.wide_eyes * amount,
        )


@dataclass(frozen=True, slots=True)
class Emotion:
    """One of the six classes of MER2023, as it is at its peak."""

    expression: Expression
    aus: dict[str, float]
    """facial action unit -> intensity at the peak, 0 to 5 as OpenFace has it"""
    valence: float
    summary: str
    """what MER-Factory would write of the face"""


EMOTIONS = {
    "neutral": Emotion(
        Expression(open_mouth=0.15),
        {"AU25": 0.7, "AU45": 0.5},
        0.0,
        "The person keeps a neutral face with minimal movement.",
    ),
    "angry": Emotion(
        Expression(smile=-0.5, lowered_brows=1.0, wide_eyes=-0.3),
        {"AU04": 3.4, "AU07": 2.6, "AU23": 2.1},
        -2.4,
        "The person shows anger: the brows are lowered, the lids and lips are tight.",
    ),
    "happy": Emotion(
        Expression(smile=1.0, open_mouth=0.5, wide_eyes=-0.2),
        {"AU06": 3.0, "AU12": 3.9, "AU25": 2.4},
        2.8,
        "The person shows happiness with a wide smile and raised cheeks.",
    ),
    "sad": Emotion(
        Expression(smile=-1.0, raised_brows=0.4, lowered_brows=0.3, wide_eyes=-0.5),
        {"AU01": 2.2, "AU04": 1.4, "AU15": 2.9, "AU17": 1.2},
        -2.0,
        "The person shows sadness: the corners of the lips point down, the inner brows are raised.",
    ),
    "worried": Emotion(
        Expression(smile=-0.3, open_mouth=0.2, raised_brows=0.7, lowered_brows=0.5, wide_eyes=0.3),
        {"AU01": 2.6, "AU02": 1.1, "AU04": 2.3, "AU20": 1.7},
        -1.2,
        "The person shows worry: the brows are raised and drawn together, the lips are stretched.",
    ),
    "surprise": Emotion(
        Expression(open_mouth=1.0, raised_brows=1.0, wide_eyes=1.0),
        {"AU01": 3.1, "AU02": 2.9, "AU05": 2.7, "AU26": 3.2},
        0.9,
        "The person shows surprise with raised brows, wide eyes and a dropped jaw.",
    ),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of the demo dataset."""

    id: str
    emotion: str
    n_frames: int
    peak_index: int
    """0-based frame at which the expression is strongest"""
    english: str
    chinese: str


# Lengths of 2 to 5 seconds; peaks in the middle, near both ends and on them, where samplers differ.
CLIPS = (
    Clip("sample_00000001", "happy", 75, 40, "We did it, we really did it!", "我们做到了，真的做到了！"),
    Clip("sample_00000002", "sad", 100, 71, "She left without a word.", "她一句话没说就走了。"),
    Clip("sample_00000003", "angry", 62, 0, "Do not ever do that again!", "不许再这样做！"),
    Clip("sample_00000004", "surprise", 50, 12, "You are here already?", "你已经到了？"),
    Clip("sample_00000005", "neutral", 88, 44, "The bus leaves at nine.", "公共汽车九点开。"),
    Clip("sample_00000006", "worried", 119, 101, "What if nobody finds us?", "要是没人找到我们怎么办？"),
    Clip("sample_00000007", "happy", 51, 50, "It is for you, open it.", "这是给你的，打开看看。"),
    Clip("sample_00000008", "sad", 125, 30, "I miss the old housekeeping.", "我想念老房子。"),
    Clip("sample_00000009", "angry", 80, 78, "You promised me!", "你答应过我的！"),
    Clip("sample_00000010", "surprise", 97, 60, "All of it, in one night?", "一个晚上就全部做完了？"),
    Clip("sample_00000011", "neutral", 66, 1, "Put it on the table, please.", "请放在桌子上。"),
    Clip("sample_00000012", "worried", 104, 53, "He should have called by now.", "他早该打电话来了。"),
)
