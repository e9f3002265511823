"""A tiny language model with random weights and a checkpoint to match, in the real formats: for demos and tests.

What it says is meaningless; every step around it is real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affect_infer.model.heads import AffectHeads, HeadShape
from affect_infer.model.language import with_lora, without_bars
from affect_infer.model.prompt import QUESTIONS, get_mode, mode_names

README = """\
Random weights, written by `affect-infer tiny-model`. A model of this size and with these weights says nothing about
anybody's emotions; it exists so that the program around it can be run and tested without a download.
"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_tiny_model(
    root: str | Path,
    *,
    layers: int = 2,
    hidden: int = 64,
    visual: int = 384,
    acoustic: int = 64,
    au: int = 32,
    lora_rank: int = 4,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write `root/llm` (a Qwen2 in the hub's format) and `root/checkpoint.pth`; returns both paths.

    visual, acoustic, au   features per frame or face, audio window, AU description, as the encoders make them
    Imports torch, transformers and peft.
    """
    import torch

    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lora = _write_llm(root / "llm", layers, hidden, lora_rank)
        shape = HeadShape(hidden, visual, acoustic, "attention", "attention", max(visual, acoustic), au, "attention")
        heads = AffectHeads(shape).state_dict()
    content: dict[str, Any] = {
        "model": {**{f"llama_model.{name}": tensor for name, tensor in lora.items()}, **heads},
        "config": {"model": {f"num_{name}_query_token": 1 for name in ("video", "audio", "multi", "image", "au")}},
        "epoch": 0,
    }
    torch.save(content, root / "checkpoint.pth")
    (root / "README.md").write_text(README, encoding="utf-8")
    return root / "llm", root / "checkpoint.pth"


def _write_llm(folder: Path, layers: int, hidden: int, lora_rank: int) -> Mapping[str, Any]:
    """Write the language model; returns random LoRA weights for it, named as peft names them."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    size = _write_tokenizer(folder)
    config = Qwen2Config(
        vocab_size=-(-size // 64) * 64,  # padded, so that placeholder ids lie below or beyond it as in Qwen2.5
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=2,
        # Larger than usual, so that the likeliest token is ahead by more than rounding.
        initializer_range=0.2,
    )
    model = Qwen2ForCausalLM(config)
    # As Qwen2.5-7B-Instruct ships it: settings that would enter every call of transformers' own `generate`.
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        top_k=20,
        top_p=0.8,
        temperature=0.7,
        repetition_penalty=1.05,
        eos_token_id=[2, 0],
        pad_token_id=0,
    )
    with without_bars():
        model.save_pretrained(folder)
    tuned = with_lora(model, lora_rank)
    names = [name for name in tuned.state_dict() if ".lora_" in name]
    return {name: 0.02 * torch.randn_like(tuned.state_dict()[name]) for name in sorted(names)}


def _write_tokenizer(folder: Path) -> int:
    """A byte-level BPE trained on the prompts themselves; returns the number of its tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    prompts = [
        get_mode(name, "text").build(question=question, subtitle="Well.", au_text="A smile.")
        for name in mode_names()
        for question in QUESTIONS.values()
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=[],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(prompts, trainer)
    # The special tokens first, so that their ids are 0, 1 and 2 whatever was learnt.
    learnt = json.loads(tokenizer.to_str())["model"]
    vocabulary = {
        token: place for place, token in enumerate([*SPECIAL, *sorted(learnt["vocab"], key=learnt["vocab"].get)])
    }
    folder.mkdir(parents=True, exist_ok=True)
    rebuilt = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in learnt["merges"]]))
    rebuilt.pre_tokenizer = tokenizer.pre_tokenizer
    rebuilt.decoder = tokenizer.decoder
    rebuilt.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    rebuilt.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[2], "pad_token": SPECIAL[0],
                "model_max_length": 32768, "clean_up_tokenization_spaces": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return len(vocabulary)
