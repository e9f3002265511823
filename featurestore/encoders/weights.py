"""Weights: which files a specification means, where they should be if they are not here, and what identifies them.

A specification is None (what was published), a local directory or file, HUB_ID[@REVISION], or
"random:SEED".  The network is never used: a hub id is looked up in the cache of the Hugging Face hub,
and the error of one that is not there has the command that fetches it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from featurestore.encoders.hub import HUB_ID, Snapshot, cache_folder, find_snapshot, how_to_fetch
from featurestore.encoders.notes import remembered
from featurestore.errors import ConfigError, MissingPackageError, WeightsNotFoundError
from featurestore.untrusted_io.files import expand_path, is_file_name, open_untrusted, read_json_object

# Tried in this order; of one model in several formats, safetensors wins: no torch is needed to read it.
FILES = (
    "model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "model.safetensors.index.json", "pytorch_model.bin", "open_clip_pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
# What encoders read beside the weights; a file of these that the repository has must not be missing unnoticed.
CONFIGS = ("config.json", "preprocessor_config.json", "open_clip_config.json")
DESCRIPTIONS = ("config.json", "open_clip_config.json")
CONFIG_BYTES = 64 << 20  # an index of shards has a line for each tensor
SUFFIXES = {".safetensors", ".bin", ".pt", ".pth"}

ADVICE = (
    "or give what holds them as weights={ENCODER: DIR}, or 'random:0' to try things out; stored features are read "
    "without weights where fingerprint= names their recipe"
)


@dataclass(frozen=True)
class Random:
    """Weights drawn by the library's own initialisation, after seeding torch's CPU generator with `seed`."""

    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """Weights in files.  `folder` is where config files lie, `revision` the hub's commit if it came from there."""

    folder: Path
    files: tuple[Path, ...]
    revision: str | None = None

    def read_json(self, name: str) -> dict[str, Any]:
        """A config file of the folder, {} if there is none.  Raises ConfigError if it is not a JSON object."""
        try:
            return read_json_object(self.folder / name, CONFIG_BYTES, ConfigError)
        except FileNotFoundError:
            return {}


@dataclass(frozen=True)
class Published:
    """Where an encoder's own weights are published: a hub repository, and the files of it that are needed."""

    repo: str
    files: tuple[str, ...] = ("config.json", "preprocessor_config.json", "model.safetensors")


def find(weights: str | None, published: Published | None, wanted_by: str) -> Random | Checkpoint:
    """What `weights` means.  Raises WeightsNotFoundError with what to do, ConfigError for a bad seed."""
    if weights is None:
        if published is None:
            raise _not_here(f"{wanted_by} has no published weights; it takes DIR, HUB_ID[@REVISION] or random:SEED")
        return _in_hub_cache(published.repo, None, published.files, wanted_by)
    if weights.startswith("random:"):
        seed = weights.removeprefix("random:")
        if not re.fullmatch(r"\d{1,9}", seed):
            raise ConfigError(f"weights {weights!r} of {wanted_by}: the seed must be a whole number below 10^9")
        return Random(int(seed))
    path = expand_path(weights)
    if path.exists():
        return _on_disk(path, wanted_by)
    hub = HUB_ID.fullmatch(weights)
    if hub is None:
        raise _not_here(
            f"{wanted_by}: there is no file or directory {weights}. Weights are a directory with "
            f"config.json and model.safetensors, HUB_ID[@REVISION] or random:SEED"
        )
    return _in_hub_cache(hub["repo"], hub["revision"], (), wanted_by)


def local_path(weights: str | None, wanted_by: str) -> str | None:
    """`weights` as encoders of other packages get it: None, "random:SEED", or a path that exists."""
    if weights is None or weights.startswith("random:"):
        return weights
    if (path := expand_path(weights)).exists():
        return str(path)
    hub = HUB_ID.fullmatch(weights)
    if hub is None:
        raise _not_here(f"{wanted_by}: there is no file or directory {weights}")
    # Which of its files an encoder of another package needs, that encoder knows.
    return str(_snapshot(hub["repo"], hub["revision"], (), wanted_by).folder)


def file_identity(weights: str | None, wanted_by: str) -> dict[str, Any]:
    """Identity of weights that only their encoder can interpret: the bytes of their files, hidden ones left out."""
    path = local_path(weights, wanted_by)
    if path is None or path.startswith("random:"):
        return {"spec": path}
    root = expand_path(path)
    inside = root.rglob("*") if root.is_dir() else [root]
    files = sorted(
        file for file in inside if file.is_file() and not any(p.startswith(".") for p in file.relative_to(root).parts)
    )

    def compute() -> str:
        total = hashlib.sha256()
        for file in files:
            total.update(json.dumps(str(file.relative_to(root))).encode() + b"\n")
            with open_untrusted(file) as (content, _):
                total.update(hashlib.file_digest(content, "sha256").digest())
        return total.hexdigest()

    return {"digest": remembered("files", str(root.resolve()), tuple(files), compute)}


