"""fstore encoders and samplers: every name that a key may have, with what is behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_factories import run

from featurestore.encoders import encoder_names, load_encoder
from featurestore.samplers import get_sampler, sampler_names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "encoders.md"


def own_encoders() -> list[str]:
    """Those of the package: other tests register more."""
    code = "from featurestore.encoders import ENCODERS; print(*ENCODERS)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def own_samplers() -> list[str]:
    """Likewise."""
    code = "from featurestore.samplers import sampler_names; print(*sampler_names())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_every_encoder_is_listed_with_what_it_makes() -> None:
    pytest.importorskip("open_clip")
    documents = {each["name"]: each for each in json.loads(run("encoders", *own_encoders(), "--json").stdout)}
    assert sorted(documents) == sorted(own_encoders())
    for name, document in documents.items():
        encoder = load_encoder(name)
        assert document["dim"] == encoder.dim
        assert encoder.modality in document["modalities"]
        assert ("face" in document["modalities"]) == (encoder.modality == "frame")
        assert document["weights"] == encoder.published.repo  # type: ignore[attr-defined]
        assert isinstance(document["here"], bool)
    listed = {line.split()[0] for line in run("encoders").stdout.splitlines()[1:]}
    assert set(own_encoders()) <= listed <= set(encoder_names())


def test_a_model_of_open_clip_can_be_asked_for() -> None:
    pytest.importorskip("open_clip")
    (document,) = json.loads(run("encoders", "ViT-S-32.none", "--json").stdout)
    assert document == {
        "name": "ViT-S-32.none",
        "modalities": ["frame", "face"],
        "dim": 384,
        "input": "224 x 224",
        "weights": None,
        "here": None,
    }
    assert "did you mean 'CLIP_VIT_LARGE'" in run("encoders", "CLIP_VIT_LARG", exit_code=2).stderr


def test_an_encoder_that_cannot_be_loaded_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from featurestore import encoders

    broken = {**encoders._registry, "BROKEN": "no_such_package_here:Encoder"}
    monkeypatch.setattr(encoders, "_registry", broken)
    done = run("encoders")
    assert "BROKEN: encoder 'BROKEN' is no_such_package_here:Encoder, which cannot be imported" in done.stderr
    assert "HUBERT_LARGE " in done.stdout
    run("encoders", "BROKEN", exit_code=1)


def test_every_sampler_is_listed_with_its_options() -> None:
    documents = {each["name"]: each for each in json.loads(run("samplers", "--json").stdout)}
    assert sorted(documents) == sampler_names()
    own = own_samplers()
    for name, document in documents.items():
        entry = get_sampler(name)
        assert document["options"] == entry.effective({})
        assert document["version"] == entry.version
        assert document["takes"] or name not in own
    assert "index_space=strict" in run("samplers").stdout


def test_the_page_has_every_encoder_and_sampler_of_the_package() -> None:
    """That what it says of them is true is tested by running it."""
    page = PAGE.read_text()
    assert [name for name in [*own_encoders(), *own_samplers()] if f"\n{name} " not in page] == []


def test_neither_imports_torch() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom featurestore.cli import fstore\n"
        "for name in ('encoders', 'samplers'):\n"
        "    assert CliRunner().invoke(fstore, [name]).exit_code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
