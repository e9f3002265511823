"""`fstore config explain`: what becomes of each key of a settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurestore.cli.options import GivenPath, json_option
from featurestore.cli.output import cell_width, echo_json, fitted_table, terminal_width, wrapped

if TYPE_CHECKING:
    from featurestore.affectgpt.guide import Guide
    from featurestore.affectgpt.guide_dataset import GuideDataset


@click.group()
def config() -> None:
    """Explain a settings file."""


@config.command()
@click.argument("file", type=GivenPath(), metavar="FILE.yaml")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Explain the file for this dataset too.")
@json_option
@click.pass_context
def explain(ctx: click.Context, file: Path, datasets: tuple[str, ...], as_json: bool) -> None:
    """Say of each key of a YAML file whether it is used, ignored or contradictory, and what it amounts to here.

    Problems come first, and what the file does not say is listed with the option that does. Unknown keys, duplicate
    keys and aliases are errors (exit 2); contradictions, and names of no dataset, encoder or sampler, are findings
    (exit 1).
    """
    from featurestore.affectgpt.guide import read_guide

    guide = read_guide(file, datasets=datasets)
    if as_json:
        echo_json(_as_json(guide))
    else:
        _print(guide)
    if guide.contradictions or guide.unknown:
        ctx.exit(1)


STATUSES = ("contradictory", "unknown", "ignored", "used")


def _print(guide: Guide) -> None:
    width = terminal_width()

    def echo(text: str, indent: str = "") -> None:
        fits = width is None or cell_width(indent + text) <= width
        lines = [text] if fits or width is None else wrapped(text, max(1, width - len(indent)))
        click.echo("\n".join(indent + line for line in lines))

    rows = [
        [s.status, s.key, "" if s.value is None else json.dumps(s.value, ensure_ascii=False), s.note]
        for s in sorted(guide.settings, key=lambda setting: STATUSES.index(setting.status))
    ]
    click.echo("\n".join(fitted_table(["STATUS", "KEY", "VALUE", "WHY"], rows, width)))
    if not guide.datasets:
        click.echo("")
        echo("missing: which dataset: --dataset NAME --root DIR")
    for entry in guide.datasets.values():
        click.echo("")
        echo(f"{entry.dataset.name} ({entry.mode or 'no mode given'})")
        for lacking in entry.missing:
            echo(f"missing: {lacking}", "  ")
        for modality, policy in entry.policies.items():
            what = "as text" + (f", {entry.nonverbal}" if entry.nonverbal else "")
            key = what if modality == "au" and entry.au_as_text else entry.keys.get(modality, "")
            echo(f"{modality:<6} {policy:<6} {key}".rstrip(), "  ")
        for words in _commands(guide, entry):
            click.echo(_as_typed(words, width))
        for encoder in _without_weights(entry):
            echo(f"{encoder} has no published weights: add --weights DIR, or random:SEED to try things out", "  ")
    counts = {"contradictory": len(guide.contradictions), "unknown": len(guide.unknown)}
    if wrong := ", ".join(f"{count} {status}" for status, count in counts.items() if count):
        click.echo(f"\n{wrong}; nothing runs with this file until they are mended.", err=True)


def _as_typed(words: list[str], width: int | None) -> str:
    """A command line, in several where it is longer than the terminal, that can be pasted."""
    import shlex

    lines = ["  "]
    for word in map(shlex.quote, words):
        if width is not None and lines[-1].strip() and len(lines[-1]) + 1 + len(word) + 2 > width:
            lines[-1] += " \\"
            lines.append("      ")
        lines[-1] += f" {word}" if lines[-1].strip() else word
    return "\n".join(lines)


def _without_weights(entry: GuideDataset) -> list[str]:
    """Encoders of what is to be stored that a settings file cannot say the weights of."""
    stored = (key.encoder for modality, key in entry.keys.items() if entry.policies[modality] == "store")
    return [encoder for encoder in dict.fromkeys(stored) if encoder.endswith(".none")]


def commands(guide: Guide, entry: GuideDataset) -> list[str]:
    """The command lines that do what the file says about one dataset."""
    import shlex

    return [shlex.join(words) for words in _commands(guide, entry)]


def _commands(guide: Guide, entry: GuideDataset) -> list[list[str]]:
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
        lines.append(words)
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
                "au": "text" if entry.au_as_text else "features",
                "nonverbal_json": None if entry.nonverbal is None else str(entry.nonverbal),
                "missing": entry.missing,
                "commands": commands(guide, entry),
            }
            for name, entry in guide.datasets.items()
        },
        "device": guide.device,
        "output": None if guide.output is None else str(guide.output),
    }
