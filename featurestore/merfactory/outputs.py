"""What MER-Factory puts beside a file of a sample."""

from __future__ import annotations

from pathlib import Path

from featurestore.sample import Sample

KINDS = ("_au_analysis.json", "_merr_data.json")


def json_paths(sample: Sample) -> list[Path]:
    """The JSON of the sample, and the one of the other kind that MER-Factory puts beside it."""
    if sample.au_json is None:
        return []
    name = sample.au_json.name
    stem = next((name.removesuffix(kind) for kind in KINDS if name.endswith(kind)), None)
    beside = [] if stem is None else [sample.au_json.with_name(stem + kind) for kind in KINDS]
    return [sample.au_json, *(path for path in beside if path != sample.au_json)]


def csv_paths(sample: Sample) -> list[Path]:
    """The OpenFace table of the sample, or where MER-Factory puts it beside the JSON."""
    if sample.au_csv is not None:
        return [sample.au_csv]
    if sample.au_json is None:
        return []
    name = sample.au_json.name
    return [sample.au_json.with_name(name.removesuffix(kind) + ".csv") for kind in KINDS if name.endswith(kind)]
