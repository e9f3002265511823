"""The run: check all inputs, prepare ahead, generate in batches, append results, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from affect_infer.model.affect_model import Answer, Request
from affect_infer.model.device import device_in_force, dtype_in_force
from affect_infer.model.generate import Sampling
from affect_infer.model.model_files import check_model_files, model_identity
from affect_infer.results import Results, answers_in_order, read_results, write_npz
from affect_infer.run.ahead import ahead
from affect_infer.run.inputs import Inputs
from affect_infer.run.plan import RunPlan, check_inputs, check_problems, make_plan
from affect_infer.run.report import RunReport, banner
from affect_infer.settings.settings import MODALITIES, Settings
from featurestore.compute.extractor import Extractor
from featurestore.errors import InputError
from featurestore.features import Failure

GPU_BATCH, CPU_BATCH = 32, 8


class Answerer(Protocol):
    """What the loop needs of a model; AffectModel is one."""

    batch_size_limit: int | None

    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer | Failure]:
        """Answers in the order of the requests, or why there is none."""


Loader = Callable[[Settings, Sequence[RunPlan]], tuple[Answerer, list[str]]]
Tell = Callable[[str], object]


def run(
    settings: Settings, *, load: Loader | None = None, tell: Tell = lambda line: None, progress: bool = True
) -> RunReport:
    """Answer every sample of every dataset that has no answer yet; returns the report.

    load       makes the model once everything else was found in order; by default from the checkpoint
    tell       takes lines for the user: notes, the banner
    progress   whether to show a bar on stderr
    Raises ConfigError, InputError or RecipeError before anything is generated; InputError in the middle for a sample
    that cannot be prepared, unless `on_missing` says otherwise: what was answered stays, and running again goes on.
    """
    report = RunReport(started=time.perf_counter())
    if load is None:
        check_model_files(settings.checkpoint, settings.llm)
    with ExitStack() as stack:
        extractor = stack.enter_context(make_extractor(settings))
        plans = [make_plan(task, settings, extractor) for task in settings.tasks]
        for note in settings.notes:
            tell(note)
        opened = [stack.enter_context(Results(result_path(settings, plan), identity(settings, plan))) for plan in plans]
        report.resumed = sum(len(results.answered) for results in opened)
        for plan, results in zip(plans, opened, strict=True):
            check_inputs(plan, [id for id in plan.task.samples if id not in results.answered])
        check_problems(plans, settings)
        todo = [_todo(plan, results) for plan, results in zip(plans, opened, strict=True)]
        for plan, ids in zip(plans, todo, strict=True):
            tell(banner(plan, ids))
        if any(todo):
            model, lines = (load or load_for)(settings, plans)
            for line in lines:
                tell(line)
            _loop(settings, plans, opened, todo, model, report, progress)
        report.finish(plans)
    for plan in plans:
        path = result_path(settings, plan)
        write_npz(path.with_suffix(".npz"), answers_in_order(read_results(path)[1], plan.task.samples))
        report.files.append(str(path))
    return report


def make_extractor(settings: Settings) -> Extractor:
    """What computes all that is not stored, for every dataset of the run."""
    return Extractor(
        {task.name: task.samples for task in settings.tasks},
        weights=settings.weights,
        sampler_options=settings.sampler_options,
        device=settings.device,
        workers=settings.workers,
    )


def load_for(settings: Settings, plans: Sequence[RunPlan]) -> tuple[Answerer, list[str]]:
    """The model of the settings' checkpoint, checked against the features that it will be given.  Imports torch."""
    from affect_infer.model.affect_model import load_model

    check_model_files(settings.checkpoint, settings.llm)
    assert settings.checkpoint is not None
    device = device_in_force(settings.device)
    dtype = dtype_in_force(settings.dtype, device)
    model, lines = load_model(settings.checkpoint, settings.llm, device=device, dtype=dtype)
    for plan in plans:
        for modality, origin in plan.origins.items():
            if origin.key is not None and (origin.to_compute or origin.policy == "live"):
                model.heads.check(modality, plan.extractor.encoder(origin.key).dim)
    return model, lines


def result_path(settings: Settings, plan: RunPlan) -> Path:
    """`{output}/results-{dataset}/{settings file}/{checkpoint}.jsonl`: where existing evaluation looks for the npz."""
    stem = settings.checkpoint.stem if settings.checkpoint else "answers"
    return settings.output / f"results-{plan.task.results}" / settings.name / f"{stem}.jsonl"


def identity(settings: Settings, plan: RunPlan) -> dict[str, Any]:
    """What must be the same for answers to stand in one file."""
    return {
        "dataset": plan.task.name,
        "mode": plan.task.mode.name,
        "au": plan.task.mode.au,
        "question": settings.question,
        **model_identity(settings.checkpoint, settings.llm),
        "dtype": dtype_in_force(settings.dtype, settings.device),
        "sampling": settings.sampling.in_force(),
        # A recipe is all that a key leaves open: encoder, sampling and number of frames are in the key.
        "keys": {name: str(origin.key) for name, origin in plan.origins.items() if origin.key is not None},
        "inputs": {name: origin.recipe for name, origin in plan.origins.items()},
    }


def _todo(plan: RunPlan, results: Results) -> list[str]:
    ids = [id for id in plan.task.samples if id not in results.answered]
    if plan.settings.on_missing != "skip":
        return ids
    for id in ids:
        if id in plan.problems and id not in results.skipped:
            messages = {name: problem.message for name, problem in plan.problems[id].items()}
            results.append({"id": id, "skipped": messages})
    return [id for id in ids if id not in plan.problems]


