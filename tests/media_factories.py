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


def remux(source: Path, target: Path, shift_s: float = 0.0, first: int = 0, **options: str) -> Path:
    """The same packets, from number `first` on, in another file, with all times moved."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is None or number < first:
                continue
            shift = round(shift_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = stream
            new.mux(packet)
    return target


def turn(path: Path, degrees: int) -> Path:
    """Set the display matrix of an mp4, as a phone that was held sideways does (counter-clockwise)."""
    cos, sin = {0: (1, 0), 90: (0, 1), -90: (0, -1), 180: (-1, 0)}[degrees]
    return orient(path, (cos, -sin, sin, cos))


def orient(path: Path, matrix: Sequence[float]) -> Path:
    """Set the display matrix of an mp4: what (across, down) become, each in (across, down)."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    a, b, c, d = (round(value * 65536) for value in matrix)
    # 16.16 numbers but for the last column, which is 2.30.
    struct.pack_into(">9i", data, header + 4 + 40, a, b, 0, c, d, 0, 0, 0, 0x4000 << 16)
    path.write_bytes(data)
    return path


def packed_avi(path: Path, count: int) -> Path:
    """MPEG-4 in AVI as Xvid and DivX write it: a picture and the next one that is shown before it in one chunk."""
    options = {"bf": "1", "g": "12", "b_strategy": "0"}
    plain = write_clip(path.with_suffix(".mkv"), count, codec="mpeg4", options=options)
    with av.open(str(plain)) as movie:
        header = bytes(movie.streams.video[0].codec_context.extradata or b"")
        packets = [(packet.pts, packet.is_keyframe, bytes(packet)) for packet in movie.demux(video=0) if packet.size]
    chunks: list[tuple[bool, bytes]] = []
    latest = -1
    for pts, key, data in packets:
        if pts < latest:  # shown before the one before it: into the same chunk, and a picture of nothing after it
            chunks[-1] = (chunks[-1][0], chunks[-1][1] + data)
            chunks.append((False, bytes.fromhex("000001b6") + b"\x51\xff\xf0"))
        else:
            chunks.append((key, data))
        latest = max(latest, pts)
    # The mark by which decoders know such streams.
    first = header + b"\0\0\1\xb2DivX503b1393p\0"
    with av.open(str(path), "w") as movie:
        stream = movie.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number, (key, data) in enumerate(chunks):
            packet = av.Packet((first if number == 0 else b"") + data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, number, number, key
            packet.time_base = Fraction(1, 25)
            movie.mux(packet)
    return path


def field_pictures(path: Path, count: int) -> Path:
    """H.264 whose frames are two packets, one for each field, of samples that are not compressed (64 x 64)."""

    def bits(*fields: tuple[int, int] | int) -> str:
        """(value, width) as it is; a number alone as Exp-Golomb code."""
        text = ""
        for field in fields:
            if isinstance(field, tuple):
                text += format(field[0], f"0{field[1]}b")
            else:
                code = bin(field + 1)[2:]
                text += "0" * (len(code) - 1) + code
        return text

    def unit(head: int, text: str, samples: Sequence[bytes] = ()) -> bytes:
        raw = b""
        for number, block in enumerate(samples):
            text += bits(25)  # I_PCM
            text += "0" * (-len(text) % 8)
            raw += int(text, 2).to_bytes(len(text) // 8, "big") + block
            text = "" if number < len(samples) - 1 else "1"
        if not samples:
            text += "1"
        text += "0" * (-len(text) % 8)
        raw += int(text, 2).to_bytes(len(text) // 8, "big")
        kept = bytearray()
        for byte in raw:
            if kept[-2:] == b"\0\0" and byte <= 3:
                kept.append(3)
            kept.append(byte)
        return bytes([head]) + bytes(kept)

    # Main profile, level 3; frame numbers of 4 bits, order by type 2; 4 x 2 units of 32 lines; fields are allowed.
    sps = unit(0x67, bits((77, 8), (0, 8), (30, 8), 0, 0, 2, 1, (0, 1), 3, 1, (0, 1), (0, 1), (1, 1), (0, 1), (0, 1)))
    pps = unit(0x68, bits(0, 0, (0, 1), (0, 1), 0, 0, 0, (0, 1), (0, 2), 0, 0, 0, (0, 1), (0, 1), (0, 1)))
    start = b"\0\0\0\1"
    fields = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number, 64, 64), format="rgb24")
        planes = frame.reformat(format="yuv420p").to_ndarray()
        luma, blue, red = planes[:64], planes[64:80].reshape(32, 32), planes[80:96].reshape(32, 32)
        for bottom in (0, 1):
            lines, *colours = [np.clip(plane[bottom::2], 1, 255) for plane in (luma, blue, red)]
            blocks = [
                lines[y : y + 16, x : x + 16].tobytes()
                + b"".join(plane[y // 2 : y // 2 + 8, x // 2 : x // 2 + 8].tobytes() for plane in colours)
                for y in (0, 16)
                for x in range(0, 64, 16)
            ]
            # All macroblocks, I, frame number, field; an IDR picture, or the second field of one.
            marking = [(0, 1)] if bottom else [number % 2, (0, 1), (0, 1)]
            head = bits(0, 7, 0, (0, 4), (1, 1), (bottom, 1), *marking, 0)
            fields.append(start + unit(0x61 if bottom else 0x65, head, blocks))
    raw = path.with_suffix(".h264")
    raw.write_bytes(start + sps + start + pps + b"".join(fields))
    with av.open(str(raw)) as old, av.open(str(path), "w") as movie:
        stream = movie.add_stream_from_template(old.streams.video[0])
        for number, data in enumerate(fields):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 50), number % 2 == 0
            packet.pts = packet.dts = number
            packet.duration = 1
            movie.mux(packet)
    return path
