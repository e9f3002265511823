"""The language model: Qwen2.5 from disk or the hub cache, its tokenizer with the placeholders, and LoRA on top."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from affect_infer.model.checkpoint import LLM_PREFIX, Checkpoint, Loaded
from affect_infer.model.finite import not_finite
from affect_infer.model.language_files import check_language_files, check_loaded, some
from affect_infer.model.model_files import llm_folder
from affect_infer.model.prompt import AU_PLACEHOLDER, PLACEHOLDERS
from featurestore.encoders.surroundings import undisturbed
from featurestore.errors import InputError, MissingPackageError

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
    notes      what the user should know about its files, one line each
    """

    def __init__(self, model: Any, tokenizer: Any, source: str, notes: Sequence[str] = ()) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self.notes = notes
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

    @property
    def dtype(self) -> str:
        """float32, float16 or bfloat16."""
        return str(self.model.dtype).removeprefix("torch.")

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
    if tokenizer.eos_token is None:
        raise InputError(
            f"the tokenizer of {source} does not say which token ends an answer (eos_token); its tokenizer_config.json "
            "may be missing: fetch the whole folder again"
        )
    tokenizer.bos_token = BOS
    tokenizer.pad_token = tokenizer.eos_token
    for placeholder in (*PLACEHOLDERS, AU_PLACEHOLDER):
        tokenizer.add_tokens([placeholder], special_tokens=True)
    return tokenizer


@undisturbed()
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

    check_language_files(llm_folder(source))
    settings = {"dtype": getattr(torch, dtype), "output_loading_info": True}
    # Another shape is then reported with the rest, and refused with it.
    base, report = _from_pretrained(AutoModelForCausalLM, source, ignore_mismatched_sizes=True, **settings)
    notes = check_loaded(source, report)
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
    if broken := not_finite(dict(model.named_parameters())):
        raise InputError(
            f"language model {source}: {len(broken)} tensors are not finite in {dtype}: {some(broken)}; "
            f"{way_out(dtype)}"
        )
    tokenizer = load_tokenizer(source)
    rows, last = len(model.get_input_embeddings().weight), _last_id(tokenizer)
    if last >= rows:
        raise InputError(
            f"the tokenizer of {source} has ids up to {last}, its model embeds {rows}: they are of two models; fetch "
            "the whole folder again"
        )
    return Language(model, tokenizer, source, notes), loaded


def way_out(dtype: str) -> str:
    """What to do where numbers are not finite."""
    if dtype == "float16":
        return "use --dtype bfloat16 or --dtype float32, which reach further, or check the checkpoint"
    return "check the checkpoint and the language model: fetch them again, or use the checkpoint of another epoch"


def _last_id(tokenizer: Any) -> int:
    """Of the tokens that the tokenizer had before the placeholders, which are never looked up."""
    own = {*PLACEHOLDERS, AU_PLACEHOLDER}
    return max((id for token, id in tokenizer.get_vocab().items() if token not in own), default=-1)


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
    """No progress bar of transformers per file, as the program has one of its own; no table of what does not fit."""
    from transformers.utils import logging

    shown, told = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(told)
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _from_pretrained(kind: Any, source: str, **settings: Any) -> Any:
    folder = llm_folder(source)  # transformers would want more of a repository than what is needed of it
    try:
        with without_bars():
            return kind.from_pretrained(str(folder), local_files_only=True, **settings)
    # Readers of formats, of tokenizers and of configs raise almost anything about a file that is not theirs.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"language model {source!r} cannot be read from {folder} ({type(error).__name__}: {reason}); fetch its "
            "files again, or give another directory with --llm DIR"
        ) from error
