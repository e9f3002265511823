"""Where MER-Factory puts the files of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featurestore.samples import Sample

_KINDS = ("_au_analysis.json", "_merr_data.json")


@dataclass(frozen=True)
class Outputs:
    """Files that MER-Factory wrote for one sample; None for what is not there."""

    au_json: Path | None = None
    merr_json: Path | None = None
    csv: Path | None = None


def find_outputs(root: str | Path, dataset_names: Sequence[str], sample_id: str) -> Outputs:
    """The files of a sample in `{root}/{dataset}/{sample}/` or `{root}/{sample}/`.

    dataset_names   tried as they are, in lower and in upper case, before the layout without this level
    """
    root = Path(root)
    if not _is_file_name(sample_id):
        return Outputs()
    cased = dict.fromkeys(form for name in dataset_names for form in (name, name.lower(), name.upper()))
    for folder in (*(root / name / sample_id for name in cased if _is_file_name(name)), root / sample_id):
        paths = [folder / f"{sample_id}{ending}" for ending in (*_KINDS, ".csv")]
        found = Outputs(*(path if path.is_file() else None for path in paths))
        if found != Outputs():
            return found
    return Outputs()


def json_paths(sample: Sample) -> list[Path]:
    """The JSON of the sample, and the one of the other kind that MER-Factory puts beside it."""
    if sample.au_json is None:
        return []
    name = sample.au_json.name
    stem = next((name.removesuffix(kind) for kind in _KINDS if name.endswith(kind)), None)
    beside = [] if stem is None else [sample.au_json.with_name(stem + kind) for kind in _KINDS]
    return [sample.au_json, *(path for path in beside if path != sample.au_json)]


def csv_paths(sample: Sample) -> list[Path]:
    """The OpenFace table of the sample, or where MER-Factory puts it beside the JSON."""
    if sample.au_csv is not None:
        return [sample.au_csv]
    if sample.au_json is None:
        return []
    name = sample.au_json.name
    return [sample.au_json.with_name(name.removesuffix(kind) + ".csv") for kind in _KINDS if name.endswith(kind)]


def _is_file_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text
