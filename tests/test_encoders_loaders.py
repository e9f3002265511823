"""Every loader of weights refuses a file that lacks a tensor, or has it in another shape, and a pointer of Git LFS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_factories import (
    make_clip,
    make_data2vec,
    make_dinov2,
    make_hubert,
    make_siglip,
    make_wavlm,
    pickled,
)
from safetensors.torch import load_file, save_file

from featurestore.encoders import load_encoder
from featurestore.encoders.hugging_face import HuggingFaceNetwork
from featurestore.errors import InputError

# encoder: what makes a checkpoint for it, and the part of it that the encoder uses
LOADERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "CLIP_VIT_LARGE": (make_clip, "vision_model."),
    "CLIP_TEXT": (make_clip, "text_model."),
    "HUBERT_LARGE": (make_hubert, ""),
    "WAVLM_LARGE": (make_wavlm, ""),
    "DATA2VEC_BASE": (make_data2vec, ""),
    "DINO2_LARGE": (make_dinov2, ""),
    "SigLIP_SO": (make_siglip, "vision_model."),
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(name: str, tmp_path: Path) -> None:
    make, part = LOADERS[name]
    folder = make(tmp_path / "made")
    tensors = load_file(folder / "model.safetensors")
    inside = [each for each in tensors if each.startswith(part) and re.search(r"layers?\.1\..*norm.*\.weight$", each)]
    whole = tensors.pop(inside[0])
    for change, told in (({}, r"layer_?s?\S*\.1\.\S* is missing|resblocks\.1\.\S* is missing"),
                         ({inside[0]: torch.cat([whole, whole])}, r"\.1\.\S* is \(\d+,\), not \(\d+,\)")):  # fmt: skip
        save_file({**tensors, **change}, folder / "model.safetensors")
        with pytest.raises(InputError, match=rf"{name}: .*model\.safetensors: .*({told})"):
            _ = load_encoder(name, folder, "cpu").network


def below(kind: type) -> Iterator[type]:
    """Classes that say which model of transformers they are."""
    for each in kind.__subclasses__():
        yield from below(each)
        if hasattr(each, "model"):
            yield each


def test_no_loader_is_left_out() -> None:
    ours = {each for each in below(HuggingFaceNetwork) if each.__module__.startswith("featurestore.")}
    assert ours <= {type(load_encoder(name, "random:0", "cpu")) for name in LOADERS}


def test_a_pointer_of_git_lfs_is_called_that_in_each_format(tmp_path: Path) -> None:
    folder = make_hubert(tmp_path / "hubert")
    other = pickled(folder, tmp_path / "pickled")
    for path in (folder / "model.safetensors", other / "pytorch_model.bin"):
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1262\n")
        with pytest.raises(InputError, match=rf"{path.name} is a Git LFS pointer, not the weights; run `git lfs pull`"):
            _ = load_encoder("HUBERT_LARGE", path.parent, "cpu").network
