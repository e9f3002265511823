"""The guide's four modes, measured: whole runs without a language model, one sample stage by stage, and with a model.

    python benchmarks/inference_modes.py [--samples 411] [--encoded 24] [--quick]          about 6 minutes

Samples are of production shape, made in code: 4 s of 720p h264 with one keyframe, a wav, a face file, MER-Factory's
JSON with a peak; a few different ones under many names.  Runs are those of `affect-infer run`, checks of all inputs
included, with the real heads and tokenizer and a stub for the language model.  All samples go through encoders that
cost nothing (`decode and store`); `--encoded` of them through ViT-B/32, a HuBERT of 6 layers and CLIP's text tower,
all with random weights on the CPU, and that is scaled to the guide's 411.
Does not show: a GPU, networks of true size (ViT-L, HuBERT-large, 7B) anywhere; what the answers are worth.
"""

from __future__ import annotations

import json
import os
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from clips import FPS, write_clips
from harness import cpu_seconds, options, save, scratch, spread, table
from inference_loop import SUBTITLE, stub

from affect_infer.model.affect_model import AffectModel, Request, load_model
from affect_infer.model.generate import Sampling
from affect_infer.model.prompt import QUESTIONS, get_mode
from affect_infer.model.tiny import write_tiny_model
from affect_infer.run.hybrid import run
from affect_infer.settings.settings import Settings, Task
from featurestore import Extractor, FeatureKey, FeatureStore, Sample, register_encoder
from featurestore.media import audio_windows, count_faces, decode_frames, index_video, read_audio, read_faces
from featurestore.merfactory import descriptions_of

SECONDS = 4
GUIDE_SAMPLES = 411
MODALITIES = ("frame", "face", "audio", "au")
CLAIMED = {"all live, uniform": 30, "all live, emotion_peak": 240, "frame stored": 45, "everything stored": 10}
NOT_MEASURED = "not measured: no GPU"
_outputs = iter(range(10**6))


@dataclass(frozen=True)
class Encoders:
    """Which encoders, with what weights, and how wide their features are."""

    frame: str
    audio: str
    au: str
    dims: tuple[int, int, int]
    weights: Mapping[str, str]

    def keys(self, sampling: str) -> dict[str, FeatureKey]:
        return {
            "frame": FeatureKey("bench", "frame", self.frame, sampling, 8),
            "face": FeatureKey("bench", "face", self.frame, "uniform", 8),
            "audio": FeatureKey("bench", "audio", self.audio, "const_clips", 8),
            "au": FeatureKey("bench", "au", self.au, "au_summary", "all"),
        }


FREE = Encoders("Free", "FreeSound", "FreeText", (768, 1024, 512), {})
for _name in ("Free", "FreeSound", "FreeText"):
    register_encoder(_name, f"encoders:{_name}")


def main() -> None:
    chosen = options(__doc__, samples=(411, 6), encoded=(24, 2))
    with scratch(chosen.dir) as root:
        samples = make_samples(root / "data", chosen.samples)
        few = dict(list(samples.items())[: chosen.encoded])
        real = real_encoders(root)
        model = stub(root / "real", *real.dims)
        whole = Modes(root / "all", FREE, stub(root / "free", *FREE.dims), samples).measure()
        encoded = Modes(root / "few", real, model, few).measure()
        result = {
            "samples": chosen.samples,
            "encoded": chosen.encoded,
            "guide": guide(whole, encoded, chosen.samples, chosen.encoded),
            "stages": stages(root, few, real, model),
            "language": language(root, few, real),
        }
    save("inference_modes", result)
    for name in ("guide", "stages", "language"):
        print(table(result[name]), end="\n\n")


def make_samples(folder: Path, count: int) -> dict[str, Sample]:
    """Names of their own for every sample; the files behind them are links to a few different ones."""
    total = SECONDS * FPS
    clips = write_clips(folder / "made", 3, SECONDS)
    chance = np.random.default_rng(0)
    document = {
        "au_info": {
            "total_frames": total,
            "peak_frames": [{"peak_index": 40, "frames_before_peak": 40, "frames_after_peak": total - 41}],
        },
        "summary_description": {"41": "The person shows happiness with a slight smile and raised cheeks."},
    }
    faces = folder / "made" / "faces.npy"
    np.save(faces, chance.integers(0, 255, (total, 112, 112, 3), dtype=np.uint8))
    sound = folder / "made" / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(chance.normal(0, 3000, SECONDS * 16000).astype("<i2").tobytes())
    found = {}
    for number in range(count):
        id = f"sample_{number:08d}"
        own = folder / id
        own.mkdir()
        for made, name in ((clips[number % 3], "video.mp4"), (faces, "face.npy"), (sound, "audio.wav")):
            os.link(made, own / name)
        (own / "au.json").write_text(json.dumps(document))
        found[id] = Sample(
            id, own / "video.mp4", own / "face.npy", own / "audio.wav", subtitle=SUBTITLE, au_json=own / "au.json"
        )
    return found


