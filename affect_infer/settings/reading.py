"""Read the settings of a run: the guide's YAML or a file of our own, and what the command line says on top."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

from affect_infer.model.prompt import mode_names
from affect_infer.settings.guide_file import read_guide_file
from affect_infer.settings.own_file import OWN_MARK, read_own
from affect_infer.settings.settings import Changes, Settings
from featurestore.affectgpt.strict_yaml import load_yaml
from featurestore.errors import ConfigError, did_you_mean
from featurestore.untrusted_io.files import expand_path


def read_settings(path: str | Path, changes: Changes | None = None) -> Settings:
    """The settings of a file with the changes on top.

    The file is the guide's YAML, or one of our own, which begins with `affect_infer: 1`; docs/hybrid_run.md lists its
    keys.  Reads label files and tables of subtitles too; no media, no torch.
    Raises ConfigError for unknown, contradictory or missing settings, ManifestError for unreadable samples.
    """
    path, changes = Path(path), changes or Changes()
    if changes.mode is not None and changes.mode not in mode_names():
        hint = did_you_mean(changes.mode, mode_names())
        raise ConfigError(f"--mode {changes.mode} is no mode; {hint and f'{hint} '}modes are {', '.join(mode_names())}")
    if OWN_MARK in load_yaml(path):
        settings = read_own(path, changes)
    else:
        settings = read_guide_file(path, changes)
    known = {each.name for each in fields(Settings)}
    given = {name: value for name, value in changes.values.items() if value is not None and name in known}
    generation = {name: value for name, value in changes.generation.items() if value is not None}
    settings = replace(settings, **given, sampling=replace(settings.sampling, **generation))
    settings = replace(settings, llm=str(expand_path(settings.llm))).check()
    about = [f"{task.name}: {note}" for task in settings.tasks for note in task.notes]
    return replace(settings, notes=(*settings.notes, *about, *_unused_weights(settings)))


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
