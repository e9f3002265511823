"""Going on with a file of results: refused, with the word of what differs, where answers would not belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from calm_run import quiet

from affect_infer.results import read_results
from affect_infer.run.hybrid import run
from affect_infer.settings.settings import Settings
from featurestore.errors import ConfigError, FeatureStoreError

Stored = Callable[..., Settings]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"generation": {"seed": 5, "greedy": False}}, r"sampling\.greedy: True then, False now; "),
        ({"generation": {"max_new_tokens": 9}}, r"sampling\.max_new_tokens: 6 then, 9 now"),
        ({"mode": "face_frame_audio", "policies": {"au": "off"}}, r"mode: 'face_frame_audio_au' then, 'face_frame_au"),
        ({"policies": {"face": "off"}}, r"inputs\.face: '[0-9a-f]{16}' then, nothing now"),
        ({"au": "text", "policies": {"au": "live"}}, "au: 'features' then, 'text' now"),
    ],
)
def test_what_changed_is_named(stored: Stored, changes: dict[str, Any], told: str) -> None:
    path = Path(quiet(stored()).files[0])
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"answers of other settings \(.*{told}.*another --output"):
        quiet(stored(**changes))
    assert path.read_bytes() == before


def test_another_checkpoint_has_a_file_of_its_own(stored: Stored, tiny_files: tuple[Path, Path]) -> None:
    first = quiet(stored())
    other = replace(stored(), checkpoint=tiny_files[1].with_name("other.pth"))
    second = quiet(other)
    assert second.resumed == 0
    assert second.files != first.files


def test_a_checkpoint_is_known_by_its_contents(stored: Stored, tiny_files: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pth"
    checkpoint.write_bytes(tiny_files[1].read_bytes())
    first = quiet(stored(values={"checkpoint": checkpoint}))
    before = Path(first.files[0]).read_bytes()
    assert quiet(stored()).resumed == 12, "the same checkpoint elsewhere"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"retrained")
    with pytest.raises(
        ConfigError, match=r"answers of other settings \(checkpoint\.sha256: '\w{64}' then, '\w{64}' now"
    ):
        quiet(stored(values={"checkpoint": checkpoint}))
    assert Path(first.files[0]).read_bytes() == before


def test_a_missing_model_is_told_before_all_else(stored: Stored, tmp_path: Path) -> None:
    for values, told in (
        ({"llm": "./absent"}, "directory ./absent does not exist"),
        ({"checkpoint": tmp_path / "absent.pth"}, "does not exist"),
        ({"checkpoint": None}, "no checkpoint is given"),
    ):
        with pytest.raises(FeatureStoreError, match=told):
            run(replace(stored(), **values), progress=False)  # type: ignore[arg-type]
    assert not (tmp_path / "output").exists()
    assert quiet(stored()).answered == 12


def test_where_an_input_comes_from_may_change_and_is_recorded(stored: Stored) -> None:
    """Stored and live inputs of one recipe are the same numbers; each line says which they were."""
    path = Path(quiet(stored()).files[0])
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6]))
    report = quiet(stored(policies={"frame": "store_only", "face": "live"}))
    assert (report.answered, report.resumed) == (7, 5)
    answers = [line["inputs"]["face"]["answer"] for line in read_results(path)[1].values()]
    assert answers == ["disk"] * 5 + ["live"] * 7
