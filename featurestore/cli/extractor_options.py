"""Options that say how features are made, and the extractor they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.options import bundle

if TYPE_CHECKING:  # it imports numpy
    from featurestore.compute.extractor import Extractor
    from featurestore.key import FeatureKey
    from featurestore.recipe import Recipe
    from featurestore.sample import Sample


@dataclass(frozen=True)
class Making:
    """What `making_options` were given; None where nothing was."""

    weights: str | None
    sampler_option: tuple[str, ...]
    dtype: str | None
    compute_dtype: str | None
    device: str | None
    batch_size: int
    workers: int | None
    decode_seconds: float | None
    decode_memory: int | None
    allow_corrupt: bool

    def extractor(
        self,
        keys: Collection[FeatureKey],
        sources: Mapping[str, Mapping[str, Sample]],
        stored: Recipe | None = None,
        on_stage: Callable[[str], object] | None = None,
    ) -> Extractor:
        """The extractor of some keys.  What was not given is taken from a stored recipe, where there is one."""
        from featurestore.compute.extractor import Extractor

        encoders, samplings = {key.encoder for key in keys}, {key.sampling for key in keys}
        if self.weights and len(encoders) > 1:
            raise click.UsageError(f"--weights are of one encoder, but there are {', '.join(sorted(encoders))}")
        if self.sampler_option and len(samplings) > 1:
            raise click.UsageError(f"--sampler-option is of one sampler, but there are {', '.join(sorted(samplings))}")
        before = stored.data if stored is not None else {}
        seed = _dig(before, "weights", "random")
        weights = self.weights or (f"random:{seed}" if seed is not None else None)
        options = {**(_dig(before, "sampler", "options") or {}), **dict(map(_sampler_option, self.sampler_option))}
        return Extractor(
            sources,
            weights=dict.fromkeys(encoders, weights) if weights else {},
            sampler_options=dict.fromkeys(samplings, options),
            dtype=self.dtype or before.get("dtype") or "float32",
            compute_dtype=self.compute_dtype or before.get("compute_dtype") or "float32",
            device=self.device,
            workers=self.workers,
            batch_size=self.batch_size,
            **self._limits(),
            allow_corrupt=self.allow_corrupt or bool(_dig(before, "media", "allow_corrupt")),
            on_stage=on_stage,
        )

    def _limits(self) -> dict[str, Any]:
        limits: dict[str, Any] = {}
        if self.decode_seconds is not None:
            limits["timeout_s"] = self.decode_seconds
        if self.decode_memory is not None:
            limits["memory_bytes"] = self.decode_memory << 20
        return limits


making_options = bundle(
    "making",
    Making,
    [
        click.option(
            "--weights",
            metavar="WHICH",
            help="A directory, HUB_ID[@REVISION], or random:SEED to try things out.  [default: those published, "
            "from the hub cache; nothing is downloaded]",
        ),
        click.option(
            "--sampler-option",
            multiple=True,
            metavar="NAME=VALUE",
            help="An option of the sampler, e.g. index_space=by_ratio; may be given several times.",
        ),
        click.option(
            "--dtype", type=click.Choice(["float16", "float32"]), help="Of stored values.  [default: float32]"
        ),
        click.option(
            "--compute-dtype",
            type=click.Choice(["float32", "float16", "bfloat16"]),
            help="Of the encoder's arithmetic.  [default: float32]",
        ),
        click.option("--device", metavar="NAME", help="E.g. cuda:0.  [default: a GPU where there is one]"),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=32,
            show_default=True,
            metavar="N",
            help="Images or texts that are encoded together.",
        ),
        click.option(
            "--workers", type=click.IntRange(min=1), metavar="N", help="Decode processes.  [default: one per core]"
        ),
        click.option(
            "--decode-seconds",
            type=click.FloatRange(min=0, min_open=True),
            metavar="S",
            help="For the decoding of one sample; a longer one fails, and is tried again next time.  [default: 300]",
        ),
        click.option(
            "--decode-memory",
            type=click.IntRange(min=64),
            metavar="MIB",
            help="Address space of a decode process; what needs more fails, and is tried again.  [default: 4096]",
        ),
        click.option(
            "--allow-corrupt", is_flag=True, help="Take frames that a decoder had to conceal: another recipe."
        ),
    ],
)


def stored_options(key: FeatureKey, recipe: Recipe | None) -> list[tuple[str, ...]]:
    """The options under which extract makes a stored recipe again, as far as the recipe says them.

    Weights are a digest there, except those of a seed: a directory has to be named anew.
    """
    from featurestore.samplers import get_sampler

    data = recipe.data if recipe is not None else {}
    found: list[tuple[str, ...]] = []
    seed = _dig(data, "weights", "random")
    if seed is not None:
        found.append(("--weights", f"random:{seed}"))
    options = _dig(data, "sampler", "options")
    if isinstance(options, Mapping) and options:
        default = get_sampler(key.sampling).effective({})
        changed = {name: value for name, value in options.items() if default.get(name) != value}
        found += [("--sampler-option", f"{name}={_value_text(value)}") for name, value in changed.items()]
    for name, usual in (("dtype", "float32"), ("compute_dtype", "float32")):
        if data.get(name, usual) != usual:
            found.append((f"--{name.replace('_', '-')}", str(data[name])))
    if _dig(data, "media", "allow_corrupt"):
        found.append(("--allow-corrupt",))
    return found


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _sampler_option(text: str) -> tuple[str, Any]:
    """`name=value`; the value is read as JSON where it is some: 3, 0.5, true, null; else it is text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--sampler-option {text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _dig(data: Any, *names: str) -> Any:
    """data[a][b], or None where that is not there: recipes of other origins have other parts."""
    for name in names:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data
