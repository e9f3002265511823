"""Values of the guide's YAML files that are names: of an encoder, of a sampler."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from featurestore.affectgpt.tree import DIMS
from featurestore.encoders import load_encoder
from featurestore.errors import MissingPackageError, UnknownEncoderError, UnknownSamplerError

Where = tuple[str, str, str]  # section, dataset, key


def unknown_names(values: Mapping[Where, Any], live: Collection[str]) -> dict[Where, str]:
    """Where a value should be a name and is none, with what was probably meant.  Imports no torch.

    live  encoders that have to compute; of others the old scripts' names will do, whose features can be imported
    """
    found = {}
    for where, value in values.items():
        if not isinstance(value, str):
            continue
        if where[2] == "frame_sampling":
            problem = _not_a_sampler(value)
        elif where[2] in ("visual_encoder", "acoustic_encoder"):
            problem = None if value in DIMS and value not in live else _not_an_encoder(value)
        else:
            continue
        if problem is not None:
            found[where] = problem
    return found


def _not_a_sampler(name: str) -> str | None:
    from featurestore.samplers import get_sampler  # numpy, which a mistake in a key is told without

    try:
        get_sampler(name)
    except UnknownSamplerError as error:
        return str(error)
    return None


def _not_an_encoder(name: str) -> str | None:
    try:
        load_encoder(name)  # reads no weights
    except UnknownEncoderError as error:
        return str(error)
    except MissingPackageError:
        return None  # an encoder of a package that is not on this machine; extract says so
    return None
