"""Checkpoints: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from affect_infer.checkpoint import Loaded, read_checkpoint
from affect_infer.model import load_model
from featurestore.errors import InputError, WeightsNotFoundError

Files = tuple[Path, Path]


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
    from affect_infer.tiny import write_tiny_model

    other, _ = write_tiny_model(tmp_path, hidden=32, layers=1)
    with pytest.raises(InputError, match=r"trained for a language model of width 64, .* has 32; .*--llm"):
        load_model(tiny_files[1], str(other))


def test_an_absent_language_model_says_how_to_fetch_it(tiny_files: Files) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"'nobody/nothing' cannot be read .*hf download nobody/nothing"):
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
