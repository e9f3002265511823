"""Every exception of the project, grouped by what a handler would do about it.

FeatureStoreError
|-- InvalidNameError (ValueError)          fix the name that was typed
|   |-- InvalidKeyError                    a key part, or the text of a whole key
|   |   `-- LegacyNameError                a key without a folder name in the old layout, or the reverse
|   |-- InvalidIdError                     a sample id
|   |-- UnknownEncoderError                not registered; the message lists what is
|   |-- UnknownSamplerError
|   `-- UnknownDatasetError
|-- InputError (ValueError)                fix the file or value that was given
|   |-- ManifestError                      a manifest or a source of samples
|   |-- ConfigError                        a settings file or a combination of options
|   |-- ValuesError                        features of the wrong shape, dtype or content
|   `-- LegacyTreeError                    a tree of .npy folders that cannot be read or written
|-- RecipeError                            say which recipe is meant
|   |-- AmbiguousRecipeError
|   |-- UnknownRecipeError
|   `-- RecipeMismatchError (ValueError)   same recipe, other dtype or dim
|-- MissingFeatureError (LookupError)      make it first; the message says how
|-- ExistsError (ValueError)               something else is there; the message says how to replace it
|-- SampleError                            one sample cannot be made; the others can
|   |-- SamplingError                      no peak, no frames, option out of range
|   |-- MediaError                         unreadable, truncated, no such stream
|   |   `-- MediaTimeoutError              (not deterministic: never recorded)
|   |-- DescriptionError                   MER-Factory or OpenFace file that cannot be used
|   |-- EncodingError                      an encoder raised, or made the wrong shape or NaN
|   |-- FailedSampleError                  what a store says of a sample that cannot be made; .failure
|   `-- FailedSamplesError                 the same for a batch; .failures, and .values of the others
|-- WeightsNotFoundError (OSError)         fetch the weights; the message says where to put them
|-- MissingPackageError (ImportError)      install the extra that the message names
|-- StoreError (OSError)                   the disk: look at the path in the message
|   |-- ReadOnlyError
|   |-- CorruptSegmentError
|   |-- FormatVersionError                 written by a later version: upgrade
|   `-- CommitUncertainError               a failure after the rename: look again
`-- WorkerPoolError                        decode workers cannot be started or kept alive

The built-in bases are part of the interface and are tested.

An error says what is wrong, and behind it `advice`, what a program does next.  Its other attributes are the facts that
a command line says the same by: `featurestore.cli.hints`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


class FeatureStoreError(Exception):
    """Base of all exceptions raised on purpose by featurestore and affect_infer.

    Attributes:
        problem: What is wrong: the message without the advice.
        advice: What a program does next, with the names of Python; empty where nothing can be said, or where what is
            to do is no matter of Python and part of the problem.
        key: The feature key that it is about, or None.
        ids: The samples that it is about, as far as they are named.
        root: The folder of the store that it is about, or None.
        path: The file that is to blame, or None.
    """

    def __init__(
        self,
        *args: Any,
        advice: str = "",
        key: Any = None,
        ids: Iterable[str] = (),
        root: Any = None,
        path: Any = None,
    ) -> None:
        super().__init__(*args)
        self.advice, self.key, self.ids, self.root, self.path = advice, key, tuple(ids), root, path

    @property
    def problem(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        between = "\n" if "\n" in self.problem else "; "  # below a list
        return f"{self.problem}{between}{self.advice}" if self.advice else self.problem


class InvalidNameError(FeatureStoreError, ValueError):
    """A name that is not known or not allowed."""


class InvalidKeyError(InvalidNameError):
    """A key part, or the text of a key, breaks the rules of `FeatureKey`."""


class LegacyNameError(InvalidKeyError):
    """A key that has no folder name in the old `.npy` layout, or a folder name that is no key."""


class InvalidIdError(InvalidNameError):
    """A sample id is empty, longer than 512 bytes, or holds control characters."""


class UnknownEncoderError(InvalidNameError):
    """No encoder is registered under this name."""


class UnknownSamplerError(InvalidNameError):
    """No sampler is registered under this name."""


class UnknownDatasetError(InvalidNameError):
    """No dataset is declared under this name or alias."""


class InputError(FeatureStoreError, ValueError):
    """A file or value that the user gave cannot be used."""


class ManifestError(InputError):
    """A manifest, or a source of samples, cannot be used."""


class ConfigError(InputError):
    """Settings that are unknown, contradictory or incomplete."""


class ValuesError(InputError):
    """Features of the wrong shape, dtype or content."""


class LegacyTreeError(InputError):
    """A tree of `.npy` folders cannot be read or written."""


class RecipeError(FeatureStoreError):
    """The recipe to read or write is not clear."""


class AmbiguousRecipeError(RecipeError):
    """Several recipes are stored under one key and none was chosen."""


class UnknownRecipeError(RecipeError):
    """No stored recipe has this prefix, or more than one has."""


class RecipeMismatchError(RecipeError, ValueError):
    """Rows of another dtype or dim than the recipe's first segment."""