def _loop(
    settings: Settings,
    plans: Sequence[RunPlan],
    opened: Sequence[Results],
    todo: Sequence[Sequence[str]],
    model: Answerer,
    report: RunReport,
    progress: bool,
) -> None:
    from tqdm import tqdm

    size = settings.batch_size or (GPU_BATCH if _on_gpu(model) else CPU_BATCH)
    total = sum(len(plan.task.samples) for plan in plans)
    done = total - sum(map(len, todo))
    begun = time.perf_counter()
    with tqdm(total=total, initial=done, desc="Inference", disable=not progress) as bar:
        for plan, results, ids in zip(plans, opened, todo, strict=True):
            batches = _prepared(plan, ids, size)
            for batch in ahead(batches) if plan.computes else batches:
                requests, masks = _requests(plan, results, batch, report)
                start = time.perf_counter()
                answers = model.answer(requests, settings.sampling) if requests else []
                report.generating += (seconds := time.perf_counter() - start)
                by_id = {inputs.id: inputs for inputs in batch}
                for request, answer in zip(requests, answers, strict=True):
                    inputs = by_id[request.id]
                    if isinstance(answer, Failure):
                        inputs.problems["answer"] = answer
                        continue
                    line = _line(inputs, answer, masks[request.id], seconds / len(requests), settings)
                    results.append(line)
                    report.count(plan, line)
                _unanswered(plan, results, batch, report)
                bar.update(len(batch))
    report.looping = time.perf_counter() - begun
    if model.batch_size_limit is not None:
        report.notes.append(f"the device ran out of memory: batches were halved to {model.batch_size_limit} samples")


def _on_gpu(model: Answerer) -> bool:
    language = getattr(model, "language", None)
    return language is not None and language.device.type == "cuda"


def _prepared(plan: RunPlan, ids: Sequence[str], size: int) -> Iterator[list[Inputs]]:
    supply = plan.supply(ids)
    for start in range(0, len(ids), size):
        yield supply.prepare(ids[start : start + size], plan.problems)


def _requests(
    plan: RunPlan, results: Results, batch: Sequence[Inputs], report: RunReport
) -> tuple[list[Request], dict[str, list[str]]]:
    """Requests of the samples that can be asked about, and what is masked in each."""
    settings, requests, masks = plan.settings, [], {}
    for inputs in batch:
        if inputs.problems and settings.on_missing == "error":
            name, problem = next(iter(inputs.problems.items()))
            raise InputError(
                f"{name} of sample {inputs.id!r} ({plan.task.name}) cannot be had: {problem.message}. "
                "What was answered is kept: mend it and run again, or add --on-missing skip or mask"
            )
        masked = sorted({*inputs.problems, *plan.task.masked()})
        try:
            request = make_request(plan, inputs, masked)
        except InputError as error:
            if settings.on_missing == "error":
                raise InputError(f"sample {inputs.id!r} ({plan.task.name}): {error}") from error
            inputs.problems["prompt"] = Failure("prompt", str(error), False)
            request = None
        if request is None or (inputs.problems and settings.on_missing == "skip"):
            messages = {name: problem.message for name, problem in inputs.problems.items()}
            results.append({"id": inputs.id, "skipped": messages})
            report.skip(plan, inputs.id, messages)
        else:
            requests.append(request)
            masks[inputs.id] = masked
    return requests, masks


def _unanswered(plan: RunPlan, results: Results, batch: Sequence[Inputs], report: RunReport) -> None:
    """What the model has no answer to, once the answers to the others are kept: an error, or skipped."""
    for inputs in batch:
        if (failure := inputs.problems.get("answer")) is None:
            continue
        if plan.settings.on_missing == "error":
            raise InputError(
                f"{failure.message} ({plan.task.name}). What was answered is kept: run again, or leave such samples "
                "out with --on-missing skip"
            )
        messages = {"answer": failure.message}
        results.append({"id": inputs.id, "skipped": messages})
        report.skip(plan, inputs.id, messages)


def make_request(plan: RunPlan, inputs: Inputs, masked: Sequence[str]) -> Request:
    """The prompt of one sample and the features behind its placeholders.  InputError where nothing is left of it."""
    mode, sample = plan.task.mode, plan.task.samples[inputs.id]
    au = inputs.given.get("au")
    prompt = mode.build(
        question=plan.settings.question,
        subtitle=sample.subtitle,
        au_text=au.text if au is not None else None,
        masked=masked,
    )
    features = {name: given.values for name, given in inputs.given.items() if given.values is not None}
    merges = mode.merges if mode.merges and not {mode.merges, "audio"} & set(masked) else None
    return Request(inputs.id, prompt, features, merges)


def _line(
    inputs: Inputs, answer: Answer, masked: Sequence[str], generating: float, settings: Settings
) -> Mapping[str, Any]:
    line: dict[str, Any] = {"id": inputs.id, "answer": answer.text, "tokens": answer.n_tokens}
    if answer.n_cut:
        line["cut"] = answer.n_cut
    if masked:
        line["masked"] = {
            name: inputs.problems[name].message if name in inputs.problems else "policy off" for name in masked
        }
    line["inputs"] = {name: given.as_dict() for name, given in inputs.given.items()}
    shares = {name: inputs.seconds[name] for name in MODALITIES if name in inputs.seconds} | {"generate": generating}
    line["ms"] = {name: round(1000 * seconds, 3) for name, seconds in shares.items()}
    if not settings.sampling.greedy:
        line["seed"] = settings.sampling.seed
    return line
