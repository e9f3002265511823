"""Hostile files of every kind that the program is given, each with the call that reads it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hostile import Bait, any_of, bent_often, odd, odd_text, rendered, spoil, write
from media_factories import write_clip

SAMPLE = "sample_00000001"


@dataclass(frozen=True)
class Case:
    """One hostile input."""

    read: Callable[[], object]
    """what a user would do with it; raises what a user would see"""
    about: tuple[str, ...] = ()
    """an error has to name one of these, if there are any"""


# -- text --------------------------------------------------------------------------------------------------------------


def manifest(random: Random, folder: Path, bait: Bait) -> Case:
    from featurestore import read_manifest

    rows = [
        {"id": f"s{number}", "video": f"{number}.mp4", "audio": f"{number}.wav", "subtitle": "hello", "label": "happy"}
        for number in range(random.choice((1, 3, 10)))
    ]
    for row in rows:
        if random.random() < 0.5:
            row[any_of(random, row)] = odd_text(random, bait)
    if random.random() < 0.5:
        path = folder / "manifest.jsonl"
        lines = [rendered(bent_often(random, row, bait) if random.random() < 0.4 else row) for row in rows]
        content = random.choice((b"\n", b"\r\n", b"\n\n", b"\r")).join(lines)
    else:
        path = folder / "manifest.csv"
        header = [*rows[0]]
        if random.random() < 0.3:
            header[random.randrange(len(header))] = odd_text(random, bait)
        quote = random.choice(('"', '"', "", "'"))
        cells = [header, *([quote + str(cell) + quote for cell in row.values()] for row in rows)]
        content = "\n".join(",".join(line) for line in cells).encode(random.choice(("utf-8", "utf-8", "utf-16")))
    write(random, path, content)
    return Case(lambda: read_manifest(path), (path.name,))


_GUIDE: dict[str, Any] = {
    "model": {"skip_encoders": False, "visual_encoder": "CLIP_VIT_LARGE", "acoustic_encoder": "HUBERT_LARGE"},
    "datasets": {
        "mer2023": {
            "face_or_frame": "face_frame_audio_au",
            "frame_n_frms": 8,
            "frame_sampling": "emotion_peak",
            "use_preextracted_features": True,
            "preextracted_root": "./preextracted_features/mer2023",
            "mer_factory_output": "/data/MER-Factory/output",
            "use_au_clip_realtime": True,
            "video_root": "video",
            "ann_paths": ["label-6way.npz"],
            "vis_processor": {"train": {"n_frms": 8}},
        }
    },
    "inference": {"use_preextracted_features": True, "use_au_clip_realtime": True, "gpu": 0, "base_root": "output"},
}
_OWN: dict[str, Any] = {
    "affect_infer": 1,
    "mode": "face_frame_audio",
    "store": "features",
    "policy": {"frame": "store", "face": "live"},
    "frame": {"sampling": "uniform", "n_frames": 8},
    "weights": {"CLIP_VIT_LARGE": "random:0"},
    "sampler_options": {"emotion_peak": {"index_space": "by_ratio"}},
    "generation": {"max_new_tokens": 8, "temperature": 0.5},
    "batch_size": 2,
    "datasets": {"mine": {"manifest": "manifest.csv"}},
}


def guide(random: Random, folder: Path, bait: Bait) -> Case:
    """Settings in YAML, with options of the command line."""
    import yaml

    from affect_infer.settings.reading import read_settings
    from affect_infer.settings.settings import Changes
    from featurestore.affectgpt.guide import read_guide

    (folder / "manifest.csv").write_text("id,video\na,a.mp4\n")
    settings = random.choice((_GUIDE, _OWN))
    content: bytes
    how = random.random()
    if how < 0.5:
        content = rendered(bent_often(random, settings, bait))  # YAML holds JSON
    elif how < 0.75:
        text = yaml.safe_dump(settings)
        at = random.choice([at for at, letter in enumerate(text) if letter == ":"])
        content = (text[: at + 1] + " " + bait.yaml(random) + "\n" + text[at + 1 :]).encode()
    else:
        content = random.choice(
            (
                "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1},*a{n - 1}]\n" for n in range(1, 30)),
                "- " * 10_000,
                "a: " + "{a: " * 500 + "}" * 500,
                "datasets: 2001-99-99\n",
                "datasets: 1:99:99999999999999999999\nrun: !!float x\n",
                "<<: {model: {}}\nmodel: {<<: [{a: 1}, {a: 2}]}\n",
                "? [a, b]\n: c\n",
                "%YAML 9.9\n---\nmodel: {}\n",
                "model: {}\n---\nmodel: {}\n",
                "affect_infer: 1\ndatasets: {mine: {manifest: " + json.dumps(bait.path(random)) + "}}\n",
                "x: " + "9" * 100_000,
                "x: " + "1_" * 50_000,
                "x: 0x" + "f" * 60_000,
            )
        ).encode()
    path = write(random, folder / "settings.yaml", content)
    options = [
        f"{random.choice(('model', 'datasets.mer2023', 'inference.a', odd_text(random, bait)))}"
        f".{random.choice(('face_or_frame', 'gpu', 'x', odd_text(random, bait)))}"
        f"={random.choice((bait.yaml(random), odd_text(random, bait), '[' * 1000, '*a', '&a b', '{', '9' * 9000))}"
        for _ in range(random.choice((0, 0, 1, 2)))
    ]

    def read() -> None:
        for reading in (lambda: read_guide(path, options), lambda: read_settings(path, Changes(options=options))):
            refusing(reading)

    return Case(read)


def dataset(random: Random, folder: Path, bait: Bait) -> Case:
    """A declaration in TOML with the tables that it names."""
    from featurestore.datasets import load_dataset, survey_dataset
    from featurestore.datasets.declaration import read_declaration

    write(random, folder / "labels.csv", b"name,emotion\na,happy\nb,sad\n", 0.3)
    write(random, folder / "subtitles.csv", b"name,english\na,hello\nb,\n", 0.3)
    declaration = {
        "name": "mine",
        "aliases": ["my own"],
        "labels": {"file": "labels.csv", "field": "emotion", "kind": "class", "classes": ["happy", "sad"]},
        "splits": {"test": {"file": "labels.csv", "count": 2, "character": {"position": 0, "equals": "a"}}},
        "subtitles": {"file": "subtitles.csv", "column": "english"},
        "video": {"folder": "video", "extensions": [".mp4"]},
        "face": {"folder": "face", "extensions": [".npy"], "layout": "nested"},
    }
    if random.random() < 0.7:
        declaration = bent_often(random, declaration, bait)
    content = _toml(declaration)
    if random.random() < 0.2:
        content += random.choice(
            ("x = " + "[" * 5_000, "x = " + "{a=" * 5_000, "a." * 20_000 + "b = 1", "x = 1e999",
             "[" + "a." * 9_000 + "b]", "x = 9999-99-99", "x = '''", "x = " + "9" * 5_000,
             "[[x]]\n" * 1_000, "x = \"\\ud800\"")
        )  # fmt: skip
    path = write(random, folder / "dataset.toml", content.encode("utf-8", "replace"))
    (folder / "output").mkdir()

    def read() -> None:
        found = read_declaration(path)
        survey_dataset(found, folder, mer_factory=folder / "output")
        load_dataset(path, folder, random.choice((None, "test", "all", "x")), folder / "output")

    return Case(read)


def _toml(value: Any) -> str:
    """A table of TOML, all of it inline."""
    if not isinstance(value, dict):
        return f"name = {_toml_value(value)}\n"
    return "".join(f"{json.dumps(str(name))} = {_toml_value(item)}\n" for name, item in value.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(name))} = {_toml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return "nan" if value is None else json.dumps(value)


_AU_INFO: dict[str, Any] = {
    "au_info": {
        "total_frames": 44,
        "peak_frames": [{"peak_index": 5, "frames_before_peak": 5, "frames_after_peak": 10}],
    },
    "per_frame_au_descriptions": [{"frame": number, "description": "smile"} for number in (1, 5, 9)],
    "fine_grained_descriptions": {"1": "a smile", "5": "a grin"},
    "summary_description": "The person shows happiness",
}
_MERR = {
    "overall_peak_frame_info": {"frame_number": 12, "top_aus_intensities": {"AU12": 3.1}},
    "overall_peak_au_description": "lip corners up",
    "coarse_descriptions_at_peak": {"visual_expression": "a smile"},
}


def merfactory(random: Random, folder: Path, bait: Bait) -> Case:
    from featurestore import Sample
    from featurestore.datasets import Dataset
    from featurestore.datasets.files import MerFactoryFolder
    from featurestore.merfactory import descriptions_of, peak_of
    from featurestore.samplers import choose

    place = folder / SAMPLE
    for ending, document in (("_au_analysis.json", _AU_INFO), ("_merr_data.json", _MERR)):
        changed = bent_often(random, document, bait) if random.random() < 0.8 else document
        write(random, place / f"{SAMPLE}{ending}", rendered(changed), 0.2)
    json_path = place / f"{SAMPLE}{random.choice(('_au_analysis.json', '_merr_data.json'))}"
    if random.random() < 0.5:
        write(random, place / f"{SAMPLE}.csv", _openface(random, bait))
    sample = Sample(random.choice((SAMPLE, odd_text(random, bait))), au_json=json_path)
    options = random.choice(({}, {"index_space": random.choice(("by_ratio", "by_frame_number", odd(random, bait)))}))
    total, n_frames = random.choice((1, 44, 100, 10**6)), random.choice((1, 8, 60))

    def read() -> None:
        MerFactoryFolder(folder, Dataset("mer2023", bait.path(random))).find(sample.id)
        refusing(lambda: peak_of(sample), SAMPLE, sample.id)
        refusing(lambda: descriptions_of(sample), SAMPLE, sample.id)
        for sampling in ("emotion_peak", "emotion_peak_fork", "au_summary"):
            refusing(lambda name=sampling: choose(name, sample, total, n_frames, options))

    return Case(read)


def openface(random: Random, folder: Path, bait: Bait) -> Case:
    from featurestore import Sample
    from featurestore.merfactory import peak_of

    path = write(random, folder / "table.csv", _openface(random, bait))
    return Case(lambda: peak_of(Sample(SAMPLE, au_csv=path)), (path.name, SAMPLE))


def _openface(random: Random, bait: Bait) -> bytes:
    header = ["frame", "face_id", "timestamp", "confidence", "success", "AU01_r", "AU12_r"]
    rows = [[str(n), "0", f"{n / 25}", "0.98", "1", f"{n % 7 / 3}", "0.5"] for n in range(1, random.choice((2, 30)))]
    for _ in range(random.choice((0, 1, 3))):
        line = random.choice([header, *rows])
        number = str(random.choice((1e308, -1, 0, "nan", "inf", "-inf", 2**70, "1_0", "0x10", "", "१", "9" * 5000)))
        line[random.randrange(len(line))] = random.choice((odd_text(random, bait), number))
    return "\n".join(", ".join(line) for line in [header, *rows]).encode("utf-8", "replace")


def results(random: Random, folder: Path, bait: Bait) -> Case:
    """Results of an earlier run that is taken up again, and the certificate that lets it mix recipes."""
    from affect_infer.results import Results, read_results
    from affect_infer.run.certificate import certificate_path, read_certificate
    from featurestore import FeatureKey

    lines: list[Any] = [{"run": {"mode": "frame"}}, {"id": "a", "answer": "happy"}, {"id": "b", "skipped": "no video"}]
    if random.random() < 0.7:
        lines = bent_often(random, lines, bait)
    path = write(
        random,
        folder / "results.jsonl",
        b"".join(rendered(line) + b"\n" for line in (lines if isinstance(lines, list) else [lines])),
    )
    key = FeatureKey("mer2023", "frame", "CLIP_VIT_LARGE", "uniform", 8)
    certificate = {
        "key": str(key), "stored": "a" * 16, "computed": "b" * 16, "dtype": "float32", "samples": 3, "max_abs": 1e-6,
        "scale": 1.0, "min_cosine": 1.0, "same_rows": True, "tolerance": 1e-5, "may_mix": True, "time": "now",
    }  # fmt: skip
    place = certificate_path(folder, key, "a" * 16, "b" * 16)
    write(random, place, rendered(bent_often(random, certificate, bait)), 0.1)

    def resume() -> None:
        with Results(path, {"mode": "frame"}) as taken_up:
            taken_up.append({"id": "c", "answer": "sad"})

    def read() -> None:
        refusing(lambda: read_results(path), path.name)
        refusing(resume, path.name)
        refusing(lambda: read_certificate(folder, key, "a" * 16, "b" * 16).require())

    return Case(read)


# -- arrays and weights ------------------------------------------------------------------------------------------------


def _npy(random: Random, bait: Bait, dtype: str, shape: tuple[int, ...]) -> bytes:
    """A `.npy` file whose header may lie."""
    data = np.arange(int(np.prod(shape)), dtype=np.float32).astype(dtype).tobytes()
    if random.random() < 0.2:
        stream = io.BytesIO()
        np.save(stream, np.array([bait.pickled(random)], object), allow_pickle=True)
        return stream.getvalue()
    edge = random.choice((0, -1, 2**31, 2**40, 2**62, 10**30, True, None, "1", 1.5))
    at = random.randrange(len(shape))
    descr: Any = random.choice(
        (repr(dtype), "'|O'", "'<f8'", "'>f4'", "'|V8'", "[('a','<f4')]", "'<M8[ns]'", bait.python())
    )
    text = random.choice(
        (
            f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape!r}, }}",
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {(*shape[:at], edge, *shape[at + 1 :])!r}, }}",
            f"{{'descr': '{dtype}', 'fortran_order': True, 'shape': {shape!r}, }}",
            f"{{'descr': '{dtype}', 'fortran_order': {bait.python()}, 'shape': {shape!r}, }}",
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, 'x': 1}}",
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({'1,' * 70})}}",
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({'9' * 5000},)}}",
            "[" * 500,
            "{" * 90,
            bait.python(),
        )
    ).encode()
    header = text + b" " * (-(len(text) + 11) % 64) + b"\n"
    version = random.choice((1, 1, 1, 2, 3, 9))
    length = random.choice((len(header), len(header), len(header), 0, 65_535, 2**31))
    size = struct.pack("<H", length % 2**16) if version == 1 else struct.pack("<I", length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def npy(random: Random, folder: Path, bait: Bait) -> Case:
    """Face crops, and a tree of features to import."""
    from featurestore import FeatureStore
    from featurestore.affectgpt.importing import import_tree
    from featurestore.media import count_faces, read_faces

    face = write(random, folder / "face.npy", _npy(random, bait, "|u1", (4, 8, 8, 3)), 0.1)
    tree = folder / "tree" / "mer2023" / "frame_CLIP_VIT_LARGE_uniform_8frms"
    for number in range(random.choice((1, 2, 4))):
        write(random, tree / f"s{number}.npy", _npy(random, bait, random.choice(("<f4", "<f2")), (8, 4)), 0.1)
    if random.random() < 0.3:
        stream = io.BytesIO()
        np.save(stream, np.ones((8, 4), np.float32))
        write(random, tree / "sound.npy", stream.getvalue(), 0)
    if random.random() < 0.1:
        tree = tree.rename(tree.with_name("frame_CLIP_VIT_LARGE_uniform_99999999frms"))
    if random.random() < 0.2:
        (tree.parent / _name(odd_text(random, bait))).mkdir(exist_ok=True)
        (tree / f"{_name(odd_text(random, bait))}.npy").write_bytes(b"")

    def read() -> None:
        def faces() -> None:
            index = count_faces(face)
            read_faces(index, [0, index.total - 1], (16, 16))

        refusing(faces, face.name)
        refusing(lambda: import_tree(folder / "tree", FeatureStore(folder / "store"), audit=True))

    return Case(read)


def _name(text: str) -> str:
    """As the name of a file, as far as it can be one."""
    return text.replace("/", "_").replace("\0", "_")[:60] or "_"


def labels(random: Random, folder: Path, bait: Bait) -> Case:
    """The pickled labels of published datasets."""
    from featurestore.datasets import load_dataset
    from featurestore.datasets.label_npz import read_label_array

    path = folder / "label-6way.npz"
    records: Any = {f"sample_{number:08d}": {"emo": "happy", "val": 0.5} for number in range(3)}
    how = random.random()
    if how < 0.4:
        raw = random.choice((b"", _OBJECT_HEADER)) + bait.pickle(random)
    elif how < 0.5:
        raw = _OBJECT_HEADER + _hostile_pickle(random)
    elif how < 0.6:
        raw = _npy(random, bait, "<f4", (2, 2))
    else:
        value = bent_often(random, records, bait) if how < 0.9 else records
        raw = _OBJECT_HEADER + pickle.dumps(value, protocol=random.randrange(5))
    with zipfile.ZipFile(path, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        if random.random() < 0.1:
            archive.writestr("test1_corpus.npy", bytes(64 << 20), zipfile.ZIP_DEFLATED)  # 64 kB that inflate
        else:
            archive.writestr("test1_corpus.npy", raw)
        if random.random() < 0.1:
            archive.writestr(random.choice(("../../x.npy", str(bait.canary), "train_corpus.npy")), raw)
    write(random, path, path.read_bytes(), 0.3)

    def read() -> None:
        refusing(lambda: read_label_array(path, "test1_corpus"), path.name)
        refusing(lambda: load_dataset("mer2023", folder))

    return Case(read)


_stream = io.BytesIO()
np.lib.format.write_array_header_1_0(_stream, {"descr": "|O", "fortran_order": False, "shape": ()})
_OBJECT_HEADER = _stream.getvalue()


def _hostile_pickle(random: Random) -> bytes:
    """Opcodes that ask for memory, time or depth and not for code."""
    return random.choice(
        (
            b"\x80\x04\x8e" + struct.pack("<Q", 2**40),  # BINBYTES8
            b"\x80\x05\x96" + struct.pack("<Q", 2**40),  # BYTEARRAY8
            b"\x80\x02]" + b"r" + struct.pack("<I", 2**32 - 1) + b".",  # LONG_BINPUT
            b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
            b"\x80\x02" + b"(" * 100_000 + b"t" * 99_999 + b".",
            b"I" + b"9" * 100_000 + b"\n.",
            b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1),  # LONG4
            b"cbuiltins\nset\n(]q\x00h\x00(" + b"h\x00" * 1000 + b"lt\x85R.",
            b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
            b"cnumpy\ndtype\n(V" + b"f4," * 20_000 + b"\ntR.",
        )
    )


def checkpoint(random: Random, folder: Path, bait: Bait) -> Case:
    """`.pth` files: AffectGPT's own, and an encoder's weights in torch's format."""
    import torch

    from affect_infer.model.checkpoint import read_checkpoint
    from featurestore.encoders.tensors import digest, read_tensors

    def tensor(*shape: int) -> Any:
        return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)

    model: dict[Any, Any] = {
        "affectgpt_proj.weight": tensor(4, 3),
        "affectgpt_proj.bias": tensor(4),
        "audio_llama_proj.weight": tensor(4, 2),
        "multi_llama_proj.weight": tensor(4, 2),
        "fc_att.weight": tensor(2, 2),
        "au_llama_proj.weight": tensor(4, 5),
        "llama_model.a.lora_A.weight": tensor(2, 4),
    }
    for _ in range(random.choice((0, 1, 2))):
        name = any_of(random, model)
        model[name] = random.choice(
            (tensor(0), tensor(1, 1, 1), torch.tensor(1.0), tensor(3).to(torch.int8), torch.ones(4, 3).to_sparse(),
             torch.zeros(1).expand(1 << 40), torch.empty(4, 3, dtype=torch.complex64), torch.empty(3, device="meta"),
             odd(random, bait), torch.nn.Parameter(tensor(4, 3)),
             torch.quantize_per_tensor(tensor(3), 1, 0, torch.qint8))
        )  # fmt: skip
    if random.random() < 0.2:
        model[random.choice((7, None, 1.5, True, b"a", (), odd_text(random, bait)))] = tensor(2)
    if random.random() < 0.2:
        del model[any_of(random, model)]
    content: Any = random.choice(
        (model, {"model": model}, {"model": model, "config": odd(random, bait)}, {"state_dict": model}, [model], 3,
         {"model": model, "config": {"model": {"num_video_query_token": odd(random, bait)}}})
    )  # fmt: skip
    if random.random() < 0.4:
        bait_object = bait.pickled(random)
        content = random.choice(({"model": model, "config": bait_object}, bait_object, {"model": {"a": bait_object}}))
    path = folder / "checkpoint.pth"
    try:
        torch.save(content, path, _use_new_zipfile_serialization=random.random() < 0.7)
    except TypeError:  # an unhashable name
        path.write_bytes(pickle.dumps(3))
    if random.random() < 0.15:
        path.write_bytes(bait.pickle(random) if random.random() < 0.5 else _hostile_pickle(random))
    write(random, path, path.read_bytes(), 0.4)

    def read() -> None:
        refusing(lambda: read_checkpoint(path), path.name)
        refusing(lambda: digest(read_tensors((path,))), path.name)

    return Case(read)


