"""Settings of a run and of each of its datasets, and what the command line may change in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from affect_infer.model.generate import Sampling
from affect_infer.model.language import DEFAULT_LLM
from affect_infer.model.prompt import QUESTIONS, AuAs, Mode
from featurestore.errors import ConfigError
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from featurestore.sample import Sample

Policy = Literal["store", "store_only", "live", "off"]
OnMissing = Literal["error", "skip", "mask"]
MODALITIES = ("frame", "face", "audio", "au")
POLICIES: Mapping[str, Policy] = {"frame": "store", "face": "live", "audio": "live", "au": "live"}


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
    captions: Mapping[str, str] | None = None
    """{sample: text about the face} for AU as text, where one file has them all; None: MER-Factory's descriptions"""
    notes: tuple[str, ...] = ()
    """what is to be known about its samples, one line each"""

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
