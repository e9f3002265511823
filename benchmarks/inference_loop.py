"""What the loop of `affect-infer run` costs besides the language model, and what generating in batches gains.

    python benchmarks/inference_loop.py [--samples 2000] [--rounds 5] [--quick]          about 2 minutes

Part 1: everything is stored, and a stub stands for the language model: one step whose likeliest token ends the answer.
The rest is real: store reads, prompts, tokenizing (each subtitle is another), fusion heads, splicing, post-processing,
one JSON line written per sample, fsync once a second; on one thread, as all of it is small. Part 2: a random Qwen2 of 4
layers, 256 wide, fp32 on the CPU; 32 new tokens, greedy.

Does not show: encoders, decoding, heads of true width (3584), a GPU. Random weights: times only.
"""

from __future__ import annotations

import cProfile
import pstats
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from harness import options, save, scratch, spread, table

from affect_infer.model.affect_model import AffectModel, Request, load_model
from affect_infer.model.generate import Sampling
from affect_infer.model.heads import AffectHeads, HeadShape
from affect_infer.model.language import Language, load_tokenizer
from affect_infer.model.prompt import QUESTIONS, get_mode
from affect_infer.model.tiny import write_tiny_model
from affect_infer.run.hybrid import run
from affect_infer.settings.settings import POLICIES, Settings, Task
from featurestore import FeatureKey, FeatureStore, Sample

NOT_MEASURED = "not measured"
LOOP = "the loop over a stub, all stored"
SUBTITLE = "What if nobody finds us before the morning comes?"
ROWS = {"frame": (8, 768), "face": (8, 768), "audio": (8, 1024), "au": (1, 512)}
KEYS = {
    "frame": FeatureKey("bench", "frame", "CLIP_VIT_LARGE", "emotion_peak", 8),
    "face": FeatureKey("bench", "face", "CLIP_VIT_LARGE", "uniform", 8),
    "audio": FeatureKey("bench", "audio", "HUBERT_LARGE", "const_clips", 8),
    "au": FeatureKey("bench", "au", "CLIP_TEXT", "au_summary", "all"),
}


def main() -> None:
    if "--profile" in sys.argv:  # shows where the loop spends its time, and stops
        with scratch() as root:
            profile(root, 2000)
        return
    chosen = options(__doc__, samples=(2000, 100), rounds=(5, 1))
    with scratch(chosen.dir) as root:
        result = {
            "samples": chosen.samples,
            "rounds": chosen.rounds,
            "loop": loop(root, chosen.samples, chosen.rounds),
            "batches": batches(root, chosen.rounds),
            "gpu": [
                {"what": "batched against one by one, 32 new tokens", "reached": NOT_MEASURED},
                {"what": "feature preparation, share of the time in hybrid mode", "reached": NOT_MEASURED},
            ],
        }
    save("inference_loop", result)
    for name in ("loop", "batches", "gpu"):
        print(table(result[name]), end="\n\n")


def settings(root: Path, samples: int, output: str) -> Settings:
    """All four inputs of the guide's first mode from a store."""
    ids = [f"sample_{number:08}" for number in range(samples)]
    if not (root / "features").exists():
        chance = np.random.default_rng(0)
        for modality, key in KEYS.items():
            values = [chance.normal(0, 0.3, ROWS[modality]).astype(np.float32) for _ in ids]
            indices = np.tile(np.arange(ROWS[modality][0]), (samples, 1))
            rows: Any = values if key.n_frames == "all" else np.stack(values)
            FeatureStore(root / "features").put_many(
                key, ids, rows, recipe={"benchmark": "loop"}, frame_indices=list(indices)
            )
    task = Task(
        name="bench", results="bench", samples={id: Sample(id, subtitle=f"{SUBTITLE} {id}") for id in ids},
        mode=get_mode("face_frame_audio_au"), policies=dict.fromkeys(POLICIES, "store_only"), keys=KEYS,
        store=root / "features",
    )  # fmt: skip
    return Settings((task,), output=root / output, batch_size=32, sampling=Sampling(greedy=True, max_new_tokens=32))


