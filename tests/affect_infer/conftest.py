"""A tiny random model and the demo dataset on disk, made once per session."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoders_quick
import pytest
from made import ACOUSTIC, AU, VISUAL

from affect_infer.model.affect_model import AffectModel, load_model
from affect_infer.model.tiny import write_tiny_model
from affect_infer.run.hybrid import run
from affect_infer.settings.reading import read_settings
from affect_infer.settings.settings import Changes, Settings
from featurestore.demo import write_dataset


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(language model directory, checkpoint), whose encoders are a few numbers wide."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), visual=VISUAL, acoustic=ACOUSTIC, au=AU)


@pytest.fixture(scope="session")
def tiny_model(tiny_files: tuple[Path, Path]) -> AffectModel:
    llm, checkpoint = tiny_files
    return load_model(checkpoint, str(llm))[0]


@pytest.fixture(scope="session")
def demo_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo dataset; tests that change it take `demo`."""
    root = tmp_path_factory.mktemp("demo")
    write_dataset(root)
    return root


@pytest.fixture
def demo(demo_files: Path, tmp_path: Path) -> Path:
    """A copy of the demo dataset of the test's own, with the paths in its YAML and manifest.

    A symbolic link would do for most tests, but a test may damage a file.
    """
    root = tmp_path / "demo"
    shutil.copytree(demo_files, root)
    yaml = root / "mer2023.yaml"
    yaml.write_text(yaml.read_text().replace(str(demo_files), str(root)))
    return root


GuideSettings = Callable[..., Settings]
EVERYWHERE = {"frame": "store", "face": "store", "audio": "store", "au": "store"}


def guide_settings(demo: Path, tiny_files: tuple[Path, Path], **changes: Any) -> Settings:
    """Settings of the guide's YAML over the demo dataset, with encoders that cost nothing.

    Keywords are fields of Changes; `values` and `generation` are merged with what every test needs.
    """
    encoders_quick.register()
    llm, checkpoint = tiny_files
    options = [
        *(f"{place}.visual_encoder=QUICK_PIXELS" for place in ("model", "datasets.mer2023")),
        *(f"{place}.acoustic_encoder=QUICK_SOUND" for place in ("model", "datasets.mer2023")),
        *changes.pop("options", ()),
    ]
    values = {"checkpoint": checkpoint, "llm": str(llm), "device": "cpu", "workers": 1, "batch_size": 5}
    values |= {"output": demo / "output", **changes.pop("values", {})}
    generation = {"greedy": True, "max_new_tokens": 6, **changes.pop("generation", {})}
    given = Changes(options=options, values=values, generation=generation, **changes)
    return quick_text(read_settings(demo / "mer2023.yaml", given))


@pytest.fixture
def guide(demo: Path, tiny_files: tuple[Path, Path]) -> GuideSettings:
    """`guide_settings` over a dataset and store of the test's own: nothing is stored yet."""
    return lambda **changes: guide_settings(demo, tiny_files, **changes)


@pytest.fixture(scope="session")
def full_store(demo_files: Path, tiny_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every input of the demo dataset; not to be changed."""
    root = tmp_path_factory.mktemp("full")
    values = {"output": root / "output"}
    run(
        guide_settings(demo_files, tiny_files, policies=EVERYWHERE, store=root / "features", values=values),
        progress=False,
    )
    return root / "features"


@pytest.fixture
def stored(demo_files: Path, tiny_files: tuple[Path, Path], full_store: Path, tmp_path: Path) -> GuideSettings:
    """`guide_settings` over the full store: no media are read, no workers started."""

    def make(**changes: Any) -> Settings:
        values = {"output": tmp_path / "output", **changes.pop("values", {})}
        policies = EVERYWHERE | changes.pop("policies", {})
        return guide_settings(demo_files, tiny_files, policies=policies, store=full_store, values=values, **changes)

    return make


def quick_text(settings: Settings) -> Settings:
    """The guide cannot name the encoder of descriptions; the tests take theirs."""
    from dataclasses import replace

    tasks = []
    for task in settings.tasks:
        keys = {
            name: replace(key, encoder=encoders_quick.NAMES["au"]) if name == "au" else key
            for name, key in task.keys.items()
        }
        tasks.append(replace(task, keys=keys))
    return replace(settings, tasks=tuple(tasks))
