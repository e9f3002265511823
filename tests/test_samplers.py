"""Which frames: equal to the vectors that the reference code gave, and an error where there are none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import register_sampler
from featurestore.errors import ConfigError, DescriptionError, InvalidKeyError, SamplingError, UnknownSamplerError
from featurestore.sample import Sample
from featurestore.samplers import choose, get_sampler, headtail, peak, sampler_names
from featurestore.samplers.peak import _filled

ROOT = Path(__file__).resolve().parents[1]


def numbers(text: str) -> list[int]:
    return [int(each) for each in text.split()]


def chosen(name: str, total: int, n_frames: int | str, sample: Sample | None = None, **options: Any) -> list[int]:
    indices, _ = choose(name, sample or Sample("a"), total, n_frames, options)
    assert indices.dtype == np.int64
    return indices.tolist()


def with_peak(
    folder: Path, total: int, index: int, before: int | None = None, after: int | None = None, **more: Any
) -> Sample:
    """A sample whose `au_info` says so; `before` and `after` are all there are, unless given."""
    first = {
        "peak_index": index,
        "frames_before_peak": index if before is None else before,
        "frames_after_peak": total - 1 - index if after is None else after,
    }
    path = folder / "a_au_analysis.json"
    path.write_text(json.dumps({"au_info": {"total_frames": total, "peak_frames": [first]}, **more}))
    return Sample("a", au_json=path)


# -- uniform, headtail, const_clips, au_summary --------------------------------------------------------

# Printed by AffectGPT's own code.
UNIFORM = {
    (45, 8): "0 5 11 16 22 28 33 39",
    (100, 8): "0 12 25 37 50 62 75 87",
    (88, 8): "0 11 22 33 44 55 66 77",
    (9, 8): "0 1 2 3 4 5 6 7",
    (8, 8): "0 1 2 3 4 5 6 7",
    (5, 8): "0 1 2 3 4 4 4 4",
    (1, 8): "0 0 0 0 0 0 0 0",
    (45, 1): "0",
    (300, 6): "0 50 100 150 200 250",
    (3, 2): "0 1",
}


@pytest.mark.parametrize(("total", "n_frames"), UNIFORM)
def test_uniform_equals_the_reference(total: int, n_frames: int) -> None:
    assert chosen("uniform", total, n_frames) == numbers(UNIFORM[total, n_frames])


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 6, 8, 10, 12, 16, 32])
def test_uniform_equals_the_formula_of_the_reference(n_frames: int) -> None:
    for total in range(1, 700):
        m = min(n_frames, total)
        reference = np.arange(0, total, total / m).astype(int).tolist()
        assert chosen("uniform", total, n_frames) == reference + reference[-1:] * (n_frames - m)


def test_uniform_all_takes_every_frame() -> None:
    assert chosen("uniform", 5, "all") == [0, 1, 2, 3, 4]


def test_linspace_and_the_middle_of_each_part_are_not_uniform() -> None:
    """Two mutants: each is called uniform somewhere in the fork."""
    right = chosen("uniform", 45, 8)
    assert np.linspace(0, 44, 8).astype(int).tolist() != right
    assert [(2 * i + 1) * 45 // 16 for i in range(8)] != right


@given(st.integers(2, 500), st.integers(2, 20), st.text(min_size=1, max_size=20))
@settings(max_examples=50)
def test_headtail_takes_half_of_each_half(total: int, n_frames: int, id: str) -> None:
    found = headtail(Sample(id), total, n_frames)
    half = min(n_frames, total) // 2
    head, tail = found[:half], found[half : 2 * half]
    assert head == sorted(set(head))
    assert tail == sorted(set(tail))
    assert all(i < total // 2 for i in head)
    assert all(total // 2 <= i < total for i in tail)
    assert found[2 * half :] == [found[2 * half - 1]] * (n_frames - 2 * half)


def test_headtail_is_the_same_in_every_process_and_later_version() -> None:
    """Python salts `hash` for each process, so a seed from it, the mutant, is another one tomorrow."""
    assert chosen("headtail", 45, 8, Sample("a")) == [1, 8, 13, 17, 23, 34, 39, 42]
    assert chosen("headtail", 45, 8, Sample("b")) == [10, 11, 15, 18, 33, 35, 39, 41]
    assert chosen("headtail", 3, 8, Sample("样本")) == chosen("headtail", 3, 8, Sample("样本"))
    code = "print(hash('a'))"
    salted = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(4)}
    assert len(salted) > 1


@pytest.mark.parametrize(("total", "n_frames"), [(1, 8), (45, 1)])
def test_headtail_of_too_little_is_refused(total: int, n_frames: int) -> None:
    with pytest.raises(SamplingError, match="'a': headtail takes at least one frame of each half"):
        chosen("headtail", total, n_frames)


def reference_clips(total: int, clips: int) -> list[int]:
    """pytorchvideo 0.1.5, ConstantClipsPerVideoSampler, and the slices of ImageBind/data.py, restated."""
    latest = Fraction(max(total / 16000 - Fraction(2), 0))
    starts = [Fraction(latest, clips) * i for i in range(clips)]
    assert all(int((start + 2) * 16000) - int(start * 16000) == 32000 for start in starts)
    return [int(start * 16000) for start in starts]


def test_const_clips_of_known_lengths() -> None:
    assert chosen("const_clips", 160_000, 8) == [16_000 * i for i in range(8)]
    seconds = [start / 16_000 for start in chosen("const_clips", 55_357, 8)]
    np.testing.assert_allclose(seconds, [0, 0.1825, 0.3650, 0.5474, 0.7299, 0.9124, 1.0949, 1.2773], atol=1e-4)
    assert chosen("const_clips", 32_000, 8) == [0] * 8


def test_const_clips_equal_the_reference_to_the_sample() -> None:
    for total in [*range(32_000, 34_000), *range(100_000, 100_500), *range(1_600_000, 1_600_300)]:
        found = chosen("const_clips", total, 8)
        assert found == reference_clips(total, 8)
        assert found[-1] + 32_000 <= total


def test_const_clips_in_plain_floats_would_be_seen() -> None:
    """The mutant cuts windows of 31,999 samples."""
    lengths = set()
    for total in range(32_000, 40_000):
        step = (total / 16000 - 2) / 8
        lengths |= {int((i * step + 2) * 16000) - int(i * step * 16000) for i in range(8)}
    assert lengths != {32_000}


def test_au_summary_takes_every_description() -> None:
    assert chosen("au_summary", 3, "all") == [0, 1, 2]
    with pytest.raises(ConfigError, match="ends in /all, not /8"):
        chosen("au_summary", 3, 8)


@pytest.mark.parametrize("name", ["headtail", "const_clips", "emotion_peak", "emotion_peak_fork"])
def test_the_others_need_a_number_of_frames(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs a number of frames"):
        chosen(name, 45, "all")


# -- emotion_peak --------------------------------------------------------------------------------------

# Printed by the fork's own code: (frames, peak) with all frames before and after it.
PEAK = {
    (45, 10): "0 8 9 10 11 12 18 31",
    (45, 0): "0 1 2 3 11 19 28 36",
    (45, 1): "0 1 2 3 4 14 24 34",
    (45, 2): "0 1 2 3 4 5 18 31",
    (45, 42): "0 13 26 40 41 42 43 44",
    (45, 43): "0 10 20 30 41 42 43 44",
    (45, 44): "0 8 16 25 33 42 43 44",
    (100, 50): "0 31 48 49 50 51 52 68",
    (200, 150): "0 65 130 148 149 150 151 152",
    (9, 4): "0 1 2 3 4 5 6 7",
    (8, 3): "0 1 2 3 4 5 6 7",
    (7, 3): "0 0 1 2 3 4 5 6",
    (5, 2): "0 0 1 1 2 2 3 4",
    (3, 1): "0 0 0 1 1 1 2 2",
    (2, 0): "0 0 0 0 1 1 1 1",
    (1, 0): "0 0 0 0 0 0 0 0",
}
# The same with other numbers of frames before and after: (frames, peak, before, after).
AROUND = {(45, 10, 1, 1): "0 8 9 10 11 19 28 36", (45, 10, 0, 34): "0 8 10 11 12 19 28 36"}
IMPOSSIBLE = {(45, 10, -1, 5): "0 6 10 13 19 26 32 38", (45, 60, 60, -16): "0 6 12 19 25 32 38 60"}


@pytest.mark.parametrize("name", ["emotion_peak", "emotion_peak_fork"])
@pytest.mark.parametrize(("total", "index"), PEAK)
def test_peaks_equal_the_reference(name: str, total: int, index: int, tmp_path: Path) -> None:
    assert chosen(name, total, 8, with_peak(tmp_path, total, index)) == numbers(PEAK[total, index])


@pytest.mark.parametrize("name", ["emotion_peak", "emotion_peak_fork"])
@pytest.mark.parametrize("case", AROUND)
def test_neighbours_are_as_many_as_the_file_says(name: str, case: tuple[int, int, int, int], tmp_path: Path) -> None:
    total, index, before, after = case
    assert chosen(name, total, 8, with_peak(tmp_path, total, index, before, after)) == numbers(AROUND[case])


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_peak_is_refused_and_the_fork_takes_it(case: tuple[int, int, int, int], tmp_path: Path) -> None:
    sample = with_peak(tmp_path, *case)
    assert chosen("emotion_peak_fork", 100, 8, sample) == numbers(IMPOSSIBLE[case])
    with pytest.raises(DescriptionError, match="contradicts itself"):
        chosen("emotion_peak", case[0], 8, sample)


OTHER_COUNTS = {
    1: "10",
    2: "9 10",
    3: "9 10 11",
    4: "8 9 10 11",
    5: "8 9 10 11 12",
    6: "0 8 9 10 11 12",
    16: "0 3 7 8 9 10 11 12 15 19 23 26 30 34 37 41",
}


@pytest.mark.parametrize("n_frames", OTHER_COUNTS)
def test_another_number_of_frames_keeps_the_nearest(n_frames: int, tmp_path: Path) -> None:
    assert chosen("emotion_peak", 45, n_frames, with_peak(tmp_path, 45, 10)) == numbers(OTHER_COUNTS[n_frames])


@given(data=st.data())
@settings(max_examples=200)
def test_a_peak_is_always_among_its_frames(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    total = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, total - 1))
    n_frames = data.draw(st.integers(1, 40))
    found = chosen("emotion_peak", total, n_frames, with_peak(tmp_path_factory.getbasetemp(), total, index))
    assert index in found
    assert found == sorted(found)
    assert len(set(found)) == min(n_frames, total)


def test_the_note_says_where_the_peak_is_from(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10)
    _, note = choose("emotion_peak", sample, 45, 8)
    assert (note["peak"], note["peak_source"]) == (10, "au_info")
    assert [source["path"] for source in note["sources"]] == [str(sample.au_json)]
    assert "index_space" not in note


def test_without_a_peak_there_are_no_frames(tmp_path: Path) -> None:
    """Not the middle frame, and not uniform ones."""
    with pytest.raises(SamplingError, match=r"'a' has no MER-Factory output.*or extract with 'uniform'"):
        chosen("emotion_peak", 45, 8)
    path = tmp_path / "a_au_analysis.json"
    path.write_text('{"au_info": {"total_frames": 45, "peak_frames": []}}')
    with pytest.raises(SamplingError, match="no peak"):
        chosen("emotion_peak", 45, 8, Sample("a", au_json=path))


def test_peaks_of_other_files_are_used_alike(tmp_path: Path) -> None:
    rows = "".join(f"{number}, 1, {5 if number == 11 else 1}\n" for number in range(1, 46))
    (tmp_path / "a.csv").write_text("frame, success, AU01_r\n" + rows)
    indices, note = choose("emotion_peak", Sample("a", au_csv=tmp_path / "a.csv"), 45, 8)
    assert (indices.tolist(), note["peak_source"]) == (numbers(PEAK[45, 10]), "openface_csv")
    merr_data = tmp_path / "a_merr_data.json"
    merr_data.write_text('{"overall_peak_frame_info": {"frame_number": 11}}')
    (tmp_path / "a.csv").unlink()
    indices, note = choose("emotion_peak", Sample("a", au_json=merr_data), 45, 8)
    assert (indices.tolist(), note["peak_source"]) == (numbers(PEAK[45, 10]), "merr_data")
    with pytest.raises(SamplingError, match="the peak is frame 10, but the video has 10"):
        chosen("emotion_peak", 10, 8, Sample("a", au_json=merr_data))


# -- a file that counts other frames than its video has ------------------------------------------------

LISTED = {"per_frame_au_descriptions": [{"frame": 1 + 3 * i} for i in range(45)]}


def test_another_count_of_frames_is_refused(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10, **LISTED)
    with pytest.raises(
        SamplingError, match=r"au_info.total_frames differs from the video \(45 against 121 in a\)"
    ) as caught:
        chosen("emotion_peak", 121, 8, sample)
    assert "index_space=by_frame_number|by_ratio" in str(caught.value)
    assert str(sample.au_json) in str(caught.value)


def test_by_frame_number_takes_the_frame_of_the_listed_one(tmp_path: Path) -> None:
    """The eleventh listed frame is OpenFace's 31, which is 30 from 0."""
    sample = with_peak(tmp_path, 45, 10, **LISTED)
    indices, note = choose("emotion_peak", sample, 135, 8, {"index_space": "by_frame_number"})
    assert indices.tolist() == [0, 28, 29, 30, 31, 32, 48, 91]
    assert (note["peak"], note["index_space"]) == (30, "by_frame_number")


