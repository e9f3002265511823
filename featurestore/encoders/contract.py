"""Whether an encoder of another package is what an encoder must be: told before anything is decoded for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from featurestore.encoders.surroundings import undisturbed
from featurestore.errors import ConfigError, EncodingError, FeatureStoreError

if TYPE_CHECKING:
    from featurestore.encoders import Encoder

ROWS = 2  # one would not show an encoder that gives a mean over its rows
SIZE_LIMIT = 1 << 16
WINDOW = 32000  # samples of two seconds
SEE = "see docs/add_an_encoder.md"


def require_encoder(name: str, encoder: Encoder) -> None:
    """Look at what an encoder says of itself.  Raises ConfigError where that is not of the form of the protocol."""
    modality = _said(name, encoder, "modality", lambda value: value in ("frame", "audio", "au"), "frame, audio or au")
    _said(name, encoder, "version", _is_whole, "a whole number")
    _said(name, encoder, "dim", lambda value: _is_whole(value) and value > 0, "a whole number above 0")
    if modality == "frame":
        _said(name, encoder, "size", _is_size, "(height, width) in pixels")
    for method in ("config", "encode"):
        _said(name, encoder, method, callable, "a method")
    config = encoder.config()
    try:
        text = json.dumps(config, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _breach(name, encoder, f"config() is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise _breach(name, encoder, f"config() is {text[:80]}, not a dict")


def try_encoder(name: str, encoder: Encoder) -> None:
    """Encode two made-up inputs and look at the form of what comes back; loads the weights.

    Raises ConfigError for another shape or dtype than an encoder must give, and what concerns every sample (weights,
    packages).  That an input without meaning is refused, or makes NaN, says nothing.
    """
    try:
        with undisturbed():
            values = encoder.encode(made_up(encoder))
    except EncodingError:
        return
    except FeatureStoreError:
        raise
    except Exception:  # noqa: BLE001 - somebody's code, and no sample of theirs: it is seen with the first sample
        return
    if (problem := misfit(values, ROWS, encoder)) is not None:
        raise _breach(name, encoder, f"encode() of {ROWS} inputs {problem}")


def misfit(values: Any, rows: int, encoder: Encoder) -> str | None:
    """What is wrong with the form of what `encode` gave for so many inputs, or None."""
    expected = (rows, encoder.dim)
    form = f"{getattr(values, 'shape', type(values).__name__)} {getattr(values, 'dtype', '')}"
    if getattr(values, "shape", None) == expected and str(getattr(values, "dtype", "")) in ("float16", "float32"):
        return None
    return f"made {form}, not {expected} float16 or float32"


def made_up(encoder: Encoder) -> Any:
    import numpy as np  # which naming encoders must not load

    if encoder.modality == "au":
        return ["Cheek raiser (intensity: 1.45)", "Neutral expression."]
    noise = np.random.default_rng(0)
    if encoder.modality == "audio":
        return noise.uniform(-0.5, 0.5, (ROWS, WINDOW)).astype(np.float32)
    return noise.integers(0, 256, (ROWS, *encoder.size, 3), dtype=np.uint8)


def _said(name: str, encoder: Encoder, part: str, is_right: Callable[[Any], bool], wanted: str) -> Any:
    if not hasattr(encoder, part):
        raise _breach(name, encoder, f"it has no `{part}`, which must be {wanted}")
    value = getattr(encoder, part)
    if not is_right(value):
        raise _breach(name, encoder, f"`{part}` is {value!r:.80}, which must be {wanted}")
    return value


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(type(edge) is int and 0 < edge < SIZE_LIMIT for edge in value)
    )


def _breach(name: str, encoder: Encoder, what: str) -> ConfigError:
    kind = type(encoder)
    return ConfigError(f"encoder {name!r} ({kind.__module__}:{kind.__qualname__}): {what}; {SEE}")
