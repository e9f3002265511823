"""FrozenNetwork: what the encoders that come with the package share - where weights are, loading, running."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from featurestore.encoders.config_validation import validate_config
from featurestore.encoders.convolutions import right_convolutions
from featurestore.encoders.device import usable_device
from featurestore.encoders.notes import recall, remember, remembered
from featurestore.encoders.surroundings import undisturbed
from featurestore.encoders.tensors import Tensors, digest, read_tensors
from featurestore.encoders.weights import (
    Checkpoint,
    Published,
    Random,
    find,
    missing_package,
    random_identity,
)
from featurestore.errors import ConfigError, FeatureStoreError, InputError, WeightsNotFoundError
from featurestore.untrusted_io.files import expand_path

if TYPE_CHECKING:
    import torch

COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
# One network at a time is loaded, by whichever thread misses first, or run: all draw from one generator of the process.
_turn = threading.RLock()


class FrozenNetwork(ABC):
    """A network in evaluation mode, built from a description that is part of the recipe and from nothing else.

    `describe` says what is built, as JSON: from the weights' own config files where there are any, else
    from what is known about the published model.  Only the tensors that the description asks for are
    read, all of them must be there, and they alone make the digest.
    """

    modality: ClassVar[str]
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]]  # whose versions decide what random:SEED gives

    def __init__(self, weights: str | None = None, device: str | None = None, compute_dtype: str = "float32") -> None:
        if compute_dtype not in COMPUTE_DTYPES:
            raise ConfigError(f"compute_dtype is {compute_dtype!r}; it can be {', '.join(COMPUTE_DTYPES)}")
        self.weights = weights
        self.device = device
        self.compute_dtype = compute_dtype
        self._network: torch.nn.Module | None = None
        self._built: dict[str, Any] | None = None  # the description of _network
        self._said: tuple[Any, Any] | None = None  # identity and description that a recipe may have been made of

    @property
    def name(self) -> str:
        """For messages."""
        return type(self).__name__

    # -- what an encoder says of itself

    @property
    @abstractmethod
    def published(self) -> Published | None:
        """Where weights=None looks; None if nothing is published."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of one feature vector."""

    @abstractmethod
    def known(self) -> dict[str, Any]:
        """The description of the published model; used for random:SEED, and where the files say nothing."""

    @abstractmethod
    def described_by(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The description that the config files beside the weights give."""

    @abstractmethod
    def select(self, tensors: Tensors) -> Tensors:
        """The tensors in use, under the names that they have whichever format they came in."""

    @abstractmethod
    def build(self, description: Mapping[str, Any], tensors: Tensors | None) -> torch.nn.Module:
        """The network with exactly these tensors, or with the library's own initialisation.

        Raises InputError if a tensor is missing, superfluous or of another shape.
        """

    @abstractmethod
    def check(self, batch: Any) -> Any:
        """The batch, if `encode` can take it.  Raises ValuesError."""

    @abstractmethod
    def run(self, network: torch.nn.Module, batch: Any, like: torch.Tensor) -> torch.Tensor:
        """(n, dim); inputs are moved to the device and dtype of `like`, a parameter of the network."""

    # -- what follows from it

    @property
    def source(self) -> Random | Checkpoint:
        """Where the weights are.  Raises WeightsNotFoundError."""
        return find(self.weights, self.published, self.name)

    def describe(self) -> dict[str, Any]:
        """What is built and how input is prepared; weights that are gone are described as they last were."""
        if self._built is not None:
            return self._built
        try:
            source = self.source
        except WeightsNotFoundError:
            note = self._last_seen()
            return note["description"] if note else self.known()
        return self._described_by(source) if isinstance(source, Checkpoint) else self.known()

    def _described_by(self, source: Checkpoint) -> dict[str, Any]:
        try:
            described = self.described_by(source)
        except FeatureStoreError:
            raise
        # Config files of somebody else: any part may be missing or of another type.
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ConfigError(
                f"{self.name}: config files in {source.folder} are not those of such a network "
                f"({type(error).__name__}: {error}); fetch them again"
            ) from error
        validate_config(described, self.known(), str(source.folder))
        return described

    def config(self) -> dict[str, Any]:
        """The description and the dtype that the network computes in."""
        return {**self.describe(), "compute_dtype": self.compute_dtype}

    def weights_identity(self) -> dict[str, Any]:
        """{"digest": ...} of the tensors in use, with {"random": SEED} for weights drawn from a seed.

        Raises WeightsNotFoundError if the weights are not here and were never seen.
        """
        identity = self._look_at_weights()
        self._said = self._said or (identity, self.describe())
        return identity

    def _look_at_weights(self) -> dict[str, Any]:
        try:
            source = self.source
        except WeightsNotFoundError:
            note = self._last_seen()
            if note is None:
                raise
            return {"digest": note["digest"]}
        if isinstance(source, Random):
            return random_identity(source.seed, self.known(), self.packages)
        value = remembered(
            self._kind,
            str(source.files[0].resolve()),
            source.files,
            lambda: digest(self.select(read_tensors(source.files))),
        )
        seen = json.dumps({"digest": value, "description": self._described_by(source)}, sort_keys=True)
        remember(f"last seen by {self._kind}", self._places[1 if source.revision else 0], seen)
        return {"digest": value}

    def weights_origin(self) -> dict[str, Any]:
        """Where the weights are: {"path", "revision" if they came from the hub} or {"random": SEED}."""
        source = self.source
        if isinstance(source, Random):
            return {"random": source.seed}
        path = str(source.files[0] if len(source.files) == 1 else source.folder)
        return {"path": path, **({"revision": source.revision} if source.revision else {})}

    @property
    def _kind(self) -> str:
        return f"tensors of {type(self).__module__}:{type(self).__name__}"

    @property
    def _places(self) -> tuple[str, str]:
        """The weights as a path, which depends on the working directory, and as typed, for those from the hub."""
        return f"{self.name} {expand_path(self.weights or '').absolute()}", f"{self.name} {self.weights}"

    def _last_seen(self) -> dict[str, Any] | None:
        notes = (recall(f"last seen by {self._kind}", place) for place in self._places)
        return next((json.loads(note) for note in notes if note is not None), None)

    @property
    def network(self) -> torch.nn.Module:
        """The network with its weights, on its device.  Made when first used: this imports torch."""
        with _turn, undisturbed():
            if self._network is None:
                self._network, self._built = self._load()
            return self._network

    def load(self) -> None:
        """Import torch and read the weights now, not with the first batch."""
        _ = self.network

    def _load(self) -> tuple[torch.nn.Module, dict[str, Any]]:
        try:
            import torch  # seconds; only computing needs it
        except ImportError:
            raise missing_package("torch") from None
        source = self.source
        description = self.describe()
        device = usable_device(self.device)
        # A network draws its first weights also where others take their place.
        with torch.random.fork_rng(devices=[]):
            if isinstance(source, Random):
                torch.default_generator.manual_seed(source.seed)
                network = self.build(description, None)
            else:
                try:
                    network = self.build(description, self.select(read_tensors(source.files)))
                except InputError as error:
                    raise InputError(f"{self.name}: {source.files[0]}: {error}") from error
        if self._said not in (None, (self._look_at_weights(), description)):
            raise InputError(
                f"{self.name}: {self.weights_origin().get('path')} or the config beside it has changed since its "
                f"digest was taken, so features would get the wrong recipe; start again"
            )
        network = network.eval().requires_grad_(False).to(device, getattr(torch, self.compute_dtype))
        if device.type == "cpu" and self.compute_dtype != "float32":
            network = right_convolutions(network)
        return network, description

    def encode(self, batch: Any) -> NDArray[np.float32]:
        """Features of a batch, (n, dim) float32; for the form of the batch see `featurestore.encoders.Encoder`.

        Rows do not depend on the rows beside them, up to the last bits.
        Raises ValuesError for a batch of another form; a CUDA device that is out of memory raises
        torch.OutOfMemoryError: give fewer rows at a time.
        """
        batch = self.check(batch)
        if len(batch) == 0:
            return np.empty((0, self.dim), np.float32)
        network = self.network
        import torch  # loaded by the line above

        with _turn, undisturbed(), torch.inference_mode():
            features = self.run(network, batch, next(network.parameters()))
            result: NDArray[np.float32] = features.float().cpu().numpy()
        return result


def form_of(batch: Any) -> str:
    """For messages: dtype and shape of an array, the type of anything else."""
    return f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__


def misfit(problems: Collection[str]) -> InputError:
    """The error for tensors that are not those of the network; the first few are named."""
    few, more = sorted(problems)[:4], len(problems) - 4
    return InputError(
        f"the tensors are not those of the network that is described: {'; '.join(few)}"
        + (f"; and {more} more" if more > 0 else "")
    )
