"""Certificates: how far apart the rows of two recipes are, measured, and whether one run may mix them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from featurestore.errors import RecipeError
from featurestore.key import FeatureKey
from featurestore.untrusted_io.files import parse_json, read_untrusted

MAX_BYTES = 1 << 20
_TYPES = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a comparison of some samples under two recipes of one key found."""

    key: str
    stored: str
    """fingerprint of the rows that are there"""
    computed: str
    """fingerprint of the rows that were computed to compare"""
    dtype: str
    """coarser of the two stored dtypes"""
    samples: int
    max_abs: float
    """of the sample that is farthest off"""
    scale: float
    """largest absolute value of that sample"""
    min_cosine: float
    same_rows: bool
    """whether both took the same frames, as far as that is recorded"""
    tolerance: float
    may_mix: bool
    time: str
    """UTC"""

    def require(self) -> str:
        """A line for the report; RecipeError where rows may not be mixed."""
        if not self.may_mix:
            raise RecipeError(
                f"rows of {self.stored[:8]} and {self.computed[:8]} under {self.key} may not be mixed: "
                f"{self.verdict()}; run with --frame-recipe {self.stored[:8]} alone, or --recompute"
            )
        return self.verdict()

    def verdict(self) -> str:
        """One sentence."""
        if not self.same_rows:
            return f"other frames were taken ({self.samples} samples compared)"
        relation = "within" if self.may_mix else "beyond"
        return (
            f"max-abs {self.max_abs:.3g} of {self.scale:.3g}, cosine >= {self.min_cosine:.6f} over {self.samples} "
            f"samples, {relation} the tolerance of {self.dtype} ({self.tolerance:g})"
        )


def certificate_path(store: Path, key: FeatureKey, stored: str, computed: str) -> Path:
    """Beside the features: `{store}/parity/{key}/{stored}-{computed}.json`."""
    return store.joinpath("parity", *key.parts, f"{stored}-{computed}.json")


def write_certificate(store: Path, key: FeatureKey, certificate: Certificate) -> Path:
    """Write or replace; appears at once or not at all."""
    path = certificate_path(store, key, certificate.stored, certificate.computed)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(asdict(certificate), indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def read_certificate(store: Path, key: FeatureKey, stored: str, computed: str) -> Certificate:
    """RecipeError, with the command that makes one, where there is none."""
    path = certificate_path(store, key, stored, computed)
    try:
        certificate = Certificate(**parse_json(read_untrusted(path, MAX_BYTES)))
        wrong = [
            each.name for each in fields(certificate) if not _fits(getattr(certificate, each.name), str(each.type))
        ]
        if wrong:
            raise ValueError(f"{wrong[0]} is {getattr(certificate, wrong[0])!r}")
        return certificate
    except FileNotFoundError:
        raise RecipeError(
            f"nobody has compared the rows of {stored[:8]} and {computed[:8]} under {key}; run `affect-infer parity` "
            f"with the same settings and --frame-recipe {stored[:8]}, which writes {path}"
        ) from None
    except (ValueError, TypeError, OSError) as error:
        raise RecipeError(f"certificate {path} cannot be read ({error}); run `affect-infer parity` again") from error


def _fits(value: object, kind: str) -> bool:
    """Whether a value of the file is what the field is declared as; a number beyond all others is none."""
    return type(value) in _TYPES[kind] and not (isinstance(value, int) and abs(value) >= 1 << 63)
