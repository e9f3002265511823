"""Guide: the settings of the guide's YAML files, read for what they mean, with what contradicts what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.affectgpt.guide_keys import KEYS, PER_DATASET, PLACEHOLDER, USED, flatten
from featurestore.affectgpt.guide_names import unknown_names
from featurestore.affectgpt.interpolation import resolve
from featurestore.affectgpt.strict_yaml import load_yaml, set_options
from featurestore.affectgpt.tree import has_features
from featurestore.datasets import Dataset, Roots, make_samples, resolve_dataset, split_names
from featurestore.errors import ConfigError, InvalidKeyError, UnknownDatasetError
from featurestore.key import FeatureKey, Modality, check_part
from featurestore.sample import Sample
from featurestore.untrusted_io.files import expand_path

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
    au_as_text: bool = False
    """whether action units enter the prompt as text; as features otherwise"""
    nonverbal: Path | None = None
    """file of texts for that, {dataset: {sample: {"caption": text}}}; None: MER-Factory's descriptions are"""

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
        above = _without_dataset(given, self.dataset)
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

    source: Path
    values: dict[tuple[str, str, str], Any]
    ignored: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """keys that have no effect beside the others, and why"""
    wrong: dict[tuple[str, str, str], str] = field(default_factory=dict)
    unknown: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def get(
        self, name: str, key: str, kind: type, sections: tuple[str, ...] = ("datasets", "inference", "model")
    ) -> Any:
        """The first section that gives a key decides; the others must say the same."""
        given = self.places(name, key, sections)
        if not given:
            return None
        first = self.values[given[0]]
        if not isinstance(first, kind) or (isinstance(first, bool) and kind is not bool):
            raise ConfigError(f"{self.source}: {_dotted(given[0])} must be a {kind.__name__}, not {first!r}")
        for where in given[1:]:
            if _same(self.values[where], first, name) is False:
                self.wrong[where] = f"{_dotted(given[0])} says {first!r}"
        return first

    def places(self, name: str, key: str, sections: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Where the file gives a key that concerns this dataset."""
        every = [(section, name if section in PER_DATASET else "", key) for section in sections]
        return [where for where in every if self.values.get(where) is not None]

    def path(self, name: str, key: str, sections: tuple[str, ...] = ("datasets", "inference", "model")) -> Path | None:
        """The same for a path."""
        text = self.get(name, key, str, sections)
        return self.as_path(text, self.places(name, key, sections)[0]) if text else None

    def as_path(self, text: str, where: tuple[str, str, str]) -> Path:
        try:
            return expand_path(text)
        except ConfigError as error:
            raise ConfigError(f"{self.source}: {_dotted(where)} is {error}") from error


def read_guide(
    path: str | Path, options: Sequence[str] = (), *, datasets: Sequence[str] = (), au: str | None = None
) -> Guide:
    """Read a settings file as the guide has them.  No torch, no store, nothing is opened but the file.

    options   `a.b=value`, set in the file's content before it is judged
    datasets  names that are asked for; what `inference` and `model` say holds for those without a block of their own
    au        `text` or `features`, instead of what the file says of action units
    Raises ConfigError for YAML that is not plain data, for a key that no known file has, for values of another type,
    for an unknown mode.  What contradicts something else, and names of no dataset, encoder or sampler, are in
    `settings`; see `Guide.check`.
    """
    path = Path(path)
    values: dict[tuple[str, str, str], Any] = {}
    data = resolve(set_options(load_yaml(path), options, path), path)
    for section, name, key, value in flatten(data, str(path)):
        values[section, name, key] = None if value in PLACEHOLDER else value
    file = _File(path, values)
    found: dict[str, GuideDataset] = {}
    strangers: list[Setting] = []
    for name, dataset in _named(file, datasets, strangers).items():
        found[dataset.name] = _one_dataset(file, name, dataset, au)
    _judge_model(file)
    live = {k.encoder for entry in found.values() for m, k in entry.keys.items() if entry.policies[m] == "live"}
    file.unknown = unknown_names(file.values, live)
    gpu = file.get("", "gpu", int, ("inference",))
    output = file.path("", "base_root", ("inference",))
    settings = [_setting(file, where) for where in dict.fromkeys([*values, *file.wrong])]
    return Guide(path, (*strangers, *settings), found, None if gpu is None else f"cuda:{gpu}", output)


def _named(file: _File, asked: Sequence[str], strangers: list[Setting]) -> dict[str, Dataset]:
    """name in the file, or as asked for -> dataset, each dataset once; those that are not known are listed too."""
    found: dict[str, Dataset] = {}
    for section in PER_DATASET:
        for name in dict.fromkeys(name for given, name, _ in file.values if given == section):
            try:
                dataset = resolve_dataset(name)
            except UnknownDatasetError as error:
                dataset = _own(name, file)
                if name not in found:
                    more = "; with a manifest it is one of your own"
                    strangers.append(Setting(f"{section}.{name}", None, "unknown", f"{error}{more}"))
            twin = next((known for known, each in found.items() if each.name == dataset.name), None)
            if twin not in (None, name) and (section, twin) in {where[:2] for where in file.values}:
                raise ConfigError(f"{file.source}: {name!r} is {dataset.name}, which is given twice")
            if twin is None:
                found[name] = dataset
    for name in asked:
        try:
            dataset = resolve_dataset(name)
        except UnknownDatasetError:
            dataset = _own(name, file)
        if dataset.name not in {each.name for each in found.values()}:
            found[name] = dataset
    return found


def _own(name: str, file: _File) -> Dataset:
    """A dataset of which nothing is known but its name."""
    try:
        return Dataset(check_part("dataset", name), name)
    except InvalidKeyError as error:
        raise ConfigError(f"{file.source}: {error}") from error


def _one_dataset(file: _File, name: str, dataset: Dataset, au: str | None) -> GuideDataset:
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
        file.wrong["model", "", "skip_encoders"] = f"True leaves no encoder for what is live: {live}; set it to False"
    keys = _keys(file, name, dataset, policies, both)
    if as_text:
        keys.pop("au", None)
    for modality, key in keys.items():
        if key.sampling in ("emotion_peak", "au_summary") and policies[modality] == "live" and folder is None:
            instead = f"; AU as text need {AS_TEXT}" if modality == "au" else ""
            why = f"live {modality} needs it, and it is not given{instead}"
            file.wrong["datasets", name, "mer_factory_output"] = why
    return GuideDataset(
        _with_label_file(file, name, dataset),
        mode,
        policies,
        keys,
        file.path(name, "preextracted_root", both),
        _roots(file, name, folder),
        as_text,
        nonverbal,
    )


def _mode_of_training(file: _File) -> str | None:
    """The mode of the datasets that the file trains on, which the old code takes for all others too."""
    modes = {value for (section, _, key), value in file.values.items() if (section, key) == ("datasets", MODE)} - {None}
    return str(modes.pop()) if len(modes) == 1 else None


def _au_as_text(
    file: _File, name: str, sections: tuple[str, ...], policies: dict[str, str], au: str | None, folder: Path | None
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
    file: _File, name: str, dataset: Dataset, policies: Mapping[str, str], sections: tuple[str, ...]
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
        elif key == "use_realtime_extraction" and value is True:
            file.wrong[where] = "the extraction service does not exist here; what is live is computed by the run itself"
        elif key == "data_type" and value != "video":
            file.wrong[where] = "only datasets of videos can be run here"
        elif key in ("ckpt", "ckpt_2") and value:
            file.ignored[where] = "the checkpoint is given with --ckpt"
        elif key.endswith("image_size") and value != 224:
            file.wrong[where] = "frames are always squashed to 224 x 224"
        elif section == "evaluation_datasets_cfg":
            twin = ("datasets", where[1], "ann_paths" if key == "eval_file_path" else key)
            same = file.values.get(twin)
            if same not in (None, value, [value]):
                file.wrong[where] = f"{_dotted(twin)} says {same!r}"
            elif same is not None:
                file.ignored[where] = f"{_dotted(twin)} says it"


def _with_label_file(file: _File, name: str, dataset: Dataset) -> Dataset:
    path = _label_file(file, name)
    if path is None or dataset.labels is None:
        return dataset
    return dataclasses.replace(dataset, labels=dataclasses.replace(dataset.labels, file=path.name))


def _label_file(file: _File, name: str) -> Path | None:
    where = ("datasets", name, "ann_paths")
    paths = file.values.get(where)
    if paths is None:
        return file.path(name, "eval_file_path", ("evaluation_datasets_cfg",))
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str):
        raise ConfigError(f"{file.source}: {_dotted(where)} must be a list of one label file, not {paths!r}")
    return file.as_path(paths[0], where)


def _roots(file: _File, name: str, mer_factory: Path | None) -> Roots:
    def path(key: str) -> Path | None:
        return file.path(name, key, ("datasets",)) or file.path(name, key, ("evaluation_datasets_cfg",))

    label_file = _label_file(file, name)
    labels = label_file.parent if label_file else None
    return Roots(labels, labels, path("video_root"), path("audio_root"), path("face_root"), mer_factory)


def _without_dataset(path: Path, dataset: Dataset) -> Path:
    names = {name.casefold() for name in dataset.names}
    return path.parent if path.name.casefold() in names else path


def _same(one: Any, other: Any, dataset: str) -> bool:
    if isinstance(one, str) and isinstance(other, str) and dataset:
        # ./preextracted_features and ./preextracted_features/mer2023 are one place.
        try:
            known = resolve_dataset(dataset)
        except UnknownDatasetError:
            return one == other
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
    if where in file.ignored:
        return Setting(_dotted(where), value, "ignored", file.ignored[where])
    return Setting(_dotted(where), value, "used" if use == USED else "ignored", "" if use == USED else use)


def _dotted(where: tuple[str, str, str]) -> str:
    return ".".join(part for part in where if part)
