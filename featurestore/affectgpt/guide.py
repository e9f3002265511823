"""Guide: the settings of the guide's YAML files, read for what they mean, with what contradicts what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.affectgpt.guide_dataset import GuideDataset
from featurestore.affectgpt.guide_keys import PER_DATASET, PLACEHOLDER, flatten
from featurestore.affectgpt.guide_names import unknown_names
from featurestore.affectgpt.guide_values import GuideValues, Setting, dotted
from featurestore.affectgpt.interpolation import resolve
from featurestore.affectgpt.strict_yaml import load_yaml, set_options
from featurestore.datasets import Dataset, resolve_dataset
from featurestore.errors import ConfigError, InvalidKeyError, UnknownDatasetError
from featurestore.key import check_part


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
    file = GuideValues(path, values)
    found: dict[str, GuideDataset] = {}
    strangers: list[Setting] = []
    for name, dataset in _named(file, datasets, strangers).items():
        found[dataset.name] = GuideDataset.of(file, name, dataset, au)
    _judge_model(file)
    live = {k.encoder for entry in found.values() for m, k in entry.keys.items() if entry.policies[m] == "live"}
    file.unknown = unknown_names(file.values, live)
    gpu = file.get("", "gpu", int, ("inference",))
    output = file.path("", "base_root", ("inference",))
    settings = [file.setting(where) for where in dict.fromkeys([*values, *file.wrong])]
    return Guide(path, (*strangers, *settings), found, None if gpu is None else f"cuda:{gpu}", output)


def _named(file: GuideValues, asked: Sequence[str], strangers: list[Setting]) -> dict[str, Dataset]:
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


def _own(name: str, file: GuideValues) -> Dataset:
    """A dataset of which nothing is known but its name."""
    try:
        return Dataset(check_part("dataset", name), name)
    except InvalidKeyError as error:
        raise ConfigError(f"{file.source}: {error}") from error


def _judge_model(file: GuideValues) -> None:
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
                file.wrong[where] = f"{dotted(twin)} says {same!r}"
            elif same is not None:
                file.ignored[where] = f"{dotted(twin)} says it"
