"""The commands as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from affect_infer.cli import main
from affect_infer.cli_options import pairs


@pytest.fixture(scope="module")
def full_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `affect-infer tiny-model` writes."""
    root = tmp_path_factory.mktemp("tiny") / "model"
    done = CliRunner().invoke(main, ["tiny-model", str(root)])
    assert done.exit_code == 0, done.output
    assert f"--ckpt {root}/checkpoint.pth --llm {root}/llm" in done.output
    assert "RANDOM" in CliRunner().invoke(main, ["tiny-model", "--help"]).output
    assert "Random weights" in (root / "README.md").read_text()
    return root


def test_a_comma_within_a_path_parts_nothing() -> None:
    given = ["A=/data/one, two/a,B.b-2=c,d", "C = hub/id@v1 , D=x"]
    context, parameter = click.Context(main), click.Option(["--weights"])
    wanted = {"A": "/data/one, two/a", "B.b-2": "c,d", "C": "hub/id@v1", "D": "x"}
    assert pairs(context, parameter, given) == wanted


def arguments(demo: Path, tiny: Path) -> list[str]:
    return [
        "--cfg-path", str(demo / "mer2023.yaml"), "--dataset", "mer2023", "--ckpt", str(tiny / "checkpoint.pth"),
        "--llm", str(tiny / "llm"), "--weights", "ViT-S-32.none=random:0", "--weights",
        f"HUBERT_LARGE={tiny / 'hubert_large'},CLIP_TEXT={tiny / 'clip_text'}", "--device", "cpu", "--workers", "1",
        "--max-new-tokens", "4", "--limit", "3",
    ]  # fmt: skip


def affect_infer(*words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "affect-infer"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_the_guides_command_and_a_second_run_that_has_nothing_to_do(demo: Path, full_tiny: Path) -> None:
    words = ["run", *arguments(demo, full_tiny), "--greedy", "--output", str(demo / "out")]
    first = affect_infer(*words)
    assert first.returncode == 0, first.stderr
    assert "3 samples answered, 0 answered before, 0 skipped" in first.stdout
    assert "Hybrid inference: mer2023, 3 samples, mode face_frame_audio_au" in first.stderr
    assert "Inference: 100%" in first.stderr
    assert "3/3 [" in first.stderr
    assert first.stderr.count("Inference:") == first.stderr.count("/3 ["), "one bar, and none of a library"
    second = affect_infer(*words, "--json")
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert (report["answered"], report["answered_before"]) == (0, 3)


def test_inspect_and_parity_in_process(demo: Path, full_tiny: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(
        main, ["inspect", "sample_00000002", *arguments(demo, full_tiny), "--json", "--tensors", str(demo / "x.npz")]
    )
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.stdout)
    assert data["inputs"]["frame"]["shape"] == [8, 384]
    assert np.load(demo / "x.npz")["token_frame"].shape == (64,)
    compared = runner.invoke(main, ["parity", *arguments(demo, full_tiny), "--samples", "1"])
    assert compared.exit_code == 0, compared.output
    assert "may be mixed" in compared.output
    assert "max-abs" in compared.output


def test_errors_are_one_line_and_an_exit_code(demo: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    wrong = runner.invoke(
        main, ["run", "--cfg-path", str(demo / "mer2023.yaml"), "--options", "model.skip_encoders=True"]
    )
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("Error: skip_encoders is True")
    assert wrong.stderr.count("\n") == 1
    absent = runner.invoke(main, ["run", "--cfg-path", str(tmp_path / "absent.yaml")])
    assert absent.exit_code == 2
    assert "absent.yaml cannot be read" in absent.stderr
    policy = runner.invoke(main, ["run", "--cfg-path", "x", "--policy", "frame"])
    assert policy.exit_code == 2
    assert "'frame' is not of the form NAME=VALUE" in policy.stderr
    batch = runner.invoke(main, ["run", "--cfg-path", "x", "--batch-size", "many"])
    assert "neither a number nor auto" in batch.stderr
    sampler = runner.invoke(main, ["run", "--cfg-path", "x", "--sampler-option", "emotion_peak=1"])
    assert "is not of the form SAMPLING.k=v" in sampler.stderr


def test_evaluate_from_the_dataset(demo: Path) -> None:
    from test_evaluation import WHEELS, write_results

    if not WHEELS.is_dir():
        pytest.skip(f"no emotion wheels at {WHEELS}")
    from featurestore.demo import CLIPS

    path = write_results(demo / "a.jsonl", "mer2023", {clip.id: f"[{clip.emotion}]" for clip in CLIPS})
    root = demo / "mer2023-dataset-process"
    done = CliRunner().invoke(main, ["evaluate", str(path), "--wheel-root", str(WHEELS), "--root", str(root)])
    assert done.exit_code == 0, done.output
    assert "| mer2023 | hit rate | 100.00 |" in done.output
    assert "| 10 | 12 of 12 |" in done.output


def test_no_description_of_a_command_is_cut() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    commands = shown.partition("Commands:")[2].splitlines()[1:]
    assert [line.split()[0] for line in commands] == sorted(main.commands)
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


@pytest.mark.parametrize("words", [["inspect", "-AbCdEfGhIj_0", "--cfg-path", "x.yaml"], ["inspect", "--", "-AbC"]])
def test_a_sample_that_looks_like_an_option_is_told_where_it_goes(words: list[str]) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    if "--" not in words:
        assert 'those that begin with "-" go after all options and "--"' in result.stderr
        assert "inspect ... -- -A..." in result.stderr
    else:
        assert "Missing option '--cfg-path'" in result.stderr  # taken for the sample
    assert 'A SAMPLE that begins with "-" goes after all options and "--"' in " ".join(
        CliRunner().invoke(main, ["inspect", "--help"]).output.split()
    )