_CLIP: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 8,
    "vision_config": {"hidden_size": 8, "num_attention_heads": 1, "image_size": 224, "patch_size": 32},
    "text_config": {"hidden_size": 8, "max_position_embeddings": 77},
}
_OPEN_CLIP: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 224, "layers": 1, "width": 8, "patch_size": 32},
        "text_cfg": {"context_length": 77, "width": 8},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
}
_SPEECH: dict[str, Any] = {"model_type": "hubert", "hidden_size": 8, "num_hidden_layers": 1, "conv_dim": [8]}
_DINO: dict[str, Any] = {"model_type": "dinov2", "hidden_size": 8, "image_size": 224, "patch_size": 14}
_PREPROCESSOR: dict[str, Any] = {
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
}  # fmt: skip


def weights(random: Random, folder: Path, bait: Bait) -> Case:
    """A directory with an encoder's weights: `.safetensors` and the config files beside them."""
    from featurestore.encoders import load_encoder, weights_identity, weights_origin
    from featurestore.encoders.tensors import digest, read_tensors

    names = (
        "visual.conv1.weight",
        "visual.proj",
        "vision_model.a",
        "hubert.encoder.x",
        "embeddings.cls_token",
        "text.a",
    )
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name in names:
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        header[name] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    raw = rendered(bent_often(random, header, bait) if random.random() < 0.8 else header)
    length = random.choice((len(raw), len(raw), len(raw), len(raw), 0, 2**63, 2**40, len(raw) - 1))
    path = write(random, folder / "model.safetensors", struct.pack("<Q", length % 2**64) + raw + data, 0.15)
    config = random.choice((_CLIP, _SPEECH, _DINO))
    if random.random() < 0.7:
        write(random, folder / "config.json", rendered(bent_often(random, config, bait)), 0.1)
    if random.random() < 0.4:
        write(random, folder / "open_clip_config.json", rendered(bent_often(random, _OPEN_CLIP, bait)), 0.1)
    if random.random() < 0.5:
        write(random, folder / "preprocessor_config.json", rendered(bent_often(random, _PREPROCESSOR, bait)), 0.1)
    if random.random() < 0.15:
        path.unlink() if not path.is_dir() else path.rmdir()
        shards = {"weight_map": {"a": "model.safetensors", "b": bait.path(random)}}
        write(random, folder / "model.safetensors.index.json", rendered(bent_often(random, shards, bait)), 0.1)

    def describe(name: str) -> None:
        encoder: Any = load_encoder(name, folder)
        for ask in (
            encoder.config,
            lambda: encoder.dim,
            lambda: getattr(encoder, "size", None),
            lambda: weights_identity(encoder, folder),
            lambda: weights_origin(encoder, folder),
        ):
            refusing(ask, str(folder), name)

    def read() -> None:
        refusing(lambda: digest(read_tensors((path,))), path.name)
        for name in ("CLIP_VIT_LARGE", "ViT-S-32.none", "CLIP_TEXT", "HUBERT_LARGE", "DINO2_LARGE", "SigLIP_SO"):
            describe(name)

    return Case(read)


