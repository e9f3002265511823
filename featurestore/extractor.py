"""Extractor: a compute that makes features from media with a registered encoder."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import (
    ConfigError,
    EncodingError,
    FeatureStoreError,
    MissingFeatureError,
    SampleError,
)
from featurestore.features import Failure, Features
from featurestore.key import FeatureKey
from featurestore.preparation import PREPARATIONS, Preparation, Prepared, Sampling
from featurestore.recipe import Recipe
from featurestore.samples import Sample

if TYPE_CHECKING:
    from featurestore.encoders import Encoder
    from featurestore.media import DecodePool

DTYPES = ("float16", "float32")
TIMEOUT_S = 300.0

Answer = tuple[str, Features | Failure]


@dataclass
class Seconds:
    """Time spent by the stages of an extractor; `decode` adds up over the workers."""

    decode: float = 0.0
    encode: float = 0.0


class Extractor:
    """Features of samples from their media.  Settings are arguments; nothing is loaded before the first miss.

    sources          {dataset: {id: Sample}}
    weights          {encoder: directory | hub id[@revision] | "random:SEED"}; default the hub cache
    sampler_options  {sampling: {option: value}}
    dtype            float32 | float16 of the stored values; compute_dtype that of the encoder's arithmetic
    device           e.g. "cuda:0"; by default a GPU where there is one
    workers          decode processes, by default one per core; they stay warm until `close`
    batch_size       images (frames, faces) or texts that go through the encoder together
    timeout_s        of one decode; longer is one failed sample, not recorded
    allow_corrupt    take frames that the decoder had to conceal
    """

    def __init__(
        self,
        sources: Mapping[str, Mapping[str, Sample]],
        *,
        weights: Mapping[str, str] | None = None,
        sampler_options: Mapping[str, Mapping[str, Any]] | None = None,
        dtype: str = "float32",
        compute_dtype: str = "float32",
        device: str | None = None,
        workers: int | None = None,
        batch_size: int = 32,
        timeout_s: float = TIMEOUT_S,
        allow_corrupt: bool = False,
    ) -> None:
        self.sources = sources
        self.weights = dict(weights or {})
        self.sampler_options = {name: dict(options) for name, options in (sampler_options or {}).items()}
        self.dtype = dtype
        self.compute_dtype = compute_dtype
        self.device = device
        self.workers = workers or len(os.sched_getaffinity(0))
        self.batch_size = batch_size
        self.timeout_s = timeout_s
        self.allow_corrupt = allow_corrupt
        self.seconds = Seconds()
        self._encoders: dict[str, Encoder] = {}
        self._indexed: dict[Any, Any] = {}  # path -> VideoIndex of videos that were probed and not decoded yet
        self._pool: DecodePool | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoders": {}, "_indexed": {}, "_pool": None}

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decode workers; they start again when needed."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    # -- the Compute protocol ------------------------------------------------------------------

    def recipe(self, key: FeatureKey) -> Recipe:
        """All that decides the numbers besides the key.  Reads no weights, imports no torch.

        Raises WeightsNotFoundError where the weights are not here and their digest is not remembered.
        """
        from featurestore.encoders import weights_identity
        from featurestore.media import media_recipe

        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        encoder = self.encoder(key)
        return Recipe(
            {
                "encoder": {"version": encoder.version, "config": encoder.config()},
                "weights": weights_identity(encoder, self.weights.get(key.encoder)),
                "sampler": self._sampler_recipe(key),
                "media": media_recipe(key.modality, _size(encoder), self.allow_corrupt),
                "compute_dtype": self.compute_dtype,
                "dtype": self.dtype,
            }
        )

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[Answer]:
        """Features or failures as they become ready.

        `ids` is consumed as there is room, so it may be an iterator of any length: decode workers
        are kept busy while the encoder runs here, and a bounded number of samples is in memory.
        """
        encoder = self.encoder(key)
        if key.modality not in PREPARATIONS:
            raise ConfigError(f"{key}: features of modality {key.modality!r} can be imported, but not computed")
        batch = _Batch(self.batch_size if key.modality != "audio" else 1)
        run = _Run(self, key, _size(encoder))
        for id, outcome in run.prepare(iter(ids), batch):
            if isinstance(outcome, Failure):
                yield id, outcome
            else:
                batch.add(id, outcome)
                if batch.full:
                    yield from self._encode(encoder, batch.take())
        yield from self._encode(encoder, batch.take())

    def probe(self, key: FeatureKey, ids: Sequence[str]) -> None:
        """Before the first decode: do the descriptions that a sampler relies on fit the videos?

        Frame counts come from a packet scan on the decode workers, and only when the sampler uses
        them.  Raises ConfigError with one message for all samples, and how to go on.
        """
        from featurestore.media import index_video
        from featurestore.samplers import get_sampler

        sampler = get_sampler(key.sampling)
        if key.modality != "frame" or sampler.conflict is None:
            return
        options = sampler.effective(self.sampler_options.get(key.sampling, {}))
        samples = [sample for id in ids if (sample := self.sample(key, id)) is not None and sample.video is not None]
        conflicts = []
        for sample, future in [(sample, self.pool().submit(_timed, index_video, sample.video)) for sample in samples]:
            if future.exception() is not None:
                continue  # it fails again when its turn comes, and is recorded then
            _, index = future.result()
            self._indexed[index.path] = index
            conflict = sampler.conflict(sample, index.total, options)
            if conflict is not None:
                conflicts.append(conflict)
        if conflicts:
            raise ConfigError(f"{key}: {len(conflicts)} of {len(samples)} samples: {conflicts[0]}")

    # -- pieces --------------------------------------------------------------------------------

    def encoder(self, key: FeatureKey) -> Encoder:
        """The encoder of a key; it reads its weights when it first encodes."""
        from featurestore.encoders import load_encoder

        encoder = self._encoders.get(key.encoder)
        if encoder is None:
            encoder = load_encoder(key.encoder, self.weights.get(key.encoder), self.device, self.compute_dtype)
            self._encoders[key.encoder] = encoder
        fits = encoder.modality == key.modality or (encoder.modality, key.modality) == ("frame", "face")
        if not fits:
            raise ConfigError(
                f"{key}: encoder {key.encoder} encodes modality {encoder.modality!r}, not {key.modality!r}"
            )
        return encoder

    def sampling(self, key: FeatureKey) -> Sampling:
        """The sampler of a key with its options."""
        return Sampling(key, self.sampler_options.get(key.sampling, {}))

    def sample(self, key: FeatureKey, id: str) -> Sample | None:
        """The sample of an id, or None where its dataset's source has none."""
        source = self.sources.get(key.dataset)
        if source is None:
            raise ConfigError(
                f"{key}: no samples of dataset {key.dataset!r} were given, only of {sorted(self.sources)}"
            )
        return source.get(id)

    def pool(self) -> DecodePool:
        """The decode workers, started on first use."""
        from multiprocessing import current_process

        from featurestore.media import DecodePool

        if current_process().daemon:
            raise MissingFeatureError(
                "a sample is not stored, and this worker process cannot start decode workers: run `fstore extract` "
                "before training, or use a DataLoader with num_workers=0"
            )
        if self._pool is None:
            self._pool = DecodePool(self.workers, timeout_s=self.timeout_s)
        return self._pool

    def _sampler_recipe(self, key: FeatureKey) -> dict[str, Any]:
        from featurestore.samplers import get_sampler

        sampler = get_sampler(key.sampling)
        return {"version": sampler.version, "options": sampler.effective(self.sampler_options.get(key.sampling, {}))}

    def _encode(self, encoder: Encoder, samples: Sequence[tuple[str, Prepared]]) -> Iterator[Answer]:
        if not samples:
            return
        start = time.perf_counter()
        try:
            results = self._encode_together(encoder, samples)
        except FeatureStoreError as error:
            if not isinstance(error, EncodingError):
                raise  # weights or packages: it concerns every sample
            results = self._encode_apart(encoder, samples, error)
        except Exception as error:  # noqa: BLE001 - an encoder is somebody's code; one sample must not cost the others
            results = self._encode_apart(encoder, samples, error)
        finally:
            self.seconds.encode += time.perf_counter() - start
        yield from results

    def _encode_together(self, encoder: Encoder, samples: Sequence[tuple[str, Prepared]]) -> list[Answer]:
        inputs = [prepared.inputs for _, prepared in samples]
        if isinstance(inputs[0], list):
            together: Any = [text for texts in inputs for text in texts]
        else:
            together = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        values = encoder.encode(together)
        expected = (len(together), encoder.dim)
        if getattr(values, "shape", None) != expected or values.dtype not in (np.float16, np.float32):
            found = f"{getattr(values, 'shape', type(values).__name__)} {getattr(values, 'dtype', '')}"
            raise EncodingError(f"encoder {type(encoder).__name__} made {found}, not {expected} float16 or float32")
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

    def _encode_apart(
        self, encoder: Encoder, samples: Sequence[tuple[str, Prepared]], error: Exception
    ) -> list[Answer]:
        """One by one after a batch failed: finds the sample that is to blame, and needs less memory."""
        results: list[Answer] = []
        for id, prepared in samples:
            try:
                if len(samples) > 1:
                    results += self._encode_together(encoder, [(id, prepared)])
                    continue
            except Exception as own:  # noqa: BLE001 - as above
                error = own
            path = prepared.sources[0]["path"] if prepared.sources else "no file"
            message = f"sample {id!r} ({path}): {type(encoder).__name__}.encode failed: {type(error).__name__}: {error}"
            # The code may be mended and memory may be freed, so it is worth another try.
            results.append((id, Failure("encoding", message, False, tuple(prepared.sources))))
        return results


