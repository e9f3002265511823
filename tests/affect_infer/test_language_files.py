"""The files of a language model: what is absent, cut off, a pointer or another's is told before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made import request
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from affect_infer.model.affect_model import load_model
from affect_infer.model.generate import Sampling
from affect_infer.model.language import load_language
from affect_infer.model.language_files import check_language_files
from affect_infer.model.model_files import check_model_files
from featurestore.errors import InputError

Files = tuple[Path, Path]
Tensors = dict[str, torch.Tensor]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3945426872\n"


@pytest.fixture
def llm(tiny_files: Files, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_files[0], tmp_path / "llm"))


@pytest.fixture(scope="module")
def sharded_once(tiny_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_files[0], tmp_path_factory.mktemp("sharded") / "llm"))
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_files[0]).save_pretrained(folder, max_shard_size="200KB")
    return folder


@pytest.fixture
def sharded(sharded_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded_once, tmp_path / "sharded"))


def rewrite(llm: Path, change: Callable[[Tensors], Tensors]) -> None:
    save_file(change(load_file(llm / "model.safetensors")), llm / "model.safetensors", metadata={"format": "pt"})


def as_bin(llm: Path, tensors: object) -> Path:
    (llm / "model.safetensors").unlink()
    torch.save(tensors, llm / "pytorch_model.bin")
    return llm / "pytorch_model.bin"


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors"]
)
def test_a_pointer_of_git_lfs_is_told_with_the_files_of_the_model(tiny_files: Files, llm: Path, name: str) -> None:
    (llm / name).write_text(POINTER)
    with pytest.raises(InputError, match=rf"{name} is a Git LFS pointer, not the file itself; run `git lfs pull` in"):
        check_model_files(tiny_files[1], str(llm))
    with pytest.raises(InputError, match="Git LFS pointer"):  # as `affect-infer labels` reads it
        load_language(str(llm))


def test_a_checkpoint_that_is_a_pointer_is_told(tiny_files: Files, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text(POINTER)
    with pytest.raises(InputError, match=r"checkpoint .*a\.pth is a Git LFS pointer, not the weights; run `git lfs"):
        check_model_files(tmp_path / "a.pth", str(tiny_files[0]))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", r"config\.json is cut off or no JSON"),
        ("tokenizer.json", r"tokenizer\.json is cut off or no JSON"),
        ("model.safetensors", r"model\.safetensors has \d+ bytes where its header asks for \d+; fetch the file again"),
    ],
)
def test_a_file_that_is_cut_off_is_told(llm: Path, name: str, told: str) -> None:
    whole = (llm / name).read_bytes()
    (llm / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=told):
        check_language_files(llm)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("config.json", r"has no config\.json; fetch the whole folder again"),
        ("tokenizer.json", r"has no tokenizer: tokenizer\.json or vocab\.json with merges\.txt or tokenizer\.model"),
        ("tokenizer_config.json", r"has no tokenizer_config\.json; fetch the whole folder again"),
        ("model.safetensors", r"has no weights: model\.safetensors or "),
    ],
)
def test_a_file_that_is_not_there_is_told(llm: Path, name: str, told: str) -> None:
    (llm / name).unlink()
    with pytest.raises(InputError, match=told):
        check_language_files(llm)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["CLIPModel"], "model_type": "clip"}, r"describes CLIPModel \(clip\), which does not go on"),
        ({"architectures": ["Qwen2Model"]}, r"describes Qwen2Model \(qwen2\)"),
        ({"model_type": None}, "names no model_type"),
    ],
)
def test_a_config_of_something_else_is_told(llm: Path, changes: dict[str, object], told: str) -> None:
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(InputError, match=told):
        check_language_files(llm)


def test_shards_are_all_there_and_hold_what_the_index_says(sharded: Path) -> None:
    check_language_files(sharded)
    parts = sorted(sharded.glob("model-*.safetensors"))
    assert len(parts) > 2
    last = parts[-1].read_bytes()
    parts[-1].write_bytes(last[:-100])
    with pytest.raises(InputError, match=rf"{parts[-1].name} has \d+ bytes where its header asks for"):
        check_language_files(sharded)
    parts[-1].write_text(POINTER)
    with pytest.raises(InputError, match=rf"{parts[-1].name} is a Git LFS pointer"):
        check_language_files(sharded)
    parts[-1].unlink()
    with pytest.raises(InputError, match=rf"names 1 files that are not there: {parts[-1].name}; fetch them"):
        check_language_files(sharded)
    parts[-1].write_bytes(parts[0].read_bytes())
    with pytest.raises(InputError, match=rf"{parts[-1].name} lacks \d+ tensors that .*index\.json places in it"):
        check_language_files(sharded)


def test_an_index_that_leads_elsewhere_is_refused(sharded: Path) -> None:
    for placed in ({"a": "../model.safetensors"}, {"a": 3}, {}, [1]):
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
        with pytest.raises(InputError, match="does not say which file each tensor is in"):
            check_language_files(sharded)


def test_weights_of_torch_are_read_and_looked_at(tiny_files: Files, llm: Path) -> None:
    tensors = load_file(llm / "model.safetensors")
    path = as_bin(llm, tensors)
    check_language_files(llm)
    greedy = Sampling(greedy=True, max_new_tokens=6)
    models = [load_model(tiny_files[1], str(folder))[0] for folder in (llm, tiny_files[0])]
    one, other = (model.answer([request(1)], greedy) for model in models)
    assert one == other
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"pytorch_model\.bin is cut off"):
        check_language_files(llm)
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is no file of torch\.save"):
        check_language_files(llm)
    path.write_bytes(b"\x80\x02I" + b"9" * 50)  # an old pickle is not opened until it is loaded
    with pytest.raises(InputError, match=r"language model .* cannot be read from .*; fetch its files again"):
        load_language(str(llm))


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: {name: t for name, t in model.items() if name != UP}, rf"1 tensors would .*: {UP} is missing"),
        (lambda model: {**model, UP: torch.ones(3, 3)}, rf"1 tensors would .*: {UP} is \(3, 3\), not \(256, 64\)"),
        (
            lambda model: {name.replace("up_proj", "upwards"): t for name, t in model.items()},
            r"2 tensors would stay random: .*up_proj.* is missing; 2 have no place in it: .*upwards",
        ),
        (lambda model: {name: t for name, t in model.items() if name != "lm_head.weight"}, "lm_head.weight is missing"),
        (
            lambda model: model | {name.replace("layers.1", "layers.2"): t.clone() for name, t in model.items()},
            "has 12 tensors that its config.json has no place for, .*layers.2.*and 7 more",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_an_error(
    tiny_files: Files, llm: Path, form: str, change: Callable[[Tensors], Tensors], told: str
) -> None:
    if form == "bin":
        as_bin(llm, change(load_file(llm / "model.safetensors")))
    else:
        rewrite(llm, change)
    with pytest.raises(InputError, match=told):
        load_language(str(llm))
    with pytest.raises(InputError, match=told):
        load_model(tiny_files[1], str(llm))


def test_a_few_tensors_more_are_told(tiny_files: Files, llm: Path) -> None:
    rewrite(llm, lambda model: {**model, "extra.weight": torch.ones(3)})
    _, lines = load_model(tiny_files[1], str(llm))
    assert lines[1] == f"1 tensors of {llm} are not used: extra.weight"


def test_a_head_that_is_tied_to_the_embeddings_is_not_missing(llm: Path) -> None:
    config = json.loads((llm / "config.json").read_text())
    (llm / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    rewrite(llm, lambda model: {name: t for name, t in model.items() if name != "lm_head.weight"})
    language, _ = load_language(str(llm))
    assert language.notes == []
    assert torch.equal(language.model.lm_head.weight, language.model.get_input_embeddings().weight)


def test_a_tokenizer_that_does_not_end_answers_is_refused(llm: Path) -> None:
    settings = json.loads((llm / "tokenizer_config.json").read_text())
    (llm / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(InputError, match=r"does not say which token ends an answer .*tokenizer_config\.json may be"):
        load_language(str(llm))


def test_a_tokenizer_of_a_larger_model_is_refused(llm: Path) -> None:
    content = json.loads((llm / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"word{number}": len(content["model"]["vocab"]) + number for number in range(600)}
    (llm / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"has ids up to \d+, its model embeds \d+: they are of two models"):
        load_language(str(llm))


def test_a_language_model_that_is_not_finite_is_refused(tiny_files: Files, llm: Path) -> None:
    rewrite(llm, lambda model: {**model, UP: model[UP].clone().fill_(7e4)})
    with pytest.raises(InputError, match=rf"1 tensors are not finite in float16: .*{UP[:-7]}.*; use --dtype bfloat16"):
        load_model(tiny_files[1], str(llm), dtype="float16")
    load_model(tiny_files[1], str(llm), dtype="bfloat16")
    rewrite(llm, lambda model: {**model, UP: model[UP].clone().fill_(float("nan"))})
    with pytest.raises(InputError, match=r"not finite in float32: .*; check the checkpoint and the language model"):
        load_language(str(llm))
