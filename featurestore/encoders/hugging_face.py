"""A network of the transformers library, built from an architecture that is part of the recipe.

An architecture is the part of a config.json that changes the output of a network in evaluation mode.
What a config leaves out has the library's default, which is written down here in full, so that two
configs that mean the same are the same, and a new default of the library cannot change an old recipe.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from featurestore.encoders.frozen import FrozenNetwork, misfit
from featurestore.encoders.tensors import Renamed, Tensors
from featurestore.encoders.weights import Checkpoint, missing_package
from featurestore.errors import ConfigError

if TYPE_CHECKING:
    import torch


class HuggingFaceNetwork(FrozenNetwork):
    """One row of a table: which model, and what of it is in use."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    model: ClassVar[str]  # class of transformers; its config class is config_class
    config_class: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]  # in config.json
    prefix: ClassVar[str]  # of the model's tensors in a file that has heads or other towers beside it
    unused: ClassVar[tuple[str, ...]]  # beginnings of names that do not take part in the output
    defaults: ClassVar[Mapping[str, Any]]  # transformers' own
    published_architecture: ClassVar[Mapping[str, Any]]  # where the published model differs from them

    @property
    def dim(self) -> int:
        return int(self.describe()["architecture"]["hidden_size"])

    @abstractmethod
    def prepared_by(self, preprocessor: Mapping[str, Any]) -> dict[str, Any]:
        """How input is prepared, from preprocessor_config.json; what is known of the published model if it is empty."""

    def known(self) -> dict[str, Any]:
        return self._described({**self.defaults, **self.published_architecture}, {})

    def described_by(self, checkpoint: Checkpoint) -> dict[str, Any]:
        config = checkpoint.read_json("config.json")
        if config and config.get("model_type") not in self.model_types:
            raise ConfigError(
                f"{checkpoint.folder / 'config.json'} describes a model of type {config.get('model_type')!r}; "
                f"{self.name} needs {' or '.join(map(repr, self.model_types))}"
            )
        config = config.get("vision_config", config)
        own = config or self.published_architecture
        architecture = {name: own.get(name, default) for name, default in self.defaults.items()}
        return self._described(architecture, checkpoint.read_json("preprocessor_config.json"))

    def _described(self, architecture: dict[str, Any], preprocessor: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "library": "transformers",
            "model": self.model,
            "architecture": architecture,
            **self.prepared_by(preprocessor),
        }

    def select(self, tensors: Tensors) -> Tensors:
        """Names without the prefix; weight normalisation under the name that torch has given it since 2.1."""
        inside = [name for name in tensors if name.startswith(self.prefix)] or list(tensors)
        names = {}
        for name in inside:
            short = name.removeprefix(self.prefix)
            for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
                if short.endswith(f".{old}"):
                    short = f"{short.removesuffix(old)}parametrizations.weight.{new}"
            if not short.startswith(self.unused):
                names[short] = name
        return Renamed(tensors, names)

    def build(self, description: Mapping[str, Any], tensors: Tensors | None) -> torch.nn.Module:
        try:
            import torch
            import transformers  # seconds; only computing needs it
        except ImportError:
            raise missing_package("transformers") from None
        make = getattr(transformers, self.model)
        config = getattr(transformers, self.config_class)(**description["architecture"], **self.off())
        network: torch.nn.Module
        if tensors is None:
            network = make(config)
            return network
        loaded = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
        with _quiet(transformers):
            # The library renames tensors of older files to its own layout of the day.
            network, report = make.from_pretrained(
                None,
                config=config,
                state_dict=loaded,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with the rest
            )
        wrong = [f"{name} is missing" for name in report["missing_keys"] if not name.startswith(self.unused)]
        wrong += [f"{name} is not part of it" for name in report["unexpected_keys"]]
        wrong += [f"{name} is {tuple(got)}, not {tuple(wanted)}" for name, got, wanted in report["mismatched_keys"]]
        if wrong:
            raise misfit(wrong)
        return network

    def off(self) -> dict[str, Any]:
        """Options that switch off what only training uses."""
        return {}


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bar: extraction has its own.  No table of what does not fit: that is raised, or not in use."""
    logging = transformers.utils.logging
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
