"""`fstore encoders` and `samplers`: the names that a key may have, and what is behind each."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.hints import message_of
from featurestore.cli.options import json_option
from featurestore.cli.output import echo_json, echo_table

if TYPE_CHECKING:  # it costs more than the whole of `fstore --help`
    from featurestore.encoders import Encoder

INPUT = {"audio": "2 s, 16 kHz", "au": "text"}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
def encoders(names: tuple[str, ...], as_json: bool) -> None:
    """List the encoders: what they take, the length of what they make, and where their weights come from.

    \b
    fstore encoders
    fstore encoders ViT-B-32.openai ViT-S-32.none

    Besides those listed there is ARCHITECTURE.TAG for any model of open_clip; its tag `none` has no published
    weights and needs --weights. HERE says whether the published weights are in the hub's cache; nothing is
    downloaded, `fstore doctor` has the command that fetches them.
    """
    from featurestore.encoders import encoder_names, load_encoder
    from featurestore.errors import FeatureStoreError

    found: list[dict[str, Any]] = []
    for name in names or encoder_names():
        try:
            found.append(_described(name, load_encoder(name)))
        except FeatureStoreError as error:
            if names:
                raise
            # One that lacks a package, or weights that say what it is, must not hide the others.
            found.append({"name": name, "problem": message_of(error)})
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            each["name"],
            ", ".join(each["modalities"]),
            each["dim"],
            each["input"],
            each["weights"],
            {True: "yes", False: "no", None: None}[each["here"]],
        )
        for each in found
        if "problem" not in each
    ]
    echo_table(("ENCODER", "OF", "DIM", "INPUT", "WEIGHTS", "HERE"), rows)
    for each in found:
        if "problem" in each:
            click.echo(f"{each['name']}: {each['problem']}", err=True)


def _described(name: str, encoder: Encoder) -> dict[str, Any]:
    from featurestore.errors import WeightsNotFoundError

    size = getattr(encoder, "size", None)
    published = getattr(encoder, "published", None)
    here: bool | None = None
    if published is not None:
        try:
            here = bool(getattr(encoder, "source", None))
        except WeightsNotFoundError:
            here = False
    return {
        "name": name,
        "modalities": ["frame", "face"] if encoder.modality == "frame" else [encoder.modality],
        "dim": encoder.dim,
        "input": f"{size[0]} x {size[1]}" if size else INPUT.get(encoder.modality),
        "weights": published.repo if published is not None else None,
        "here": here,
    }


@click.command()
@json_option
def samplers(as_json: bool) -> None:
    """List the samplers: what they choose from, their options, and which frames they take."""
    from featurestore.samplers import get_sampler, sampler_names

    found: list[dict[str, Any]] = []
    for entry in map(get_sampler, sampler_names()):
        options = list(inspect.signature(entry.fn).parameters.values())[3:]
        words = (inspect.getdoc(entry.fn) or "").partition("\n")[0]
        found.append(
            {
                "name": entry.name,
                "modalities": list(entry.modalities) or ["any"],
                "version": entry.version,
                "options": {each.name: None if each.default is each.empty else each.default for each in options},
                "takes": words,
            }
        )
    if as_json:
        echo_json(found)
        return
    rows = [
        (
            each["name"],
            ", ".join(each["modalities"]),
            ", ".join(f"{name}={value}" for name, value in each["options"].items()) or None,
            each["takes"],
        )
        for each in found
    ]
    echo_table(("SAMPLER", "OF", "OPTIONS", "TAKES"), rows)
