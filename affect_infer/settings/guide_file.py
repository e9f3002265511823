"""The guide's YAML as settings of a run; `featurestore.affectgpt` is its only reader."""

from __future__ import annotations

from pathlib import Path

from affect_infer.model.prompt import AuAs
from affect_infer.settings.captions import read_captions
from affect_infer.settings.settings import Changes, Settings, Task
from affect_infer.settings.tasks import chosen_names, make_task, read_policies
from featurestore.affectgpt.guide import Guide, read_guide
from featurestore.affectgpt.guide_dataset import GuideDataset
from featurestore.errors import ConfigError

SKIP = "model.skip_encoders"


def read_guide_file(path: Path, changes: Changes) -> Settings:
    """Settings of a YAML file as the old code has them.  Raises ConfigError, ManifestError."""
    asked = _asked(changes)
    guide = read_guide(path, changes.options, datasets=asked, au=changes.au)
    if changes.mode is not None:
        # Said where the file would say it, so that everything which follows from a mode follows from this one.
        places = [f"datasets.{name}" for name in guide.datasets] + ["inference"]
        said = [*changes.options, *(f"{place}.face_or_frame={changes.mode}" for place in places)]
        guide = read_guide(path, said, datasets=asked, au=changes.au)
    # Whether skip_encoders contradicts is seen once the policies of the command line are applied.
    wrong = [setting for setting in guide.contradictions if setting.key != SKIP]
    if wrong:
        lines = "\n".join(f"  {setting.key}: {setting.note}" for setting in wrong)
        raise ConfigError(f"{path} contradicts itself:\n{lines}")
    names = chosen_names(changes, list(guide.datasets), path)
    if not names:
        raise ConfigError(
            f"{path} has no datasets; add --dataset NAME --root DIR, or a block below `datasets:` with its roots"
        )
    return Settings(
        tasks=tuple(_task(guide.datasets[name], changes) for name in names),
        device=guide.device,
        output=guide.output or Path("output"),
        skip_encoders=any(setting.key == SKIP and setting.value is True for setting in guide.settings),
        notes=_notes(guide),
        name=path.stem,
    )


def _asked(changes: Changes) -> list[str]:
    """Datasets that need no block in the file, because the command line says where their samples are."""
    if changes.root is None and changes.manifest is None:
        return []
    names = [part.strip() for given in changes.datasets for part in given.split(",")]
    return [name for name in names if name not in ("", "all")]


def _task(given: GuideDataset, changes: Changes) -> Task:
    dataset = given.dataset
    if changes.manifest is not None:
        from featurestore.sample import read_manifest

        samples = read_manifest(changes.manifest)
    else:
        samples = given.samples(changes.root, changes.split)
    if given.mode is None:
        raise ConfigError(f"face_or_frame of {dataset.name} is not given; add it, or --mode face_frame_audio_au")
    nonverbal = given.nonverbal
    captions = None if nonverbal is None else lambda: read_captions(nonverbal, dataset)
    stored = {**given.policies, **changes.policies}.values()
    # Looked for only where it is read: a folder of .npy files there is an error that names the command to import them.
    store = given.store if changes.store is None and {"store", "store_only"} & set(stored) else None
    results = dataset.results or dataset.name
    # The guide's `off` says that the file's mode has no such input, which make_task sees for itself.
    policies = read_policies({name: said for name, said in given.policies.items() if said != "off"}, dataset.name)
    au: AuAs = "text" if given.au_as_text else "features"
    return make_task(dataset.name, results, samples, given.mode, policies, given.keys, store, changes, au, captions)


def _notes(guide: Guide) -> tuple[str, ...]:
    return tuple(
        f"{setting.key}: ignored, {setting.note}"
        for setting in guide.settings
        if setting.status == "ignored" and setting.note
    )
