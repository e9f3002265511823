"""Batch: prepared samples that go through an encoder together, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import EncodingError, FeatureStoreError
from featurestore.features import Failure, Features
from featurestore.preparation import Prepared

if TYPE_CHECKING:
    from featurestore.encoders import Encoder

Answer = tuple[str, Features | Failure]


class Batch:
    """Samples that wait for an encoder.

    size     inputs (images, texts) that fill it; sound goes through one sample at a time, because an
             encoder of sound normalises over all windows that it is given
    dtype    of the features
    seconds  spent by the encoder so far
    """

    def __init__(self, encoder: Encoder, size: int, dtype: str) -> None:
        self.encoder = encoder
        self.size = size if encoder.modality != "audio" else 1
        self.dtype = dtype
        self.seconds = 0.0
        self._waiting: list[tuple[str, Prepared]] = []
        self._count = 0

    def add(self, id: str, prepared: Prepared) -> None:
        """Let a sample wait."""
        self._waiting.append((id, prepared))
        self._count += len(prepared.inputs)

    @property
    def full(self) -> bool:
        """Whether it is worth encoding."""
        return self._count >= self.size

    def encode(self) -> list[Answer]:
        """Features, or why not, of all that waits."""
        samples, self._waiting, self._count = self._waiting, [], 0
        if not samples:
            return []
        start = time.perf_counter()
        try:
            return self._together(samples)
        except FeatureStoreError as error:
            if not isinstance(error, EncodingError):
                raise  # weights or packages: it concerns every sample
            return self._apart(samples, error)
        except Exception as error:  # noqa: BLE001 - an encoder is somebody's code; one sample must not cost the others
            return self._apart(samples, error)
        finally:
            self.seconds += time.perf_counter() - start

    def _together(self, samples: Sequence[tuple[str, Prepared]]) -> list[Answer]:
        inputs = [prepared.inputs for _, prepared in samples]
        if isinstance(inputs[0], list):
            together: Any = [text for texts in inputs for text in texts]
        else:
            together = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        values = self.encoder.encode(together)
        expected = (len(together), self.encoder.dim)
        if getattr(values, "shape", None) != expected or values.dtype not in (np.float16, np.float32):
            found = f"{getattr(values, 'shape', type(values).__name__)} {getattr(values, 'dtype', '')}"
            raise EncodingError(
                f"encoder {type(self.encoder).__name__} made {found}, not {expected} float16 or float32"
            )
        results: list[Answer] = []
        at = 0
        for id, prepared in samples:
            # A copy: an encoder may hand out the same buffer twice.
            with np.errstate(over="ignore"):
                own = values[at : at + len(prepared.inputs)].astype(self.dtype)
            at += len(prepared.inputs)
            results.append((id, self._features(id, own, prepared)))
        return results

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
            results.append((id, Failure("encoding", message, False, tuple(prepared.sources))))
        return results
