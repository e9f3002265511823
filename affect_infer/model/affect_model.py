"""AffectModel: features and a prompt in, an answer out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from affect_infer.model.checkpoint import Loaded, read_checkpoint
from affect_infer.model.finite import not_finite
from affect_infer.model.generate import Sampling, answer_text, generate, shortened
from affect_infer.model.language import DEFAULT_LLM, Language, load_language, way_out
from affect_infer.model.language_files import some
from affect_infer.model.prompt import PLACEHOLDER_OF, expand
from featurestore.encoders.surroundings import undisturbed
from featurestore.errors import InputError
from featurestore.features import Failure

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from affect_infer.model.heads import AffectHeads


@dataclass(frozen=True, slots=True)
class Request:
    """One sample's prompt, with what belongs behind its placeholders."""

    id: str
    prompt: str
    features: Mapping[str, NDArray[Any]]
    """{frame, face, audio, au, image: (rows, dim) floating}; <Multi> is made of two of them"""
    merges: str | None = None
    """`face` or `frame` where the prompt has a <Multi> token"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said about one sample."""

    text: str
    n_tokens: int
    """new tokens"""
    n_cut: int = 0
    """prompt ids that did not fit"""
    tokens: Sequence[int] = field(default=(), repr=False)


class AffectModel:
    """Heads and language model on one device in one dtype; made by `load_model`."""

    def __init__(
        self, heads: AffectHeads, language: Language, token_counts: Mapping[str, int] | None = None, origin: str = ""
    ) -> None:
        self.heads = heads
        self.language = language
        self.token_counts = {"video": 1, "audio": 1, "multi": 1, "image": 1, "au": 1} | dict(token_counts or {})
        self.origin = origin
        self.batch_size_limit: int | None = None
        """set when a larger batch did not fit into the device's memory"""

    @undisturbed()
    def tokens_of(self, requests: Sequence[Request]) -> list[dict[str, Tensor]]:
        """Per sample {modality: (hidden,)}: its features projected, `multi` included where its prompt needs it."""
        import torch

        tokens: list[dict[str, Tensor]] = [{} for _ in requests]
        with torch.inference_mode():
            for modality in ("frame", "face", "audio", "au", "image"):
                head = self.heads.video if modality in ("frame", "face") else getattr(self.heads, modality)
                for numbers, rows in self._by_shape(requests, modality):
                    self.heads.check(modality, rows.shape[-1])
                    for number, token in zip(numbers, head(rows), strict=True):
                        tokens[number][modality] = token
            for number, request in enumerate(requests):
                if request.merges is not None:
                    if self.heads.shape.merged is None:
                        raise InputError("the checkpoint has no <Multi> head; choose a face_or_frame without 'multi'")
                    pair = [self._cast(request.features[name]) for name in (request.merges, "audio")]
                    tokens[number]["multi"] = self.heads.multi(*pair)
        return tokens

    def _by_shape(self, requests: Sequence[Request], modality: str) -> list[tuple[list[int], Tensor]]:
        """Samples with equally many rows, stacked: (their numbers, (samples, rows, dim))."""
        import numpy as np

        groups: dict[Any, list[int]] = {}
        for number, request in enumerate(requests):
            if modality in request.features:
                rows = request.features[modality]
                groups.setdefault((rows.shape, rows.dtype), []).append(number)
        return [
            (numbers, self._cast(np.stack([requests[number].features[modality] for number in numbers])))
            for numbers in groups.values()
        ]

    def _cast(self, rows: NDArray[Any]) -> Tensor:
        """The one cast: whatever was stored or computed becomes what the heads are."""
        import torch

        return torch.as_tensor(rows).to(self.language.device, self.heads.affectgpt_proj.weight.dtype)

    def prompt_ids(self, request: Request) -> list[int]:
        """Token ids of the whole prompt, placeholders repeated per token; not yet cut to length."""
        return self.language.ids(
            expand(request.prompt, {modality: self._count(modality) for modality in PLACEHOLDER_OF})
        )

    @undisturbed()
    def embed(
        self, requests: Sequence[Request], tokens: Sequence[Mapping[str, Tensor]], max_new_tokens: int
    ) -> tuple[Tensor, list[int], list[int]]:
        """Embedded prompts, with tokens at the places of their placeholders.

        Returns (samples, longest, hidden), each prompt at the end of its row; the lengths; and how many ids were cut.
        """
        import numpy as np
        import torch

        modality_of = {self.language.placeholder_ids[name]: modality for modality, name in PLACEHOLDER_OF.items()}
        whole = [self.prompt_ids(request) for request in requests]
        kept = [shortened(ids, max_new_tokens) for ids in whole]
        lengths = [len(ids) for ids in kept]
        padded = np.zeros((len(kept), max(lengths)), np.int64)
        for line, ids in zip(padded, kept, strict=True):
            line[len(line) - len(ids) :] = ids
        rows, columns = np.nonzero(np.isin(padded, list(modality_of)))
        spliced = []
        for row, id in zip(rows.tolist(), padded[rows, columns].tolist(), strict=True):
            modality = modality_of[id]
            if modality not in tokens[row]:
                raise InputError(
                    f"sample {requests[row].id!r}: the prompt has {PLACEHOLDER_OF[modality]} but there are no "
                    "features for it"
                )
            spliced.append(tokens[row][modality])
        # Placeholder ids lie behind the embedding matrix: id 0 is looked up there, and overwritten.
        padded[rows, columns] = 0
        device = self.language.device
        with torch.inference_mode():
            embedded = self.language.model.get_input_embeddings()(torch.from_numpy(padded).to(device))
            if spliced:
                places = (torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device))
                embedded[places] = torch.stack(spliced).to(embedded.dtype)
        return embedded, lengths, [len(ids) - length for ids, length in zip(whole, lengths, strict=True)]

    @undisturbed()
    def answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer | Failure]:
        """Answers in the order of the requests, generated as one batch; halved as often as memory demands.

        A Failure stands where the model's numbers are not finite; the others of its batch are answered.
        """
        import torch

        limit = self.batch_size_limit or len(requests)
        if len(requests) > limit:
            parts = [requests[start : start + limit] for start in range(0, len(requests), limit)]
            return [answer for part in parts for answer in self.answer(part, sampling)]
        try:
            return self._answer(requests, sampling)
        except torch.OutOfMemoryError as error:
            if len(requests) == 1:
                raise InputError(
                    f"sample {requests[0].id!r} alone does not fit into the memory of {self.language.device}: {error}; "
                    "use fewer --max-new-tokens, --dtype bfloat16, or another device"
                ) from error
            self.batch_size_limit = len(requests) // 2
        # Outside the except block: its traceback would keep the tensors of the batch that did not fit alive.
        if self.language.device.type == "cuda":
            torch.cuda.empty_cache()
        return self.answer(requests, sampling)

    def _answer(self, requests: Sequence[Request], sampling: Sampling) -> list[Answer | Failure]:
        projected = self.tokens_of(requests)
        embedded, lengths, cuts = self.embed(requests, projected, sampling.max_new_tokens)
        new = generate(self.language, embedded, lengths, [request.id for request in requests], sampling)
        tokenizer = self.language.tokenizer
        eos = tokenizer.eos_token
        return [
            self._failure(request, own)
            if tokens is None
            else Answer(answer_text(tokenizer.decode(tokens) if tokens else "", eos), len(tokens), cut, tokens)
            for request, own, tokens, cut in zip(requests, projected, new, cuts, strict=True)
        ]

    def _failure(self, request: Request, tokens: Mapping[str, Tensor]) -> Failure:
        """Where the numbers of a sample stop being finite: looked for only once they have."""
        import numpy as np

        if given := [name for name, rows in request.features.items() if not np.isfinite(rows).all()]:
            why = f"its {' and '.join(given)} features are not finite: remove them from the store and make them again"
        elif projected := not_finite(tokens):
            where = f"the checkpoint's heads make of its {' and '.join(projected)} features what"
            why = f"{where} is not finite in {self.language.dtype}; {way_out(self.language.dtype)}"
        else:
            why = f"the language model's logits are not finite in {self.language.dtype}; {way_out(self.language.dtype)}"
        return Failure("not finite", f"sample {request.id!r} has no answer: {why}", False)

    def _count(self, modality: str) -> int:
        return self.token_counts["video" if modality in ("frame", "face") else modality]


