"""The file of results: what survives, what is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from affect_infer.results import Results, answers_in_order, read_results, write_npz
from featurestore.errors import ConfigError, InputError

RUN = {"dataset": "d", "question": "?"}


def line(id: str) -> dict[str, str]:
    return {"id": id, "answer": f"at ease, {id} 安心"}


def test_lines_are_read_back_in_order(tmp_path: Path) -> None:
    with Results(tmp_path / "a.jsonl", RUN) as results:
        results.append(line("-b"))
        results.append(line("a"))
    run, lines = read_results(tmp_path / "a.jsonl")
    assert run == RUN
    assert list(lines) == ["-b", "a"]
    assert answers_in_order(lines, ["a", "absent", "-b"]) == {"a": "at ease, a 安心", "-b": "at ease, -b 安心"}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_torn_anywhere_is_dropped_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.jsonl"
    with Results(path, RUN) as results:
        results.append(line("a"))
        results.append(line("b"))
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    path.write_bytes(whole[: len(whole) - min(cut, last)])
    with Results(path, RUN) as results:
        assert results.answered == {"a"}
        results.append(line("b"))
    assert path.read_bytes() == whole


def test_the_first_line_is_synced_on_a_machine_that_has_just_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), real(number)))
    monkeypatch.setattr(time, "monotonic", lambda: 0.5)
    with Results(tmp_path / "a.jsonl", RUN) as results:
        results.append(line("a"))
        assert len(synced) == 1
        results.append(line("b"))
        assert len(synced) == 1


def test_a_torn_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"run": {"data')
    with Results(path, RUN) as results:
        assert results.answered == set()
    assert read_results(path) == (RUN, {})


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps({"run": RUN}).encode() + b'\n{"id": "a"\n{"id": "b"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: "), Results(path, RUN):
        pass


def test_other_settings_are_named(tmp_path: Path) -> None:
    with Results(tmp_path / "a.jsonl", RUN) as results:
        results.append(line("a"))
    with (
        pytest.raises(ConfigError, match=r"other settings \(question: '\?' then, 'why' now\)"),
        Results(tmp_path / "a.jsonl", {**RUN, "question": "why"}),
    ):
        pass
    (tmp_path / "b.jsonl").write_text('{"id": "a"}\n')
    with (
        pytest.raises(InputError, match="does not begin with a line about its run"),
        Results(tmp_path / "b.jsonl", RUN),
    ):
        pass


def test_a_file_without_answers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Results(path, RUN) as results:
        results.append({"id": "a", "skipped": {"face": "no face"}})
    other = {**RUN, "question": "why"}
    with Results(path, other) as results:
        assert (results.answered, results.skipped) == (set(), set())
        results.append(line("a"))
    assert read_results(path) == (other, {"a": line("a")})


def test_where_a_digest_is_known_its_path_may_change(tmp_path: Path) -> None:
    def run_of(path: str, digest: str) -> dict[str, object]:
        return {**RUN, "checkpoint": {"path": path, "sha256": digest}}

    with Results(tmp_path / "a.jsonl", run_of("x.pth", "1" * 64)) as results:
        results.append(line("a"))
    with Results(tmp_path / "a.jsonl", run_of("/models/x.pth", "1" * 64)) as results:
        assert results.answered == {"a"}
    with (
        pytest.raises(ConfigError, match=r"other settings \(checkpoint\.sha256: '1{64}' then, '2{64}' now\)"),
        Results(tmp_path / "a.jsonl", run_of("x.pth", "2" * 64)),
    ):
        pass


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        Results(tmp_path / "a.jsonl", RUN),
        pytest.raises(ConfigError, match="another run is writing"),
        Results(tmp_path / "a.jsonl", RUN),
    ):
        pass
    with Results(tmp_path / "a.jsonl", RUN):
        pass


def test_the_npz_holds_one_pickled_dict(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", {"s1": "happy"})
    loaded = np.load(tmp_path / "a.npz", allow_pickle=True)
    assert loaded.files == ["name2reason"]
    assert loaded["name2reason"].shape == ()
    assert loaded["name2reason"].tolist() == {"s1": "happy"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_file_that_does_not_say_what_was_in_force_is_not_joined(tmp_path: Path) -> None:
    now = {**RUN, "dtype": "float32", "keys": {"frame": "d/frame/X/uniform/8"}}
    for then, told in (
        ({**now, "dtype": None}, "did not record dtype as in force"),
        (RUN, "did not record dtype and keys as in force"),
    ):
        path = tmp_path / f"{len(told)}.jsonl"
        with Results(path, then) as results:
            results.append(line("a"))
        with (
            pytest.raises(ConfigError, match=rf"{told}.*move the file away, or choose another --output"),
            Results(path, now),
        ):
            pass
    whole = {**now, "keys": {}}  # a prompt of text alone has no features
    with Results(tmp_path / "text.jsonl", {**RUN, "dtype": "float32"}) as results:
        results.append(line("a"))
    with Results(tmp_path / "text.jsonl", whole) as results:
        assert results.answered == {"a"}


def test_what_is_drawn_with_does_not_matter_where_nothing_is_drawn(tmp_path: Path) -> None:
    def run_of(greedy: bool, **drawing: object) -> dict[str, object]:
        return {**RUN, "sampling": {"greedy": greedy, "max_new_tokens": 6, **drawing}}

    with Results(tmp_path / "a.jsonl", run_of(True, seed=0, top_k=20)) as results:
        results.append(line("a"))
    with Results(tmp_path / "a.jsonl", run_of(True, seed=5)) as results:
        assert results.answered == {"a"}
    with Results(tmp_path / "b.jsonl", run_of(False, seed=0)) as results:
        results.append(line("a"))
    with (
        pytest.raises(ConfigError, match=r"sampling\.seed: 0 then, 5 now"),
        Results(tmp_path / "b.jsonl", run_of(False, seed=5)),
    ):
        pass


def test_what_fails_before_the_first_answer_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError), Results(tmp_path / "a.jsonl", RUN):
        raise InputError("the model cannot be read")
    assert not (tmp_path / "a.jsonl").exists()
    with Results(tmp_path / "a.jsonl", RUN) as results:
        results.append(line("a"))
    with pytest.raises(InputError), Results(tmp_path / "a.jsonl", RUN):
        raise InputError("again")
    assert list(read_results(tmp_path / "a.jsonl")[1]) == ["a"]