def stub(root: Path, visual: int = 768, acoustic: int = 1024, au: int = 512) -> AffectModel:
    """Heads and tokenizer are real; the language model answers with the end of the answer."""
    import torch

    if not (root / "tiny").exists():
        write_tiny_model(root / "tiny", visual=visual, acoustic=acoustic, au=au)
    tokenizer = load_tokenizer(str(root / "tiny" / "llm"))
    embedding = torch.nn.Embedding(512, 64).requires_grad_(False)
    ending = torch.zeros(1, 1, 512)
    ending[..., tokenizer.eos_token_id] = 1.0

    class Stub:
        device = torch.device("cpu")
        config = SimpleNamespace(hidden_size=64, vocab_size=512)
        generation_config = SimpleNamespace(eos_token_id=tokenizer.eos_token_id)

        def get_input_embeddings(self) -> torch.nn.Embedding:
            return embedding

        def forward(self, cache: Any = None) -> None:
            """Only its signature is looked at."""

        def __call__(self, *, attention_mask: torch.Tensor, **_: Any) -> Any:
            return SimpleNamespace(logits=ending.expand(len(attention_mask), 1, 512))

    shape = HeadShape(64, visual, acoustic, "attention", "attention", max(visual, acoustic), au, "attention")
    heads = AffectHeads(shape).eval().requires_grad_(False)
    return AffectModel(heads, Language(Stub(), tokenizer, "stub"))


def loop(root: Path, samples: int, rounds: int) -> list[dict[str, Any]]:
    """Milliseconds per sample of the loop, and of what the stub itself takes."""
    import torch

    model = stub(root)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    totals, answering, cpu = [], [], []
    for number in range(rounds + 1):
        given = settings(root, samples, f"out{number}")
        begun = time.process_time()
        report = run(given, load=lambda *_: (model, []), progress=False)
        cpu.append(1000 * (time.process_time() - begun) / samples)
        totals.append(1000 * report.looping / samples)
        answering.append(1000 * report.generating / samples)
    torch.set_num_threads(threads)
    # The first round reads cold checksums and warms torch up.
    return [
        {"what": what, **{f"{name} ms a sample": value for name, value in spread(times[1:]).items()}}
        for what, times in (
            (LOOP, totals),
            ("tokenizing, heads, splice and clean-up in it", answering),
            ("the whole run, checks and export included, CPU time", cpu),
        )
    ]


def batches(root: Path, rounds: int) -> list[dict[str, Any]]:
    """Samples per second one by one and in batches, and whether the tokens are the same."""
    llm, checkpoint = write_tiny_model(root / "wide", layers=4, hidden=256, visual=768, acoustic=1024, au=512)
    model, _ = load_model(checkpoint, str(llm))
    # No end before 32 tokens, so that every sample costs the same.
    model.language.model.generation_config.eos_token_id = None
    model.language.tokenizer.eos_token = "<|im_start|>"
    chance = np.random.default_rng(0)
    prompt = get_mode("face_frame_audio_au").build(question=QUESTIONS["labels"], subtitle=SUBTITLE)
    requests = [
        Request(
            f"s{number}", prompt, {name: chance.normal(0, 0.3, rows).astype(np.float32) for name, rows in ROWS.items()}
        )
        for number in range(16)
    ]
    sampling = Sampling(greedy=True, max_new_tokens=32)

    def seconds(size: int) -> tuple[float, list[Any]]:
        start, tokens = time.perf_counter(), []
        for first in range(0, len(requests), size):
            tokens += [answer.tokens for answer in model.answer(requests[first : first + size], sampling)]
        return time.perf_counter() - start, tokens

    seconds(8)
    times: dict[int, list[float]] = {1: [], 8: [], 16: []}
    for _ in range(rounds):
        for size, taken in times.items():
            taken.append(seconds(size)[0])
    expected = seconds(1)[1]
    least = min(times[1])
    return [
        {
            "batch": size,
            **{f"{name} s for {len(requests)}": value for name, value in spread(taken).items()},
            "samples/s": round(len(requests) / statistics.median(taken), 1),
            "times one by one": round(statistics.median(times[1]) / statistics.median(taken), 2),
            "least against least": round(least / min(taken), 2),
            "same tokens": seconds(size)[1] == expected,
        }
        for size, taken in times.items()
    ]


def profile(root: Path, samples: int) -> None:
    model = stub(root)
    run(settings(root, samples, "warm"), load=lambda *_: (model, []), progress=False)
    profiler = cProfile.Profile()
    profiler.enable()
    report = run(settings(root, samples, "profiled"), load=lambda *_: (model, []), progress=False)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(40)
    print(f"{1000 * report.looping / samples:.3f} ms a sample, {report.ms.keys()}")


if __name__ == "__main__":
    main()
