"""Features of videos, computed once, read for ever, and never wrong without saying so.

The names below are loaded when they are first used: importing the package costs nothing, and reading
a store imports neither zarr nor torch.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for true; importing it from typing would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from featurestore.encoders import register_encoder
    from featurestore.errors import (
        FailedSampleError,
        FailedSamplesError,
        FeatureStoreError,
        MissingFeatureError,
        SamplingError,
    )
    from featurestore.extractor import Extractor
    from featurestore.features import Compute, Failure, Features
    from featurestore.key import FeatureKey
    from featurestore.recipe import Recipe
    from featurestore.samplers import register_sampler
    from featurestore.samples import Sample, read_manifest
    from featurestore.store import FeatureStore

__version__ = "0.1.0"

__all__ = [
    # keep
    "FeatureKey",
    "FeatureStore",
    "Features",
    "Failure",
    "Recipe",
    # make
    "Compute",
    "Extractor",
    "Sample",
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
    "Compute": "features",
    "Extractor": "extractor",
    "Sample": "samples",
    "read_manifest": "samples",
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
