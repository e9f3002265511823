"""Extractor: a compute that makes features from media with a registered encoder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

from featurestore.compute.batching import Answer, Batch
from featurestore.compute.counterparts import MEDIA, Counterparts
from featurestore.compute.pipeline import Pipeline, timed
from featurestore.compute.preparation import PREPARATIONS, Preparation, Sampling, prepare
from featurestore.errors import ConfigError, ManifestError, MissingFeatureError
from featurestore.features import Failure
from featurestore.key import FeatureKey
from featurestore.provenance import legible
from featurestore.recipe import Recipe
from featurestore.sample import Sample, parts
from featurestore.storage.failures import FailureRecord

if TYPE_CHECKING:
    from featurestore.encoders import Encoder
    from featurestore.media import DecodePool

DTYPES = ("float16", "float32")
TIMEOUT_S = 300.0
MEMORY_BYTES = 4 << 30
_LIBRARIES = {"torch": "torch", "open_clip": "open_clip_torch", "transformers": "transformers", "av": "av"}
MOST_BYTES = 512 << 20  # of pixels that are on their way to the encoder
ROOM_PER_WORKER = 3  # a job that runs, one in its queue, a result on its way


@dataclass
class Seconds:
    """Time spent by the stages of an extractor; `decode` adds up over the workers."""

    decode: float = 0.0
    encode: float = 0.0
    load: float = 0.0
    """of encoders, before they encode: importing torch, reading weights"""


class Extractor:
    """Features of samples from their media.  Settings are arguments; nothing is loaded before the first miss.

    A context manager, at whose end the decode workers end.

    Args:
        sources: {dataset: {id: Sample}}.
        weights: {encoder: directory, hub id[@revision] or "random:SEED"}; by default the hub cache.
        sampler_options: {sampling: {option: value}}.
        dtype: float32 or float16, of the stored values.
        compute_dtype: float32, bfloat16 or float16, of the encoder's arithmetic.
        device: E.g. "cuda:0"; by default a GPU where there is one.
        workers: Decode processes, by default one per core; they stay warm until `close`.
        batch_size: Images (frames, faces) or texts that go through the encoder together.
        timeout_s: Seconds of one decode; longer is one failed sample, not recorded.
        memory_bytes: Of the address space of a decode process; a file that needs more is a failed sample, not recorded.
        allow_corrupt: Take frames that the decoder had to conceal.
        on_stage: Called with "loading" before an encoder reads its weights, and with "encoding" when it has them.

    Example:
        >>> with Extractor({"mine": read_manifest("mine.csv")}) as compute:             # doctest: +SKIP
        ...     FeatureStore("features", compute).get("mine/frame/CLIP_VIT_LARGE/uniform/8", "a")
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
        memory_bytes: int = MEMORY_BYTES,
        allow_corrupt: bool = False,
        on_stage: Callable[[str], object] | None = None,
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
        self.memory_bytes = memory_bytes
        self.allow_corrupt = allow_corrupt
        self.seconds = Seconds()
        self._on_stage = on_stage or _nobody
        self._encoders: dict[str, Encoder] = {}
        self._tried: set[str] = set()  # names of encoders
        self._indexed: dict[Any, Any] = {}  # path -> VideoIndex of videos that were probed and not decoded yet
        self._pool: DecodePool | None = None
        self._whole: set[tuple[str, str]] = set()  # (dataset, column) whose samples are no parts of files

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_stage": _nobody, "_encoders": {}, "_tried": set(), "_indexed": {}, "_pool": None}

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
        from featurestore.encoders import weights_origin

        origin = weights_origin(self.encoder(key), self.weights.get(key.encoder))
        origin = {name: legible(value) if isinstance(value, str) else value for name, value in origin.items()}
        found: dict[str, Any] = {"weights": origin}
        for module, package in _LIBRARIES.items():
            if module in sys.modules and (version := _version(package)) is not None:
                found[package] = version
        if self.device is not None:
            found["device"] = self.device
        return found

    def outdated(self, key: FeatureKey, record: FailureRecord) -> bool:
        """Whether a record of a failure is about another file than the one that its sample names now."""
        return Counterparts(self.sources.get(key.dataset, {}), key.modality).outdated(record)

    def __call__(self, key: FeatureKey, ids: Iterable[str]) -> Iterator[Answer]:
        """Features or failures as they become ready.

        `ids` is consumed as there is room, so it may be an iterator of any length: decode workers
        are kept busy while the encoder runs here, and a bounded number of samples is in memory.
        """
        self._refuse_parts(key)
        encoder = self.encoder(key)
        if key.modality not in PREPARATIONS:
            raise ConfigError(f"{key}: features of modality {key.modality!r} can be imported, but not computed")
        self._try(key.encoder, encoder)
        batch = Batch(encoder, self.batch_size, self.dtype, self._on_stage)
        room = ROOM_PER_WORKER * self.workers
        pipeline = Pipeline(self._beginner(key, encoder), self.pool, room, self._indexed, MOST_BYTES)
        try:
            for id, outcome in pipeline.run(iter(ids)):
                if isinstance(outcome, Failure):
                    batch.drop(id)
                    yield id, outcome
                    continue
                batch.add(id, outcome)
                del outcome  # which may be large: the next one is on its way
                if batch.full:
                    yield from batch.encode()
            yield from batch.encode()
        finally:
            self.seconds.decode += pipeline.decode_s
            self.seconds.encode += batch.seconds
            self.seconds.load += batch.load_s

    def probe(self, key: FeatureKey, ids: Sequence[str]) -> None:
        """Before the first decode: do the descriptions that a sampler relies on fit the videos?

        Frame counts come from a packet scan on the decode workers, and only when the sampler uses
        them.  Raises ConfigError with one message for all samples, and how to go on.
        """
        from featurestore.media import index_video
        from featurestore.samplers import get_sampler

        self._refuse_parts(key)
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
        from featurestore.encoders.contract import require_encoder

        encoder = self._encoders.get(key.encoder)
        if encoder is None:
            encoder = load_encoder(key.encoder, self.weights.get(key.encoder), self.device, self.compute_dtype)
            if not _is_ours(encoder):
                require_encoder(key.encoder, encoder)
            self._encoders[key.encoder] = encoder
        fits = encoder.modality == key.modality or (encoder.modality, key.modality) == ("frame", "face")
        if not fits:
            raise ConfigError(
                f"{key}: encoder {key.encoder} encodes modality {encoder.modality!r}, not {key.modality!r}"
            )
        return encoder

    def _try(self, name: str, encoder: Encoder) -> None:
        """Once: whether an encoder of another package gives what it says, before anything is decoded for it."""
        from featurestore.encoders.contract import try_encoder

        if name not in self._tried and not _is_ours(encoder):
            self._on_stage("loading")
            start = time.perf_counter()
            try_encoder(name, encoder)
            self.seconds.load += time.perf_counter() - start
        self._tried.add(name)

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

    def _refuse_parts(self, key: FeatureKey) -> None:
        """ManifestError where ids mean parts of one file: all of them would have the features of the whole."""
        column = MEDIA.get(key.modality)
        if column is None or (key.dataset, column) in self._whole:
            return
        found = parts(self.sources.get(key.dataset, {}), column)
        if found:
            path, ids = next(iter(found.items()))
            count = sum(map(len, found.values()))
            raise ManifestError(
                f"{key}: {count} samples are parts of {len(found)} files by their start and end, e.g. {ids[0]!r} and "
                f"{ids[1]!r} of {path}; features are of whole files, so all parts of one would be equal: cut the parts "
                "into files and name those, or leave the columns out if the whole is meant"
            )
        self._whole.add((key.dataset, column))

    def pool(self) -> DecodePool:
        """The decode workers, started on first use."""
        from multiprocessing import current_process

        from featurestore.media import DecodePool

        if current_process().daemon:
            raise MissingFeatureError(
                "a sample is not stored, and this worker process cannot start decode workers",
                advice="run `featurestore.extract` before training, or use a DataLoader with num_workers=0",
            )
        if self._pool is None:
            self._pool = DecodePool(self.workers, self.timeout_s, self.memory_bytes)
        return self._pool

    def _beginner(self, key: FeatureKey, encoder: Encoder) -> Callable[[str], Preparation | Failure]:
        sampling, size = self.sampling(key), _size(encoder)

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


@cache
def _version(package: str) -> str | None:
    """Looked up once, because every commit asks."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nobody(stage: str) -> None:
    """Listens to no stage."""


def _size(encoder: Encoder) -> tuple[int, int]:
    """(height, width) of the images an encoder takes; encoders of sound and text have none."""
    return getattr(encoder, "size", (0, 0))


def _is_ours(encoder: Encoder) -> bool:
    return type(encoder).__module__.startswith("featurestore.encoders.")
