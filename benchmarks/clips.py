"""Clips of production shape, made in code: h264 1280x720, 25 fps, two B-frames, one keyframe, as most of MER2023."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from featurestore.media import decode_frames, index_video

WIDTH, HEIGHT, FPS = 1280, 720, 25


def write_clip(path: Path, seconds: float, seed: int) -> None:
    """A textured picture that drifts, with a disc that moves over it and a little noise, so that motion is coded."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 120, (HEIGHT // 16 + 8, WIDTH // 16 + 8, 3), dtype=np.uint8)
    texture = coarse.repeat(16, axis=0).repeat(16, axis=1)
    grain = random.integers(0, 12, (HEIGHT, WIDTH + 64, 3), dtype=np.uint8)
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    options = {"preset": "veryfast", "crf": "23", "bf": "2", "g": "9999"}
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(round(seconds * FPS)):
            down, right, shift = index % 64, 2 * index % 96, 7 * index % 64
            picture = texture[down : down + HEIGHT, right : right + WIDTH] + grain[:, shift : shift + WIDTH]
            x = WIDTH / 2 + 300 * np.sin(index / 9 + seed)
            picture[(rows - HEIGHT / 2) ** 2 + (columns - x) ** 2 < 160**2] = (220, 180, 150)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))


def write_long(path: Path, hours: int, seconds: int = 10) -> None:
    """1080p with a keyframe every two seconds: a few seconds of it coded, and put one behind the other."""
    short = path.with_suffix(".short.mp4")
    random = np.random.default_rng(0).integers(0, 40, (64, 1080, 1920), np.uint8)
    with av.open(str(short), "w") as movie:
        options = {"preset": "veryfast", "g": "50", "b": "3M"}
        stream = movie.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for number in range(seconds * 30):
            luma = random[number % 64] + np.uint8(number % 200)
            planes = np.concatenate([luma, np.full((540, 1920), 128, np.uint8)])
            movie.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        movie.mux(stream.encode(None))
    with av.open(str(short)) as old, av.open(str(path), "w") as new:
        base = old.streams.video[0].time_base or Fraction(1)
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [(bytes(each), each.pts, each.dts, each.is_keyframe) for each in old.demux(video=0) if each.size]
        for again in range(hours * 3600 // seconds):
            for data, pts, dts, key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, base, key
                shift = round(again * seconds / base)
                packet.pts, packet.dts = (pts or 0) + shift, (dts or 0) + shift
                new.mux(packet)


def write_clips(folder: Path, count: int, seconds: float = 5.0, different: int = 3) -> list[Path]:
    """`count` clips, copies of a few different ones: what costs is decoding, and copies decode alike."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip_{seconds:g}s_{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if number < different:
            write_clip(path, seconds, number)
        else:
            shutil.copy(paths[number % different], path)
    return paths


def decoded(path: Path) -> NDArray[np.uint8]:
    """Eight uniform frames of a clip, (8, 224, 224, 3)."""
    index = index_video(path)
    return decode_frames(index, [i * index.total // 8 for i in range(8)], (224, 224)).pixels


def decode(path: Path) -> int:
    """The same, with nothing handed over: the work of a decode worker."""
    return len(decoded(path))