# -- media -------------------------------------------------------------------------------------------------------------


def make_clips(folder: Path) -> list[Path]:
    """Sound clips in a few containers, whose damaged copies are read."""
    folder.mkdir()
    write_clip(folder / "h264.mp4", 24, sound=True)
    write_clip(folder / "mpeg4.avi", 12, codec="mpeg4")
    write_clip(folder / "vp9.webm", 8, codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"})
    write_clip(folder / "hevc.mkv", 8, codec="libx265", options={"preset": "ultrafast", "x265-params": "log-level=0"})
    write_clip(folder / "mjpeg.mov", 6, codec="mjpeg", pix_fmt="yuvj420p")
    return sorted(folder.iterdir())


def video(random: Random, folder: Path, bait: Bait, clips: list[Path]) -> Case:
    from featurestore.media import decode_frames, index_video, read_audio

    clip = random.choice(clips)
    content = clip.read_bytes()
    path = folder / (clip.name if random.random() < 0.9 else f"{_name(odd_text(random, bait))}{clip.suffix}")
    how = random.random()
    if how < 0.08:
        content = random.choice(
            (
                f"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n{bait.path(random)}\n".encode(),
                f"ffconcat version 1.0\nfile '{bait.path(random)}'\nfile /dev/zero\n".encode(),
                b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
                b"GIF89a" + bytes(10_000),
                b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x06\0\0\0" + bytes(100),
            )
        )
    elif how < 0.35:
        content = _lying_boxes(random, content)
    write(random, path, content, 0.75)
    indices = random.choice(([0], [0, 5, 5, 3], [10**6], [-1], list(range(6))))
    allow_corrupt = random.random() < 0.4

    def read() -> None:
        def frames() -> None:
            index = index_video(path)
            refusing(lambda: decode_frames(index, [0, index.total - 1], (32, 32), allow_corrupt), path.name)
            refusing(lambda: decode_frames(index, indices, (32, 32), allow_corrupt), path.name)

        refusing(frames, path.name)
        refusing(lambda: read_audio(path), path.name)

    return Case(read)


def _lying_boxes(random: Random, content: bytes) -> bytes:
    """An extreme number behind the name of a box of mp4 or mov."""
    changed = bytearray(content)
    boxes = (b"moov", b"mdhd", b"tkhd", b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"elst", b"avcC", b"stsd", b"mdat")
    for _ in range(random.choice((1, 2, 4))):
        at = changed.find(random.choice(boxes))
        if at >= 4:
            place = at + random.choice((-4, 4, 8, 12, 16, 20, 24))
            number = random.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24))
            changed[place : place + 4] = struct.pack(">I", number)
    return bytes(changed)


