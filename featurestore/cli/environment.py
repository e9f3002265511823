"""This machine: Python, packages, decoders, GPU, caches, weights.

What may crash or hang when it is imported is imported in a process of its own.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from featurestore.cli.checkup import Check, note, ok, problem
from featurestore.cli.hints import message_of

CORE = ("numpy", "zarr", "numcodecs", "filelock", "click", "google-crc32c", "pyyaml", "tqdm")
ENCODERS = (
    "torch", "torchvision", "open_clip_torch", "transformers", "safetensors", "huggingface_hub", "av",
    "opencv-python-headless", "soxr", "pebble",
)  # fmt: skip
IMPORT_S = 180.0  # torch from a cold network disk

TORCH = """
import torch
count = torch.cuda.device_count()
names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
print(f"{torch.__version__}, " + (f"{count} GPU: {names}" if count else "no GPU: encoders run on the CPU"))
"""
PYAV = """
import av
missing = []
for name in ("h264", "hevc", "mpeg4", "vp8", "vp9", "av1", "aac", "mp3"):
    try:
        av.codec.Codec(name, "r")
    except Exception:
        missing.append(name)
print(f"{av.__version__} with FFmpeg {av.ffmpeg_version_info}" + (f", without {', '.join(missing)}" if missing else ""))
"""
CV2 = "import cv2; print(cv2.__version__)"
TORCHAUDIO = "import torchaudio; print(torchaudio.__version__)"


def check_packages() -> Iterator[Check]:
    """Python, and the packages of the core and of the extra `encoders`."""
    if sys.platform == "linux":
        yield ok("python", f"{platform.python_version()} on {platform.platform()}")
    else:
        yield note("python", f"{platform.python_version()} on {platform.platform()}", "only Linux is tested")
    yield _packages("core", CORE, "pip install featurestore")
    import google_crc32c  # 1 ms

    if google_crc32c.implementation != "c":
        advice = "reinstall google-crc32c from a wheel: first reads and writes are many times slower without it"
        yield problem("checksums", f"google-crc32c is its {google_crc32c.implementation} version", advice)
    yield _packages(
        "encoders", ENCODERS, "pip install 'featurestore[encoders]'; without it features can be read and imported"
    )


def _packages(name: str, wanted: Sequence[str], advice: str) -> Check:
    found = {package: _version(package) for package in wanted}
    missing = [package for package, number in found.items() if number is None]
    if missing:
        return Check(name, "problem" if name == "core" else "note", f"not installed: {', '.join(missing)}", advice)
    return ok(name, ", ".join(f"{package} {number}" for package, number in found.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_imports() -> Iterator[Check]:
    """Whether what decodes and encodes can be loaded at all."""
    for name, package, program, advice in (
        ("torch", "torch", TORCH, "install a build of torch that fits this machine"),
        ("ffmpeg", "av", PYAV, "reinstall av from a wheel, which brings its own FFmpeg"),
        (
            "opencv",
            "opencv-python-headless",
            CV2,
            "remove opencv-python if it is there: it needs a desktop's libraries",
        ),
    ):
        if _version(package) is not None:
            fine, said = _run(program)
            yield ok(name, said) if fine else problem(name, f"cannot be imported: {said}", advice)
    if _version("torchaudio") is not None:
        # Where it is installed and does not fit torch, transformers' speech models cannot be imported either.
        fine, said = _run(TORCHAUDIO)
        advice = "pip uninstall torchaudio: nothing here needs it, and it keeps transformers from loading"
        yield (
            ok("torchaudio", f"{said}, not used")
            if fine
            else problem("torchaudio", f"cannot be imported: {said}", advice)
        )


def _run(program: str) -> tuple[bool, str]:
    """(whether a Python program ended well, its last line)."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return False, f"no answer within {IMPORT_S:g} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}"


def check_caches() -> Iterator[Check]:
    """Our cache directory, and the settings of the hub's."""
    from featurestore.encoders.notes import cache_folder

    folder = cache_folder()
    advice = "set XDG_CACHE_HOME: without it the digest of weights is computed anew in every process"
    try:
        if folder is None:
            yield problem("cache", "this user has no home directory", advice)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            yield ok("cache", str(folder))
    except OSError as error:
        yield problem("cache", f"{folder}: {error.strerror}", advice)
    names = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    given = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
    yield ok("hub", f"{', '.join(given) or 'no settings'}; weights are looked up in its cache and never downloaded")


def check_weights() -> Iterator[Check]:
    """Whether the published weights of each known encoder are on this machine."""
    from featurestore.encoders import encoder_names, load_encoder
    from featurestore.errors import FeatureStoreError, WeightsNotFoundError

    for name in encoder_names():
        encoder = None
        try:
            encoder = load_encoder(name)
            source = getattr(encoder, "source", None)
        except WeightsNotFoundError:
            published = getattr(encoder, "published", None)
            advice = f"`hf download {published.repo}` fetches them, or --weights DIR" if published else "--weights DIR"
            yield note(name, "weights are not here", advice)
        except FeatureStoreError as error:
            yield note(name, message_of(error), "this encoder cannot be used here")
        else:
            yield ok(name, f"weights in {source.folder}" if source is not None else "finds its weights itself")