def real_encoders(root: Path) -> Encoders:
    """Small relatives of the guide's encoders, with random weights."""
    import torch
    from transformers import HubertConfig, HubertModel

    from affect_infer.model.tiny_encoders import PREPROCESSOR

    folder = root / "hubert"
    config = HubertConfig(num_hidden_layers=6, feat_extract_norm="layer", conv_bias=True, do_stable_layer_norm=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        HubertModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    weights = {"ViT-B-32.none": "random:0", "HUBERT_LARGE": str(folder), "CLIP_TEXT": "random:0"}
    return Encoders("ViT-B-32.none", "HUBERT_LARGE", "CLIP_TEXT", (512, config.hidden_size, 512), weights)


@dataclass
class Modes:
    """The four modes over some samples."""

    root: Path
    encoders: Encoders
    model: AffectModel
    samples: Mapping[str, Sample]

    def measure(self) -> dict[str, Any]:
        live = dict.fromkeys(MODALITIES, "live")
        stored = dict.fromkeys(MODALITIES, "store")
        self.run("emotion_peak", {**live, "frame": "off"}, "warm", 1)  # encoders and workers start
        return {
            "all live, uniform": self.run("uniform", live, "none"),
            "all live, emotion_peak": self.run("emotion_peak", live, "none"),
            "frame stored, first run: fills the store": self.run("emotion_peak", {**live, "frame": "store"}, "one"),
            "frame stored": self.run("emotion_peak", {**live, "frame": "store_only"}, "one"),
            "everything stored, first run: fills the store": self.run("emotion_peak", stored, "four"),
            "everything stored": self.run("emotion_peak", dict.fromkeys(MODALITIES, "store_only"), "four"),
            "everything stored, store dropped from the page cache": self.cold(),
        }

    def cold(self) -> Any:
        os.sync()
        for path in (self.root / "four").rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
        return self.run("emotion_peak", dict.fromkeys(MODALITIES, "store_only"), "four")

    def run(self, sampling: str, policies: Mapping[str, Any], store: str, limit: int | None = None) -> Any:
        """(report, CPU seconds) of one run."""
        samples = dict(list(self.samples.items())[:limit])
        task = Task("bench", "bench", samples, get_mode("face_frame_audio_au"), policies,
                    self.encoders.keys(sampling), self.root / store)  # fmt: skip
        settings = Settings((task,), weights=self.encoders.weights, batch_size=8, device="cpu",
                            sampling=Sampling(greedy=True, max_new_tokens=32),
                            output=self.root / f"out{next(_outputs)}")  # fmt: skip
        before = cpu_seconds()
        return run(settings, load=lambda *_: (self.model, []), progress=False), cpu_seconds() - before


def guide(whole: Mapping[str, Any], encoded: Mapping[str, Any], n: int, few: int) -> list[dict[str, Any]]:
    """The guide's rows and those that it leaves out."""
    rows = []
    for mode, (all_of_them, all_cpu_s) in whole.items():
        some, some_cpu_s = encoded[mode]
        ms = {f"{name} ms": round(sum(some.ms.get(name, [])) / few, 2) for name in MODALITIES}
        rows.append(
            {
                "mode": mode,
                "claimed s": CLAIMED.get(mode, ""),
                "samples": n,
                "decode and store, s": round(all_of_them.wall, 2),
                "CPU s": round(all_cpu_s, 2),
                "encoded": few,
                "with encoders, scaled, s": round(some.wall / few * GUIDE_SAMPLES, 1),
                "scaled CPU s": round(some_cpu_s / few * GUIDE_SAMPLES, 1),
                **ms,
            }
        )
    rows.append(
        {"mode": "frame stored, ViT-L/14, HuBERT-large and a 7B model", "with encoders, scaled, s": NOT_MEASURED}
    )
    return rows


def stages(root: Path, samples: Mapping[str, Sample], real: Encoders, model: AffectModel) -> list[dict[str, Any]]:
    """Median and p90 of each step for one sample after the other; encoders return arrays, so a GPU is waited for."""
    taken: dict[str, list[float]] = {}

    def step(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        taken.setdefault(name, []).append(time.perf_counter() - start)
        return result

    uniform, peak = real.keys("uniform"), real.keys("emotion_peak")
    mode, stored = get_mode("face_frame_audio_au"), FeatureStore(root / "few" / "four")
    with Extractor({"bench": samples}, weights=real.weights, device="cpu") as extractor:
        encoders = {name: extractor.encoder(key) for name, key in peak.items()}
        for id, sample in samples.items():
            index = step("frame: packet scan", lambda s=sample: index_video(s.video))
            even, _ = step("frame: choose uniform", lambda s=sample, i=index: _choose(extractor, uniform, s, i.total))
            chosen, _ = step(
                "frame: read JSON, choose peak", lambda s=sample, i=index: _choose(extractor, peak, s, i.total)
            )
            step("frame: decode 8, uniform", lambda i=index, c=even: decode_frames(i, c))
            pixels = step("frame: decode 8, peak", lambda i=index, c=chosen: decode_frames(i, c)).pixels
            step("frame: encode 8, ViT-B/32", lambda p=pixels: encoders["frame"].encode(p))
            step("frame: read from the store instead", lambda i=id: stored.get(peak["frame"], i))
            seen = step("face: read 8", lambda s=sample: _faces(s))
            step("face: encode 8, ViT-B/32", lambda p=seen: encoders["face"].encode(p))
            windows = step("audio: read 8 windows", lambda s=sample: _windows(extractor, peak, s))
            step("audio: encode, HuBERT of 6 layers", lambda w=windows: encoders["audio"].encode(w))
            texts = step("AU: read JSON", lambda s=sample: descriptions_of(s).texts)
            step("AU: encode, CLIP text", lambda t=texts: encoders["au"].encode(list(t)))
            features = {name: stored.get(key, id) for name, key in peak.items()}
            request = Request(id, mode.build(question=QUESTIONS["labels"], subtitle=SUBTITLE), features)
            step("prompt, heads and splice", lambda r=request: model.embed([r], model.tokens_of([r]), 32))
    return [{"stage": name, **_ms(times), "samples": len(times)} for name, times in taken.items()]


def _choose(extractor: Extractor, keys: Mapping[str, FeatureKey], sample: Sample, total: int) -> Any:
    return extractor.sampling(keys["frame"]).choose(sample, total)


def _faces(sample: Sample) -> Any:
    index = count_faces(sample.face)
    return read_faces(index, [i * index.total // 8 for i in range(8)], (224, 224))


def _windows(extractor: Extractor, keys: Mapping[str, FeatureKey], sample: Sample) -> Any:
    sound = read_audio(sample.audio).samples
    return audio_windows(sound, extractor.sampling(keys["audio"]).choose(sample, len(sound))[0])


def language(root: Path, samples: Mapping[str, Sample], real: Encoders) -> list[dict[str, Any]]:
    """Everything stored and a small real language model: prefill, 32 tokens, one by one and in batches."""
    visual, acoustic, au = real.dims
    llm, checkpoint = write_tiny_model(root / "lm", layers=4, hidden=256, visual=visual, acoustic=acoustic, au=au)
    model, _ = load_model(checkpoint, str(llm))
    model.language.model.generation_config.eos_token_id = None  # no end before 32 tokens: each costs the same
    model.language.tokenizer.eos_token = "<|im_start|>"
    store, keys, mode = FeatureStore(root / "few" / "four"), real.keys("emotion_peak"), get_mode("face_frame_audio_au")
    prompt = mode.build(question=QUESTIONS["labels"], subtitle=SUBTITLE)

    def answer(size: int, tokens: int) -> float:
        start = time.perf_counter()
        for ids in _parts(list(samples), size):
            rows = {name: store.get_ragged(key, ids) for name, key in keys.items()}
            requests = [Request(id, prompt, {name: rows[name][i] for name in keys}) for i, id in enumerate(ids)]
            model.answer(requests, Sampling(greedy=True, max_new_tokens=tokens))
        return (time.perf_counter() - start) / len(samples)

    answer(8, 2)
    rows: list[dict[str, Any]] = []
    for what, size, tokens in (
        ("prefill and one token, one by one", 1, 1),
        ("32 tokens, one by one", 1, 32),
        ("32 tokens, in batches of 8", 8, 32),
    ):
        times = [answer(size, tokens) for _ in range(3)]
        rows.append({"everything stored, and": what, **_ms(times), "samples": len(samples)})
    return [*rows, {"everything stored, and": "a 7B model, one by one and in batches", "median ms": NOT_MEASURED}]


def _parts(ids: list[str], size: int) -> Iterator[list[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _ms(times: list[float]) -> dict[str, float]:
    return {f"{name} ms": value for name, value in spread(times, 1e3).items()}


if __name__ == "__main__":
    main()
