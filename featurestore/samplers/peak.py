"""Samplers around the frame whose expression is strongest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from featurestore.errors import ConfigError, DescriptionError, SampleError, SamplingError
from featurestore.merfactory import Peak, peak_of
from featurestore.merfactory.document import MAX_JSON_BYTES, read_bytes
from featurestore.sample import Sample
from featurestore.samplers.frames import count_of, padded

IndexSpace = Literal["strict", "by_frame_number", "by_ratio"]


def emotion_peak(
    sample: Sample, total: int, n_frames: int | str, index_space: IndexSpace = "strict"
) -> tuple[Sequence[int], dict[str, Any]]:
    """The peak with up to two frames on either side, and the rest from all others at equal distances.

    (45, peak 10, 8) -> 0 8 9 10 11 12 18 31.  When neighbours alone are more than n, the nearest stay (of two
    as near, the earlier).  A video shorter than n frames is repeated in a cycle.

    index_space     how the peak's index relates to the video where the file counts other frames than the video has:
                    "strict" refuses, "by_frame_number" takes the frame number of the entry in
                    `per_frame_au_descriptions`, "by_ratio" takes index * total // (frames counted)

    Raises SamplingError if there is no peak, or its index has no frame; DescriptionError for unusable files.
    Source: AffectGPT's fork, video_processor.py, for n = 8 and a file that fits its video.
    """
    n = count_of(n_frames, "emotion_peak")
    peak = peak_of(sample)
    note = {"peak_source": peak.source, "sources": [dict(peak.file)]}
    index = _index_in_video(sample, peak, total, index_space)
    if (index, total) == (peak.index, peak.total):
        before, after = peak.before, peak.after if peak.after is not None else total - 1 - index
    else:
        before, after = index, total - 1 - index
        note["index_space"] = index_space
    near = _neighbours(total, index, before, after)
    if len(near) > n:
        near = set(sorted(near, key=lambda i: (abs(i - index), i))[:n])
    return _filled(near, total, n), {"peak": index, **note}


def emotion_peak_fork(sample: Sample, total: int, n_frames: int | str) -> tuple[Sequence[int], dict[str, Any]]:
    """What AffectGPT's fork stored under the name `emotion_peak`: eight frames, or its fall-backs, told in the note.

    As its batch script does it (video_processor.py, load_video): indices count the frames of `au_info`, whatever
    the video has; a peak index of another video is an error there too.  Note `fallback`:

    middle_frame    no `au_info` can be read: the middle frame, n times
    linspace        `au_info` without a peak: eight frames from the first to the last

    More than eight frames repeat the last index.  Raises ConfigError for fewer, which it cannot give.
    """
    n = count_of(n_frames, "emotion_peak_fork")
    if n < 8:
        raise ConfigError(f"emotion_peak_fork always gives 8 frames: use a key that ends in /8, not /{n}")
    info, sources = _fork_au_info(sample)
    if not info:
        return [total // 2] * n, {"fallback": "middle_frame", "sources": sources}
    try:
        if "peak_frames" not in info or len(info["peak_frames"]) == 0:
            chosen = np.linspace(0, total - 1, 8).astype(int).tolist()
            return padded(chosen, n), {"fallback": "linspace", "sources": sources}
        first, counted = info["peak_frames"][0], info["total_frames"]
        index, before, after = (first[name] for name in ("peak_index", "frames_before_peak", "frames_after_peak"))
        chosen = _filled(_neighbours(counted, index, before, after), counted, 8)
    except (KeyError, TypeError, AttributeError) as error:
        raise SamplingError(f"sample {sample.id!r}: au_info of {sample.au_json} lacks a field: {error!r}") from error
    if chosen[0] < 0 or chosen[-1] >= total:
        raise SamplingError(
            f"sample {sample.id!r}: au_info of {sample.au_json} gives frames {chosen}, but the video has {total}"
        )
    return padded(chosen, n), {"peak": index, "sources": sources}


def conflict(sample: Sample, total: int, options: Mapping[str, Any]) -> str | None:
    """Why `emotion_peak` refuses a sample whose file counts other frames than its video has."""
    try:
        peak = peak_of(sample)
    except SampleError:
        return None  # it fails on its own, when its turn comes
    if options.get("index_space", "strict") != "strict" or peak.total in (None, total):
        return None
    counted = "au_info.total_frames" if peak.source == "au_info" else "the number of OpenFace's rows"
    return (
        f"{counted} differs from the video ({peak.total} against {total} in {sample.id}): "
        "choose --sampler-option index_space=by_frame_number|by_ratio"
    )


def _index_in_video(sample: Sample, peak: Peak, total: int, index_space: IndexSpace) -> int:
    """The peak's frame number in a video of `total` frames; SamplingError if it has none."""
    index, path = peak.index, peak.file["path"]
    if peak.total is not None and peak.total != total:
        if index_space == "strict":
            raise SamplingError(f"sample {sample.id!r}, {path}: {conflict(sample, total, {})}", path)
        if index_space == "by_ratio":
            index = index * total // peak.total
        elif peak.source == "au_info":
            if index >= len(peak.frame_numbers):
                raise SamplingError(
                    f"sample {sample.id!r}, {path}: per_frame_au_descriptions has {len(peak.frame_numbers)} entries, "
                    f"none for peak_index {index}; choose --sampler-option index_space=by_ratio",
                    path,
                )
            index = peak.frame_numbers[index] - 1
    if not 0 <= index < total:
        raise SamplingError(f"sample {sample.id!r}, {path}: the peak is frame {index}, but the video has {total}", path)
    return index


def _neighbours(total: int, peak: int, before: int, after: int) -> set[int]:
    """The peak and the frames around it, fewer where the file says that fewer are there."""
    left, right = [peak - 1, peak - 2], [peak + 1, peak + 2]
    if before >= 2 and after >= 2:
        near = left + right
    elif before == 1 and after >= 1:
        near = left[:1] + right[: min(after, 2)]
    elif before >= 2 and after == 1:
        near = left + right[:1]
    elif before == 0:
        near = right
    elif after == 0:
        near = left
    else:
        near = []
    # The fork looks only to one side of each: an impossible peak keeps impossible neighbours.
    return {peak, *(i for i in near if (i >= 0 if i < peak else i < total))}


def _filled(near: set[int], total: int, n: int) -> list[int]:
    """`near` and others at equal distances, n in all, sorted; a short video is repeated in a cycle."""
    missing = n - len(near)
    others = total - sum(0 <= i < total for i in near)
    if others <= missing:
        chosen = near | set(range(total))
    else:
        chosen = near | {_other(near, j * others // missing) for j in range(missing)}
    ordered = sorted(chosen)
    return sorted(ordered[i % len(ordered)] for i in range(n))


def _other(near: set[int], number: int) -> int:
    """The frame with this number among all that are not in `near`; a file may claim any number of frames."""
    for taken in sorted(i for i in near if i >= 0):
        number += taken <= number
    return number


def _fork_au_info(sample: Sample) -> tuple[Any, list[dict[str, Any]]]:
    """(`au_info` as the fork reads it, the file it is from): whatever cannot be read counts as absent."""
    if sample.au_json is None:
        return None, []
    try:
        data, file = read_bytes(sample.au_json, MAX_JSON_BYTES)
    except DescriptionError:
        return None, []
    try:
        return json.loads(data.decode()).get("au_info"), [file]
    except (ValueError, RecursionError, AttributeError):
        return None, [file]
