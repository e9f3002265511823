"""The tree drawn in `featurestore/errors.py` is the real one, and errors survive pickling."""

from __future__ import annotations

import pickle
import re

import pytest

from featurestore import errors

ROOT = errors.FeatureStoreError


def real_classes() -> dict[str, type[BaseException]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    }


def drawn_tree() -> dict[str, tuple[str, ...]]:
    """class name -> names of its bases, read from the drawing: the branch above it, then those in brackets."""
    tree: dict[str, tuple[str, ...]] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(?P<indent>[|` -]*)(?P<name>[A-Z]\w+Error)(?: \((?P<builtin>\w+)\))?(?:\s|$)", line)
        if match is None:
            continue
        depth = len(match["indent"]) // 4
        branch[depth:] = [match["name"]]
        above = branch[depth - 1] if depth else "Exception"
        tree[match["name"]] = (above, match["builtin"]) if match["builtin"] else (above,)
    return tree


def test_the_drawing_is_the_tree() -> None:
    real = {name: tuple(base.__name__ for base in cls.__bases__) for name, cls in real_classes().items()}
    assert drawn_tree() == real
    assert len(real) > 20


@pytest.mark.parametrize("name", sorted(real_classes()))
def test_every_error_says_what_it_is(name: str) -> None:
    assert real_classes()[name].__doc__


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.MissingFeatureError, LookupError),
        (errors.InvalidKeyError, ValueError),
        (errors.ExistsError, ValueError),
        (errors.RecipeMismatchError, ValueError),
        (errors.WeightsNotFoundError, OSError),
        (errors.MissingPackageError, ImportError),
        (errors.StoreError, OSError),
    ],
)
def test_errors_are_caught_by_the_builtin_that_callers_expect(error: type[Exception], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="what to do next"):
        raise error("what to do next")


@pytest.mark.parametrize("name", sorted(name for name, cls in real_classes().items() if issubclass(cls, Exception)))
def test_errors_cross_a_process_boundary(name: str) -> None:
    cls = real_classes()[name]
    needs_failures = cls is errors.FailedSamplesError
    error = cls("sample 'a' cannot be made", {"a": "why"}) if needs_failures else cls("sample 'a' cannot be made")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.problem == "sample 'a' cannot be made"
    if needs_failures:
        assert again.failures == {"a": "why"}


def test_a_failed_sample_keeps_its_record() -> None:
    record = {"reason": "media"}
    again = pickle.loads(pickle.dumps(errors.FailedSampleError("no", record)))
    assert again.failure == record


def test_sample_errors_have_distinct_reasons_and_only_a_timeout_may_be_tried_again() -> None:
    family = [cls for cls in real_classes().values() if issubclass(cls, errors.SampleError)]
    reasons = [cls.reason for cls in family]
    assert len(set(reasons)) == len(reasons)
    assert [cls for cls in family if not cls.deterministic] == [errors.MediaTimeoutError]


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("mer2032", ["mer2024", "mer2023"], ["mer2023"]),  # two digits changed places
        ("mer-2023", ["mer2024", "mer2023"], ["mer2023"]),
        ("mer223", ["mer2024", "mer2023"], ["mer2023"]),  # a digit lost, and one doubled
        ("mer20233", ["mer2024", "mer2023"], ["mer2023"]),
        ("mer2026", ["mer2024", "mer2023"], []),  # another year is another corpus
        ("mer2026-track1", ["mer2024", "mer2025ov"], []),
        ("mer", ["mer2024", "mer2023"], []),  # and none is no year
        ("simsv3", ["sims", "simsv2"], []),
        ("sims2", ["sims", "simsv2"], ["simsv2"]),
        ("ViT-L-16", ["ViT-L-14", "ViT-B-16"], ["ViT-B-16"]),
        ("ViT-B-23", ["ViT-B-16", "ViT-B-32"], ["ViT-B-32"]),
        ("ViT-B32", ["ViT-B-16", "ViT-B-32"], ["ViT-B-32"]),
        ("laion2b", ["laion2b_e16", "laion400m_e31"], ["laion2b_e16"]),
        ("a/frame/X/uniform/16", ["a/frame/X/uniform/8", "a/frame/X/uniform/6"], []),
        ("a/frame/X/unifrom/8", ["a/frame/X/uniform/8", "a/frame/X/uniform/6"], ["a/frame/X/uniform/8"]),
        ("sample_0000012", ["sample_00000012", "sample_00000013"], ["sample_00000012"]),
        ("sample_00000012", ["sample_00000011", "sample_00000013"], []),
        ("frame_n_frame", ["frame_n_frms", "frame_sampling"], ["frame_n_frms"]),
    ],
)
def test_another_number_is_no_misspelling(name: str, known: list[str], near: list[str]) -> None:
    assert errors.near_names(name, known) == near
    assert errors.did_you_mean(name, known, "no") == (f"did you mean {near[0]!r}?" if near else "no")
