"""The files of a model: told when they are not here, and known by what is in them."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_factories import Hub, command_in, files_of, serving

from affect_infer.model.language import load_language
from affect_infer.model.model_files import check_model_files, llm_folder, model_identity
from featurestore.errors import ConfigError, InputError, WeightsNotFoundError

Files = tuple[Path, Path]


def test_what_is_here_passes(tiny_files: Files) -> None:
    llm, checkpoint = tiny_files
    check_model_files(checkpoint, str(llm))


def test_a_checkpoint_that_is_none_is_told(tiny_files: Files, tmp_path: Path) -> None:
    llm, checkpoint = str(tiny_files[0]), tiny_files[1]
    with pytest.raises(ConfigError, match="no checkpoint is given; add --ckpt"):
        check_model_files(None, llm)
    with pytest.raises(InputError, match=r"absent\.pth does not exist"):
        check_model_files(tmp_path / "absent.pth", llm)
    with pytest.raises(InputError, match="is not a file"):
        check_model_files(tmp_path, llm)
    with pytest.raises(InputError, match=r"config\.json is not a PyTorch checkpoint file"):
        check_model_files(Path(llm) / "config.json", llm)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(InputError, match="is not a PyTorch checkpoint file"):
        check_model_files(tmp_path / "empty.pth", llm)
    assert checkpoint.exists()


@pytest.mark.parametrize("path", ["/no/such/llm", "./llm", "there/llm", "a/b/c"])
def test_a_directory_that_is_not_here_is_no_hub_id(
    tiny_files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsNotFoundError, match=f"the directory {path} does not exist") as caught:
        check_model_files(tiny_files[1], path)
    assert "hf download" not in str(caught.value)


def test_a_hub_id_that_is_not_here_says_how_to_fetch_it(tiny_files: Files) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"'nobody/nothing' is not in .* `hf download nobody/nothing`"):
        check_model_files(tiny_files[1], "nobody/nothing")


def test_contents_not_paths_decide(tiny_files: Files, tmp_path: Path) -> None:
    llm, checkpoint = tiny_files
    found = model_identity(checkpoint, str(llm))
    assert found["checkpoint"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    shutil.copytree(llm, tmp_path / "llm")
    shutil.copy(checkpoint, tmp_path / "other.pth")
    copied = model_identity(tmp_path / "other.pth", str(tmp_path / "llm"))
    assert copied["checkpoint"] == {"path": str(tmp_path / "other.pth"), "sha256": found["checkpoint"]["sha256"]}
    assert copied["llm"] == {"path": str(tmp_path / "llm"), "sha256": found["llm"]["sha256"]}


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_any_changed_file_is_another_language_model(tiny_files: Files, tmp_path: Path, name: str) -> None:
    llm, checkpoint = tmp_path / "llm", tiny_files[1]
    shutil.copytree(tiny_files[0], llm)
    for file in llm.iterdir():
        os.utime(file, (1e9, 1e9))  # old enough to be remembered
    before = model_identity(checkpoint, str(llm))["llm"]["sha256"]
    assert model_identity(checkpoint, str(llm))["llm"]["sha256"] == before
    changed = bytearray((llm / name).read_bytes())
    changed[-2] ^= 1
    (llm / name).write_bytes(changed)
    assert model_identity(checkpoint, str(llm))["llm"]["sha256"] != before


def test_what_is_not_here_goes_by_its_name() -> None:
    assert model_identity(None, "nobody/nothing") == {"checkpoint": None, "llm": {"name": "nobody/nothing"}}


# -- in the hub's cache, as its own client lays it out ---------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_files: Files) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "cache") as hub:
        hub.repositories["me/llm"] = files_of(tiny_files[0], **{"original.pth": b"another format"})
        yield hub


@pytest.mark.parametrize("options", ["--exclude *.pth --exclude *.md", "--include *.json --include *.safetensors"])
def test_a_language_model_without_what_it_does_not_need_is_here(hub: Hub, tiny_files: Files, options: str) -> None:
    hub.run(f"hf download me/llm {options}")
    assert llm_folder("me/llm") == hub.snapshot("me/llm")
    check_model_files(tiny_files[1], "me/llm")
    language, _ = load_language("me/llm")
    assert language.source == "me/llm"


def test_a_language_model_in_part_says_what_is_missing_and_how_to_fetch_it(hub: Hub, tiny_files: Files) -> None:
    with pytest.raises(WeightsNotFoundError, match="'me/llm@v2' is not in the hub's cache") as error:
        check_model_files(tiny_files[1], "me/llm@v2")
    assert command_in(error) == "hf download me/llm --revision v2"
    hub.run("hf download me/llm generation_config.json README.md --revision v2")
    missing = r"has not config\.json and tokenizer\.json and all of the weights"
    with pytest.raises(WeightsNotFoundError, match=missing) as error:
        check_model_files(tiny_files[1], "me/llm@v2")
    hub.run(command_in(error))
    check_model_files(tiny_files[1], "me/llm@v2")
    (hub.snapshot("me/llm", "v2") / "model.safetensors").resolve().unlink()
    with pytest.raises(WeightsNotFoundError, match="has not all of the weights") as error:
        load_language("me/llm@v2")
    hub.run(command_in(error))
    load_language("me/llm@v2")