def test_by_ratio_takes_the_same_share(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10)
    indices, note = choose("emotion_peak", sample, 121, 8, {"index_space": "by_ratio"})
    assert (note["peak"], note["index_space"]) == (10 * 121 // 45, "by_ratio")
    assert indices.tolist() == chosen("emotion_peak", 121, 8, with_peak(tmp_path, 121, 26))


def test_where_counts_agree_the_index_is_taken_as_it_is(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10, **LISTED)
    for space in ("strict", "by_ratio", "by_frame_number"):
        assert chosen("emotion_peak", 45, 8, sample, index_space=space) == numbers(PEAK[45, 10])


def test_a_peak_that_has_no_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="has 0 entries, none for peak_index 10"):
        chosen("emotion_peak", 121, 8, with_peak(tmp_path, 45, 10), index_space="by_frame_number")
    with pytest.raises(SamplingError, match="the peak is frame 132, but the video has 121"):
        chosen("emotion_peak", 121, 8, with_peak(tmp_path, 45, 44, **LISTED), index_space="by_frame_number")


def test_conflicts_can_be_told_before_anything_is_decoded(tmp_path: Path) -> None:
    conflict = get_sampler("emotion_peak").conflict
    assert conflict is not None
    sample = with_peak(tmp_path, 45, 10)
    assert conflict(sample, 121, {"index_space": "strict"}) == (
        "au_info.total_frames differs from the video (45 against 121 in a): "
        "choose --sampler-option index_space=by_frame_number|by_ratio"
    )
    assert conflict(sample, 45, {"index_space": "strict"}) is None
    assert conflict(sample, 121, {"index_space": "by_ratio"}) is None
    assert conflict(Sample("a"), 121, {}) is None  # no peak: an error of its own
    assert all(get_sampler(name).conflict is None for name in sampler_names() if name != "emotion_peak")