def sound(random: Random, folder: Path, bait: Bait) -> Case:
    from featurestore.media import audio_windows, read_audio

    path = folder / "sound.wav"
    with wave.open(str(path), "wb") as file:
        channels, width = random.choice((1, 2, 6)), random.choice((1, 2, 4))
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(random.choice((1, 8000, 16_000, 44_100, 2**24)))
        file.writeframes(random.randbytes(channels * width * random.choice((0, 1, 800, 40_000))))
    content = bytearray(path.read_bytes())
    # Format, channels, rate, bytes a second, block, bits, and the sizes of the chunks.
    fields = ((20, "<H"), (22, "<H"), (24, "<I"), (28, "<I"), (32, "<H"), (34, "<H"), (4, "<I"), (16, "<I"), (40, "<I"))
    for _ in range(random.choice((0, 1, 2))):
        at, form = random.choice(fields)
        number = random.choice((0, 1, 3, 6, 17, 0xFFFE, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**24))
        content[at : at + struct.calcsize(form)] = struct.pack(form, number % 2 ** (8 * struct.calcsize(form)))
    if random.random() < 0.15:
        content[12:12] = b"JUNK" + struct.pack("<I", random.choice((0, 1, 2**31, 2**32 - 1))) + bytes(8)
    if random.random() < 0.1:
        content = bytearray(
            random.choice((b"fLaC", b"ID3\x04", b"OggS", b"FORM\0\0\0\0AIFF", b"RF64", b"caff")) + bytes(content)
        )
    write(random, path, bytes(content))
    starts = random.choice(([0], [0, 16_000], [-1], [10**9]))
    return Case(lambda: audio_windows(read_audio(path).samples, starts), (path.name, "windows"))


# -- what is common ----------------------------------------------------------------------------------------------------


class Unhelpful(Exception):
    """An error of the project that does not say which file or sample it is about."""


def refusing(read: Callable[[], object], *about: str) -> None:
    """Read, or be refused by an error of the project that names what it is about."""
    from featurestore.errors import FeatureStoreError

    try:
        read()
    except FeatureStoreError as error:
        if about and not any(name in str(error) or repr(name)[1:-1] in str(error) for name in about):
            raise Unhelpful(f"{type(error).__name__} names none of {about}: {error}") from error


__all__ = ["Case", "refusing", "spoil"]