@undisturbed()
def load_model(
    checkpoint: str | Path,
    llm: str = DEFAULT_LLM,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    token_counts: Mapping[str, int] | None = None,
) -> tuple[AffectModel, list[str]]:
    """Read a checkpoint and its language model; also what the user should know about them, one line each.

    dtype          float32, float16 or bfloat16, for the language model, LoRA and heads alike
    token_counts   {video, audio, multi, image, au: tokens}, where neither the checkpoint nor 1 is right
    Raises InputError or WeightsNotFoundError.
    """
    import torch

    from affect_infer.model.heads import AffectHeads

    read = read_checkpoint(checkpoint)
    language, lora = load_language(llm, read, device=device, dtype=dtype)
    heads = AffectHeads(read.shape)
    own = {name: tensor.shape for name, tensor in heads.state_dict().items()}
    fitting = {name: tensor for name, tensor in read.heads.items() if own.get(name) == tensor.shape}
    heads.load_state_dict(fitting, strict=False)
    heads.to(device, getattr(torch, dtype)).eval().requires_grad_(False)
    if broken := not_finite(heads.state_dict()):
        raise InputError(
            f"checkpoint {read.path}: {len(broken)} tensors are not finite in {dtype}: {some(broken)}; {way_out(dtype)}"
        )
    loaded = Loaded(
        (*sorted(own.keys() - fitting.keys()), *lora.missing),
        (*sorted(read.heads.keys() - fitting.keys()), *lora.unexpected),
    )
    lines = [f"checkpoint {read.path.name}: {read.shape}, LoRA rank {read.lora_rank}", *language.notes]
    if unused := loaded.check(read.path):
        lines.append(unused)
    counts = read.token_counts() | dict(token_counts or {})
    return AffectModel(heads, language, counts, origin=f"{read.sha256[:16]}@{language.source}"), lines
