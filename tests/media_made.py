"""Tiny clips made in code, in which every picture carries its own number.

The number is written as 16 black or white cells over the top eighth of the picture, most significant first,
so that it survives lossy coding and squashing to any size: `number_of(pixels)` reads it back.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CELLS = 16


def picture(number: int, width: int = 160, height: int = 96) -> NDArray[np.uint8]:
    """(height, width, 3) RGB: the number, and below it colours that move, so that order and scaling can be told."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([columns * 255 // width, rows * 255 // height, (columns + 5 * number) % 256], axis=2).astype(
        np.uint8
    )
    for cell, part in enumerate(np.array_split(image[: height // 8].swapaxes(0, 1), CELLS)):
        part[:] = 255 if number >> (CELLS - 1 - cell) & 1 else 0
    return image


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The number in a picture; those of `shared/media` are written in the same way."""
    height = len(pixels)
    columns = pixels[height // 24 : height // 12].mean(axis=(0, 2))
    # The edges of a cell bleed into its neighbours; its middle does not.
    white = [cell[len(cell) // 4 : -(len(cell) // 4)].mean() > 127 for cell in np.array_split(columns, CELLS)]
    return int("".join("1" if each else "0" for each in white), 2)


def write_clip(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    width: int = 160,
    height: int = 96,
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    format: str | None = None,
    sound: bool = False,
) -> Path:
    """A clip of pictures 0 to count - 1 at 25 per second, or shown at `times_ms`."""
    if options is None:
        options = {"bf": "2", "g": "12", "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(str(path), "w", format=format) as movie:
        stream = movie.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        tone = movie.add_stream("aac", rate=16000, layout="mono") if sound else None
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = Fraction(1, 25) if times_ms is None else Fraction(1, 1000)
            movie.mux(stream.encode(frame))
        movie.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(640 * count) * 440 * 2 * np.pi / 16000).astype(np.float32)
            block = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            block.sample_rate, block.pts = 16000, 0
            movie.mux(tone.encode(block))
            movie.mux(tone.encode(None))
    return path


def remux(source: Path, target: Path, shift_s: float = 0.0, **options: str) -> Path:
    """The same packets in another file, with all times moved."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is None:
                continue
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            new.mux(packet)
    return target


def turn(path: Path, degrees: int) -> Path:
    """Set the display matrix of an mp4, as a phone that was held sideways does (counter-clockwise)."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    cos, sin = {0: (1, 0), 90: (0, 1), -90: (0, -1), 180: (-1, 0)}[degrees]
    matrix = [cos, -sin, 0, sin, cos, 0, 0, 0, 0x4000]
    # 16.16 numbers but for the last column, which is 2.30.
    values = [value << 16 for value in matrix]
    struct.pack_into(">9i", data, header + 4 + 40, *values)
    path.write_bytes(data)
    return path
