"""Generation in batches: left padding, stop strings, greedy or sampled with a seed per sample.

A loop of our own rather than `model.generate`: every row stops by itself, draws from its own seed whatever its
neighbours are, and nothing of the model's generation_config (Qwen2.5 has top_k 20 and repetition_penalty 1.05) enters.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from affect_infer.model.language import BOS, STOP, Language
from featurestore.encoders.surroundings import undisturbed
from featurestore.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_LENGTH = 2000  # prompt and answer together, as published
DRAWING = ("temperature", "top_p", "top_k", "seed")  # settings without effect where the likeliest token is taken
NO_TOKEN = -1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.  The defaults are those in force in the published runs."""

    greedy: bool = False
    temperature: float = 1.0
    top_p: float = 0.9
    top_k: int = 20
    """0 for no limit; the published code does not set it, so Qwen2.5's own 20 was in force"""
    seed: int = 0
    max_new_tokens: int = 1200

    def __post_init__(self) -> None:
        if not 0 < self.max_new_tokens < MAX_LENGTH:
            raise ConfigError(f"max_new_tokens {self.max_new_tokens} must be 1 to {MAX_LENGTH - 1}")
        if not (self.temperature > 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise ConfigError(
                f"sampling needs temperature > 0, 0 < top_p <= 1 and top_k >= 0, not {self.temperature}, "
                f"{self.top_p} and {self.top_k}; for the likeliest token use --greedy"
            )

    def in_force(self) -> dict[str, Any]:
        """JSON, without what changes no answer."""
        return {name: value for name, value in asdict(self).items() if not (self.greedy and name in DRAWING)}


def shortened(ids: Sequence[int], max_new_tokens: int) -> list[int]:
    """A long prompt is cut twice: to its first 2,000 ids, then to its last 2,000 - max_new_tokens."""
    return list(ids[:MAX_LENGTH])[-(MAX_LENGTH - max_new_tokens) :]


@undisturbed()
def generate(
    language: Language, embedded: Tensor, lengths: Sequence[int], ids: Sequence[str], sampling: Sampling
) -> list[list[int] | None]:
    """The new tokens of each prompt: without an id that ends it, with a stop string; None where logits are not finite.

    embedded  (samples, longest, hidden): embedded prompts, each at the end of its row; what is before it is ignored
    lengths   of the prompts
    ids       sample ids; with the seed they decide what is drawn, so that a batch draws what one sample alone would
    With `greedy`, the tokens are those of one-by-one generation up to rounding in the model's dtype.
    """
    import torch

    from affect_infer.model.kv_cache import roomy_cache

    model, device = language.model, language.device
    longest = embedded.shape[1]
    starts = torch.tensor([longest - length for length in lengths], device=device)
    mask = (torch.arange(longest, device=device) >= starts[:, None]).long()
    draws = [] if sampling.greedy else [_generator(sampling.seed, id) for id in ids]
    ends, stops = language.end_ids, language.stops
    answers: list[list[int]] = [[] for _ in ids]
    lost = set[int]()
    active = list(range(len(ids)))  # rows of the batch, as numbers of samples
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    step: dict[str, Tensor] = {"inputs_embeds": embedded}
    cache = roomy_cache()
    cached = {_cache_argument(language): cache}
    with torch.inference_mode():
        for _ in range(sampling.max_new_tokens):
            output = model(
                **step, **cached, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
            )
            logits = output.logits[:, -1]
            if sampling.greedy:
                chosen = logits.argmax(-1)
            else:
                chosen = _drawn(logits.float(), sampling, [draws[sample] for sample in active])
            # A sum is finite where all its parts are, and the cheapest look at them.  What it says comes to the host
            # with the tokens, as one that no vocabulary has.
            chosen = chosen.where(logits.sum(-1, dtype=torch.float32).isfinite(), NO_TOKEN)
            going = []
            for row, token in enumerate(chosen.tolist()):
                if token == NO_TOKEN:
                    lost.add(active[row])
                elif token not in ends:
                    answer = answers[active[row]]
                    answer.append(token)
                    if not any(tuple(answer[-len(stop) :]) == stop for stop in stops):
                        going.append(row)
            if not going:
                break
            if len(going) < len(active):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                chosen, mask, positions = chosen[kept], mask[kept], positions[kept]
                active = [active[row] for row in going]
            step = {"input_ids": chosen[:, None]}
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], -1)
            positions = positions[:, -1:] + 1
    return [None if sample in lost else answer for sample, answer in enumerate(answers)]


def _cache_argument(language: Language) -> str:
    """What the installed transformers calls the cache: `cache`; older ones say `past_key_values`."""
    base = getattr(language.model, "get_base_model", lambda: language.model)()
    return "cache" if "cache" in inspect.signature(base.forward).parameters else "past_key_values"


def _generator(seed: int, id: str) -> torch.Generator:
    """A sample's own source of chance, the same on every machine and in every batch."""
    import torch

    digest = hashlib.sha256(f"{seed}/{id}".encode()).digest()
    # On the CPU even for a GPU: draws then do not depend on the device.
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))


def _drawn(logits: Tensor, sampling: Sampling, draws: Sequence[torch.Generator]) -> Tensor:
    """(rows, vocabulary) -> (rows,): temperature, then top_k, then top_p, then one draw per row."""
    import torch

    ordered, tokens = (logits / sampling.temperature).sort(dim=-1, descending=True)
    if sampling.top_k:
        ordered, tokens = ordered[:, : sampling.top_k], tokens[:, : sampling.top_k]
    chances = ordered.softmax(-1)
    # The token that crosses top_p still counts, so that one always remains.
    chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0.0
    sums = chances.cumsum(-1)
    points = torch.stack([torch.rand(1, generator=draw) for draw in draws]).to(logits.device) * sums[:, -1:]
    places = (sums <= points).sum(-1, keepdim=True).clamp(max=sums.shape[1] - 1)
    return tokens.gather(-1, places).squeeze(-1)


def answer_text(text: str, eos: str, bos: str = BOS) -> str:
    """What remains of decoded tokens: the published clean-up, step by step."""
    if bos in text:
        text = text.split(bos)[1]
    text = text.split(eos)[0]
    text = text.rsplit(STOP, 1)[0]
    return text.split("Assistant:")[-1].strip()
