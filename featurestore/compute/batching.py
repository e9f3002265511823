"""Batch: prepared samples that go through an encoder together, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.compute.preparation import Prepared
from featurestore.encoders.contract import misfit
from featurestore.encoders.surroundings import undisturbed
from featurestore.errors import EncodingError, FeatureStoreError
from featurestore.features import Failure, Features

if TYPE_CHECKING:
    from featurestore.encoders import Encoder

Answer = tuple[str, Features | Failure]
_Piece = tuple["NDArray[Any] | Failure", NDArray[np.int64], "NDArray[np.float64] | None"]


class Batch:
    """Samples, or pieces of them, that wait for an encoder.

    size     inputs (images, texts) that fill it, of which at most twice as many go in at a time; sound goes
             through one sample at a time, because an encoder of sound normalises over all windows that it is given
    dtype    of the features
    stage    called with "loading" before the encoder reads its weights, with "encoding" when it has them
    seconds  spent by the encoder so far; load_s those before, for weights and for importing torch
    """

    def __init__(self, encoder: Encoder, size: int, dtype: str, stage: Callable[[str], object]) -> None:
        self.encoder = encoder
        self.size = size if encoder.modality != "audio" else 1
        self.dtype = dtype
        self.stage = stage
        self.seconds = self.load_s = 0.0
        self._loaded = False
        self._waiting: list[tuple[str, Prepared]] = []
        self._count = 0
        self._pieces: dict[str, list[_Piece]] = {}  # of samples of which more is to come, without their pictures

    def add(self, id: str, prepared: Prepared) -> None:
        """Let a sample, or the next piece of it, wait."""
        self._waiting.append((id, prepared))
        self._count += len(prepared.inputs)

    def drop(self, id: str) -> None:
        """Forget the pieces of a sample of which the others cannot be had."""
        self._pieces.pop(id, None)
        self._waiting = [(other, prepared) for other, prepared in self._waiting if other != id]
        self._count = sum(len(prepared.inputs) for _, prepared in self._waiting)

    @property
    def full(self) -> bool:
        """Whether it is worth encoding."""
        return self._count >= self.size

    def encode(self) -> list[Answer]:
        """Features, or why not, of all samples that wait and of which all is here."""
        samples, self._waiting, self._count = self._waiting, [], 0
        if not samples:
            return []
        start = time.perf_counter()
        try:
            if not self._loaded:
                self._load()
                start = time.perf_counter()
            return self._together(samples)
        except FeatureStoreError as error:
            if not isinstance(error, EncodingError):
                raise  # weights or packages: it concerns every sample
            return self._apart(samples, error)
        except Exception as error:  # noqa: BLE001 - an encoder is somebody's code; one sample must not cost the others
            return self._apart(samples, error)
        finally:
            self.seconds += time.perf_counter() - start

    def _load(self) -> None:
        start = time.perf_counter()
        self.stage("loading")
        load = getattr(self.encoder, "load", None)
        if load is not None:
            load()
        self._loaded = True
        self.load_s = time.perf_counter() - start
        self.stage("encoding")

    def _together(self, samples: Sequence[tuple[str, Prepared]]) -> list[Answer]:
        inputs = [prepared.inputs for _, prepared in samples]
        if isinstance(inputs[0], list):
            together: Any = [text for texts in inputs for text in texts]
        else:
            together = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        values = self._values(together)
        if len(samples) > 1 and not np.isfinite(values).all():
            raise EncodingError("not all values are numbers: whose fault that is shows where each is alone")
        results: list[Answer] = []
        at = 0
        for id, prepared in samples:
            own = values[at : at + len(prepared.inputs)].copy()  # an encoder may hand out the same buffer twice
            at += len(prepared.inputs)
            results += self._joined(id, own, prepared)
        return results

    def _values(self, inputs: Any) -> NDArray[Any]:
        """A row for each input."""
        rows = len(inputs)
        calls = max(rows // self.size, 1) if self.encoder.modality != "audio" else 1
        found = []
        for call in range(calls):
            given = inputs[rows * call // calls : rows * (call + 1) // calls]
            with undisturbed():  # ours do so themselves; another package's does not know what this process has set
                values = self.encoder.encode(given)
            if (problem := misfit(values, len(given), self.encoder)) is not None:
                raise EncodingError(f"encoder {type(self.encoder).__name__} {problem}")
            with np.errstate(over="ignore"):
                found.append(values.astype(self.dtype, copy=calls > 1))  # as above
        return found[0] if calls == 1 else np.concatenate(found)

    def _joined(self, id: str, outcome: NDArray[Any] | Failure, prepared: Prepared) -> list[Answer]:
        """The answer for a sample, once the last of its pieces is here."""
        self._pieces.setdefault(id, []).append((outcome, prepared.frame_indices, prepared.timestamps_s))
        if prepared.more:
            return []
        outcomes, indices, seconds = zip(*self._pieces.pop(id), strict=True)
        failed = next((each for each in outcomes if isinstance(each, Failure)), None)
        if failed is not None:
            return [(id, replace(failed, sources=tuple(prepared.sources)))]
        prepared.frame_indices = np.concatenate(indices)
        prepared.timestamps_s = None if prepared.timestamps_s is None else np.concatenate(seconds)
        values = outcomes[0] if len(outcomes) == 1 else np.concatenate(outcomes)
        return [(id, self._features(id, values, prepared))]

    def _features(self, id: str, values: NDArray[Any], prepared: Prepared) -> Features | Failure:
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            path = prepared.sources[0]["path"] if prepared.sources else "no file"
            message = f"{count} of {values.size} values of sample {id!r} ({path}) are NaN or infinite as {self.dtype}"
            return Failure("encoding", message, True, tuple(prepared.sources))
        return Features(values, prepared.frame_indices, prepared.timestamps_s, prepared.provenance)

    def _apart(self, samples: Sequence[tuple[str, Prepared]], error: Exception) -> list[Answer]:
        """One by one after a batch failed: finds the sample that is to blame, and needs less memory."""
        results: list[Answer] = []
        for id, prepared in samples:
            try:
                if len(samples) > 1:
                    results += self._together([(id, prepared)])
                    continue
            except Exception as own:  # noqa: BLE001 - as above
                error = own
            path = prepared.sources[0]["path"] if prepared.sources else "no file"
            message = (
                f"sample {id!r} ({path}): {type(self.encoder).__name__}.encode failed: {type(error).__name__}: {error}"
            )
            # The code may be mended and memory may be freed, so it is worth another try.
            results += self._joined(id, Failure("encoding", message, False), prepared)
        return results