# -- emotion_peak_fork ---------------------------------------------------------------------------------

LINSPACE = {45: "0 6 12 18 25 31 37 44", 5: "0 0 1 1 2 2 3 4", 100: "0 14 28 42 56 70 84 99"}


@pytest.mark.parametrize("total", LINSPACE)
@pytest.mark.parametrize("info", [{"total_frames": 45, "peak_frames": []}, {"total_frames": 45}])
def test_the_fork_without_peaks_takes_eight_from_first_to_last(
    total: int, info: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "a_au_analysis.json"
    path.write_text(json.dumps({"au_info": info}))
    indices, note = choose("emotion_peak_fork", Sample("a", au_json=path), total, 8)
    assert indices.tolist() == numbers(LINSPACE[total])
    assert note["fallback"] == "linspace"


@pytest.mark.parametrize(
    "content", [None, "{}", '{"au_info": null}', '{"au_info": {}}', "{", "[1]", "\xff", "[" * 100_000]
)
def test_the_fork_without_au_info_takes_the_middle_frame(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a_au_analysis.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    for sample in (Sample("a", au_json=path), Sample("a")):
        indices, note = choose("emotion_peak_fork", sample, 45, 8)
        assert indices.tolist() == [22] * 8
        assert note["fallback"] == "middle_frame"


def test_the_fork_where_it_has_a_peak_says_no_fallback(tmp_path: Path) -> None:
    _, note = choose("emotion_peak_fork", with_peak(tmp_path, 45, 10), 45, 8)
    assert "fallback" not in note
    assert note["peak"] == 10


def test_the_fork_reads_json_as_python_does(tmp_path: Path) -> None:
    """NaN and a key twice, which strict reading refuses."""
    path = tmp_path / "a_au_analysis.json"
    peak_frames = '[{"peak_index": 10, "frames_before_peak": 10, "frames_after_peak": 34}]'
    path.write_text(f'{{"x": NaN, "au_info": 1, "au_info": {{"total_frames": 45, "peak_frames": {peak_frames}}}}}')
    assert chosen("emotion_peak_fork", 45, 8, Sample("a", au_json=path)) == numbers(PEAK[45, 10])
    with pytest.raises(DescriptionError):
        chosen("emotion_peak", 45, 8, Sample("a", au_json=path))


def test_the_fork_counts_the_frames_of_the_file_not_of_the_video(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10)
    assert chosen("emotion_peak_fork", 200, 8, sample) == numbers(PEAK[45, 10])
    with pytest.raises(SamplingError, match=r"gives frames .* but the video has 20"):
        chosen("emotion_peak_fork", 20, 8, sample)


def test_the_fork_with_a_field_missing_is_an_error_there_too(tmp_path: Path) -> None:
    path = tmp_path / "a_au_analysis.json"
    path.write_text('{"au_info": {"total_frames": 45, "peak_frames": [{"peak_index": 10}]}}')
    with pytest.raises(SamplingError, match=r"lacks a field: KeyError\('frames_before_peak'\)"):
        chosen("emotion_peak_fork", 45, 8, Sample("a", au_json=path))


def test_the_fork_gives_eight_frames_or_repeats_the_last(tmp_path: Path) -> None:
    sample = with_peak(tmp_path, 45, 10)
    assert chosen("emotion_peak_fork", 45, 11, sample) == [*numbers(PEAK[45, 10]), 31, 31, 31]
    assert chosen("emotion_peak_fork", 45, 11) == [22] * 11
    with pytest.raises(ConfigError, match="always gives 8 frames"):
        chosen("emotion_peak_fork", 45, 1, sample)


def fork_restated(total: int, index: int, before: int, after: int) -> list[int]:
    """The rule as the notes on the fork write it down, not as it is programmed here."""
    near = {index}
    if before >= 2 and after >= 2:
        near |= {index - 1, index - 2, index + 1, index + 2}
    elif before == 1 and after >= 2:
        near |= {index - 1, index + 1, index + 2}
    elif before >= 2 and after == 1:
        near |= {index + 1, index - 1, index - 2}
    elif before == 1 and after == 1:
        near |= {index - 1, index + 1}
    elif before == 0:
        near |= {index + 1, index + 2}
    elif after == 0:
        near |= {index - 1, index - 2}
    near = {index} | {i for i in near if (i < index and i >= 0) or (i > index and i < total)}
    missing = 8 - len(near)
    others = [i for i in range(total) if i not in near]
    near |= (
        set(others) if len(others) <= missing else {others[int(j * (len(others) / missing))] for j in range(missing)}
    )
    ordered = sorted(near)
    while len(ordered) < 8:
        ordered += sorted(near)[: 8 - len(ordered)]
    return sorted(ordered)[:8]


@given(st.integers(1, 400), st.integers(-3, 420), st.integers(-1, 5), st.integers(-1, 5))
@settings(max_examples=2000, deadline=None)
def test_the_rule_equals_its_description(total: int, index: int, before: int, after: int) -> None:
    assert peak._filled(peak._neighbours(total, index, before, after), total, 8) == fork_restated(
        total, index, before, after
    )


# -- the registry --------------------------------------------------------------------------------------


def every_other(sample: Sample, total: int, n_frames: int, start: int = 0, step: Literal[2, 3] = 2) -> list[int]:
    return [min(start + step * i, total - 1) for i in range(n_frames)]


def broken(sample: Sample, total: int, n_frames: int, result: str) -> Any:
    return {
        "too few": [0],
        "too many": [0] * 9,
        "floats": [0.0] * 8,
        "booleans": [True] * 8,
        "a table": [[0] * 8],
        "negative": [-1] + [0] * 7,
        "behind the end": [total] * 8,
        "none": [],
        "a note that is no JSON": ([0] * 8, {"at": np.int64(3)}),
        "a note with NaN": ([0] * 8, {"at": float("nan")}),
    }[result]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    import featurestore.samplers as registry

    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


def test_a_sampler_of_ones_own() -> None:
    register_sampler("every_other", every_other, version=3)
    assert chosen("every_other", 45, 4, start=1) == [1, 3, 5, 7]
    assert "every_other" in sampler_names()
    assert get_sampler("every_other").version == 3
    register_sampler("lambda", lambda sample, total, n: (range(n), {"seen": total}))
    indices, note = choose("lambda", Sample("a"), 9, 2)
    assert (indices.tolist(), note) == ([0, 1], {"seen": 9})


def test_options_are_checked_before_any_sample() -> None:
    register_sampler("every_other", every_other)
    sampler = get_sampler("every_other")
    assert sampler.effective({}) == {"start": 0, "step": 2}
    assert sampler.effective({"start": 5}) == {"start": 5, "step": 2}
    with pytest.raises(ConfigError, match="'every_other' has no option 'strat'; it takes only start, step"):
        sampler.effective({"strat": 5})
    with pytest.raises(ConfigError, match="step is 4, not one of 2, 3"):
        sampler.effective({"step": 4})
    with pytest.raises(ConfigError, match="'uniform' has no option 'step'; it takes no options"):
        get_sampler("uniform").effective({"step": 4})
    with pytest.raises(ConfigError, match="index_space is 'ratio', not one of strict, by_frame_number, by_ratio"):
        get_sampler("emotion_peak").effective({"index_space": "ratio"})
    register_sampler("broken", broken)
    with pytest.raises(ConfigError, match="'broken' needs the option 'result'"):
        get_sampler("broken").effective({})


def test_a_default_that_is_spelt_out_is_the_same_recipe() -> None:
    sampler = get_sampler("emotion_peak")
    assert sampler.effective({}) == sampler.effective({"index_space": "strict"}) == {"index_space": "strict"}


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("too few", "1 indices, not 8"),
        ("too many", "9 indices, not 8"),
        ("floats", "not a list of whole numbers"),
        ("booleans", "not a list of whole numbers"),
        ("a table", "not a list of whole numbers"),
        ("negative", "not all from 0 to 44"),
        ("behind the end", "not all from 0 to 44"),
        ("none", "not a list of whole numbers"),
        ("a note that is no JSON", "a note that is not JSON"),
        ("a note with NaN", "a note that is not JSON"),
    ],
)
def test_what_a_sampler_returns_is_checked(result: str, text: str) -> None:
    register_sampler("broken", broken)
    with pytest.raises(SamplingError, match=rf"sampler 'broken' .*{text}.*'a'"):
        chosen("broken", 45, 8, result=result)


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(SamplingError, match="nothing to choose from"):
        chosen("uniform", 0, 8)


