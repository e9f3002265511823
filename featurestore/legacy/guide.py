"""Guide: the settings of the guide's YAML files, read for what they mean, with what contradicts what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.datasets import Dataset, Roots, make_samples, resolve_dataset, split_names
from featurestore.errors import ConfigError, UnknownDatasetError
from featurestore.key import FeatureKey
from featurestore.legacy.guide_keys import KEYS, PLACEHOLDER, USED, flatten
from featurestore.legacy.guide_names import unknown_names
from featurestore.legacy.strict_yaml import load_yaml, set_options
from featurestore.legacy.tree import has_features
from featurestore.samples import Sample

# Modes of the old code, and the three of the guide that it does not have, with the modalities in their prompts.
# `frame` and `face` of the old code also bring audio.  Source: domain notes 5.5 and the guide's decisions.
MODES: Mapping[str, str] = {
    "frame": "audio frame", "face": "audio face", "faceframe": "audio frame face",
    "face_frame_audio": "audio face frame", "face_frame_audio_au": "audio face frame au",
    "audioonly": "audio", "textonly": "", "faceonly": "face", "frameonly": "frame",
    "audio_text": "audio", "face_text": "face", "frame_text": "frame", "multiface_text": "audio face",
    "multiface_audio_face_text": "audio face", "multiframe_audio_frame_text": "audio frame",
    "multiface_audio_face_frame_text": "audio face frame",
    "multiface_audio_face_frame_au_text": "audio face frame au",
    "multiface_audio_face_au_text": "audio face au",
    "auonly": "au", "audio_au_text": "audio au", "face_frame_au_text": "face frame au",
    "multiframe_audio_frame_au_text": "audio frame au",
}  # fmt: skip
MODALITIES = ("frame", "face", "audio", "au")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file and what becomes of it."""

    key: str
    value: Any
    status: str
    """used | ignored | contradictory | unknown (a value that names no encoder or sampler)"""
    note: str = ""


@dataclass(frozen=True, slots=True)
class GuideDataset:
    """What the file says about one dataset."""

    dataset: Dataset
    mode: str | None
    policies: Mapping[str, str]
    """modality -> store (hit, else compute and keep) | live | off"""
    keys: Mapping[str, FeatureKey]
    """modality -> the key its features have, for those in the mode"""
    preextracted_root: Path | None
    """as the file has it, with or without the dataset at its end"""
    roots: Roots

    @property
    def store(self) -> Path | None:
        """The directory of the store that `preextracted_root` means.  The disk is looked at only for what is there.

        Raises ConfigError where that place holds `.npy` folders and no store.
        """
        given = self.preextracted_root
        if given is None:
            return None
        above = _without_dataset(given, self.dataset)
        for place in (given, above):
            if (place / "data" / "zarr.json").is_file():
                return place
        for place in (given, above):
            if has_features(place):
                raise ConfigError(
                    f"preextracted_root {given} holds .npy folders, not a store. Import them beside themselves; then "
                    f"this file needs no change:\n  fstore import {place} --store {above}"
                )
        return above

    def samples(self, root: str | Path | None = None, split: str | None = None) -> dict[str, Sample]:
        """The samples with media where the file places them; `root` is for what it does not place."""
        roots = self.roots
        if root is not None or roots.labels is None:
            below = Roots.of(self.dataset, root, roots.mer_factory)
            filled = {name: getattr(roots, name) or getattr(below, name) for name in Roots.__slots__}
            roots = Roots(**filled)
        return make_samples(self.dataset, split_names(self.dataset, roots, split), roots)


@dataclass(frozen=True, slots=True)
class Guide:
    """A settings file of the old code."""

    path: Path
    settings: tuple[Setting, ...]
    datasets: Mapping[str, GuideDataset]
    device: str | None
    output: Path | None

    @property
    def contradictions(self) -> list[Setting]:
        return [setting for setting in self.settings if setting.status == "contradictory"]

    @property
    def unknown(self) -> list[Setting]:
        return [setting for setting in self.settings if setting.status == "unknown"]

    def check(self) -> Guide:
        """Itself, or ConfigError that lists every contradiction or unknown name: no choice is made for the user."""
        for wrong, said in ((self.contradictions, "contradicts itself"), (self.unknown, "names what is not known")):
            if wrong:
                lines = "\n".join(f"  {setting.key}: {setting.note}" for setting in wrong)
                raise ConfigError(f"{self.path} {said}:\n{lines}")
        return self