def random_identity(seed: int, architecture: Mapping[str, Any], packages: tuple[str, ...]) -> dict[str, Any]:
    """Identity of `random:SEED`: the initialisation belongs to the libraries, so their versions count."""
    text = json.dumps([seed, architecture, {package: version_of(package) for package in packages}], sort_keys=True)
    return {"random": seed, "digest": hashlib.sha256(text.encode()).hexdigest()}


def version_of(package: str) -> str:
    """Version of an installed package, without importing it.  Raises MissingPackageError."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise missing_package(package) from None


def missing_package(package: str) -> MissingPackageError:
    """The error for a package that encoders need."""
    return MissingPackageError(f"{package} is not installed; encoders need it: pip install 'featurestore[encoders]'")


# -- finding ---------------------------------------------------------------------------------------------------------


class _AbsentPartsError(WeightsNotFoundError):
    """An index of parts is here, and not all parts that it lists."""

    parts: tuple[str, ...] = ()


def _on_disk(path: Path, wanted_by: str, revision: str | None = None) -> Checkpoint:
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise _not_here(f"{wanted_by}: {path} is not one of {', '.join(sorted(SUFFIXES))}")
        return Checkpoint(path.parent, (path,), revision)
    for name in FILES:
        if not (path / name).is_file():
            continue
        if not name.endswith(".index.json"):
            return Checkpoint(path, (path / name,), revision)
        shards = Checkpoint(path, ()).read_json(name).get("weight_map", {})
        # A part lies beside its index: any other name could lead anywhere.
        if not isinstance(shards, dict) or not all(is_file_name(shard) for shard in shards.values()):
            raise ConfigError(f"{wanted_by}: weight_map of {path / name} is not {{tensor: name of a file beside it}}")
        files = tuple(path / shard for shard in sorted(set(shards.values())))
        absent = [file.name for file in files if not file.is_file()]
        if absent or not files:
            error = _AbsentPartsError(
                f"{wanted_by}: {path / name} lists {absent or 'no files'} which is not there", advice=ADVICE
            )
            error.parts = tuple(absent)
            raise error
        return Checkpoint(path, files, revision)
    present = sorted(entry.name for entry in path.iterdir())[:10]
    raise _not_here(
        f"{wanted_by}: {path} holds no weights. Looked for {', '.join(FILES)}; found {', '.join(present) or 'nothing'}"
    )


def _in_hub_cache(repo: str, revision: str | None, files: tuple[str, ...], wanted_by: str) -> Checkpoint:
    snapshot = _snapshot(repo, revision, files, wanted_by)
    folder, listed = snapshot.folder, snapshot.listed
    configs = [name for name in (files or CONFIGS) if name in CONFIGS and listed is not None and name in listed]
    absent = [name for name in configs if not (folder / name).is_file()]
    try:
        checkpoint = _on_disk(folder, wanted_by, revision=folder.name)
    except _AbsentPartsError as error:
        raise _not_here(f"{error.problem}. {_fetch(repo, revision, [*absent, *error.parts])}") from None
    except WeightsNotFoundError as error:
        if listed is not None and not any(name in listed for name in FILES):
            raise _not_here(
                f"{error.problem}. The repository {repo} has no weights under such a name either: it has "
                f"{', '.join(sorted(listed)[:10])}"
            ) from None
        wanted = files if listed is None else [*configs, *_weights_among(listed, files)]
        raise _not_here(f"{error.problem}. {_fetch(repo, revision, wanted)}") from None
    if not absent and not files and listed is None and not any((folder / name).is_file() for name in DESCRIPTIONS):
        # A file that was fetched alone: nobody knows what lies beside it in the repository, until all is fetched.
        raise _not_here(
            f"{wanted_by}: {folder} has the weights, but none of {', '.join(DESCRIPTIONS)}, which say how they are "
            f"used. {_fetch(repo, revision, ())}"
        )
    if absent:
        raise _not_here(
            f"{wanted_by}: {folder} has the weights, but not {' and '.join(absent)}, which the repository has and "
            f"which says how they are used. {_fetch(repo, revision, absent)}"
        )
    return checkpoint


def _weights_among(listed: Collection[str], preferred: Collection[str]) -> list[str]:
    """The weights that a repository has: those that are preferred or else the first format, with all parts."""
    name = next(name for name in (*(each for each in FILES if each in preferred), *FILES) if name in listed)
    stem, index, _ = name.partition(".index.json")
    if not index:
        return [name]
    stem, _, suffix = stem.rpartition(".")
    part = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
    return [name, *sorted(each for each in listed if part.fullmatch(each))]


def _snapshot(repo: str, revision: str | None, files: tuple[str, ...], wanted_by: str) -> Snapshot:
    found = find_snapshot(repo, revision)
    if found is None:
        raise _not_here(
            f"{wanted_by}: the weights {repo}{f'@{revision}' if revision else ''} are not on this machine (looked in "
            f"{cache_folder()}). {_fetch(repo, revision, files)}"
        )
    return found


def _fetch(repo: str, revision: str | None, files: Sequence[str]) -> str:
    return (
        f"Fetch them with `{how_to_fetch(repo, revision, files)}` where there is a network (then copy the cache here "
        f"or set HF_HUB_CACHE)"
    )


def _not_here(problem: str) -> WeightsNotFoundError:
    return WeightsNotFoundError(problem, advice=ADVICE)
