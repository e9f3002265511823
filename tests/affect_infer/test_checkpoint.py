"""Checkpoints: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from affect_infer.model.affect_model import load_model
from affect_infer.model.checkpoint import Loaded, read_checkpoint
from featurestore.errors import InputError, WeightsNotFoundError

Files = tuple[Path, Path]
Tensors = dict[str, torch.Tensor]


def changed(checkpoint: Path, folder: Path, **settings: object) -> Path:
    content = torch.load(checkpoint, weights_only=True)
    for name, value in settings.items():
        if value is None:
            del content["model"][name]
        else:
            content["model"][name] = value
    torch.save(content, folder / "changed.pth")
    return folder / "changed.pth"


def test_a_checkpoint_says_its_shape_rank_and_token_counts(tiny_files: Files) -> None:
    read = read_checkpoint(tiny_files[1])
    assert (read.shape.hidden, read.shape.visual, read.lora_rank) == (64, 24, 4)
    assert read.token_counts() == {"video": 1, "audio": 1, "multi": 1, "image": 1, "au": 1}
    assert len(read.lora) == 2 * 7 * 2
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight" in read.lora


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("was_run"),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "config": Runs()}, "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth .*holds more than tensors and plain values"):
        read_checkpoint("evil.pth")
    assert not Path("was_run").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, tiny_files: Files) -> None:
    with pytest.raises(InputError, match=r"absent\.pth does not exist.*--ckpt"):
        read_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "half.pth").write_bytes(tiny_files[1].read_bytes()[:5000])
    with pytest.raises(InputError, match=r"half\.pth cannot be read"):
        read_checkpoint(tmp_path / "half.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match=r"list\.pth is not \{'model'"):
        read_checkpoint(tmp_path / "list.pth")
    rank = {"llama_model.x.lora_A.default.weight": torch.zeros(3, 2)}
    with pytest.raises(InputError, match=r"several ranks: \[3, 4\]"):
        read_checkpoint(changed(tiny_files[1], tmp_path, **rank))


def test_a_missing_tensor_is_an_error_that_names_it(tiny_files: Files, tmp_path: Path) -> None:
    llm, checkpoint = tiny_files
    name = "llama_model.base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"
    broken = changed(checkpoint, tmp_path, **{name: None, "fc_att.bias": None})
    with pytest.raises(InputError, match=rf"lacks 2 tensors .*stay random: fc_att\.bias, {name}"):
        load_model(broken, str(llm))


def test_a_tensor_of_another_shape_is_missing_and_unexpected(tiny_files: Files, tmp_path: Path) -> None:
    llm, checkpoint = tiny_files
    broken = changed(checkpoint, tmp_path, **{"fc_att.bias": torch.zeros(3)})
    with pytest.raises(InputError, match=r"stay random: fc_att\.bias; it has 1 that do not fit: fc_att\.bias"):
        load_model(broken, str(llm))


def test_an_unexpected_tensor_is_reported(tiny_files: Files, tmp_path: Path) -> None:
    llm, checkpoint = tiny_files
    extra = changed(checkpoint, tmp_path, **{"nonverbal_proj.weight": torch.zeros(3)})
    _, lines = load_model(extra, str(llm))
    assert lines[1] == "1 tensors of changed.pth are not used: nonverbal_proj.weight"


def test_all_missing_names_are_counted() -> None:
    with pytest.raises(InputError, match=r"lacks 7 tensors .*a, b, c, d, e and 2 more"):
        Loaded(tuple("abcdefg"), ()).check(Path("x.pth"))


def test_another_language_model_is_refused(tiny_files: Files, tmp_path: Path) -> None:
    from affect_infer.model.tiny import write_tiny_model

    other, _ = write_tiny_model(tmp_path, hidden=32, layers=1)
    with pytest.raises(InputError, match=r"trained for a language model of width 64, .* has 32; .*--llm"):
        load_model(tiny_files[1], str(other))


def test_an_absent_language_model_says_how_to_fetch_it(tiny_files: Files) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"'nobody/nothing' is not in .*hf download nobody/nothing"):
        load_model(tiny_files[1], "nobody/nothing")


def test_tensors_of_other_forms_are_refused_by_name(tiny_files: Files, tmp_path: Path) -> None:
    for name, tensor in (
        ("audio_llama_proj.weight", torch.ones(3)),
        ("affectgpt_proj.weight", torch.ones(1, 2, 3)),
        ("llama_model.x.lora_A.weight", torch.tensor(1.0)),
    ):
        short = name.removeprefix("llama_model.").replace(".", r"\.")
        with pytest.raises(InputError, match=rf"changed\.pth.*{short}.*not a matrix"):
            read_checkpoint(changed(tiny_files[1], tmp_path, **{name: tensor}))
    with pytest.raises(InputError, match=r"changed\.pth: tensor 'x' is .* more than the"):
        read_checkpoint(changed(tiny_files[1], tmp_path, x=torch.zeros(1).expand(1 << 40)))
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02I" + b"9" * 5000 + b"\n.")
    with pytest.raises(InputError, match=r"bad\.pth cannot be read"):
        read_checkpoint(tmp_path / "bad.pth")


def rewritten(checkpoint: Path, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """The checkpoint with its dict of tensors changed."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "model": change(content["model"])}, folder / "rewritten.pth")
    return folder / "rewritten.pth"


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    "name", ["fc_att.bias", "llama_model.base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"]
)
def test_a_tensor_that_is_not_finite_is_refused_by_name(
    tiny_files: Files, tmp_path: Path, name: str, value: float
) -> None:
    def change(model: Tensors) -> Tensors:
        broken = model[name].clone()
        broken.view(-1)[-1] = value
        return {**model, name: broken}

    with pytest.raises(InputError, match=rf"1 tensors hold NaN or infinities.*: {re.escape(name)}; use the checkpoint"):
        read_checkpoint(rewritten(tiny_files[1], tmp_path, change))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_puts_in_front_of_all_names_is_taken_off(tiny_files: Files, tmp_path: Path, prefix: str) -> None:
    wrapped = rewritten(tiny_files[1], tmp_path, lambda model: {f"{prefix}{name}": t for name, t in model.items()})
    one, other = read_checkpoint(wrapped), read_checkpoint(tiny_files[1])
    assert (one.shape, one.lora_rank) == (other.shape, other.lora_rank)
    for mine, theirs in ((one.heads, other.heads), (one.lora, other.lora)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_names_with_and_without_a_prefix_are_refused(tiny_files: Files, tmp_path: Path) -> None:
    mixed = rewritten(tiny_files[1], tmp_path, lambda model: {**model, "module.fc_att.bias": model["fc_att.bias"]})
    with pytest.raises(InputError, match=r"1 of \d+ names with 'module\.' in front, such as module\.fc_att\.bias, and"):
        read_checkpoint(mixed)


def test_lora_weights_of_more_layers_than_the_model_has_are_refused(tiny_files: Files, tmp_path: Path) -> None:
    from affect_infer.model.tiny import write_tiny_model

    shallow, _ = write_tiny_model(tmp_path / "shallow", layers=1, visual=24, acoustic=32, au=16)
    with pytest.raises(InputError, match=r"14 LoRA weights that the language model has no place for: .*layers\.1\."):
        load_model(tiny_files[1], str(shallow))
    few = shallow.with_name("checkpoint.pth")
    with pytest.raises(InputError, match=r"lacks 14 tensors .*layers\.1\."):
        load_model(few, str(tiny_files[0]))


def test_lora_weights_of_another_rank_are_refused(tiny_files: Files, tmp_path: Path) -> None:
    def wider(model: Tensors) -> Tensors:
        return {name: torch.cat([t, t], 1) if ".lora_B." in name else t for name, t in model.items()}

    with pytest.raises(InputError, match=r"lacks 14 tensors .*lora_B.*; it has 14 that do not fit"):
        load_model(rewritten(tiny_files[1], tmp_path, wider), str(tiny_files[0]))

    def halved(model: Tensors) -> Tensors:
        return {name: tensor for name, tensor in model.items() if ".lora_A." not in name}

    with pytest.raises(InputError, match=r"has 14 LoRA weights, none of them a lora_A"):
        read_checkpoint(rewritten(tiny_files[1], tmp_path, halved))