@dataclass(slots=True)
class _File:
    """The flat settings of a file while they are judged."""

    path: Path
    values: dict[tuple[str, str, str], Any]
    wrong: dict[tuple[str, str, str], str] = field(default_factory=dict)
    unknown: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def get(
        self, name: str, key: str, kind: type, sections: tuple[str, ...] = ("datasets", "inference", "model")
    ) -> Any:
        """The first section that gives a key decides; the others must say the same."""
        given = [(s, name if s == "datasets" else "", key) for s in sections]
        given = [where for where in given if self.values.get(where) is not None]
        if not given:
            return None
        first = self.values[given[0]]
        if not isinstance(first, kind) or (isinstance(first, bool) and kind is not bool):
            raise ConfigError(f"{self.path}: {_dotted(given[0])} must be a {kind.__name__}, not {first!r}")
        for where in given[1:]:
            if _same(self.values[where], first, name) is False:
                self.wrong[where] = f"{_dotted(given[0])} says {first!r}"
        return first


def read_guide(path: str | Path, options: Sequence[str] = ()) -> Guide:
    """Read a settings file as the guide has them.  No torch, no store, nothing is opened but the file.

    options   `a.b=value`, set in the file's content before it is judged
    Raises ConfigError for YAML that is not plain data, for a key that no known file has, for values of another type,
    for an unknown mode or dataset.  What contradicts something else, and names of no encoder or sampler, are in
    `settings`; see `Guide.check`.
    """
    path = Path(path)
    values: dict[tuple[str, str, str], Any] = {}
    for section, name, key, value in flatten(set_options(load_yaml(path), options, path), str(path)):
        values[section, name, key] = None if value in PLACEHOLDER else value
    file = _File(path, values)
    names = dict.fromkeys(name for section, name, _ in values if section == "datasets")
    datasets = {}
    for name in names:
        try:
            dataset = resolve_dataset(name)
        except UnknownDatasetError as error:
            raise ConfigError(f"{path}: datasets.{name}: {error}") from error
        if dataset.name in datasets:
            raise ConfigError(f"{path}: {name!r} is {dataset.name}, which is given twice")
        datasets[dataset.name] = _one_dataset(file, name, dataset)
    _judge_model(file)
    live = {k.encoder for entry in datasets.values() for m, k in entry.keys.items() if entry.policies[m] == "live"}
    file.unknown = unknown_names(file.values, live)
    gpu = file.get("", "gpu", int, ("inference",))
    output = file.get("", "base_root", str, ("inference",))
    settings = tuple(_setting(file, where) for where in dict.fromkeys([*values, *file.wrong]))
    return Guide(path, settings, datasets, None if gpu is None else f"cuda:{gpu}", Path(output) if output else None)


def _one_dataset(file: _File, name: str, dataset: Dataset) -> GuideDataset:
    # In a training file `datasets` is about training and `inference` is not: they need not agree.
    both = ("datasets", "inference", "model") if dataset.default_split == "test" else ("datasets", "model")

    def get(key: str, kind: type) -> Any:
        return file.get(name, key, kind, both)

    mode = get("face_or_frame", str)
    if mode is not None and mode not in MODES:
        raise ConfigError(f"{file.path}: face_or_frame {mode!r} of {name} is not one of {', '.join(MODES)}")
    wanted = MODES[mode].split() if mode else []
    policies = {modality: "live" if modality in wanted else "off" for modality in MODALITIES}
    if get("use_preextracted_features", bool) and "frame" in wanted:
        policies["frame"] = "store"  # the guide: this switch concerns frames only
    for modality in MODALITIES:
        if get(f"use_preextracted_{modality}", bool) and modality in wanted:
            policies[modality] = "store"
    realtime = get("use_au_clip_realtime", bool)
    if realtime is False and policies["au"] == "live":
        file.wrong["datasets", name, "use_au_clip_realtime"] = f"mode {mode} needs AU, which is neither stored nor live"
    if "store" in policies.values() and get("preextracted_root", str) is None:
        file.wrong["datasets", name, "preextracted_root"] = "features are to be read from it, and it is not given"
    if file.values.get(("model", "", "skip_encoders")) and "live" in policies.values():
        live = ", ".join(modality for modality, policy in policies.items() if policy == "live")
        file.wrong["model", "", "skip_encoders"] = f"True leaves no encoder for what is live: {live}; set it to False"
    keys = _keys(file, name, dataset, policies, both)
    folder = get("mer_factory_output", str)
    for modality, key in keys.items():
        if key.sampling in ("emotion_peak", "au_summary") and policies[modality] == "live" and folder is None:
            file.wrong["datasets", name, "mer_factory_output"] = f"live {modality} needs it, and it is not given"
    root = get("preextracted_root", str)
    return GuideDataset(
        _with_label_file(file, name, dataset),
        mode,
        policies,
        keys,
        Path(root) if root else None,
        _roots(file, name, Path(folder) if folder else None),
    )


