"""Inputs: what one sample brings to the model, with where each part came from.

Everything that is computed, live or for the store, is computed by `featurestore.Extractor`: live and stored features
of one recipe are the same numbers because they come from the same code.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.errors import SampleError
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from featurestore.compute.extractor import Extractor
    from featurestore.sample import Sample
    from featurestore.store import FeatureStore


@dataclass(frozen=True, slots=True)
class Given:
    """One modality of one sample."""

    values: NDArray[Any] | None
    """(n_frames, dim); None for a text"""
    served_from: str
    """disk | computed (and kept) | not_kept (computed, the store cannot be written) | live"""
    recipe: str | None = None
    """fingerprint; None for a text"""
    text: str | None = None
    frame_indices: Sequence[int] | None = None
    provenance: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON for the line of a result."""
        found: dict[str, Any] = {"answer": self.served_from}
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


class Fetched:
    """Out of a store, in one trip; a miss is computed by the store's compute and kept, else it is a problem.

    readings   (store, recipe) in turn: what one of them lacks is asked of the next, as where stored rows of one
               recipe are completed by computing into another that a certificate calls equal
    """

    def __init__(self, key: FeatureKey, *readings: tuple[FeatureStore, str | None]) -> None:
        self.key, self.readings = key, readings

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        outcomes: dict[str, Outcome] = {}
        for store, recipe in self.readings:
            rest = [id for id in ids if not isinstance(outcomes.get(id), Given)]
            if rest:
                found = store.fetch(self.key, rest, fingerprint=recipe)
                outcomes |= {id: self._outcome(store, each) for id, each in found.items()}
        return outcomes

    def _outcome(self, store: FeatureStore, found: Features | Failure) -> Outcome:
        if isinstance(found, Features):
            answer = "disk" if found.served_from != "computed" else "not_kept" if store.read_only else "computed"
            return given(found, answer, found.recipe.fingerprint if found.recipe is not None else None)
        if found.reason != "missing":
            return found
        message = f"not stored under {self.key} in {store.root}, and its policy is to read only what is stored"
        return Failure("not stored", message, False)


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
        text = " ".join(part.strip() for part in found.texts)
        return Given(None, "live", text=text, provenance={"note": dict(found.note)})


class Captions:
    """Texts for the prompt out of one file for all samples; one without is asked without such a sentence."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts

    def take(self, ids: Sequence[str]) -> dict[str, Outcome]:
        note = {"note": {"field": "caption"}}
        return {id: Given(None, "live", text=self.texts.get(id, "").strip(), provenance=note) for id in ids}


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
