"""Tasks of a run: a dataset of a settings file with what the command line says on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from affect_infer.model.prompt import QUESTIONS, AuAs, get_mode
from affect_infer.settings.captions import without_caption
from affect_infer.settings.settings import MODALITIES, POLICIES, Changes, Policy, Task
from featurestore.errors import ConfigError, did_you_mean
from featurestore.key import FeatureKey

if TYPE_CHECKING:
    from pathlib import Path

    from featurestore.sample import Sample


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
    captions: Callable[[], Mapping[str, str]] | None = None,
) -> Task:
    """One dataset with the changes applied; policies of modalities outside the mode become `off`.

    policies   checked, of any modalities; of one without, that of POLICIES
    captions   reads the texts for AU as text; None where MER-Factory's descriptions are
    """
    chosen = get_mode(changes.mode or mode, changes.au or au)
    if "image" in chosen.needs:
        raise ConfigError("mode image needs one image per sample, which datasets of videos do not have")
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
        raise ConfigError("AU as text comes from files of texts, not from a store: use --policy au=live or au=off")
    from featurestore.cli.options import default_store

    limited = dict(list(samples.items())[: changes.limit])
    texts_given = captions() if captions is not None and chosen.au == "text" and complete["au"] == "live" else None
    note = without_caption(texts_given, limited) if texts_given is not None else None
    return Task(
        name=name,
        results=results,
        samples=limited,
        mode=chosen,
        policies=complete,
        keys=as_features,
        store=changes.store or store or default_store(),
        captions=texts_given,
        notes=(note,) if note else (),
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
