"""What the guide's YAML says about one dataset: its mode, where each input comes from, and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.affectgpt.guide_values import GuideValues, dotted, without_dataset
from featurestore.affectgpt.tree import has_features
from featurestore.datasets import Dataset, Roots, make_samples, resolve_dataset, split_names
from featurestore.errors import ConfigError
from featurestore.key import FeatureKey, Modality
from featurestore.sample import Sample

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
MODE = "face_or_frame"
AS_TEXT = "use_nonverbal_text: True and nonverbal_json, or --au text"


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
    au_as_text: bool = False
    """whether action units enter the prompt as text; as features otherwise"""
    nonverbal: Path | None = None
    """file of texts for that, {dataset: {sample: {"caption": text}}}; None: MER-Factory's descriptions are"""

    @classmethod
    def of(cls, file: GuideValues, name: str, dataset: Dataset, au: str | None) -> GuideDataset:
        """What a file says of a dataset that it calls `name`; what contradicts something else is noted in `file`."""
        # In a training file `datasets` is about training and `inference` is not: they need not agree.
        tested = not dataset.splits or dataset.default_split == "test"
        both = ("datasets", "inference", "model") if tested else ("datasets", "model")

        def get(key: str, kind: type) -> Any:
            return file.get(name, key, kind, both)

        mode = get("face_or_frame", str) or _mode_of_training(file)
        if mode is not None and mode not in MODES:
            raise ConfigError(f"{file.source}: face_or_frame {mode!r} of {name} is not one of {', '.join(MODES)}")
        wanted = MODES[mode].split() if mode else []
        policies = {modality: "live" if modality in wanted else "off" for modality in MODALITIES}
        if get("use_preextracted_features", bool) and "frame" in wanted:
            policies["frame"] = "store"  # the guide: this switch concerns frames only
        for modality in MODALITIES:
            if get(f"use_preextracted_{modality}", bool) and modality in wanted:
                policies[modality] = "store"
        folder = file.path(name, "mer_factory_output", both)
        as_text, nonverbal = _au_as_text(file, name, both, policies, au, folder)
        if get("use_au_clip_realtime", bool) is False and policies["au"] == "live" and not as_text:
            file.wrong["datasets", name, "use_au_clip_realtime"] = (
                f"mode {mode} needs AU, which is neither stored nor live, nor text (use_nonverbal_text, --au text)"
            )
        if "store" in policies.values() and get("preextracted_root", str) is None:
            file.wrong["datasets", name, "preextracted_root"] = "features are to be read from it, and it is not given"
        encoded = [m for m, policy in policies.items() if policy == "live" and not (m == "au" and as_text)]
        if file.values.get(("model", "", "skip_encoders")) and encoded:
            live = ", ".join(encoded)
            file.wrong["model", "", "skip_encoders"] = (
                f"True leaves no encoder for what is live: {live}; set it to False"
            )
        keys = _keys(file, name, dataset, policies, both)
        if as_text:
            keys.pop("au", None)
        for modality, key in keys.items():
            if key.sampling in ("emotion_peak", "au_summary") and policies[modality] == "live" and folder is None:
                instead = f"; AU as text need {AS_TEXT}" if modality == "au" else ""
                why = f"live {modality} needs it, and it is not given{instead}"
                file.wrong["datasets", name, "mer_factory_output"] = why
        return cls(
            _with_label_file(file, name, dataset),
            mode,
            policies,
            keys,
            file.path(name, "preextracted_root", both),
            _roots(file, name, folder),
            as_text,
            nonverbal,
        )

    @property
    def missing(self) -> list[str]:
        """What the file does not say, and the option that does."""
        lacking = []
        if self.mode is None:
            lacking.append("how to ask, face_or_frame: --mode MODE")
        if self.roots.labels is None and self.dataset.declared_in is None:
            lacking.append("where its files are, ann_paths: --root DIR")
        return lacking

    @property
    def store(self) -> Path | None:
        """The directory of the store that `preextracted_root` means.  The disk is looked at only for what is there.

        Raises ConfigError where that place holds `.npy` folders and no store.
        """
        given = self.preextracted_root
        if given is None:
            return None
        above = without_dataset(given, self.dataset)
        for place in (given, above):
            if (place / "data" / "zarr.json").is_file():
                return place
        for place in (given, above):
            if has_features(place):
                raise ConfigError(
                    f"preextracted_root {given} holds .npy folders, not a store. Import them beside themselves; then "
                    "this file needs no change",
                    advice=f"`import_tree({str(place)!r}, FeatureStore({str(above)!r}))`",
                    path=place,
                    root=above,
                )
        return above

    def samples(self, root: str | Path | None = None, split: str | None = None) -> dict[str, Sample]:
        """The samples with media where the file places them; `root` is for what it does not place."""
        roots = self.roots
        if not self.dataset.splits:
            resolve_dataset(self.dataset.name)  # raises: it is not known, so nothing says what its files are called
        if root is not None or roots.labels is None:
            below = Roots.of(self.dataset, root, roots.mer_factory)
            filled = {name: getattr(roots, name) or getattr(below, name) for name in Roots.__slots__}
            roots = Roots(**filled)
        return make_samples(self.dataset, split_names(self.dataset, roots, split), roots)


