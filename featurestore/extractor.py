"""Extractor: a compute that makes features from media with a registered encoder."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featurestore.batch import Answer, Batch
from featurestore.errors import ConfigError, MissingFeatureError
from featurestore.features import Failure
from featurestore.key import FeatureKey
from featurestore.pipeline import Pipeline, timed
from featurestore.preparation import PREPARATIONS, Preparation, Sampling
from featurestore.recipe import Recipe
from featurestore.samples import Sample

if TYPE_CHECKING:
    from featurestore.encoders import Encoder
    from featurestore.media import DecodePool

DTYPES = ("float16", "float32")
TIMEOUT_S = 300.0
_LIBRARIES = {"torch": "torch", "open_clip": "open_clip_torch", "transformers": "transformers", "av": "av"}
ROOM_PER_WORKER = 3  # a job that runs, one in its queue, a result on its way


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

    def made_with(self, key: FeatureKey) -> dict[str, Any]:
        """What may change last bits, or says where weights came from, and is not in the recipe: kept per segment."""
        from importlib.metadata import PackageNotFoundError, version

        from featurestore.encoders import weights_origin

        found: dict[str, Any] = {"weights": weights_origin(self.encoder(key), self.weights.get(key.encoder))}
        for module, package in _LIBRARIES.items():
            if module in sys.modules:
                try:
                    found[package] = version(package)
                except PackageNotFoundError:
                    continue
        if self.device is not None:
            found["device"] = self.device
        return found

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[Answer]:
        """Features or failures as they become ready.

        `ids` is consumed as there is room, so it may be an iterator of any length: decode workers
        are kept busy while the encoder runs here, and a bounded number of samples is in memory.
        """
        encoder = self.encoder(key)
        if key.modality not in PREPARATIONS:
            raise ConfigError(f"{key}: features of modality {key.modality!r} can be imported, but not computed")
        batch = Batch(encoder, self.batch_size, self.dtype)
        pipeline = Pipeline(self._beginner(key, encoder), self.pool, ROOM_PER_WORKER * self.workers, self._indexed)
        try:
            for id, outcome in pipeline.run(iter(ids)):
                if isinstance(outcome, Failure):
                    yield id, outcome
                    continue
                batch.add(id, outcome)
                if batch.full:
                    yield from batch.encode()
            yield from batch.encode()
        finally:
            self.seconds.decode += pipeline.decode_s
            self.seconds.encode += batch.seconds

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
        for sample, future in [(sample, self.pool().submit(timed, index_video, sample.video)) for sample in samples]:
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

    def _beginner(self, key: FeatureKey, encoder: Encoder) -> Callable[[str], Preparation | Failure]:
        prepare, sampling, size = PREPARATIONS[key.modality], self.sampling(key), _size(encoder)

        def begin(id: str) -> Preparation | Failure:
            sample = self.sample(key, id)
            if sample is None:
                message = f"sample {id!r} is not in the source of dataset {key.dataset!r}"
                return Failure("source", message, deterministic=False)
            return prepare(sample, sampling, size, self.allow_corrupt)

        return begin

    def _sampler_recipe(self, key: FeatureKey) -> dict[str, Any]:
        from featurestore.samplers import get_sampler

        sampler = get_sampler(key.sampling)
        if sampler.modalities and key.modality not in sampler.modalities:
            raise ConfigError(
                f"{key}: sampler {key.sampling!r} chooses of {' or '.join(sampler.modalities)}, not of {key.modality}"
            )
        sampler.check(key.n_frames)
        return {"version": sampler.version, "options": sampler.effective(self.sampler_options.get(key.sampling, {}))}


def _size(encoder: Encoder) -> tuple[int, int]:
    """(height, width) of the images an encoder takes; encoders of sound and text have none."""
    return getattr(encoder, "size", (0, 0))
