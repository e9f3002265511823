"""The language model: Qwen2.5 from disk or the hub cache, its tokenizer with the placeholders, and LoRA on top."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affect_infer.checkpoint import LLM_PREFIX, Checkpoint, Loaded
from affect_infer.prompt import AU_PLACEHOLDER, PLACEHOLDERS
from featurestore.errors import InputError, MissingPackageError, WeightsNotFoundError

if TYPE_CHECKING:
    import torch

DEFAULT_LLM = "Qwen/Qwen2.5-7B-Instruct"
BOS = "<|im_start|>"
LORA_ALPHA = 32
STOP = "###"
KNOWN_TEXTS = (
    256  # sentences between placeholders whose ids are remembered, placeholders too; a mode has less than twenty
)
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Language:
    """A causal language model and its tokenizer, ready to generate.

    model      transformers' Qwen2ForCausalLM, wrapped by peft where the checkpoint has LoRA weights
    tokenizer  with the placeholders added, as `load_tokenizer` makes it
    source     what was asked for: a directory or a hub id
    """

    def __init__(self, model: Any, tokenizer: Any, source: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self._known = {name: [id] for name, id in self.placeholder_ids.items()}
        places = "(" + "|".join((*PLACEHOLDERS, AU_PLACEHOLDER)) + ")"
        # Sentences of a prompt end with a tag.  Qwen2.5's tokenizer, like GPT's, puts no token across their border.
        one, other = "<b>Oh no. 1</b>.", " The next <b>"
        apart = self._tokenized(one) + self._tokenized(other) == self._tokenized(one + other)
        self._between = re.compile(rf"{places}|(?<=>\.)(?= [A-Z])" if apart else places)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @cached_property
    def placeholder_ids(self) -> dict[str, int]:
        """{placeholder: id}; the ids lie behind the embedding matrix and are never looked up in it."""
        return {name: self.tokenizer.convert_tokens_to_ids(name) for name in (*PLACEHOLDERS, AU_PLACEHOLDER)}

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer: the tokenizer's and those of the model's generation_config."""
        named = self.model.generation_config.eos_token_id
        listed = named if isinstance(named, list) else [named]
        return frozenset(int(id) for id in (*listed, self.tokenizer.eos_token_id) if id is not None)

    @cached_property
    def stops(self) -> list[tuple[int, ...]]:
        """Token sequences that end an answer: `###` as one piece, and as the two pairs it may be made of."""
        return [tuple(id for text in texts for id in self.ids(text)) for texts in ((STOP,), ("##", "#"), ("#", "##"))]

    def ids(self, prompt: str) -> list[int]:
        """Token ids of a prompt.  No bos: training put one in front, published inference does not.

        A tokenizer splits at special tokens before anything else, so the text between placeholders is tokenized by
        itself, sentence by sentence, and what all prompts share is tokenized once.
        """
        found: list[int] = []
        for text in self._between.split(prompt):
            if text:
                found += self._known.get(text) or self._tokenized(text)
        return found

    def _tokenized(self, text: str) -> list[int]:
        # What tokenizer(text) does without what it wraps around, which takes a third of the time.
        ids: list[int] = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if len(self._known) < KNOWN_TEXTS:
            self._known[text] = ids
        return ids


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a model directory or hub id, with the placeholders added.  Imports transformers."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, source)
    tokenizer.bos_token = BOS
    tokenizer.pad_token = tokenizer.eos_token
    for placeholder in (*PLACEHOLDERS, AU_PLACEHOLDER):
        tokenizer.add_tokens([placeholder], special_tokens=True)
    return tokenizer


def load_language(
    source: str = DEFAULT_LLM,
    checkpoint: Checkpoint | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> tuple[Language, Loaded]:
    """Read a language model and put a checkpoint's LoRA weights on it.  Imports torch and transformers.

    source   a directory in the hub's format, or a hub id, looked up in the cache; nothing is downloaded
    dtype    float32, float16 or bfloat16; LoRA weights, saved in float32, are cast to it
    Raises WeightsNotFoundError, or InputError where model and checkpoint do not fit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    base = _from_pretrained(AutoModelForCausalLM, source, dtype=getattr(torch, dtype))
    width = int(base.config.hidden_size)
    if checkpoint is not None and checkpoint.shape.hidden != width:
        raise InputError(
            f"checkpoint {checkpoint.path} was trained for a language model of width {checkpoint.shape.hidden}, "
            f"{source} has {width}; give the right one with --llm"
        )
    model, loaded = base, Loaded((), ())
    if checkpoint is not None and checkpoint.lora_rank is not None:
        model = with_lora(base, checkpoint.lora_rank)
        loaded = _fill_lora(model, checkpoint)
        # Not merged into the model: in float16 a sum would lose some of them to the coarser steps of its weights.
        model.to(getattr(torch, dtype))  # peft makes its weights float32
    model.to(device).eval().requires_grad_(False)
    return Language(model, load_tokenizer(source), source), loaded


def with_lora(base: Any, rank: int) -> Any:
    """The model with LoRA layers where AffectGPT has them, not trained yet; peft's names and settings of training."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingPackageError("LoRA weights need peft; install affect_infer's extra: [infer]") from error
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.05,
        target_modules=LORA_TARGETS,
        inference_mode=True,
    )
    with warnings.catch_warnings():
        # peft asks transformers for an attribute under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(base, settings)


def _fill_lora(model: Any, checkpoint: Checkpoint) -> Loaded:
    own = {name: tensor.shape for name, tensor in model.state_dict().items() if ".lora_" in name}
    fitting = {name: tensor for name, tensor in checkpoint.lora.items() if own.get(name) == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    missing, unexpected = own.keys() - fitting.keys(), checkpoint.lora.keys() - fitting.keys()
    return Loaded(*(tuple(sorted(f"{LLM_PREFIX}{name}" for name in names)) for names in (missing, unexpected)))


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """transformers shows a progress bar per file it reads or writes; the program has one of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _from_pretrained(kind: Any, source: str, **settings: Any) -> Any:
    try:
        with without_bars():
            return kind.from_pretrained(source, local_files_only=True, **settings)
    except (OSError, ValueError) as error:
        where = "this directory" if Path(source).is_dir() else "the hub's cache on this machine"
        raise WeightsNotFoundError(
            f"language model {source!r} cannot be read from {where}: {str(error).strip().splitlines()[0]}; "
            f"give a directory with --llm DIR, or fetch it once with `hf download {source}`"
        ) from error
