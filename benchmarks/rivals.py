"""Rivals of the video decoder: open a file and give exact RGB frames of its own size, by their numbers, on one thread.

torchcodec needs FFmpeg's libraries on the machine, and is not a dependency of the project: put the newest one beside
it with `pip install --no-deps --target DIR torchcodec` and run with `PYTHONPATH=DIR`.  What is not there is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from featurestore.media import decode_frames, index_video

Frames = NDArray[np.uint8]
Read = Callable[[Path, Sequence[int]], Frames]


def ours(path: Path, numbers: Sequence[int]) -> Frames:
    """With the digest of the file, which the others do not make."""
    return decode_frames(index_video(path), numbers, (720, 1280)).pixels


def every_frame(path: Path, numbers: Sequence[int]) -> Frames:
    """PyAV, the plain way."""
    with av.open(str(path)) as movie:
        movie.streams.video[0].codec_context.thread_count = 1
        frames = enumerate(movie.decode(video=0))
        found = {at: frame.to_ndarray(format="rgb24") for at, frame in frames if at in numbers}
    return np.stack([found[number] for number in numbers])


def rivals() -> dict[str, Read]:
    """{name and version: reader} of those that are installed."""
    found: dict[str, Read] = {"featurestore": ours, f"PyAV {av.__version__}, every frame": every_frame}
    try:
        import torchcodec
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError):
        pass
    else:
        version = torchcodec.__version__
        found[f"torchcodec {version} exact"] = lambda path, numbers: np.asarray(
            VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC").get_frames_at(list(numbers)).data
        )
        found[f"torchcodec {version} approximate"] = lambda path, numbers: np.asarray(
            VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode="approximate")
            .get_frames_at(list(numbers))
            .data
        )
    try:
        import decord
    except ImportError:
        pass
    else:
        found[f"decord {decord.__version__}"] = lambda path, numbers: (
            decord.VideoReader(str(path), num_threads=1).get_batch(list(numbers)).asnumpy()
        )
    return found


def recoded(source: Path, path: Path, keyframes: int, options: dict[str, str] | None = None, noise: int = 0) -> Path:
    """Real footage of 720p, coded again with a keyframe every so many frames, perhaps under noise."""
    random = np.random.default_rng(0)
    chosen = {"preset": "veryfast", "crf": "23", "g": str(keyframes), "sc_threshold": "0", **(options or {})}
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream("libx264", rate=old.streams.video[0].average_rate, options=chosen)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        for number, frame in enumerate(old.decode(video=0)):
            if number >= 180:
                break
            planes = frame.reformat(1280, 720, "yuv420p").to_ndarray()
            if noise:
                planes = np.clip(planes + random.integers(-noise, noise + 1, planes.shape), 0, 255).astype(np.uint8)
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts = number
            new.mux(stream.encode(picture))
        new.mux(stream.encode(None))
    return path
