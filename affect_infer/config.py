"""Settings of a run: the guide's YAML, a file of our own, and what the command line says on top."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from affect_infer.generate import Sampling
from affect_infer.language import DEFAULT_LLM
from affect_infer.prompt import QUESTIONS, AuAs, Mode, get_mode, mode_names
from featurestore.errors import ConfigError, did_you_mean
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from featurestore.samples import Sample

Policy = Literal["store", "store_only", "live", "off"]
OnMissing = Literal["error", "skip", "mask"]
MODALITIES = ("frame", "face", "audio", "au")
POLICIES: Mapping[str, Policy] = {"frame": "store", "face": "live", "audio": "live", "au": "live"}
OWN_MARK = "affect_infer"


@dataclass(frozen=True, slots=True)
class Task:
    """One dataset of a run: its samples, and where each input of the prompt comes from."""

    name: str
    """the dataset's short name, as in keys"""
    results: str
    """suffix of its folder of results, `results-{suffix}`"""
    samples: Mapping[str, Sample]
    mode: Mode
    policies: Mapping[str, Policy]
    """for every modality; `off` where the mode has none or it was switched off"""
    keys: Mapping[str, FeatureKey]
    """for the modalities that are not off and are features"""
    store: Path

    def wanted(self) -> list[str]:
        """Modalities in the prompt, in its order."""
        return [name for name in self.mode.needs if self.policies.get(name, "off") != "off"]

    def masked(self) -> list[str]:
        """Inputs of the mode that no sample of this run has, because their policy is off."""
        return [name for name in self.mode.needs if name in MODALITIES and self.policies[name] == "off"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a run depends on, checked."""

    tasks: tuple[Task, ...]
    checkpoint: Path | None = None
    llm: str = DEFAULT_LLM
    weights: Mapping[str, str] = field(default_factory=dict)
    """{encoder: directory | hub id | random:SEED}"""
    sampler_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    question: str = QUESTIONS["labels"]
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int | None = None
    """samples generated together; None chooses by device"""
    device: str | None = None
    """None is a GPU where there is one"""
    dtype: str | None = None
    """None is float16 on a GPU, float32 on a CPU"""
    output: Path = Path("output")
    on_missing: OnMissing = "error"
    frame_recipe: str | None = None
    allow_mix: bool = False
    recompute: bool = False
    skip_encoders: bool = False
    workers: int | None = None
    notes: tuple[str, ...] = ()
    """what the settings file says that has no effect here, one line each"""
    name: str = "run"
    """the settings file's, for the folders of results"""

    def check(self) -> Settings:
        """Itself, or ConfigError for settings that contradict each other."""
        if self.allow_mix and self.frame_recipe is None:
            raise ConfigError("--allow-mix needs --frame-recipe PREFIX, the stored rows that computed ones may join")
        if self.recompute and self.frame_recipe is not None:
            raise ConfigError("--recompute ignores stored rows of other recipes, --frame-recipe reads them: give one")
        if self.on_missing not in get_args(OnMissing):
            raise ConfigError(f"on_missing {self.on_missing!r} is not one of {', '.join(get_args(OnMissing))}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} must be at least 1, or auto")
        if self.dtype not in (None, "float32", "float16", "bfloat16"):
            raise ConfigError(f"dtype {self.dtype!r} is not one of float32, float16, bfloat16")
        for task in self.tasks:
            live = [name for name in task.wanted() if task.policies[name] == "live" and name in task.keys]
            if self.skip_encoders and live:
                raise ConfigError(
                    f"skip_encoders is True, but {', '.join(live)} of {task.name} are live and need their encoder: "
                    "set skip_encoders to False, or their policy to store_only or off"
                )
            if self.frame_recipe is not None and task.policies["frame"] not in ("store", "store_only"):
                raise ConfigError(f"--frame-recipe is about stored frames, but frames of {task.name} are "
                                  f"{task.policies['frame']}; add --policy frame=store")  # fmt: skip
        return self


@dataclass(frozen=True, slots=True)
class Changes:
    """What the command line says on top of a file; None leaves the file's word."""

    options: Sequence[str] = ()
    """`a.b=c` for keys of the file itself"""
    datasets: Sequence[str] = ()
    """names; `all` or none is all in the file"""
    policies: Mapping[str, str] = field(default_factory=dict)
    mode: str | None = None
    au: AuAs | None = None
    manifest: Path | None = None
    root: Path | None = None
    split: str | None = None
    store: Path | None = None
    limit: int | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    """fields of Settings, by name"""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """fields of Sampling, by name"""


def read_settings(path: str | Path, changes: Changes | None = None) -> Settings:
    """The settings of a file with the changes on top.

    The file is the guide's YAML, or one of our own, which begins with `affect_infer: 1`; docs/hybrid_run.md lists its
    keys.  Reads label files and tables of subtitles too; no media, no torch.
    Raises ConfigError for unknown, contradictory or missing settings, ManifestError for unreadable samples.
    """
    from featurestore.legacy.strict_yaml import load_yaml

    path, changes = Path(path), changes or Changes()
    if changes.mode is not None and changes.mode not in mode_names():
        hint = did_you_mean(changes.mode, mode_names())
        raise ConfigError(f"--mode {changes.mode} is no mode; {hint and f'{hint} '}modes are {', '.join(mode_names())}")
    if OWN_MARK in load_yaml(path):
        from affect_infer.own_file import read_own

        settings = read_own(path, changes)
    else:
        from affect_infer.guide_file import read_guide_file

        settings = read_guide_file(path, changes)
    known = {each.name for each in fields(Settings)}
    given = {name: value for name, value in changes.values.items() if value is not None and name in known}
    generation = {name: value for name, value in changes.generation.items() if value is not None}
    from dataclasses import replace

    settings = replace(settings, **given, sampling=replace(settings.sampling, **generation)).check()
    return replace(settings, notes=(*settings.notes, *_unused_weights(settings)))


def _unused_weights(settings: Settings) -> list[str]:
    """A note for each encoder that has weights and no use.  ConfigError for a name that no encoder has."""
    from featurestore.encoders import encoder_names, load_encoder
    from featurestore.errors import UnknownEncoderError

    used = sorted({key.encoder for task in settings.tasks for key in task.keys.values()})
    unused = [name for name in settings.weights if name not in used]
    for name in unused:
        try:
            if name not in encoder_names():
                load_encoder(name, "random:0")  # ARCH.TAG of open_clip; reads nothing
        except UnknownEncoderError as error:
            hint = did_you_mean(name, [*used, *encoder_names()])
            raise ConfigError(
                f"weights: {name} is no encoder of this run: {', '.join(used)}{hint and f'; {hint}'}"
            ) from error
    return [f"weights of {name} are not used: the encoders of this run are {', '.join(used)}" for name in unused]


def make_task(
    name: str,
    results: str,
    samples: Mapping[str, Sample],
    mode: str,
    policies: Mapping[str, Policy],
    keys: Mapping[str, FeatureKey],
    store: Path | None,
    changes: Changes,
    au: AuAs = "features",
) -> Task:
    """One dataset with the changes applied; policies of modalities outside the mode become `off`.

    policies   checked, of any modalities; of one without, that of POLICIES
    """
    chosen = get_mode(changes.mode or mode, changes.au or au)
    if "image" in chosen.needs:
        raise ConfigError("mode image needs one picture per sample, which datasets of videos do not have")
    inputs = [need for need in chosen.needs if need in MODALITIES]
    own = {need: policies.get(need, POLICIES[need]) for need in inputs}
    for modality, policy in read_policies(changes.policies, "--policy").items():
        if modality not in inputs and policy != "off":
            raise ConfigError(f"policy {modality}={policy}, but mode {chosen.name} of {name} has no {modality}")
        own[modality] = policy
    if not [modality for modality in inputs if own[modality] != "off"] and inputs and "subtitle" not in chosen.needs:
        raise ConfigError(f"mode {chosen.name} of {name}: every policy is off, so there is nothing to ask about")
    complete: dict[str, Policy] = {modality: own.get(modality, "off") for modality in MODALITIES}
    texts = ("au",) if chosen.au == "text" else ()
    as_features = {
        modality: key for modality, key in keys.items() if complete[modality] != "off" and modality not in texts
    }
    if chosen.au == "text" and complete["au"] in ("store", "store_only"):
        raise ConfigError("AU as text comes from MER-Factory's files, not from a store: use --policy au=live or au=off")
    limited = dict(list(samples.items())[: changes.limit])
    return Task(
        name=name,
        results=results,
        samples=limited,
        mode=chosen,
        policies=complete,
        keys=as_features,
        store=changes.store or store or Path(os.environ.get("FEATURESTORE_ROOT") or "features"),
    )


def read_policies(given: Mapping[str, Any], where: object) -> dict[str, Policy]:
    """Policies by modality as a file or the command line has them.  ConfigError lists what may be said."""
    policies: dict[str, Policy] = {}
    for modality, policy in given.items():
        said: Any = "off" if policy is False else policy  # YAML reads a bare off as False
        if modality not in MODALITIES or said not in get_args(Policy):
            wrong, known = (policy, get_args(Policy)) if modality in MODALITIES else (modality, MODALITIES)
            hint = did_you_mean(wrong, known)
            raise ConfigError(
                f"{where}: policy {modality}={policy}: write MODALITY=POLICY with one of {', '.join(MODALITIES)} "
                f"and one of {', '.join(get_args(Policy))}{hint and f'; {hint}'}"
            )
        policies[modality] = said
    return policies


def chosen_names(changes: Changes, there: Sequence[str], where: object) -> list[str]:
    """The datasets of a file that were asked for, by any of their names.  ConfigError lists what there is."""
    from featurestore.datasets import resolve_dataset
    from featurestore.errors import UnknownDatasetError

    asked = [part.strip() for name in changes.datasets for part in name.split(",") if part.strip()]
    if not asked or "all" in asked:
        return list(there)
    names = []
    for name in asked:
        try:
            names.append(name if name in there else resolve_dataset(name).name)
        except UnknownDatasetError as error:
            raise ConfigError(f"--dataset {name}: {error}") from error
    if absent := [name for name in names if name not in there]:
        raise ConfigError(f"--dataset {absent[0]} is not in {where}, which has {', '.join(there) or 'no datasets'}")
    return list(dict.fromkeys(names))


def read_question(text: str) -> str:
    """`labels` and `description` are the published questions; anything else is asked as it is written."""
    return QUESTIONS.get(text, text)
