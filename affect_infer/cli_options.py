"""Options that several commands share, and the settings that they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.options import GivenPath

if TYPE_CHECKING:  # costs more than all of --help
    from affect_infer.settings.settings import Settings

PATH = GivenPath()


def pairs(ctx: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """`a=b` options, several in one with commas, as a mapping; a comma within a path parts nothing."""
    pairs = {}
    for part in (part for text in given for part in re.split(r",(?=\s*[\w.-]+\s*=)", text)):
        name, equals, value = part.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{part!r} is not of the form NAME=VALUE", ctx, parameter)
        pairs[name.strip()] = value.strip()
    return pairs


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What a run, an inspection and a parity check share; `settings_from` reads it."""
    options = [
        click.option("--cfg-path", type=PATH, required=True, metavar="FILE.yaml", help="The guide's YAML, or our own."),
        click.option("--options", multiple=True, metavar="a.b=c", help="Change a key of the file."),
        click.option("--dataset", "datasets", multiple=True, metavar="NAME[,NAME]", help="[default: all in the file]"),
        click.option("--ckpt", "checkpoint", type=PATH, metavar="FILE.pth", help="Trained heads and LoRA weights."),
        click.option("--llm", metavar="DIR|HUB_ID", help="[default: Qwen/Qwen2.5-7B-Instruct from the cache]"),
        click.option("--store", type=PATH, metavar="DIR", help="Instead of the file's preextracted_root."),
        click.option("--manifest", type=PATH, metavar="FILE", help="Samples, instead of the file's ann_paths."),
        click.option("--root", type=PATH, metavar="DIR", help="Of the dataset, where the file does not place it."),
        click.option("--split", metavar="NAME", help="Of the dataset.  [default: test]"),
        click.option("--mode", metavar="MODE", help="Instead of the file's face_or_frame."),
        click.option("--au", type=click.Choice(["features", "text"]), help="How AU enter.  [default: features]"),
        click.option("--policy", multiple=True, callback=pairs, metavar="MODALITY=POLICY[,...]",
                     help="store, store_only, live or off.  [default: the file's, else frame=store, rest live]"),
        click.option("--weights", multiple=True, callback=pairs, metavar="ENCODER=SPEC",
                     help="random:SEED, a directory, or HUB_ID[@REV].  [default: the hub's cache]"),
        click.option("--sampler-option", multiple=True, callback=pairs, metavar="SAMPLING.k=v"),
        click.option("--frame-recipe", metavar="PREFIX", help="Read stored frames of this recipe; a miss is an error."),
        click.option("--allow-mix", is_flag=True, default=None, help="And compute misses; needs a certificate."),
        click.option("--recompute", is_flag=True, default=None, help="Pass over rows of other recipes."),
        click.option("--device", metavar="NAME", help="[default: a GPU where there is one]"),
        click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]),
                     help="Of the language model.  [default: float16 on a GPU, float32 on a CPU]"),
        click.option("--workers", type=click.IntRange(1), help="Decode processes.  [default: one per core]"),
        click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N samples of each dataset."),
        click.option("--question", metavar="TEXT", help="labels, description, or a question of your own."),
        click.option("--max-new-tokens", type=int, metavar="N", help="[default: 1200]"),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def settings_from(
    cfg_path: Path,
    options: Sequence[str],
    datasets: Sequence[str],
    policy: dict[str, str],
    sampler_option: dict[str, str],
    manifest: Path | None,
    root: Path | None,
    split: str | None,
    store: Path | None,
    mode: str | None,
    au: Any,
    limit: int | None,
    question: str | None,
    max_new_tokens: int | None,
    weights: dict[str, str],
    generation: dict[str, Any] | None = None,
    **values: Any,
) -> Settings:
    """The settings that the options of `settings_options` mean; `values` are fields of Settings by name."""
    from affect_infer.settings.reading import read_settings
    from affect_infer.settings.settings import Changes
    from affect_infer.settings.tasks import read_question

    sampler_options: dict[str, dict[str, Any]] = {}
    for name, value in sampler_option.items():
        sampling, dot, option = name.partition(".")
        if not dot:
            raise click.BadParameter(f"--sampler-option {name}={value} is not of the form SAMPLING.k=v")
        sampler_options.setdefault(sampling, {})[option] = _number(value)
    values |= {
        "weights": weights or None,
        "sampler_options": sampler_options or None,
        "question": read_question(question) if question else None,
    }
    changes = Changes(
        options, datasets, policy, mode, au, manifest, root, split, store, limit, values,
        {"max_new_tokens": max_new_tokens, **(generation or {})},
    )  # fmt: skip
    return read_settings(cfg_path, changes)


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
