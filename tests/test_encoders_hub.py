"""Weights in the hub's cache as its own client lays it out: what counts is whether the files that are needed are there.

Each message that says what to fetch is taken at its word: its command is run, and then the weights are found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_factories import make_clip, make_hubert, pickled
from comparisons import assert_same
from hub_factories import Hub, command_in, commit_of, files_of, serving

from featurestore.encoders import ENCODERS, load_encoder, weights_identity, weights_origin
from featurestore.encoders.frozen import FrozenNetwork
from featurestore.encoders.hub import find_snapshot
from featurestore.encoders.weights import find, local_path
from featurestore.errors import WeightsNotFoundError
from featurestore.quality.compare import bound

TAGS = ("ViT-B-32.laion2b_s34b_b79k", "ViT-B-32.openai")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "made")


def source_of(name: str, weights: str | None = None) -> Any:
    encoder = load_encoder(name, weights, "cpu")
    assert isinstance(encoder, FrozenNetwork)
    return encoder.source


# Not those that another test file has registered, in a run that imports it before this one.
OURS = [name for name, target in ENCODERS.items() if target.startswith("featurestore.")]


@pytest.mark.parametrize("name", [*OURS, *TAGS])
def test_the_command_of_the_message_fetches_what_an_encoder_needs(name: str, hub: Hub) -> None:
    published = load_encoder(name).published  # type: ignore[attr-defined]
    others = {"README.md": b"a card", "flax_model.msgpack": b"another format", "tf_model.h5": b"another format"}
    hub.repositories[published.repo] = others | {file: f"of {file}".encode() for file in published.files}
    with pytest.raises(WeightsNotFoundError, match="are not on this machine") as error:
        source_of(name)
    hub.run(command_in(error))
    found = source_of(name)
    assert found.revision == commit_of(published.repo, "main")
    assert {path.name for path in found.folder.iterdir()} == set(published.files)
    if len(published.files) > 1:  # of a file alone the client does not ask what is beside it
        assert (hub.cache / f"models--{published.repo.replace('/', '--')}" / "trees").is_dir()


def test_weights_of_a_partial_snapshot_are_those_of_the_folder(hub: Hub, tmp_path: Path) -> None:
    folder = pickled(make_hubert(tmp_path / "made"), tmp_path / "pickled")
    hub.repositories["TencentGameMate/chinese-hubert-large"] = files_of(folder, **{"fairseq.pt": b"another format"})
    with pytest.raises(WeightsNotFoundError) as error:
        weights_identity(load_encoder("HUBERT_LARGE"))
    hub.run(command_in(error))
    encoder, wanted = load_encoder("HUBERT_LARGE", device="cpu"), load_encoder("HUBERT_LARGE", folder, "cpu")
    assert weights_identity(encoder) == weights_identity(wanted)
    assert encoder.config() == wanted.config()
    sound = np.random.default_rng(0).normal(0, 0.1, (1, 32000)).astype(np.float32)
    assert_same(encoder.encode(sound), wanted.encode(sound), bound(encoder.config()))


def test_another_format_than_the_published_one_is_named_once_it_is_known(hub: Hub, tmp_path: Path) -> None:
    """The published list names pytorch_model.bin; here the repository has safetensors only."""
    hub.repositories["TencentGameMate/chinese-hubert-large"] = files_of(make_hubert(tmp_path / "made"))
    with pytest.raises(WeightsNotFoundError) as first:
        source_of("HUBERT_LARGE")
    hub.run(command_in(first))
    with pytest.raises(WeightsNotFoundError, match="holds no weights") as second:
        source_of("HUBERT_LARGE")
    assert command_in(second).endswith("config.json preprocessor_config.json model.safetensors")
    hub.run(command_in(second))
    assert [file.name for file in source_of("HUBERT_LARGE").files] == ["model.safetensors"]


def test_a_revision_is_in_the_command_and_is_found_by_any_of_its_names(hub: Hub, clip: Path) -> None:
    hub.repositories["me/clip"] = files_of(clip)
    with pytest.raises(WeightsNotFoundError, match="me/clip@v2 are not on this machine") as error:
        source_of("CLIP_VIT_LARGE", "me/clip@v2")
    assert command_in(error) == "hf download me/clip --revision v2"
    hub.run(command_in(error))
    commit = commit_of("me/clip", "v2")
    for revision in ("v2", commit):
        assert weights_origin(load_encoder("CLIP_VIT_LARGE", f"me/clip@{revision}"))["revision"] == commit
    # The branch main was not fetched, though other files of the repository are here.
    with pytest.raises(WeightsNotFoundError) as error:
        source_of("CLIP_VIT_LARGE", "me/clip")
    hub.run(command_in(error))
    assert source_of("CLIP_VIT_LARGE", "me/clip").revision == commit_of("me/clip", "main")


PARTS = {
    "the card alone": ["README.md"],
    "configs without weights": ["config.json", "preprocessor_config.json"],
    "weights without configs": ["model.safetensors"],
    "weights without the preprocessing": ["model.safetensors", "config.json"],
}


@pytest.mark.parametrize("parts", PARTS)
def test_whatever_is_missing_is_named_and_fetched(parts: str, hub: Hub, clip: Path) -> None:
    """A config that the repository has is not replaced by what is known of the published model."""
    hub.repositories["me/clip"] = files_of(clip)
    hub.run(" ".join(["hf download me/clip", *PARTS[parts]]))
    with pytest.raises(WeightsNotFoundError) as error:
        source_of("CLIP_VIT_LARGE", "me/clip")
    hub.run(command_in(error))
    encoder = load_encoder("CLIP_VIT_LARGE", "me/clip")
    assert weights_identity(encoder) == weights_identity(load_encoder("CLIP_VIT_LARGE", clip))
    assert encoder.config() == load_encoder("CLIP_VIT_LARGE", clip).config()


def test_parts_of_split_weights_that_are_missing_are_named_and_fetched(hub: Hub) -> None:
    parts = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    index = json.dumps({"weight_map": {f"t{number}": part for number, part in enumerate(parts)}}).encode()
    hub.repositories["me/split"] = {"model.safetensors.index.json": index, "config.json": b"{}", "README.md": b""} | {
        part: part.encode() for part in parts
    }
    hub.run("hf download me/split config.json README.md")
    with pytest.raises(WeightsNotFoundError) as error:
        find("me/split", None, "E")
    assert command_in(error).split()[4:] == ["model.safetensors.index.json", *parts]
    hub.run(f"hf download me/split model.safetensors.index.json {parts[1]}")
    with pytest.raises(WeightsNotFoundError) as error:
        find("me/split", None, "E")
    assert command_in(error) == f"hf download me/split {parts[0]} {parts[2]}"
    hub.run(command_in(error))
    assert [file.name for file in find("me/split", None, "E").files] == parts  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["a link to nothing", "a blob that is not complete"])
def test_a_download_that_broke_off_is_finished_by_the_command(damage: str, hub: Hub, clip: Path) -> None:
    hub.repositories["me/clip"] = files_of(clip)
    hub.run("hf download me/clip")
    file = hub.snapshot("me/clip") / "model.safetensors"
    blob = file.resolve()
    if damage == "a link to nothing":
        blob.unlink()
    else:
        file.unlink()
        blob.rename(blob.with_name(f"{blob.name}.incomplete"))
    with pytest.raises(WeightsNotFoundError, match="holds no weights") as error:
        source_of("CLIP_VIT_LARGE", "me/clip")
    hub.run(command_in(error))
    weights_identity(load_encoder("CLIP_VIT_LARGE", "me/clip"))


def test_a_repository_without_weights_that_can_be_read_is_not_fetched_again(hub: Hub) -> None:
    hub.repositories["me/odd"] = {"config.json": b"{}", "weights.msgpack": b"x"}
    hub.run("hf download me/odd")
    with pytest.raises(WeightsNotFoundError, match=r"me/odd has no weights under such.*weights.msgpack") as error:
        find("me/odd", None, "E")
    assert "hf download" not in str(error.value)


def test_others_get_the_folder_of_a_partial_snapshot(hub: Hub) -> None:
    hub.repositories["me/mine"] = {"weights.bin": b"1", "README.md": b""}
    hub.run("hf download me/mine weights.bin")
    assert local_path("me/mine", "MINE") == str(hub.snapshot("me/mine"))


@pytest.mark.parametrize("listing", [b"", b"{", b"[]", b'{"format_version": 2, "files": {}}', b'{"format_version": 1}'])
def test_a_list_that_cannot_be_read_is_no_list(listing: bytes, hub: Hub, clip: Path) -> None:
    hub.repositories["me/clip"] = files_of(clip)
    hub.run("hf download me/clip")
    (list_file,) = (hub.cache / "models--me--clip" / "trees").iterdir()
    list_file.write_bytes(listing)
    found = find_snapshot("me/clip", None)
    assert found is not None
    assert found.listed is None
    assert source_of("CLIP_VIT_LARGE", "me/clip").folder == found.folder


@pytest.mark.parametrize("ref", [b"", b"../../elsewhere", b"0" * 39, b"\xff" * 40, b"x" * 10_000])
def test_a_ref_that_names_no_commit_is_none(ref: bytes, hub: Hub) -> None:
    refs = hub.cache / "models--me--clip" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_bytes(ref)
    assert find_snapshot("me/clip", None) is None
    assert find_snapshot("me/clip", "../../elsewhere") is None
