"""From a free answer to a list of emotion labels, and from labels to a sentiment, by rules.

A language model does this in the published evaluation; the rules here are a repeatable alternative whose
scores are not comparable with those, and the table says which was used.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from affect_infer.scores.wheels import N_WHEELS, Wheels, split_labels

# The centres of the five wheels that have a sign; `surprised` and `genius` have none.
POSITIVE = {"happy", "joyful", "joy", "peaceful", "powerful"}
NEGATIVE = {"mad", "angry", "anger", "sad", "scared", "fear", "fearful", "disgust", "disgusted", "bad"}

_NEGATION = {"no", "not", "without", "never", "nor", "neither", "hardly"}
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


def labels_by_rules(answer: str, wheels: Wheels) -> list[str]:
    """The labels of an answer, in order, each once.

    A list such as "happy, excited" is split; in running text every form of a word that stands on a wheel counts,
    unless one of the three words before it negates it ("not angry", "no sign of fear").
    """
    text = answer.strip().rstrip(".").lower()
    parts = split_labels(re.sub(r"[;/、，\n]|\band\b", ",", text))
    if parts and all(len(part.split()) <= 2 for part in parts):
        return list(dict.fromkeys(parts))
    on_wheels = {word for wheel in wheels.clusters for word in wheel}
    words = _WORD.findall(text)
    found = []
    for place, word in enumerate(words):
        negated = _NEGATION & set(words[max(0, place - 3) : place])
        if not negated and any(base in on_wheels for base in wheels.forms.get(word, ())):
            found.append(word)
    return list(dict.fromkeys(found))


def sentiment_by_rules(labels: Sequence[str], wheels: Wheels) -> str:
    """`positive`, `negative` or `neutral`: the sign that most labels have on most wheels; a tie is neutral."""
    signs: Counter[str] = Counter()
    for label in labels:
        for wheel in range(N_WHEELS):
            for cluster in wheels.clusters_of([label], wheel):
                signs["positive"] += cluster in POSITIVE
                signs["negative"] += cluster in NEGATIVE
    if signs["positive"] == signs["negative"]:
        return "neutral"
    return "positive" if signs["positive"] > signs["negative"] else "negative"
