"""Numbers that are none become no answers: a failure of that sample, and the others of its batch are answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made import request

from affect_infer.model.affect_model import AffectModel, Answer, Request, load_model
from affect_infer.model.device import device_in_force, dtype_in_force
from affect_infer.model.finite import not_finite
from affect_infer.model.generate import Sampling
from affect_infer.model.language import load_language
from affect_infer.results import Results, read_results
from affect_infer.run.hybrid import run
from affect_infer.scores import labelling
from affect_infer.scores.labelling import label_results
from affect_infer.settings.settings import Settings
from featurestore.errors import ConfigError, InputError
from featurestore.features import Failure

Files = tuple[Path, Path]
DRAWN, GREEDY = Sampling(max_new_tokens=12), Sampling(greedy=True, max_new_tokens=12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_any_place_of_any_tensor_is_looked_at(dtype: torch.dtype) -> None:
    good = {"a": torch.ones(3, 40, dtype=dtype), "none": torch.ones(0), "whole": torch.arange(3)}
    assert not_finite(good) == []
    assert not_finite({}) == []
    for value in (float("nan"), float("inf"), float("-inf")):
        for place in (0, 57, 119):
            bad = torch.ones(120, dtype=dtype)
            bad[place] = value
            assert not_finite({**good, "b": bad.view(3, 40)}) == ["b"]


@contextmanager
def logits(model: AffectModel, change: Callable[[torch.Tensor, int], None]) -> Iterator[None]:
    """The head's output, changed in place at the n-th step."""
    steps = iter(range(10**6))

    def hook(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        change(output := output.clone(), next(steps))
        return output

    handle = model.language.model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", [0, 4])
def test_one_row_that_is_not_finite_takes_no_other_with_it(
    tiny_model: AffectModel, sampling: Sampling, value: float, step: int
) -> None:
    several = [request(n) for n in range(16)]
    whole = [answer.n_tokens == 12 for answer in tiny_model.answer(several, sampling)]
    requests = [one for one, reaches in zip(several, whole, strict=True) if reaches][:4]
    assert len(requests) == 4
    before = tiny_model.answer(requests, sampling)

    def change(rows: torch.Tensor, at: int) -> None:
        if at == step:
            rows[2, ..., 5] = value

    with logits(tiny_model, change):
        after = tiny_model.answer(requests, sampling)
    assert [after[n] for n in (0, 1, 3)] == [before[n] for n in (0, 1, 3)]
    assert isinstance(after[2], Failure)
    told = f"sample {requests[2].id!r} has no answer: the language model's logits are not finite in float32; check"
    assert told in after[2].message


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_features_that_are_not_finite_are_named(tiny_model: AffectModel, sampling: Sampling) -> None:
    whole = request(1)
    face = whole.features["face"].copy()
    face[3, 3] = np.nan
    broken = Request("broken", whole.prompt, {**whole.features, "face": face}, whole.merges)
    found = tiny_model.answer([broken, whole], sampling)
    assert isinstance(found[0], Failure)
    assert "sample 'broken' has no answer: its face features are not finite: remove them" in found[0].message
    assert isinstance(found[1], Answer)


def test_heads_that_overflow_say_which_dtype_helps(tiny_files: Files) -> None:
    llm, checkpoint = tiny_files
    model, _ = load_model(checkpoint, str(llm), dtype="float16")
    whole = request(1)
    large = {**whole.features, "audio": whole.features["audio"] + np.float32(9e4)}
    (found,) = model.answer([Request("loud", whole.prompt, large, whole.merges)], GREEDY)
    assert isinstance(found, Failure)
    assert "heads make of its audio features what is not finite in float16; use --dtype bfloat16 or" in found.message


def test_heads_of_a_checkpoint_may_not_fit_a_dtype(tiny_files: Files, tmp_path: Path) -> None:
    content = torch.load(tiny_files[1], weights_only=True)
    content["model"]["fc_att.bias"] = torch.full((2,), 7e4)
    torch.save(content, tmp_path / "large.pth")
    with pytest.raises(InputError, match=r"1 tensors are not finite in float16: fc_att\.bias; use --dtype bfloat16"):
        load_model(tmp_path / "large.pth", str(tiny_files[0]), dtype="float16")
    load_model(tmp_path / "large.pth", str(tiny_files[0]), dtype="bfloat16")


class Third:
    """A model without an answer to the third sample of each batch."""

    batch_size_limit = None

    def answer(self, requests: list[Request], sampling: Sampling) -> list[Answer | Failure]:
        return [
            Failure("not finite", f"sample {one.id!r} has no answer: nan", False) if n == 2 else Answer("calm", 1)
            for n, one in enumerate(requests)
        ]


def test_an_unanswered_sample_ends_the_run_or_is_skipped(stored: Callable[..., Settings]) -> None:
    with pytest.raises(InputError, match=r"'sample_00000003' has no answer: nan \(mer2023\)\. What was answered"):
        run(stored(), load=lambda settings, plans: (Third(), []), progress=False)
    (path,) = stored().output.rglob("*.jsonl")
    assert len(read_results(path)[1]) == 4, "the others of its batch"
    for how in ("skip", "mask"):
        settings = replace(stored(), on_missing=how, output=stored().output / how)
        report = run(settings, load=lambda settings, plans: (Third(), []), progress=False)
        assert report.answered == 10
        assert report.skipped["mer2023/sample_00000003"] == {"answer": "sample 'sample_00000003' has no answer: nan"}
        lines = read_results(Path(report.files[0]))[1]
        assert lines["sample_00000003"]["skipped"] == report.skipped["mer2023/sample_00000003"]
        with np.load(Path(report.files[0]).with_suffix(".npz"), allow_pickle=True) as loaded:
            assert "sample_00000003" not in loaded["name2reason"].tolist()


def test_labels_of_what_is_not_finite_are_not_written(
    tiny_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    with Results(path, {"dataset": "cmumosi"}) as results:
        for id in "abc":
            results.append({"id": id, "answer": f"sad {id}"})
    generate = labelling.generate
    monkeypatch.setattr(
        labelling, "generate", lambda language, embedded, lengths, ids, sampling: [
            None if id == "b" and lost else tokens
            for id, tokens in zip(ids, generate(language, embedded, lengths, ids, sampling), strict=True)
        ],
    )  # fmt: skip
    lost = True
    with pytest.raises(InputError, match=r"answer of sample 'b' are not finite in float32; .*Labels so far are kept"):
        label_results([path], str(tiny_files[0]), "cpu")
    assert list(read_results(tmp_path / "a.labels.jsonl")[1]) == ["a", "c"]
    lost = False
    label_results([path], str(tiny_files[0]), "cpu", dtype="float32")
    found, lines = read_results(tmp_path / "a.labels.jsonl")
    assert (sorted(lines), found["dtype"], found["run"]) == (["a", "b", "c"], "float32", {"dataset": "cmumosi"})
    with pytest.raises(ConfigError, match=r"dtype: 'float32' then, 'bfloat16' now"):
        label_results([path], str(tiny_files[0]), "cpu", dtype="bfloat16")


def test_what_is_in_force_depends_on_the_device() -> None:
    assert dtype_in_force(None, "cpu") == "float32"
    assert dtype_in_force("bfloat16", "nowhere") == "bfloat16"
    here = "cuda" if torch.cuda.is_available() else "cpu"
    assert device_in_force(None).startswith(here)
    assert dtype_in_force(None, None) == ("float16" if here == "cuda" else "float32")
    with pytest.raises(ConfigError, match=r"device 'nowhere' cannot be used here .*there is cpu"):
        device_in_force("nowhere")


def test_the_first_line_says_what_was_in_force(stored: Callable[..., Settings]) -> None:
    model = lambda settings, plans: (Third(), [])  # noqa: E731
    skipping = replace(stored(), on_missing="skip")
    (file,) = run(skipping, load=model, progress=False).files
    said = json.loads(Path(file).read_text(encoding="utf-8").splitlines()[0])["run"]
    assert said["dtype"] == "float32"
    assert said["sampling"] == {"greedy": True, "max_new_tokens": 6}
    assert said["keys"].keys() == said["inputs"].keys() == {"face", "frame", "audio", "au"}
    assert said["keys"]["frame"] == "mer2023/frame/QUICK_PIXELS/emotion_peak/8"
    run(replace(skipping, dtype="float32"), load=model, progress=False)
    with pytest.raises(ConfigError, match=r"dtype: 'float32' then, 'float16' now"):
        run(replace(skipping, dtype="float16"), load=model, progress=False)


def test_a_model_of_labels_is_read_as_that_of_answers(tiny_files: Files) -> None:
    language, _ = load_language(str(tiny_files[0]), dtype="bfloat16")
    assert language.dtype == "bfloat16"