def _mode_of_training(file: GuideValues) -> str | None:
    """The mode of the datasets that the file trains on, which the old code takes for all others too."""
    modes = {value for (section, _, key), value in file.values.items() if (section, key) == ("datasets", MODE)} - {None}
    return str(modes.pop()) if len(modes) == 1 else None


def _au_as_text(
    file: GuideValues,
    name: str,
    sections: tuple[str, ...],
    policies: dict[str, str],
    au: str | None,
    folder: Path | None,
) -> tuple[bool, Path | None]:
    """Whether action units are text in the prompt, and the file of texts; what does not go with it is judged."""
    switch = file.get(name, "use_nonverbal_text", bool, sections)
    texts = file.path(name, "nonverbal_json", sections)
    as_text = (switch is True if au is None else au == "text") and policies["au"] != "off"
    if as_text:
        policies["au"] = "live"
        for where in file.places(name, "use_au_clip_realtime", sections) if au is None else ():
            if file.values[where] is True:
                file.wrong[where] = (
                    "use_nonverbal_text: True puts AU into the prompt as text, and this encodes them as features; "
                    "say which with --au text or --au features"
                )
        for where in file.places(name, "use_preextracted_au", sections):
            if file.values[where] is True:
                file.ignored[where] = "AU enter the prompt as text (use_nonverbal_text, --au text), not as features"
        if texts is None and folder is None:
            file.wrong["datasets", name, "nonverbal_json"] = (
                "use_nonverbal_text: True (--au text) puts AU into the prompt as text, and neither nonverbal_json nor "
                "mer_factory_output says where the texts are"
            )
        return True, texts
    why = f"AU enter as features; as text with {AS_TEXT}" if policies["au"] != "off" else "the mode has no AU"
    for key in ("nonverbal_json", "use_nonverbal_text"):
        file.ignored.update(dict.fromkeys(file.places(name, key, sections), why))
    return False, texts


def _keys(
    file: GuideValues, name: str, dataset: Dataset, policies: Mapping[str, str], sections: tuple[str, ...]
) -> dict[str, FeatureKey]:
    def get(key: str, kind: type, default: Any) -> Any:
        found = file.get(name, key, kind, sections)
        return default if found is None else found

    visual, acoustic = get("visual_encoder", str, "CLIP_VIT_LARGE"), get("acoustic_encoder", str, "HUBERT_LARGE")
    faces = next((n for p in ("train", "eval") if (n := get(f"vis_processor.{p}.n_frms", int, None)) is not None), 8)
    made: dict[Modality, tuple[str, str, Any]] = {
        "frame": (visual, get("frame_sampling", str, "uniform"), get("frame_n_frms", int, faces)),
        "face": (visual, "uniform", faces),
        "audio": (acoustic, "const_clips", get("clips_per_video", int, 8)),
        "au": ("CLIP_TEXT", "au_summary", "all"),
    }
    return {m: FeatureKey(dataset.name, m, *parts) for m, parts in made.items() if policies[m] != "off"}


def _with_label_file(file: GuideValues, name: str, dataset: Dataset) -> Dataset:
    path = _label_file(file, name)
    if path is None or dataset.labels is None:
        return dataset
    return dataclasses.replace(dataset, labels=dataclasses.replace(dataset.labels, file=path.name))


def _label_file(file: GuideValues, name: str) -> Path | None:
    where = ("datasets", name, "ann_paths")
    paths = file.values.get(where)
    if paths is None:
        return file.path(name, "eval_file_path", ("evaluation_datasets_cfg",))
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str):
        raise ConfigError(f"{file.source}: {dotted(where)} must be a list of one label file, not {paths!r}")
    return file.as_path(paths[0], where)


def _roots(file: GuideValues, name: str, mer_factory: Path | None) -> Roots:
    def path(key: str) -> Path | None:
        return file.path(name, key, ("datasets",)) or file.path(name, key, ("evaluation_datasets_cfg",))

    label_file = _label_file(file, name)
    labels = label_file.parent if label_file else None
    return Roots(labels, labels, path("video_root"), path("audio_root"), path("face_root"), mer_factory)
