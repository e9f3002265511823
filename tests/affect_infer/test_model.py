"""Embedded prompts equal the reference; batches say what one-by-one says; memory that runs out is met by less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from comparisons import assert_same
from made import features, request
from safetensors.numpy import load_file

from affect_infer.model.affect_model import AffectModel, Request
from affect_infer.model.checkpoint import read_checkpoint
from affect_infer.model.generate import Sampling
from affect_infer.model.prompt import QUESTIONS, get_mode
from featurestore.errors import InputError
from featurestore.quality.compare import rounding

Files = tuple[Path, Path]
MODES = sorted(reference.MODES)
HEADS = rounding(2)  # two layers, and what makes one token of them
GREEDY = Sampling(greedy=True, max_new_tokens=24)


def reference_prompt(model: AffectModel, files: Files, one: Request, mode: str, mutant: str = "") -> np.ndarray:
    """The embedded prompt of the reference, whose numbers come straight from the files."""
    table = load_file(files[0] / "model.safetensors")["model.embed_tokens.weight"]
    weights = {name: tensor.numpy() for name, tensor in read_checkpoint(files[1]).heads.items()}
    subtitle = "Well " * (int(one.id[1:]) % 7)
    text = reference.prompt(mode, QUESTIONS["labels"], subtitle)
    tokenizer = model.language.tokenizer
    found = reference.tokens(weights, one.features, one.merges, mutant)
    token_of = {tokenizer.convert_tokens_to_ids(name): token for name, token in found.items()}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return reference.embedded(ids, table, token_of, 24, tokenizer.bos_token_id, mutant)


def embedded_alone(model: AffectModel, one: Request, max_new_tokens: int) -> torch.Tensor:
    return model.embed([one], model.tokens_of([one]), max_new_tokens)[0][0]


@pytest.mark.parametrize("mode", MODES)
def test_the_embedded_prompt_equals_the_reference(tiny_model: AffectModel, tiny_files: Files, mode: str) -> None:
    several = [request(seed, mode) for seed in (1, 2, 6)]
    embedded, lengths, cuts = tiny_model.embed(several, tiny_model.tokens_of(several), 24)
    assert cuts == [0, 0, 0]
    assert embedded.shape[1] == max(lengths) > min(lengths)
    for one, row, length in zip(several, embedded.numpy(), lengths, strict=True):
        expected = reference_prompt(tiny_model, tiny_files, one, mode)
        assert len(expected) == length
        assert_same(row[-length:], expected, HEADS)


@pytest.mark.parametrize("mutant", ["bos", "softmax"])
def test_a_broken_reference_prompt_is_noticed(tiny_model: AffectModel, tiny_files: Files, mutant: str) -> None:
    one = request(1, "multiface_audio_face_text")
    embedded = embedded_alone(tiny_model, one, 24)
    broken = reference_prompt(tiny_model, tiny_files, one, "multiface_audio_face_text", mutant)
    assert embedded.shape != broken.shape or np.abs(embedded.numpy() - broken).max() > 1e-3


def test_a_long_prompt_loses_its_beginning_and_says_so(tiny_model: AffectModel, tiny_files: Files) -> None:
    # The audio placeholder is at the beginning: it is cut off, and its token is left out.
    one = request(1, "frame", subtitle="word " * 900)
    ids = tiny_model.prompt_ids(one)
    embedded, lengths, cuts = tiny_model.embed([one], tiny_model.tokens_of([one]), 1200)
    assert len(ids) > 2000
    assert (lengths, cuts) == ([800], [len(ids) - 800])
    table = load_file(tiny_files[0] / "model.safetensors")["model.embed_tokens.weight"]
    np.testing.assert_array_equal(embedded[0].numpy(), table[ids[1200:2000]])


def test_several_tokens_per_modality_repeat_the_one(tiny_model: AffectModel) -> None:
    model = AffectModel(tiny_model.heads, tiny_model.language, {"video": 3})
    one = request(1, "frame")
    ids = model.prompt_ids(one)
    places = [place for place, id in enumerate(ids) if id == model.language.placeholder_ids["<FrameHere>"]]
    assert places == list(range(places[0], places[0] + 3))
    embedded = embedded_alone(model, one, 24)
    for place in places:
        torch.testing.assert_close(embedded[place], model.tokens_of([one])[0]["frame"], rtol=0, atol=0)


def test_a_prompt_without_its_features_is_refused(tiny_model: AffectModel) -> None:
    one = Request("a", get_mode("faceonly").build(question="?"), {})
    with pytest.raises(InputError, match="sample 'a': the prompt has <FaceHere> but there are no features"):
        tiny_model.answer([one], GREEDY)


def requests() -> list[Request]:
    return [request(seed, mode) for seed, mode in enumerate([*MODES, *MODES])]


def one_by_one_by_transformers(model: AffectModel, one: Request, max_new_tokens: int) -> tuple[list[int], float]:
    """Tokens by transformers' own greedy generate, and the smallest lead of a chosen token over the next."""
    embedded = embedded_alone(model, one, max_new_tokens)
    out = model.language.model.generate(
        inputs_embeds=embedded[None], attention_mask=torch.ones(1, len(embedded), dtype=torch.long), do_sample=False,
        max_new_tokens=max_new_tokens, repetition_penalty=1.0, temperature=1.0, top_p=1.0, top_k=50, output_logits=True,
        return_dict_in_generate=True, eos_token_id=sorted(model.language.end_ids), pad_token_id=0,
    )  # fmt: skip
    best = torch.cat(out.logits).topk(2).values
    return [token for token in out.sequences[0].tolist() if token not in model.language.end_ids], float(
        (best[:, 0] - best[:, 1]).min()
    )


