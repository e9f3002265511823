"""Features of videos, computed once, read for ever, and never wrong without saying so.

The names below are loaded when they are first used: importing the package costs nothing, and reading
a store imports neither zarr nor torch.
"""

from __future__ import annotations

from importlib import import_module

from featurestore.version import __version__ as __version__

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from featurestore.compute.extraction import extract
    from featurestore.compute.extractor import Extractor
    from featurestore.datasets.source import load_dataset
    from featurestore.encoders import register_encoder
    from featurestore.errors import (
        FailedSampleError,
        FailedSamplesError,
        FeatureStoreError,
        MissingFeatureError,
        SamplingError,
    )
    from featurestore.features import Compute, Failure, Features
    from featurestore.key import FeatureKey
    from featurestore.packs import pack
    from featurestore.quality.verification import verify
    from featurestore.recipe import Recipe
    from featurestore.sample import Sample, read_manifest
    from featurestore.samplers import register_sampler
    from featurestore.store import FeatureStore

__all__ = [
    # keep
    "FeatureKey",
    "FeatureStore",
    "Features",
    "Failure",
    "Recipe",
    "pack",
    "verify",
    # make
    "Compute",
    "Extractor",
    "Sample",
    "extract",
    "load_dataset",
    "read_manifest",
    "register_encoder",
    "register_sampler",
    # what goes wrong; the whole tree is featurestore.errors
    "FailedSampleError",
    "FailedSamplesError",
    "FeatureStoreError",
    "MissingFeatureError",
    "SamplingError",
]

_HOME = {
    "FeatureKey": "key",
    "FeatureStore": "store",
    "Features": "features",
    "Failure": "features",
    "Recipe": "recipe",
    "pack": "packs",
    "verify": "quality.verification",
    "Compute": "features",
    "Extractor": "compute.extractor",
    "Sample": "sample",
    "extract": "compute.extraction",
    "load_dataset": "datasets.source",
    "read_manifest": "sample",
    "register_encoder": "encoders",
    "register_sampler": "samplers",
    "FailedSampleError": "errors",
    "FailedSamplesError": "errors",
    "FeatureStoreError": "errors",
    "MissingFeatureError": "errors",
    "SamplingError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
