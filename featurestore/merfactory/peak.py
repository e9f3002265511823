"""The frame of a sample whose expression is strongest, and which file says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.errors import DescriptionError, SamplingError
from featurestore.merfactory.document import HOW_TO_MAKE, is_absent, read_json
from featurestore.merfactory.openface import strongest
from featurestore.merfactory.outputs import csv_paths, json_paths
from featurestore.sample import Sample


@dataclass(frozen=True)
class Peak:
    """The frame of a sample whose expression is strongest."""

    index: int
    """0-based"""
    total: int | None
    """frames that the file counts; None where it does not say"""
    before: int
    """frames before the peak that may be taken for its neighbours"""
    after: int | None
    source: str
    """au_info | openface_csv | merr_data"""
    file: Mapping[str, Any]
    """{path, size, mtime_ns, sha256} of the file that says so"""
    frame_numbers: Sequence[int] = ()
    """1-based frame numbers of `per_frame_au_descriptions`, where `au_info` comes with them"""


def peak_of(sample: Sample) -> Peak:
    """The peak from `au_info`; else OpenFace's row of the highest sum of intensities; else `merr_data`.

    OpenFace rows count where its `success` is 1.  The table and `merr_data` are also looked for beside
    `sample.au_json`, where MER-Factory puts them.

    Raises DescriptionError for a file that cannot be used, SamplingError if no file tells a peak.
    """
    looked: list[str] = []
    documents: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for path in json_paths(sample):
        looked.append(str(path))
        if path.is_file():
            documents.append(read_json(path))
            if (peak := _from_au_info(*documents[-1])) is not None:
                return peak
    for path in csv_paths(sample):
        looked.append(str(path))
        if path.is_file():
            found = strongest(path)
            index, total = found.frame - 1, found.last_frame
            return Peak(index, total, index, total - 1 - index, "openface_csv", found.file)
    for document, file in documents:
        if (peak := _from_merr_data(document, file)) is not None:
            return peak
    if not looked:
        error = SamplingError(
            f"sample {sample.id!r} has no MER-Factory output, which tells its peak; add the column 'au_json' or "
            "'au_csv' to the manifest, pass --mer-factory DIR, or extract with 'uniform'"
        )
        error.deterministic = False  # the next manifest may name one
        raise error
    why = "no au_info.peak_frames and no overall_peak_frame_info" if documents else "no such file"
    error = SamplingError(
        f"sample {sample.id!r} has no peak: {why} in {', '.join(looked)}; {HOW_TO_MAKE}, or extract with 'uniform'",
        documents[0][1]["path"] if documents else None,
    )
    error.deterministic = bool(documents)  # a file that is not there yet may be made
    raise error


def _from_au_info(document: Mapping[str, Any], file: Mapping[str, Any]) -> Peak | None:
    info = document.get("au_info")
    if is_absent(info):
        return None
    path = file["path"]
    if not isinstance(info, dict):
        raise DescriptionError(f"{path}: au_info is not an object", path)
    peaks = info.get("peak_frames")
    if is_absent(peaks):
        return None
    if not isinstance(peaks, list) or not isinstance(peaks[0], dict):
        raise DescriptionError(f"{path}: au_info.peak_frames is not a list of objects", path)
    total = _whole(info, "total_frames", "au_info", path)
    index, before, after = (
        _whole(peaks[0], name, "au_info.peak_frames[0]", path)
        for name in ("peak_index", "frames_before_peak", "frames_after_peak")
    )
    if not (0 <= before <= index < total and 0 <= after < total - index):
        raise DescriptionError(
            f"{path}: au_info contradicts itself: peak_index {index}, frames_before_peak {before} and "
            f"frames_after_peak {after} of total_frames {total}",
            path,
        )
    return Peak(index, total, before, after, "au_info", file, _frame_numbers(document, path))


def _frame_numbers(document: Mapping[str, Any], path: str) -> tuple[int, ...]:
    listed = document.get("per_frame_au_descriptions") or []
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise DescriptionError(f"{path}: per_frame_au_descriptions is not a list of objects", path)
    return tuple(_whole(entry, "frame", f"per_frame_au_descriptions[{i}]", path) for i, entry in enumerate(listed))


def _from_merr_data(document: Mapping[str, Any], file: Mapping[str, Any]) -> Peak | None:
    info = document.get("overall_peak_frame_info")
    if is_absent(info):
        return None
    path = file["path"]
    if not isinstance(info, dict):
        raise DescriptionError(f"{path}: overall_peak_frame_info is not an object", path)
    if "frame_number" in info and is_absent(info["frame_number"]):
        return None
    number = _whole(info, "frame_number", "overall_peak_frame_info", path)
    if number < 1:
        raise DescriptionError(f"{path}: overall_peak_frame_info.frame_number is {number}; frames count from 1", path)
    return Peak(number - 1, None, number - 1, None, "merr_data", file)


def _whole(entry: Mapping[str, Any], name: str, where: str, path: str) -> int:
    if name not in entry:
        raise DescriptionError(f"{path}: {where} has no {name}", path)
    value = entry[name]
    if type(value) is not int:
        raise DescriptionError(f"{path}: {where}.{name} is {value!r}, not a whole number", path)
    return value