def test_batches_equal_one_by_one_token_for_token(tiny_model: AffectModel) -> None:
    alone = [one_by_one_by_transformers(tiny_model, one, 24) for one in requests()]
    # Without a clear lead, rounding would decide, and equality would mean nothing.
    assert min(lead for _, lead in alone) > 1e-4
    assert len({len(tiny_model.prompt_ids(one)) for one in requests()}) > 4
    for size in (1, 4, len(alone)):
        found = [
            answer.tokens
            for start in range(0, len(alone), size)
            for answer in tiny_model.answer(requests()[start : start + size], GREEDY)
        ]
        assert found == [tokens for tokens, _ in alone], f"batches of {size}"


def test_right_padding_would_be_noticed(tiny_model: AffectModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mutant of the test above: zeros behind the prompt, attended to."""
    from affect_infer.model import affect_model as module

    def padded(language, embedded, lengths, ids, sampling):  # type: ignore[no-untyped-def]
        shifted = torch.stack(
            [row.roll(-(len(row) - length), 0) for row, length in zip(embedded, lengths, strict=True)]
        )
        return generate(language, shifted, [embedded.shape[1]] * len(lengths), ids, sampling)

    alone = [tiny_model.answer([one], GREEDY)[0].tokens for one in requests()]
    generate = module.generate
    monkeypatch.setattr(module, "generate", padded)
    assert [answer.tokens for answer in tiny_model.answer(requests(), GREEDY)] != alone


def test_rows_of_another_length_share_a_batch(tiny_model: AffectModel) -> None:
    several = [Request(f"s{n}", request(n).prompt, features(n, au=n)) for n in (1, 2, 5)]
    together = tiny_model.tokens_of(several)
    for one, tokens in zip(several, together, strict=True):
        for name, token in tiny_model.tokens_of([one])[0].items():
            assert_same(tokens[name], token, HEADS)


def test_a_stored_float16_row_is_cast_once(tiny_model: AffectModel) -> None:
    half = {name: rows.astype(np.float16) for name, rows in features(3).items()}
    full = {name: rows.astype(np.float32) for name, rows in half.items()}
    one, other = (tiny_model.tokens_of([Request("s3", request(3).prompt, given)])[0] for given in (half, full))
    for name in one:
        assert_same(one[name], other[name], HEADS)


class Scarce(AffectModel):
    """A device whose memory holds a batch of three: that fault cannot be produced here."""

    tried: list[int]

    def _answer(self, requests, sampling):  # type: ignore[no-untyped-def]
        self.tried.append(len(requests))
        if len(requests) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super()._answer(requests, sampling)


def test_out_of_memory_halves_the_batch_and_remembers_it(tiny_model: AffectModel) -> None:
    scarce = Scarce(tiny_model.heads, tiny_model.language)
    scarce.tried = []
    short = Sampling(greedy=True, max_new_tokens=4)
    answers = scarce.answer(requests()[:8], short)
    assert scarce.tried == [8, 4, 2, 2, 2, 2]
    assert scarce.batch_size_limit == 2
    assert [a.tokens for a in answers] == [a.tokens for a in tiny_model.answer(requests()[:8], short)]


def test_one_sample_that_does_not_fit_says_what_helps(tiny_model: AffectModel) -> None:
    class None_(Scarce):
        def _answer(self, requests, sampling):  # type: ignore[no-untyped-def]
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(InputError, match=r"sample 's0' alone does not fit .*--max-new-tokens"):
        None_(tiny_model.heads, tiny_model.language).answer(requests()[:2], GREEDY)


def test_answers_are_the_same_whatever_the_process_has_set(tiny_model: AffectModel) -> None:
    one = [request(1, "multiface_audio_face_text")]
    wanted, plain = tiny_model.answer(one, GREEDY), embedded_alone(tiny_model, one[0], 24)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
            np.testing.assert_array_equal(embedded_alone(tiny_model, one[0], 24).numpy(), plain.numpy())
            assert tiny_model.answer(one, GREEDY) == wanted
            drawn = [tiny_model.answer(one, Sampling(max_new_tokens=8))]
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn == [tiny_model.answer(one, Sampling(max_new_tokens=8))]