def test_names_are_those_of_keys_and_taken_once() -> None:
    with pytest.raises(InvalidKeyError):
        register_sampler("my/sampler", every_other)
    with pytest.raises(
        ConfigError, match=r"'uniform' is already registered, as featurestore\.samplers\.frames\.uniform"
    ):
        register_sampler("uniform", every_other)
    register_sampler("mine", every_other)
    register_sampler("mine", every_other, version=2)
    assert get_sampler("mine").version == 2
    register_sampler("one", lambda sample, total, n: range(n))
    with pytest.raises(ConfigError, match="already registered"):
        register_sampler("one", lambda sample, total, n: range(n))


def test_an_unknown_sampler_lists_those_there_are() -> None:
    with pytest.raises(UnknownSamplerError, match=r"'unifrom' is not known; did you mean .uniform.\? there are "):
        get_sampler("unifrom")


class FirstFrames:
    """A callable object, as an entry point may be."""

    version = 7

    def __call__(self, sample: Sample, total: int, n_frames: int, skip: int = 0) -> tuple[list[int], Mapping[str, Any]]:
        return list(range(skip, skip + n_frames)), {"skip": skip}


def test_a_sampler_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution = tmp_path / "other_package-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        "[featurestore.samplers]\nfirst_frames = other_package:first_frames\n"
    )
    (tmp_path / "other_package.py").write_text("from test_samplers import FirstFrames\nfirst_frames = FirstFrames()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tests")
    assert "first_frames" in sampler_names()
    assert "other_package" not in sys.modules
    assert chosen("first_frames", 45, 3, skip=2) == [2, 3, 4]
    assert get_sampler("first_frames").version == 7
    with pytest.raises(ConfigError, match="takes only skip"):
        chosen("first_frames", 45, 3, jump=2)
    del sys.modules["other_package"]


def test_a_file_may_claim_any_number_of_frames(tmp_path: Path) -> None:
    """The fork lists them all; the same indices come without."""
    assert _filled({5, 6, 7}, 40, 8) == [0, 5, 6, 7, 10, 17, 25, 32]
    assert _filled({0, 1}, 10**30, 4) == [0, 1, 2, 2 + (10**30 - 2) // 2]
