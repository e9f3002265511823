"""Inputs: what one sample brings to the model, with where each part came from.

Everything that is computed, live or for the store, is computed by `featurestore.Extractor`: live and stored features
of one recipe are the same numbers because they come from the same code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.errors import (
    DescriptionError,
    FailedSampleError,
    FailedSamplesError,
    MissingFeatureError,
    SampleError,
    UnknownRecipeError,
)
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurestore.extractor import Extractor
    from featurestore.samples import Sample
    from featurestore.store import FeatureStore


@dataclass(frozen=True, slots=True)
class Given:
    """One modality of one sample."""

    values: NDArray[Any] | None
    """(rows, dim); None for a text"""
    answer: str
    """disk | computed (and kept) | not_kept (computed, the store cannot be written) | live"""
    recipe: str | None = None
    """fingerprint; None for a text"""
    text: str | None = None
    frame_indices: Sequence[int] | None = None
    provenance: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON for the line of a result."""
        found: dict[str, Any] = {"answer": self.answer}
        if self.recipe is not None:
            found["recipe"] = self.recipe
        if self.frame_indices is not None:
            found["frame_indices"] = [int(index) for index in self.frame_indices]
        if note := (self.provenance or {}).get("note"):
            found["note"] = note
        return found


@dataclass(slots=True)
class Inputs:
    """All modalities of one sample, or why one is not there."""

    id: str
    given: dict[str, Given] = field(default_factory=dict)
    problems: dict[str, Failure] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """modality -> its share of the time that the samples prepared together took"""


Outcome = Given | Failure


class Source(Protocol):
    """Where one modality comes from."""

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """What each id brings.  Called once per id, in the order that was announced."""


class Live:
    """Computed now, never looked up and never kept.  Decode workers run ahead of what is taken."""

    def __init__(self, extractor: Extractor, key: FeatureKey, ids: Sequence[str]) -> None:
        self.extractor, self.key, self.ids = extractor, key, ids
        self._answers: Iterator[tuple[str, Features | Failure]] | None = None
        self._early: dict[str, Outcome] = {}

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        if self._answers is None:
            self._answers = iter(self.extractor(self.key, self.ids))
            self._recipe = self.extractor.recipe(self.key).fingerprint
        while not all(id in self._early for id in ids):
            id, made = next(self._answers)
            self._early[id] = made if isinstance(made, Failure) else given(made, "live", self._recipe)
        return {id: self._early.pop(id) for id in ids}


class Stored:
    """Looked up; a miss is computed by the store's compute and kept, or is a problem where the store has none."""

    def __init__(self, store: FeatureStore, key: FeatureKey, recipe: str | None = None) -> None:
        from featurestore.store import FeatureStore

        self.store, self.key, self.recipe = store, key, recipe
        # Where `store` computes what is missing, this one raises: a hit is known from a miss by one look-up.
        self._rows = FeatureStore(store.root, read_only=True)

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        return (self._read(ids) if ids else {}) or self._read_or_made(ids)

    def _read(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """All of them from the store, or nothing where one is missing."""
        shelf = self.store.shelf(self.key, recipe=self.recipe)
        if shelf is None:
            return {}
        fingerprint = shelf.fingerprint
        try:
            values = self._rows.get_many(self.key, ids, recipe=fingerprint)
        except (MissingFeatureError, UnknownRecipeError, FailedSampleError, FailedSamplesError):
            return {}
        # Which frames a stored row was made of is stored with it; reading that too would cost more than the row.
        return {id: Given(row, "disk", fingerprint) for id, row in zip(ids, values, strict=True)}

    def _read_or_made(self, ids: Sequence[str]) -> dict[str, Outcome]:
        absent = self.store.missing(self.key, ids, recipe=self.recipe)
        computed, outcomes = set(absent), dict[str, Outcome]()
        if absent and self.store.compute is None:
            message = f"not stored under {self.key} in {self.store.root}, and its policy is to read only what is stored"
            outcomes = {id: Failure("not stored", message, False) for id in absent}
        elif absent:
            outcomes = self._make(absent)
        for id in computed - outcomes.keys():
            found = self.store.get_features(self.key, id, recipe=self.recipe)
            outcomes[id] = given(found, "computed", found.recipe.fingerprint if found.recipe else None)
        hits = [id for id in ids if id not in computed]
        return outcomes | (self._read(hits) if hits else {})

    def _make(self, ids: Sequence[str]) -> dict[str, Outcome]:
        """What cannot be made; where nothing can be kept, also what was made.  The rest is stored afterwards."""
        try:
            values = self.store.get_many(self.key, ids, recipe=self.recipe)
        except FailedSamplesError as error:
            return {id: Failure(record.reason, record.message, False) for id, record in error.failures.items()}
        except FailedSampleError as error:
            return {ids[0]: Failure(getattr(error.failure, "reason", "failed before"), str(error), False)}
        if not self.store.read_only:
            return {}
        compute = self.store.compute
        recipe = getattr(compute.recipe(self.key), "fingerprint", None) if compute is not None else None
        return {id: Given(row, "not_kept", recipe) for id, row in zip(ids, values, strict=True)}


class Mixed:
    """Stored rows of one recipe; what they lack is computed into another that a certificate calls equal."""

    def __init__(self, stored: Stored, own: Stored) -> None:
        self.stored, self.own = stored, own

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        absent = set(self.stored.store.missing(self.stored.key, ids, recipe=self.stored.recipe))
        found = self.stored.take([id for id in ids if id not in absent])
        return found | self.own.take([id for id in ids if id in absent])


class Text:
    """Descriptions of the face as MER-Factory wrote them, for the prompt itself."""

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        self.samples = samples

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        return {id: self._one(self.samples[id]) for id in ids}

    def _one(self, sample: Sample) -> Outcome:
        from featurestore.merfactory import descriptions_of

        try:
            found = descriptions_of(sample)
        except SampleError as error:
            return Failure.of(error)
        text = " ".join(part.strip() for part in found.texts).strip()
        if not text:
            return Failure.of(DescriptionError(f"sample {sample.id!r}: {sample.au_json} has an empty description"))
        return Given(None, "live", text=text, provenance={"note": dict(found.note)})


@dataclass(frozen=True)
class Supply:
    """The sources of one dataset, by modality."""

    sources: Mapping[str, Source]

    def prepare(self, ids: Sequence[str], known: Mapping[str, Mapping[str, Failure]]) -> list[Inputs]:
        """All modalities of these samples, in order.  Raises only for what concerns every sample.

        known   {id: {modality: why}}: problems found before, which are not tried again
        """
        prepared = {id: Inputs(id, problems=dict(known.get(id, {}))) for id in ids}
        for modality, source in self.sources.items():
            start = time.perf_counter()
            outcomes = source.take([id for id in ids if modality not in known.get(id, {})])
            share = (time.perf_counter() - start) / max(1, len(outcomes))
            for id, outcome in outcomes.items():
                prepared[id].seconds[modality] = share
                if isinstance(outcome, Failure):
                    prepared[id].problems[modality] = outcome
                else:
                    prepared[id].given[modality] = outcome
        return list(prepared.values())


def given(features: Features, answer: str, recipe: str | None) -> Given:
    """Features as an input of the model."""
    rows = features.frame_indices
    indices = None if rows is None else rows.tolist()
    return Given(features.values, answer, recipe, frame_indices=indices, provenance=features.provenance)
