"""Inspection: everything the model would be given for one sample, as numbers to compare two implementations by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from affect_infer.model.affect_model import AffectModel
from affect_infer.run.hybrid import load_for, make_extractor, make_request
from affect_infer.run.inputs import Given
from affect_infer.run.plan import RunPlan, check_inputs, check_problems, make_plan
from affect_infer.settings.settings import Settings, Task
from featurestore.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 4  # first values of a token, for reading


@dataclass(frozen=True, slots=True)
class Inspection:
    """One sample, ready to be generated from."""

    dataset: str
    id: str
    prompt: str
    ids: list[int]
    """token ids of the whole prompt"""
    cut: int
    """how many of them do not fit"""
    inputs: Mapping[str, Given]
    masked: Mapping[str, str]
    tokens: Mapping[str, NDArray[np.float32]]
    """modality -> (hidden,): the projected token, `multi` included"""
    origins: Mapping[str, str]
    """modality -> why it comes from there"""
    notes: tuple[str, ...] = ()
    """what the settings say that has no effect, or is to be known"""

    def as_dict(self) -> dict[str, Any]:
        """JSON, with the whole projected tokens."""
        return {
            "dataset": self.dataset,
            "id": self.id,
            "prompt": self.prompt,
            "token_ids": self.ids,
            "cut": self.cut,
            "masked": dict(self.masked),
            "notes": list(self.notes),
            "inputs": {
                name: {**given.as_dict(), "why": self.origins[name], **_numbers(given)}
                for name, given in self.inputs.items()
            },
            "tokens": {
                name: {"norm": _norm(token), "values": [float(value) for value in token]}
                for name, token in self.tokens.items()
            },
        }

    def text(self) -> str:
        """For reading."""
        lines = [*self.notes, *([""] if self.notes else [])]
        lines += [f"{self.dataset}/{self.id}", "", self.prompt, "", f"{len(self.ids)} token ids: {self.ids}"]
        if self.cut:
            lines.append(f"{self.cut} of them do not fit")
        for name, given in self.inputs.items():
            numbers = _numbers(given)
            what = f"{numbers['shape']} norm {numbers['norm']:.6g}" if given.values is not None else repr(given.text)
            recipe = f" @{given.recipe[:8]}" if given.recipe else ""
            rows = f" rows {list(given.frame_indices)}" if given.frame_indices is not None else ""
            lines.append(f"{name:6} {given.served_from}{recipe} {what}{rows}; {self.origins[name]}")
        lines += [f"{name:6} masked: {why}" for name, why in self.masked.items()]
        for name, token in self.tokens.items():
            first = " ".join(f"{value:.6f}" for value in token[:SHOWN])
            lines.append(f"<{name}> norm {_norm(token):.6g}: {first} ...")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """`features_{modality}` and `token_{modality}`, as arrays in one npz."""
        arrays: dict[str, Any] = {f"token_{name}": token for name, token in self.tokens.items()}
        arrays |= {f"features_{name}": given.values for name, given in self.inputs.items() if given.values is not None}
        arrays["token_ids"] = np.array(self.ids, np.int64)
        np.savez(path, **arrays)


def inspect_sample(settings: Settings, id: str) -> Inspection:
    """Prepare one sample and project its features.  Loads encoders and model, generates nothing.

    Raises InputError where no dataset of the settings has the sample, or as a run would.
    """
    from dataclasses import replace

    task = _task_of(settings, id)
    settings = replace(settings, tasks=(replace(task, samples={id: task.samples[id]}),))
    with make_extractor(settings) as extractor:
        plan = make_plan(settings.tasks[0], settings, extractor)
        check_inputs(plan, [id])
        check_problems([plan], settings)
        model, _ = load_for(settings, [plan])
        assert isinstance(model, AffectModel)
        return _inspected(plan, model, id)


def _inspected(plan: RunPlan, model: AffectModel, id: str) -> Inspection:
    supply = plan.supply([id])
    (inputs,) = supply.prepare([id], plan.problems)
    masked = {name: problem.message for name, problem in inputs.problems.items()}
    masked |= dict.fromkeys(plan.task.masked(), "policy off")
    request = make_request(plan, inputs, list(masked))
    (tokens,) = model.tokens_of([request])
    _, _, (cut,) = model.embed([request], [tokens], plan.settings.sampling.max_new_tokens)
    return Inspection(
        dataset=plan.task.name,
        id=id,
        prompt=request.prompt,
        ids=model.prompt_ids(request),
        cut=cut,
        inputs=dict(inputs.given),
        masked=masked,
        tokens={name: _array(token) for name, token in tokens.items()},
        origins={name: origin.why for name, origin in plan.origins.items()},
        notes=plan.settings.notes,
    )


def _task_of(settings: Settings, id: str) -> Task:
    found = [task for task in settings.tasks if id in task.samples]
    names = ", ".join(task.name for task in settings.tasks)
    if not found:
        known = [known for task in settings.tasks for known in task.samples]
        hint = did_you_mean(id, known, "the ids are those of its manifest or labels")
        raise InputError(f"no sample of {names} is called {id!r}; {hint}")
    if len(found) > 1:
        raise InputError(f"sample {id!r} is in {len(found)} of {names}; say which with --dataset")
    return found[0]


def _array(token: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = token.float().cpu().numpy()
    return values


def _numbers(given: Given) -> dict[str, Any]:
    if given.values is None:
        return {"text": given.text}
    values = given.values
    return {"shape": list(values.shape), "dtype": str(values.dtype), "norm": _norm(values)}


def _norm(values: NDArray[Any]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))
