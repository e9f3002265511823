"""Samplers: which frames of a sample are taken.

A sampler is a function `(sample, total, n_frames, **options) -> indices`, or `-> (indices, note)`:

total       how many there are to choose from: frames of the video, rows of the face file, samples of the
            sound at 16 kHz, or descriptions
n_frames    how many are wanted, a positive integer, or "all"
indices     (n_frames,) whole numbers, 0-based, 0 <= index < total; under "all" as many as there are
note        a JSON object that is kept with the row

It raises SamplingError where a sample does not allow it, and never takes other frames instead.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import ConfigError, SamplingError, UnknownSamplerError, did_you_mean
from featurestore.key import check_part
from featurestore.sample import Sample
from featurestore.samplers.frames import au_summary, const_clips, count_of, every, headtail, two_halves, uniform
from featurestore.samplers.peak import conflict, emotion_peak, emotion_peak_fork

Sampler = Callable[..., Any]
Conflict = Callable[[Sample, int, Mapping[str, Any]], str | None]

ENTRY_POINTS = "featurestore.samplers"

__all__ = [
    "Sampler",
    "SamplerEntry",
    "choose",
    "get_sampler",
    "register_sampler",
    "sampler_names",
    # the samplers themselves
    "au_summary",
    "const_clips",
    "emotion_peak",
    "emotion_peak_fork",
    "headtail",
    "uniform",
]


@dataclass(frozen=True)
class SamplerEntry:
    """A registered sampler.  Its version is part of recipes: it goes up when the same sample gets other frames."""

    name: str
    fn: Sampler
    version: int = 1
    conflict: Conflict | None = None
    """(sample, total, options) -> why a file about the sample does not fit its video, or None.  Where a sampler
    has one, the frame counts of all samples are compared before the first is decoded."""
    modalities: tuple[str, ...] = ()
    """What it can sample; () for anything.  Starts of sound windows taken for frame numbers would be wrong frames."""
    check: Callable[[int | str], object] = lambda n_frames: None
    """Raises ConfigError for a number of frames that it can choose of no sample: a mistake in the key, told at once."""

    def effective(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with the defaults of those that are not given.

        Raises ConfigError for one that the sampler does not take, or a value that its `Literal` does not list.
        """
        parameters = list(inspect.signature(self.fn).parameters.values())[3:]
        open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters)
        known = {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
        for option in options:
            if option not in known and not open_ended:
                takes = f"takes only {', '.join(sorted(known))}" if known else "takes no options"
                raise ConfigError(f"sampler {self.name!r} has no option {option!r}; it {takes}")
        result = {**known, **options}
        for option, value in result.items():
            if value is inspect.Parameter.empty:
                raise ConfigError(f"sampler {self.name!r} needs the option {option!r}")
            allowed = self._allowed().get(option)
            if allowed and value not in allowed:
                raise ConfigError(
                    f"sampler {self.name!r}: {option} is {value!r}, not one of {', '.join(map(str, allowed))}"
                )
        return result

    def _allowed(self) -> dict[str, tuple[Any, ...]]:
        """Option -> the values of its `Literal` annotation."""
        try:
            hints = get_type_hints(self.fn)
        except (TypeError, NameError):
            return {}  # an object that is called, or a name that only a type checker sees
        return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def register_sampler(
    name: str, fn: Sampler, version: int = 1, conflict: Conflict | None = None, *, modalities: tuple[str, ...] = ()
) -> None:
    """Make a sampler known under a name, which becomes part of keys.

    Other packages register theirs through the entry point group `featurestore.samplers`; such a function may
    have attributes `version`, `conflict` and `modalities`.

    Args:
        name: As it stands in a key.
        fn: (sample, total, n_frames, **options) -> (n_frames,) integers, or these and a note; see this module.
        version: Part of recipes; raised when the same sample gets other frames.
        conflict: (sample, total, options) -> why a file about the sample does not fit its video, or None.
        modalities: Those it chooses of, by default any; of another one it is refused before anything is decoded.

    Raises:
        InvalidKeyError: No key can have the name.
        ConfigError: Another sampler has it.

    Example:
        >>> register_sampler("first", lambda sample, total, n_frames: range(n_frames))  # doctest: +SKIP
    """
    check_part("sampling", name)
    taken = _registry.get(name)
    if taken is not None and not _is_same(taken.fn, fn):
        raise ConfigError(f"sampler {name!r} is already registered, as {_where(taken.fn)}; choose another name")
    _registry[name] = SamplerEntry(name, fn, version, conflict, tuple(modalities))


def get_sampler(name: str) -> SamplerEntry:
    """The sampler of this name; UnknownSamplerError lists those there are."""
    if name not in _registry:
        for point in entry_points(group=ENTRY_POINTS, name=name):
            fn = point.load()
            version, conflict = getattr(fn, "version", 1), getattr(fn, "conflict", None)
            register_sampler(name, fn, version, conflict, modalities=getattr(fn, "modalities", ()))
    if name not in _registry:
        hint = did_you_mean(name, sampler_names())
        raise UnknownSamplerError(
            f"sampler {name!r} is not known; {hint and f'{hint} '}there are {', '.join(sampler_names())}"
        )
    return _registry[name]


def sampler_names() -> list[str]:
    """Names of all samplers, sorted; imports none of them."""
    return sorted({*_registry, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def choose(
    name: str, sample: Sample, total: int, n_frames: int | str, options: Mapping[str, Any] | None = None
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """(indices (n,) int64, note) of a sample, checked.

    Raises UnknownSamplerError, ConfigError (options), SamplingError (this sample, or what a sampler returned).
    """
    sampler = get_sampler(name)
    if total < 1:
        raise SamplingError(f"sample {sample.id!r} has nothing to choose from: 0 frames")
    result = sampler.fn(sample, total, n_frames, **sampler.effective(options or {}))
    has_note = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)
    indices, note = (result[0], dict(result[1])) if has_note else (result, {})
    chosen = np.asarray(indices)
    problem = None
    if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
        problem = f"{chosen.dtype} of shape {chosen.shape}, not a list of whole numbers"
    elif n_frames != "all" and len(chosen) != n_frames:
        problem = f"{len(chosen)} indices, not {n_frames}"
    elif chosen.min() < 0 or chosen.max() >= total:
        problem = f"{chosen.tolist()}, not all from 0 to {total - 1}"
    if problem is not None:
        raise SamplingError(f"sampler {name!r} chose {problem}, for sample {sample.id!r}")
    try:
        json.dumps(note, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SamplingError(
            f"sampler {name!r} made a note that is not JSON, for sample {sample.id!r}: {error}"
        ) from error
    return chosen.astype(np.int64), note


def _is_same(one: Sampler, other: Sampler) -> bool:
    """Whether `other` may take the place of `one`: itself, or what a reloaded module or notebook cell made of it."""
    return one is other or (_where(one) == _where(other) and "<" not in _where(one))


def _where(fn: Sampler) -> str:
    return f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', repr(fn))}"


_registry = {
    entry.name: entry
    for entry in (
        SamplerEntry("uniform", uniform, modalities=("frame", "face")),
        SamplerEntry("headtail", headtail, modalities=("frame", "face"), check=two_halves),
        SamplerEntry(
            "const_clips", const_clips, modalities=("audio",), check=partial(count_of, sampling="const_clips")
        ),
        SamplerEntry("au_summary", au_summary, modalities=("au",), check=every),
        SamplerEntry(
            "emotion_peak",
            emotion_peak,
            conflict=conflict,
            modalities=("frame",),
            check=partial(count_of, sampling="emotion_peak"),
        ),
        SamplerEntry(
            "emotion_peak_fork",
            emotion_peak_fork,
            modalities=("frame",),
            check=partial(count_of, sampling="emotion_peak_fork"),
        ),
    )
}
