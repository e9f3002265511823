"""Encoders: the protocol, the registry, and loading one by name.

An encoder is a frozen network from media to vectors.  Two encoders may share a name if and only if
they are fully compatible: given equal media, equal `config()` and equal weights they return equal
features, up to the last bits.  Anything else needs another name or a higher `version`.

Registering a name imports nothing.  Other packages register theirs with `register_encoder`, or with
an entry point of the group `featurestore.encoders` whose name is the encoder's and whose value is
`module:Class`.  Any open_clip model is known as `ARCH.TAG`, e.g. `ViT-B-32.laion2b_s34b_b79k`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from os import PathLike, fspath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from featurestore.errors import ConfigError, InvalidNameError, MissingPackageError, UnknownEncoderError, near_names
from featurestore.key import check_part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ENCODERS",
    "Encoder",
    "encoder_names",
    "load_encoder",
    "register_encoder",
    "weights_identity",
    "weights_origin",
]


class Encoder(Protocol):
    """What a class needs to be used as an encoder.

    The class is called as `Class(weights, device)`, and as `Class(weights, device, compute_dtype)` if
    it has a parameter of that name.  `weights` is None, a local path, or "random:SEED"; `device` is
    None (the encoder chooses) or a name such as "cuda:1".  The constructor only assigns: everything
    but `encode` works before weights are read and without importing torch.

    A class may have a method `load()`, which reads the weights: called before the first batch, so that reports
    tell loading from encoding.

    A class may have methods `weights_identity() -> dict` and `weights_origin() -> dict` (see the functions
    of those names); it is then given hub ids as they were typed.  Others get the path of the snapshot.
    """

    @property
    def modality(self) -> str:
        """frame | audio | au; a frame encoder also takes faces."""

    @property
    def version(self) -> int:
        """Raised when the same input and weights give other numbers than before."""

    @property
    def dim(self) -> int:
        """Length of one feature vector."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels that images are squashed to; frame encoders only."""

    def config(self) -> dict[str, Any]:
        """JSON: all that changes the output, except the weights' digest."""

    def encode(self, batch: Any) -> NDArray[np.floating[Any]]:
        """Features, (n, dim) float32 or float16, one row for each row of the batch.

        frame: (n, height, width, 3) uint8 RGB, faces in the channel order of their file.
        audio: (windows, 32000) float32, the windows of ONE sample, 16 kHz mono.
        au:    list of n descriptions.
        """


_registry: dict[str, str] = {
    "CLIP_VIT_LARGE": "featurestore.encoders.clip:ClipVitLarge",
    "CLIP_TEXT": "featurestore.encoders.text:ClipText",
    "HUBERT_LARGE": "featurestore.encoders.speech:HubertLarge",
    "WAVLM_LARGE": "featurestore.encoders.speech:WavlmLarge",
    "DATA2VEC_BASE": "featurestore.encoders.speech:Data2vecBase",
    "DINO2_LARGE": "featurestore.encoders.vision:Dino2Large",
    "SigLIP_SO": "featurestore.encoders.vision:SiglipSo",
}

#: name -> "module:Class" of every registered encoder: readable, not writable.
ENCODERS: Mapping[str, str] = MappingProxyType(_registry)


def register_encoder(name: str, target: str) -> None:
    """Make a class known as an encoder under a name, which becomes part of keys.  Imports nothing.

    Args:
        name: As it stands in a key.
        target: The class as text, "module:Class"; what it must have is said by `Encoder`.

    Raises:
        InvalidNameError: Another class has the name, no key can have it, or `target` is not "module:Class".

    Example:
        >>> register_encoder("MEAN_COLOUR", "mean_colour:MeanColour")                   # doctest: +SKIP
    """
    check_part("encoder", name)
    module, colon, attribute = target.partition(":") if isinstance(target, str) else ("", "", "")
    if not (module and colon and attribute):
        raise InvalidNameError(
            f"encoder {name!r} is registered as {target!r:.80}; it must be 'module:Class'{_as_text(target)}"
        )
    if _registry.setdefault(name, target) != target:
        raise InvalidNameError(
            f"encoder {name!r} is {_registry[name]} already and cannot become {target}; choose another name"
        )


