"""Labelling: answers become lists of emotion labels, and those a sentiment, by a language model.

A step of its own between running and scoring, taken up again where it stopped.  Greedy, so that it can be repeated;
the published evaluation draws with temperature 0.7 and no seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affect_infer.model.device import device_in_force, dtype_in_force
from affect_infer.model.generate import Sampling, generate
from affect_infer.model.language import BOS, DEFAULT_LLM, Language, load_language, way_out
from affect_infer.model.model_files import model_identity
from affect_infer.results import Results, read_results
from affect_infer.scores.evaluation import labels_path, result_files
from affect_infer.scores.wheels import split_labels
from featurestore.errors import InputError, UnknownDatasetError

VERSION = 1  # of the two questions below
LIST = (
    "The text describes a person's emotional state. List the emotions that it says the person shows, each as one word "
    "or short phrase in English, separated by commas, in square brackets, such as [happy, excited]. Leave out emotions "
    "that it says are absent. If there are none, answer [].\nText: {text}"
)
SENTIMENT = (
    "Is the overall sentiment of these emotions positive, negative or neutral? Answer with that one word.\n"
    "Emotions: {text}"
)
SENTIMENTS = ("positive", "negative", "neutral")


def label_results(
    results: Sequence[Path],
    llm: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    dtype: str | None = None,
) -> list[Path]:
    """Write `*.labels.jsonl` beside each result file; returns those files.  Imports torch.

    device, dtype   of the language model; by default a GPU where there is one, and float16 there, float32 on a CPU
    Raises InputError for an answer that the model's numbers are not finite for; labels of the others are kept.
    """
    source, device = llm or DEFAULT_LLM, device_in_force(device)
    files = list(result_files(results))
    language, _ = load_language(source, device=device, dtype=dtype_in_force(dtype, device))
    return [_label(path, language, batch_size) for path in files]


def _label(path: Path, language: Language, batch_size: int) -> Path:
    run, lines = read_results(path)
    answers = {id: line["answer"] for id, line in lines.items() if "answer" in line}
    with_sentiment = _is_valence(run["dataset"])
    identity = {
        "labels_of": path.name,
        "run": run,
        "llm": model_identity(None, language.source)["llm"],
        "dtype": language.dtype,
        "version": VERSION,
    }
    target = labels_path(path)
    with Results(target, identity) as written:
        todo = [id for id in answers if id not in written.answered]
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            lists = _ask(language, {id: LIST.format(text=answers[id]) for id in batch}, 512)
            found: dict[str, dict[str, Any]] = {id: {"labels": read_list(text)} for id, text in lists.items()}
            if with_sentiment:
                asked = {id: SENTIMENT.format(text=", ".join(found[id]["labels"])) for id in found}
                said = _ask(language, asked, 8) if asked else {}
                found = {id: {**found[id], "sentiment": read_sentiment(text)} for id, text in said.items()}
            for id, line in found.items():
                written.append({"id": id, **line})
            if lost := [id for id in batch if id not in found]:
                raise InputError(
                    f"{path}: the language model's logits for the answer of sample {lost[0]!r} are not finite in "
                    f"{language.dtype}; {way_out(language.dtype)}. Labels so far are kept"
                )
    return target


def read_list(text: str) -> list[str]:
    """The labels in the last brackets of an answer; the whole answer where there are none."""
    start, end = text.rfind("["), text.rfind("]")
    inside = text[start + 1 : end] if 0 <= start < end else text
    return [label.lower() for label in split_labels(inside.replace("\n", ","))]


def read_sentiment(text: str) -> str:
    """The sentiment that an answer names first; neutral where it names none."""
    places = {name: text.lower().find(name) for name in SENTIMENTS}
    named = {name: place for name, place in places.items() if place >= 0}
    return min(named, key=lambda name: named[name]) if named else "neutral"


def _ask(language: Language, questions: Mapping[str, str], max_new_tokens: int) -> dict[str, str]:
    """{sample: answer}, without those that the model's numbers are not finite for."""
    import torch

    # Qwen2.5's own way of marking turns, without its system message.
    prompts = [language.ids(f"{BOS}user\n{question}<|im_end|>\n{BOS}assistant\n") for question in questions.values()]
    longest = max(map(len, prompts))
    padded = [[0] * (longest - len(ids)) + ids for ids in prompts]
    with torch.inference_mode():
        embedded = language.model.get_input_embeddings()(torch.tensor(padded, device=language.device))
    sampling = Sampling(greedy=True, max_new_tokens=max_new_tokens)
    answers = generate(language, embedded, [len(ids) for ids in prompts], list(questions), sampling)
    pairs = zip(questions, answers, strict=True)
    return {id: language.tokenizer.decode(tokens) for id, tokens in pairs if tokens is not None}


def _is_valence(dataset: str) -> bool:
    from featurestore.datasets import resolve_dataset

    try:
        labels = resolve_dataset(dataset).labels
    except UnknownDatasetError:
        return False
    return labels is not None and labels.kind == "valence"