@dataclass
class _Batch:
    """Samples that wait for the encoder."""

    size: int
    """inputs (images, texts) that fill it"""
    samples: list[tuple[str, Prepared]] = field(default_factory=list)
    count: int = 0

    def add(self, id: str, prepared: Prepared) -> None:
        self.samples.append((id, prepared))
        self.count += len(prepared.inputs)

    @property
    def full(self) -> bool:
        return self.count >= self.size

    def take(self) -> list[tuple[str, Prepared]]:
        samples, self.samples, self.count = self.samples, [], 0
        return samples


class _Run:
    """Preparations in flight: each is a generator whose jobs run on the decode workers."""

    def __init__(self, extractor: Extractor, key: FeatureKey, size: tuple[int, int]) -> None:
        self.extractor = extractor
        self.key = key
        self.size = size
        self.sampling = extractor.sampling(key)
        self.room = 3 * extractor.workers  # two jobs a worker in its queue, one result on its way
        self.flying: dict[Future[Any], tuple[str, Preparation]] = {}
        self.ready: deque[tuple[str, Prepared | Failure]] = deque()

    def prepare(self, ids: Iterator[str], batch: _Batch) -> Iterator[tuple[str, Prepared | Failure]]:
        """Whatever is ready; before each answer the workers are given what they have room for."""
        try:
            more = True
            while more or self.flying or self.ready:
                while more and len(self.flying) + len(self.ready) < self.room:
                    id = next(ids, None)
                    if id is None:
                        more = False
                    else:
                        self._begin(id)
                # While answers wait the encoder is the slower side: only look what came in, do not wait.
                self._collect(wait_s=None if not self.ready else 0)
                if self.ready:
                    yield self.ready.popleft()
        finally:
            for future in self.flying:
                future.cancel()

    def _begin(self, id: str) -> None:
        sample = self.extractor.sample(self.key, id)
        if sample is None:
            message = f"sample {id!r} is not in the source of dataset {self.key.dataset!r}"
            self.ready.append((id, Failure("source", message, deterministic=False)))
            return
        prepare = PREPARATIONS[self.key.modality]
        self._advance(id, prepare(sample, self.sampling, self.size, self.extractor.allow_corrupt), None, None)

    def _advance(self, id: str, preparation: Preparation, result: Any, error: BaseException | None) -> None:
        try:
            job = preparation.throw(error) if error is not None else preparation.send(result)
            if len(job) == 2 and job[1] in self.extractor._indexed:
                job = preparation.send(self.extractor._indexed.pop(job[1]))
        except StopIteration as stop:
            self.ready.append((id, stop.value))
        except SampleError as failed:
            self.ready.append((id, Failure.of(failed, _sources_of(failed))))
        except FeatureStoreError:
            raise  # no workers, no package: it concerns every sample
        except Exception as bug:  # noqa: BLE001 - a sampler or decoder that breaks on one sample must not cost the others
            message = f"sample {id!r} of {self.key}: {type(bug).__name__}: {bug}"
            self.ready.append((id, Failure("unexpected", message, deterministic=False)))
        else:
            future = self.extractor.pool().submit(_timed, *job)
            self.flying[future] = (id, preparation)

    def _collect(self, wait_s: float | None) -> None:
        if not self.flying:
            return
        done, _ = wait(self.flying, timeout=wait_s, return_when=FIRST_COMPLETED)
        for future in done:
            id, preparation = self.flying.pop(future)
            error = future.exception()
            if error is not None:
                self._advance(id, preparation, None, error)
                continue
            seconds, result = future.result()
            self.extractor.seconds.decode += seconds
            self._advance(id, preparation, result, None)


def _size(encoder: Encoder) -> tuple[int, int]:
    """(height, width) of the images an encoder takes; encoders of sound and text have none."""
    return getattr(encoder, "size", (0, 0))


def _timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Runs in a worker: (seconds, result)."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def _sources_of(error: SampleError) -> tuple[dict[str, Any], ...]:
    """Size and mtime of the file that an error names, so that its record is void once the file changes."""
    path = getattr(error, "path", None)
    if path is None:
        return ()
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return ({"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns},)