def _as_text(target: object) -> str:
    """For messages: how a class is written that was given itself."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return ""
    if module == "__main__" or "." in name:
        return f": move {name} to the top level of a module, and name it as text, 'my_module:{name.rpartition('.')[2]}'"
    return f", as text: '{module}:{name}'"


def encoder_names() -> list[str]:
    """Every registered name, sorted; besides these there is ARCH.TAG for each model of open_clip."""
    _discover()
    return sorted(_registry)


def load_encoder(
    name: str, weights: str | PathLike[str] | None = None, device: str | None = None, compute_dtype: str = "float32"
) -> Encoder:
    """The encoder called `name`.  Its weights are read, and torch imported, when it first encodes.

    weights: None (what was published, from the hub cache), a local directory or file, HUB_ID[@REVISION]
        (from the hub cache), or "random:SEED" for trying out.  Nothing is ever downloaded.
    device: None is cuda where there is one, else cpu.  Not part of a recipe.
    compute_dtype: float32, bfloat16 or float16; features are float32 whichever it is.

    Raises UnknownEncoderError, MissingPackageError, ConfigError (an encoder that cannot compute in this
    dtype), and for an encoder of another package WeightsNotFoundError if a hub id is not in the cache.
    """
    make = _encoder_class(name)
    spec = None if weights is None else fspath(weights)
    options: dict[str, str] = {}
    if "compute_dtype" in _parameters(make, name):
        options["compute_dtype"] = compute_dtype
    elif compute_dtype != "float32":
        raise ConfigError(f"encoder {name!r} has no parameter compute_dtype, so it cannot compute in {compute_dtype}")
    if not _answers_for_its_weights(make):
        # Finding a hub id takes the layout of the hub's cache, which other packages need not know.
        from featurestore.encoders.weights import local_path

        spec = local_path(spec, wanted_by=name)
    return cast(Encoder, make(spec, device, **options))


def weights_identity(encoder: Encoder, weights: str | PathLike[str] | None = None) -> dict[str, Any]:
    """JSON that stands for an encoder's weights in a recipe; imports torch at most once per file.

    `weights` is what was given to `load_encoder`; it matters only for encoders of other packages,
    whose weights are their files' bytes.  The digest of ours is over the names, shapes and float32
    values of the tensors in use: one model has one digest in whichever format it came.

    Raises WeightsNotFoundError if the weights are not here and their digest is not remembered.
    """
    if _answers_for_its_weights(encoder):
        identity: dict[str, Any] = cast(Any, encoder).weights_identity()
        return identity
    # numpy comes with it, which importing this package does not need.
    from featurestore.encoders.weights import file_identity

    return file_identity(None if weights is None else fspath(weights), wanted_by=type(encoder).__name__)


def weights_origin(encoder: Encoder, weights: str | PathLike[str] | None = None) -> dict[str, Any]:
    """JSON that says where an encoder's weights were found: path and, from the hub, revision; or random seed.

    It is for reports and provenance, not for a recipe: the same weights may lie in two places.
    Raises WeightsNotFoundError.
    """
    if _answers_for_its_weights(encoder):
        origin: dict[str, Any] = cast(Any, encoder).weights_origin()
        return origin
    from featurestore.encoders.weights import local_path  # as above

    path = local_path(None if weights is None else fspath(weights), wanted_by=type(encoder).__name__)
    return {} if path is None else {"path": path}


def _parameters(make: Callable[..., Any], name: str) -> Mapping[str, inspect.Parameter]:
    """What an encoder's class is called with.  Raises ConfigError where it cannot be called as an encoder's is."""
    try:
        signature = inspect.signature(make)
        signature.bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"encoder {name!r} is {make!r:.80}, which must be a class that is called as Class(weights, device): {error}"
        ) from None
    return signature.parameters


def _answers_for_its_weights(encoder: object) -> bool:
    """Whether an encoder, or the class or call that makes one, knows what its weights are."""
    return hasattr(encoder.func if isinstance(encoder, partial) else encoder, "weights_identity")


def _encoder_class(name: str) -> Callable[..., Any]:
    _discover()
    if name not in _registry:
        architecture, dot, tag = name.rpartition(".")
        if dot and tag:
            # Reading open_clip's list of architectures needs only the path of the package, not torch.
            from featurestore.encoders.architecture import architectures
            from featurestore.encoders.clip import OpenClip

            if architecture in architectures():
                return partial(OpenClip, name)
        raise _unknown(name)
    target = _registry[name]
    module, _, attribute = target.partition(":")
    try:
        imported = import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"encoder {name!r} is {target}, which cannot be imported ({error}); "
            f"install the package that it comes from, with its dependencies"
        ) from error
    if not hasattr(imported, attribute):
        raise UnknownEncoderError(f"encoder {name!r} is registered as {target}, but {module} has no {attribute}")
    return cast(Callable[..., Any], getattr(imported, attribute))


def _unknown(name: str) -> UnknownEncoderError:
    known, (_, dot, tag) = sorted(_registry), name.rpartition(".")
    if dot:
        from featurestore.encoders.architecture import architectures  # as above

        # 'ViT-B32.openai' is near 'ViT-B-32.openai', not near the name of any registered encoder.
        known += [f"{architecture}.{tag}" for architecture in architectures()]
    folded = {candidate.casefold(): candidate for candidate in known}
    near = [folded[match] for match in near_names(name.casefold(), folded, 3)]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UnknownEncoderError(
        f"no encoder is called {name!r}; {hint}Known: {', '.join(sorted(_registry))}, "
        f"and ARCH.TAG for any model of open_clip, e.g. ViT-B-32.laion2b_s34b_b79k"
    )


@cache
def _discover() -> None:
    """Register the entry points of installed packages: once, when a name is first looked up."""
    for point in entry_points(group="featurestore.encoders"):
        register_encoder(point.name, point.value)
