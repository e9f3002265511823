"""Info: what is known of one feature set, and of one sample in it, without its values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import UnknownRecipeError
from featurestore.key import FeatureKey, check_id
from featurestore.recipe import Recipe
from featurestore.storage.failures import FailureRecord
from featurestore.storage.feature_set import FeatureSet, reading
from featurestore.storage.maintenance import waiting
from featurestore.storage.reader import CorruptRowError, Segment


@dataclass(frozen=True)
class FeatureSetInfo:
    """All samples of one key under one recipe, in numbers: `FeatureStore.info`."""

    key: FeatureKey
    fingerprint: str
    recipe: Recipe | None
    """None where its document cannot be read"""
    samples: int
    shapes: tuple[tuple[int, ...], ...]
    """distinct (n_frames, *item), several under an `all` key"""
    dtype: str | None
    bytes: int
    """on disk, of the segments that count"""
    segments: int
    replaced: int
    """segments that others replaced, which `gc` removes once their grace is over"""
    replaced_bytes: int
    replaced_at: float | None
    """when the last of those was replaced, in seconds since 1970"""
    damaged: int
    """segments with something that is damaged, or that are left out"""
    failures: int
    """samples with a record that they cannot be made"""
    made_with: tuple[Mapping[str, Any], ...]
    """of each segment, in name order"""

    @classmethod
    def of(cls, feature_set: FeatureSet) -> FeatureSetInfo:
        """Look at what is on the disk now; reads no values."""
        reader = feature_set.reader
        with reading(feature_set.key):
            reader.refresh()
            segments, samples = reader.segments, len(reader)
            replaced = waiting(feature_set.layout, reader, 0.0)
        recipe = None
        with suppress(UnknownRecipeError):
            recipe = feature_set.recipe
        return cls(
            feature_set.key,
            feature_set.fingerprint,
            recipe,
            samples,
            _shapes(segments),
            str(segments[0].dtype) if segments else None,
            sum(_size(Path(segment.path)) for segment in segments),
            len(segments),
            len(replaced),
            sum(_size(feature_set.layout.segments / name) for name in replaced),
            max(replaced.values(), default=None),
            len(reader.problems),
            sum(1 for _ in feature_set.failures.folder.glob("*.json")),
            tuple(segment.header["made_with"] for segment in segments),
        )


@dataclass(frozen=True)
class SampleInfo:
    """Where the features of one sample are, and where they come from: `FeatureStore.explain`."""

    key: FeatureKey
    fingerprint: str
    recipe: Recipe
    id: str
    failure: FailureRecord | None = None
    """why it could not be made, where that is recorded"""
    stored: bool = False
    segment: str | None = None
    row: int | None = None
    shape: tuple[int, ...] | None = None
    """(n_frames, *item)"""
    axes: tuple[str, ...] | None = None
    """names of the axes of an item"""
    dtype: str | None = None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    """why the stored values, or what is kept beside them, cannot be trusted: nothing of what follows is known then"""
    frame_indices: list[int] | None = None
    timestamps_s: list[float] | None = None
    provenance: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, feature_set: FeatureSet, id: str) -> SampleInfo:
        """Look one sample up; reads its values, its line and its record."""
        known: dict[str, Any] = {"failure": feature_set.failures.get(check_id(id))}
        (position,) = feature_set.positions([id])
        if position is not None:
            segment, row = position
            known |= {"stored": True, "segment": segment.name, "row": row, "shape": segment.shape_of(row)}
            known |= {"dtype": str(segment.dtype), "axes": segment.form.axes, "made_with": segment.header["made_with"]}
            try:
                segment.read(row)
                line = segment.line(row)
                known |= {name: line.get(name) for name in ("frame_indices", "timestamps_s", "provenance")}
            except (CorruptRowError, OSError) as error:
                known["problem"] = str(error)
        return cls(feature_set.key, feature_set.fingerprint, feature_set.recipe, id, **known)


def _shapes(segments: Iterable[Segment]) -> tuple[tuple[int, ...], ...]:
    """Distinct ones of the rows, in the order in which they come."""
    found: dict[tuple[int, ...], None] = {}
    for segment in segments:
        if segment.starts is None:
            found.update(dict.fromkeys([segment.shape_of(0)] if segment.n else []))
        else:
            counts = np.diff(segment.starts)
            found.update({(count, *segment.form.item): None for count in dict.fromkeys(counts.tolist())})
    return tuple(found)


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; what another process removes meanwhile counts no more."""
    size = 0
    for path in folder.glob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
