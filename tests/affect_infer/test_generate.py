"""How tokens are chosen, where an answer ends, and what of it is kept."""

from __future__ import annotations

import pytest
import torch
from made import request

from affect_infer.model.affect_model import AffectModel
from affect_infer.model.generate import Sampling, answer_text, shortened
from affect_infer.model.generate import _drawn as drawn
from affect_infer.model.generate import _generator as generator
from affect_infer.model.prompt import get_mode, mode_names
from featurestore.errors import ConfigError

EOS = "<|im_end|>"


@pytest.mark.parametrize(
    ("decoded", "answer"),
    [
        (" happy, excited<|im_end|>", "happy, excited"),
        ("happy###", "happy"),
        ("happy ### Human: more ###", "happy ### Human: more"),
        ("###Assistant: calm ###", "calm"),
        ("a<|im_start|>sad<|im_start|>b", "sad"),
        ("Assistant: one Assistant: two", "two"),
        ("  \n", ""),
    ],
)
def test_the_published_clean_up(decoded: str, answer: str) -> None:
    assert answer_text(decoded, EOS) == answer


def test_long_prompts_are_cut_on_the_right_and_then_on_the_left() -> None:
    ids = list(range(2500))
    assert shortened(ids, 1200) == list(range(1200, 2000))
    assert shortened(ids, 24) == list(range(24, 2000))
    assert shortened(ids[:900], 1200) == list(range(100, 900))
    assert shortened(ids[:800], 1200) == list(range(800))


@pytest.mark.parametrize(
    "subtitle",
    [
        "",
        "Well, really?!",
        "你好 👋\n\ttab",
        "<Audio> ### <|im_end|> 1234",
        "  blanks  ",
        "a>. The end>. \u00c9t\u00e9>.  Two>.\nNo >. I'm>.A",
        ">.",
        " The b>. ",
    ],
)
def test_ids_are_those_of_the_whole_prompt_tokenized_at_once(tiny_model: AffectModel, subtitle: str) -> None:
    for mode in mode_names():
        prompt = get_mode(mode, "features").build(question="What now?", subtitle=subtitle)
        for _ in range(2):
            ids = tiny_model.language.ids(prompt)
            assert ids == tiny_model.language.tokenizer(prompt, add_special_tokens=False)["input_ids"]


def with_bias(model: AffectModel, tokens: dict[int, float]) -> torch.Tensor:
    bias = torch.zeros(model.language.model.config.vocab_size)
    for token, value in tokens.items():
        bias[token] = value
    return bias


def test_an_answer_ends_at_a_stop_string_and_at_every_end_id(
    tiny_model: AffectModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = tiny_model.language
    one, pair, _ = language.stops
    assert len(one) == 1
    assert len(pair) == 2
    head = language.model.get_output_embeddings()
    for tokens, expected in [({one[0]: 1e4}, [one[0]]), ({2: 1e4}, []), ({0: 1e4}, [])]:
        bias = with_bias(tiny_model, tokens)
        hook = head.register_forward_hook(lambda _module, _inputs, output, bias=bias: output + bias)
        answer = tiny_model.answer([request(1)], Sampling(greedy=True, max_new_tokens=9))[0]
        hook.remove()
        assert list(answer.tokens) == expected


def test_an_answer_stops_at_max_new_tokens(tiny_model: AffectModel) -> None:
    assert [len(a.tokens) for a in tiny_model.answer([request(1)], Sampling(greedy=True, max_new_tokens=5))] == [5]


def test_samples_draw_the_same_whatever_their_neighbours(tiny_model: AffectModel) -> None:
    sampling = Sampling(seed=7, max_new_tokens=12)
    together = tiny_model.answer([request(n) for n in range(4)], sampling)
    alone = [tiny_model.answer([request(n)], sampling)[0] for n in (3, 1)]
    assert [a.tokens for a in alone] == [together[3].tokens, together[1].tokens]
    assert len({tuple(a.tokens) for a in together}) == 4


def test_another_seed_draws_otherwise(tiny_model: AffectModel) -> None:
    one, other = (tiny_model.answer([request(1)], Sampling(seed=seed, max_new_tokens=12))[0] for seed in (0, 1))
    assert one.tokens != other.tokens


def test_draws_follow_the_truncated_distribution() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = chances.log().repeat(4000, 1)[:, [2, 0, 3, 1]]
    draws = [generator(0, f"s{number}") for number in range(4000)]
    counts = torch.bincount(drawn(logits, Sampling(top_p=0.9, top_k=0), draws), minlength=4) / 4000
    # 0.5 + 0.3 < 0.9, so the third still counts; the fourth does not.
    expected = torch.tensor([0.15, 0.5, 0.0, 0.3]) / 0.95
    torch.testing.assert_close(counts, expected, rtol=0, atol=0.025)
    counts = torch.bincount(drawn(logits, Sampling(top_p=1.0, top_k=2), draws), minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.0, 0.5, 0.0, 0.3]) / 0.8, rtol=0, atol=0.025)


def test_the_models_own_generation_settings_do_not_enter(tiny_model: AffectModel) -> None:
    """Qwen2.5 ships repetition_penalty 1.05; a greedy answer that repeats itself proves that it is not applied."""
    settings = tiny_model.language.model.generation_config
    assert (settings.repetition_penalty, settings.top_k) == (1.05, 20)
    before = tiny_model.answer([request(n) for n in range(3)], Sampling(greedy=True, max_new_tokens=24))
    settings.repetition_penalty = 5.0
    try:
        after = tiny_model.answer([request(n) for n in range(3)], Sampling(greedy=True, max_new_tokens=24))
    finally:
        settings.repetition_penalty = 1.05
    assert [a.tokens for a in before] == [a.tokens for a in after]


@pytest.mark.parametrize(
    "settings", [{"max_new_tokens": 0}, {"max_new_tokens": 2000}, {"temperature": 0.0}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be 1 to 1999|use --greedy"):
        Sampling(**settings)  # type: ignore[arg-type]
