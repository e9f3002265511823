"""`fstore config explain`: what becomes of each key of a settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.options import json_option
from featurestore.cli.output import echo_json, echo_table

if TYPE_CHECKING:
    from featurestore.legacy.guide import Guide, GuideDataset


@click.group()
def config() -> None:
    """Explain a settings file."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.yaml")
@json_option
@click.pass_context
def explain(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Say of each key of a YAML file whether it is used, ignored or contradictory, and what it amounts to here.

    Unknown keys, duplicate keys and aliases are errors (exit 2); contradictions, and names of no encoder or sampler,
    are findings (exit 1).
    """
    from featurestore.legacy.guide import read_guide

    guide = read_guide(file)
    if as_json:
        echo_json(_as_json(guide))
    else:
        _print(guide)
    if guide.contradictions or guide.unknown:
        ctx.exit(1)


def _print(guide: Guide) -> None:
    rows = [
        [s.status, s.key, "" if s.value is None else json.dumps(s.value, ensure_ascii=False), s.note]
        for s in guide.settings
    ]
    echo_table(["STATUS", "KEY", "VALUE", "WHY"], rows)
    for entry in guide.datasets.values():
        click.echo("")
        click.echo(f"{entry.dataset.name} ({entry.mode or 'no mode given'})")
        for modality, policy in entry.policies.items():
            click.echo(f"  {modality:<6} {policy:<6} {entry.keys.get(modality, '')}".rstrip())
        for line in commands(guide, entry):
            click.echo(f"  {line}")
        for encoder in _without_weights(entry):
            click.echo(f"  {encoder} has no published weights: add --weights DIR, or random:SEED to try things out")
    counts = {"contradictory": len(guide.contradictions), "unknown": len(guide.unknown)}
    if wrong := ", ".join(f"{count} {status}" for status, count in counts.items() if count):
        click.echo(f"\n{wrong}; nothing runs with this file until they are mended.", err=True)


def _without_weights(entry: GuideDataset) -> list[str]:
    """Encoders of what is to be stored that a settings file cannot say the weights of."""
    stored = (key.encoder for modality, key in entry.keys.items() if entry.policies[modality] == "store")
    return [encoder for encoder in dict.fromkeys(stored) if encoder.endswith(".none")]


def commands(guide: Guide, entry: GuideDataset) -> list[str]:
    """The command lines that do what the file says about one dataset."""
    import shlex

    store = entry.store
    stored = [key for modality, key in entry.keys.items() if entry.policies[modality] == "store"]
    root = entry.roots.labels
    lines = []
    for key in stored:
        words = ["fstore", "extract", str(key), "--dataset", entry.dataset.name, "--root", str(root or "DIR")]
        if store is not None:
            words += ["--store", str(store)]
        if entry.roots.mer_factory is not None:
            words += ["--mer-factory", str(entry.roots.mer_factory)]
        if guide.device is not None:
            words += ["--device", guide.device]
        lines.append(shlex.join(words))
    return lines


def _as_json(guide: Guide) -> dict[str, Any]:
    return {
        "file": str(guide.path),
        "settings": [{"key": s.key, "value": s.value, "status": s.status, "note": s.note} for s in guide.settings],
        "datasets": {
            name: {
                "mode": entry.mode,
                "policies": dict(entry.policies),
                "keys": {modality: str(key) for modality, key in entry.keys.items()},
                "store": None if entry.store is None else str(entry.store),
                "mer_factory": None if entry.roots.mer_factory is None else str(entry.roots.mer_factory),
                "commands": commands(guide, entry),
            }
            for name, entry in guide.datasets.items()
        },
        "device": guide.device,
        "output": None if guide.output is None else str(guide.output),
    }
