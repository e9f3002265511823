"""A settings file of our own: everything a run depends on, every key known.  It begins with `affect_infer: 1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from affect_infer.model.generate import Sampling
from affect_infer.settings.captions import read_captions
from affect_infer.settings.settings import Changes, Settings, Task
from affect_infer.settings.tasks import chosen_names, make_task, read_policies, read_question
from featurestore.errors import ConfigError, did_you_mean
from featurestore.key import FeatureKey, Modality
from featurestore.untrusted_io.files import expand_path

OWN_MARK = "affect_infer"
SIMPLE = {
    "checkpoint": Path, "llm": str, "batch_size": int, "device": str, "dtype": str, "output": Path, "on_missing": str,
    "frame_recipe": str, "allow_mix": bool, "recompute": bool, "workers": int,
}  # fmt: skip
KINDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}
KEYS = (OWN_MARK, "mode", "au", "question", "store", "policy", "encoders", "frame", "face", "audio", "weights",
        "sampler_options", "generation", "datasets", *SIMPLE)  # fmt: skip
DATASET_KEYS = ("manifest", "root", "split", "mer_factory", "nonverbal_json", "mode")
ENCODERS = {"frame": "CLIP_VIT_LARGE", "face": "CLIP_VIT_LARGE", "audio": "HUBERT_LARGE", "au": "CLIP_TEXT"}


def read_own(path: Path, changes: Changes) -> Settings:
    """Settings of a file of our own; relative paths in it are meant from its folder."""
    from featurestore.affectgpt.interpolation import resolve
    from featurestore.affectgpt.strict_yaml import load_yaml, set_options

    data = resolve(set_options(load_yaml(path), changes.options, path), path)
    _known(data, KEYS, str(path))
    if data[OWN_MARK] != 1:
        raise ConfigError(f"{path}: {OWN_MARK} is the version of the file's form, 1, not {data[OWN_MARK]!r}")
    datasets = _mapping(data, "datasets", path)
    names = chosen_names(changes, list(datasets), path)
    if not names:
        raise ConfigError(f"{path} has no datasets; each is a block below `datasets:` with a manifest or a root")
    generation = _mapping(data, "generation", path)
    kinds = {each.name: type(each.default) for each in fields(Sampling)}
    _known(generation, kinds, f"{path}: generation")
    drawing = {name: _value(generation, name, kinds[name], path) for name in generation}
    simple = {name: _value(data, name, kind, path) for name, kind in SIMPLE.items() if data.get(name) is not None}
    return Settings(
        tasks=tuple(_task(name, data, path, changes) for name in names),
        question=read_question(str(data.get("question", "labels"))),
        weights={name: str(spec) for name, spec in _mapping(data, "weights", path).items()},
        sampler_options=_mapping(data, "sampler_options", path),
        sampling=Sampling(**drawing),
        name=path.stem,
        **cast(Any, simple),
    )


def _task(name: str, data: Mapping[str, Any], path: Path, changes: Changes) -> Task:
    from featurestore.datasets import Dataset, load_dataset, resolve_dataset
    from featurestore.errors import UnknownDatasetError
    from featurestore.sample import read_manifest

    given = _mapping(data["datasets"], name, path)
    _known(given, DATASET_KEYS, f"{path}: datasets.{name}")
    manifest = changes.manifest or _path(given, "manifest", path)
    root = changes.root or _path(given, "root", path)
    try:
        dataset = resolve_dataset(name)
        short, results = dataset.name, dataset.results or dataset.name
    except UnknownDatasetError:
        if manifest is None:
            raise
        short = results = name  # one of the user's own, known by its manifest
        dataset = Dataset(name, name)
    if manifest is not None:
        samples = read_manifest(manifest)
    elif root is not None:
        samples = load_dataset(name, root, changes.split or given.get("split"), _path(given, "mer_factory", path))
    else:
        raise ConfigError(f"{path}: datasets.{name} needs a manifest, or the root of the dataset's files")
    policies = read_policies(_mapping(data, "policy", path), path)
    mode = given.get("mode") or data.get("mode") or "face_frame_audio_au"
    keys = _keys(short, data, path)
    nonverbal = _path(given, "nonverbal_json", path)
    captions = None if nonverbal is None else lambda: read_captions(nonverbal, dataset)
    return make_task(
        short, results, samples, mode, policies, keys, _path(data, "store", path), changes,
        data.get("au", "features"), captions,
    )  # fmt: skip


def _keys(dataset: str, data: Mapping[str, Any], path: Path) -> dict[str, FeatureKey]:
    encoders = {**ENCODERS, **_mapping(data, "encoders", path)}
    _known(encoders, ENCODERS, f"{path}: encoders")
    chosen: dict[Modality, dict[str, Any]] = {
        "frame": {"sampling": "emotion_peak", "n_frames": 8, **_mapping(data, "frame", path)},
        "face": {"sampling": "uniform", "n_frames": 8, **_mapping(data, "face", path)},
        "audio": {"sampling": "const_clips", "n_frames": 8, **_mapping(data, "audio", path)},
        "au": {"sampling": "au_summary", "n_frames": "all"},
    }
    for modality, settings in chosen.items():
        _known(settings, ("sampling", "n_frames"), f"{path}: {modality}")
    return {
        modality: FeatureKey(dataset, modality, encoders[modality], settings["sampling"], settings["n_frames"])
        for modality, settings in chosen.items()
    }


def _known(given: Mapping[str, Any], known: Any, where: str) -> None:
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"known here: {', '.join(known)}")
            raise ConfigError(f"{where}: unknown key {name!r}; {hint}")


def _mapping(data: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    found = data.get(name) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: {name} must be a mapping, not {found!r}")
    return found


def _value(data: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    if kind is Path:
        return _path(data, name, path)
    value = data[name]
    if name == "batch_size" and value == "auto":
        return None
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}: {name} must be {KINDS[kind]}, not {value!r}")
    return value


def _path(data: Mapping[str, Any], name: str, path: Path) -> Path | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{path}: {name} must be a path, not {value!r}")
    try:
        return path.parent / expand_path(value)
    except ConfigError as error:
        raise ConfigError(f"{path}: {name} is {error}") from error