class MissingFeatureError(FeatureStoreError, LookupError):
    """Features are not stored and there is no way to compute them here."""


class ExistsError(FeatureStoreError, ValueError):
    """Other values are already stored for this id under this recipe, or something is where a pack should be."""


class SampleError(FeatureStoreError):
    """One sample cannot be made; others can.

    `reason` is a short stable word for records and reports. `deterministic` says whether trying
    again with the same input would fail again: only then is the failure recorded.  Once the file at
    `path` changes the record is void.  `column` is the column of the manifest that named it.
    """

    reason = "sample"
    deterministic = True
    column: str | None = None

    def __init__(self, message: str, path: Any = None, **facts: Any) -> None:
        super().__init__(message, path=path, **facts)


class SamplingError(SampleError):
    """A sampler cannot choose frames of this sample."""

    reason = "sampling"


class MediaError(SampleError):
    """A media file is missing, unreadable, truncated or lacks the stream."""

    reason = "media"


class MediaTimeoutError(MediaError):
    """Decoding took longer than the limit; the same file may work on a quieter machine."""

    reason = "timeout"
    deterministic = False


class DescriptionError(SampleError):
    """A MER-Factory or OpenFace file is missing, unreadable or lacks what is needed."""

    reason = "description"


class EncodingError(SampleError):
    """An encoder raised, or returned the wrong shape, dtype or non-finite numbers."""

    reason = "encoding"


class FailedSampleError(SampleError):
    """A sample cannot be made, as a record says or the compute said just now.  `failure` is which."""

    reason = "failed"

    def __init__(self, message: str, failure: Any = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.failure = failure
        self.reason = getattr(failure, "reason", self.reason)
        self.deterministic = getattr(failure, "deterministic", True)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.failure), vars(self)


class FailedSamplesError(SampleError):
    """Some samples of a batch cannot be made.

    `failures` maps sample id to record or failure, `values` those of the others to their array.
    """

    reason = "failed in a batch"

    def __init__(
        self, message: str, failures: Mapping[str, Any], values: Mapping[str, Any] | None = None, **facts: Any
    ) -> None:
        super().__init__(message, **facts)
        self.failures = dict(failures)
        self.deterministic = all(getattr(failure, "deterministic", True) for failure in self.failures.values())
        self.values = dict(values or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.failures, self.values), vars(self)


class WeightsNotFoundError(FeatureStoreError, OSError):
    """Weights of an encoder are not on this machine."""


class MissingPackageError(FeatureStoreError, ImportError):
    """An optional package is not installed."""


class StoreError(FeatureStoreError, OSError):
    """The directory of a store cannot be used as it is."""


class ReadOnlyError(StoreError):
    """The store was opened read-only, or the directory cannot be written."""


class CorruptSegmentError(StoreError):
    """A segment's files contradict each other."""

    def __init__(self, *args: Any, **facts: Any) -> None:
        repair = "`featurestore.quality.check_store(store.root, full=True, repair=True)` moves what is damaged aside"
        super().__init__(*args, **{"advice": repair} | facts)


class FormatVersionError(StoreError):
    """The store was written by a later version."""


class CommitUncertainError(StoreError):
    """A failure after the rename: the rows may or may not be stored; look again."""


class WorkerPoolError(FeatureStoreError):
    """Decode workers cannot be started or kept alive."""


def did_you_mean(name: object, known: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'x'?` for the one of the known names that a misspelt one is nearest to, else `otherwise`."""
    near = near_names(str(name), known)
    return f"did you mean {near[0]!r}?" if near else otherwise


def near_names(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Those of the known names that a misspelt one may stand for, the nearest first.

    Another number is another thing and no misspelling: mer2026 is not mer2024, ViT-L-16 not ViT-L-14.  A number is
    misspelt where two neighbouring digits changed places, or a long one lost or doubled a digit.
    """
    import difflib  # only for a name that was mistyped

    # Nearer than difflib's order: of mer2023 and mer2024 the one whose digits mer2032 has.
    close = difflib.get_close_matches(name, list(known), max(10, count), cutoff)
    likely = [other for other in close if _same_numbers(name, other)]
    return sorted(likely, key=lambda other: sorted(name) != sorted(other))[:count]


def _same_numbers(name: str, other: str) -> bool:
    if other.startswith(name) and not other[len(name) :][:1].isdigit():
        return True  # begun, and not within a number: laion2b of laion2b_e16
    ours, theirs = re.findall(r"[0-9]+", name), re.findall(r"[0-9]+", other)
    return len(ours) == len(theirs) and all(map(_is_slip, ours, theirs))


def _is_slip(one: str, other: str) -> bool:
    if one == other:
        return True
    if len(one) == len(other):
        apart = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        first = apart[0]
        return len(apart) == 2 and one[first : first + 2] == other[first : first + 2][::-1]
    short, long = sorted((one, other), key=len)
    return len(short) >= 3 and any(long[:place] + long[place + 1 :] == short for place in range(len(long)))