def _keys(
    file: _File, name: str, dataset: Dataset, policies: Mapping[str, str], sections: tuple[str, ...]
) -> dict[str, FeatureKey]:
    def get(key: str, kind: type, default: Any) -> Any:
        found = file.get(name, key, kind, sections)
        return default if found is None else found

    visual, acoustic = get("visual_encoder", str, "CLIP_VIT_LARGE"), get("acoustic_encoder", str, "HUBERT_LARGE")
    faces = next((n for p in ("train", "eval") if (n := get(f"vis_processor.{p}.n_frms", int, None)) is not None), 8)
    made = {
        "frame": (visual, get("frame_sampling", str, "uniform"), get("frame_n_frms", int, faces)),
        "face": (visual, "uniform", faces),
        "audio": (acoustic, "const_clips", get("clips_per_video", int, 8)),
        "au": ("CLIP_TEXT", "au_summary", "all"),
    }
    return {m: FeatureKey(dataset.name, m, *made[m]) for m in MODALITIES if policies[m] != "off"}


def _judge_model(file: _File) -> None:
    for where, value in file.values.items():
        section, _, key = where
        if value is None:
            continue
        if key.endswith("_fusion_type") and value == "qformer":
            file.wrong[where] = "checkpoints with a Q-Former cannot be run here; attention and mean can"
        elif key == "use_au_agent" and value is True:
            file.wrong[where] = "the AU agent does not exist here; AU is encoded live with CLIP"
        elif key == "llama_model" and value != "Qwen25":
            file.wrong[where] = "only Qwen25 (Qwen2.5-7B-Instruct) is known by name; give others with --llm"
        elif key.endswith("image_size") and value != 224:
            file.wrong[where] = "frames are always squashed to 224 x 224"
        elif section == "evaluation_datasets_cfg":
            twin = ("datasets", where[1], "ann_paths" if key == "eval_file_path" else key)
            same = file.values.get(twin)
            if same not in (None, value, [value]):
                file.wrong[where] = f"{_dotted(twin)} says {same!r}"


def _with_label_file(file: _File, name: str, dataset: Dataset) -> Dataset:
    paths = file.values.get(("datasets", name, "ann_paths"))
    if paths is None:
        return dataset
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str):
        raise ConfigError(f"{file.path}: datasets.{name}.ann_paths must be a list of one label file, not {paths!r}")
    if dataset.labels is None:
        return dataset
    return dataclasses.replace(dataset, labels=dataclasses.replace(dataset.labels, file=Path(paths[0]).name))


def _roots(file: _File, name: str, mer_factory: Path | None) -> Roots:
    def path(key: str) -> Path | None:
        value = file.get(name, key, str, ("datasets",))
        return Path(value) if value else None

    paths = file.values.get(("datasets", name, "ann_paths"))
    labels = Path(paths[0]).parent if paths else None
    return Roots(labels, labels, path("video_root"), path("audio_root"), path("face_root"), mer_factory)


def _without_dataset(path: Path, dataset: Dataset) -> Path:
    names = {name.casefold() for name in dataset.names}
    return path.parent if path.name.casefold() in names else path


def _same(one: Any, other: Any, dataset: str) -> bool:
    if isinstance(one, str) and isinstance(other, str) and dataset:
        # ./preextracted_features and ./preextracted_features/mer2023 are one place.
        known = resolve_dataset(dataset)
        return _without_dataset(Path(one), known) == _without_dataset(Path(other), known)
    return bool(one == other) and type(one) is type(other)


def _setting(file: _File, where: tuple[str, str, str]) -> Setting:
    section, _, key = where
    value, use = file.values.get(where), KEYS[section][key]
    if where in file.unknown:  # before what it contradicts: there it was meant to be the same
        return Setting(_dotted(where), value, "unknown", file.unknown[where])
    if where in file.wrong:
        return Setting(_dotted(where), value, "contradictory", file.wrong[where])
    if value is None:
        return Setting(_dotted(where), value, "ignored", "a placeholder")
    return Setting(_dotted(where), value, "used" if use == USED else "ignored", "" if use == USED else use)


def _dotted(where: tuple[str, str, str]) -> str:
    return ".".join(part for part in where if part)
