"""A tiny random model on disk, read once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from made import ACOUSTIC, AU, VISUAL

from affect_infer.model import AffectModel, load_model
from affect_infer.tiny import write_tiny_model


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(language model directory, checkpoint), whose encoders are a few numbers wide."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), visual=VISUAL, acoustic=ACOUSTIC, au=AU)


@pytest.fixture(scope="session")
def tiny_model(tiny_files: tuple[Path, Path]) -> AffectModel:
    llm, checkpoint = tiny_files
    return load_model(checkpoint, str(llm))[0]
