"""Sounds made in code: tones in any container and codec, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

# By file name: the codec, its sampling rate, and options of codec and container.
KINDS: dict[str, tuple[str, int, dict[str, str], dict[str, str]]] = {
    "pcm.wav": ("pcm_s16le", 16_000, {}, {}),
    "adpcm.wav": ("adpcm_ima_wav", 16_000, {}, {}),
    "rf64.wav": ("pcm_s16le", 16_000, {}, {"rf64": "always"}),
    "pcm.w64": ("pcm_s16le", 16_000, {}, {}),
    "pcm.aiff": ("pcm_s16be", 16_000, {}, {}),
    "pcm.au": ("pcm_s16be", 16_000, {}, {}),
    "pcm.caf": ("pcm_s16le", 16_000, {}, {}),
    "alac.caf": ("alac", 44_100, {}, {}),
    "a.flac": ("flac", 16_000, {}, {}),
    "cbr.mp3": ("libmp3lame", 44_100, {"b": "64000"}, {}),
    "vbr.mp3": ("libmp3lame", 44_100, {"q": "5"}, {}),
    "bare.mp3": ("libmp3lame", 44_100, {"b": "64000"}, {"write_xing": "0", "id3v2_version": "0"}),
    "bare_vbr.mp3": ("libmp3lame", 44_100, {"q": "2"}, {"write_xing": "0", "id3v2_version": "0"}),
    "adts.aac": ("aac", 44_100, {"b": "64000"}, {}),
    "aac.m4a": ("aac", 44_100, {"b": "64000"}, {}),
    "alac.m4a": ("alac", 44_100, {}, {}),
    "fragments.mp4": (
        "aac",
        44_100,
        {"b": "64000"},
        {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"},
    ),
    "fast.mp4": ("aac", 44_100, {"b": "64000"}, {"movflags": "faststart"}),
    "pcm.mov": ("pcm_s16le", 16_000, {}, {}),
    "opus.ogg": ("libopus", 48_000, {"b": "48000"}, {}),
    "vorbis.ogg": ("vorbis", 44_100, {"strict": "experimental"}, {}),
    "flac.ogg": ("flac", 16_000, {}, {}),
    "opus.webm": ("libopus", 48_000, {"b": "48000"}, {}),
    "aac.mkv": ("aac", 44_100, {"b": "64000"}, {}),
    "mp3.avi": ("libmp3lame", 44_100, {"b": "64000"}, {}),
    "pcm.avi": ("pcm_s16le", 16_000, {}, {}),
    "aac.ts": ("aac", 44_100, {"b": "64000"}, {}),
    "mp2.mpg": ("mp2", 44_100, {"b": "128000"}, {}),
    "aac.flv": ("aac", 44_100, {"b": "64000"}, {}),
    "wma.wma": ("wmav2", 44_100, {"b": "64000"}, {}),
    "a.ac3": ("ac3", 48_000, {"b": "96000"}, {}),
    "a.wv": ("wavpack", 16_000, {}, {}),
    "a.tta": ("tta", 16_000, {}, {}),
    "a.amr": ("libopencore_amrnb", 8_000, {"b": "12200"}, {}),
}


def tone(seconds: float, hz: float = 440, rate: int = 16_000, channels: int = 1) -> Samples:
    """(samples, channels)."""
    wave = 0.5 * np.sin(np.arange(round(seconds * rate)) * hz * 2 * np.pi / rate)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def write_sound(path: Path, samples: Samples, kind: str | None = None, rate: int | None = None, **more: str) -> Path:
    """Samples as a file of the given kind, by default that of its name; `rate` is that of the samples."""
    codec, native, options, muxing = KINDS[kind or path.name]
    rate = rate or native
    layout = {1: "mono", 2: "stereo"}.get(samples.shape[1], f"{samples.shape[1]} channels")
    with av.open(str(path), "w", options={**muxing, **more}) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout=layout, options=options)
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        block.sample_rate, block.pts = rate, 0
        convert = av.AudioResampler(stream.format, layout, rate, frame_size=stream.codec_context.frame_size or 4096)
        for frame in (*convert.resample(block), *convert.resample(None)):
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def pitch(samples: Samples, seconds: float, rate: int = 16_000) -> float:
    """The loudest frequency of the half second from there on, in Hz."""
    part = samples[round(seconds * rate) :][: rate // 2]
    return float(np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part))


def id3(size: int) -> bytes:
    """An ID3v2 tag of anything, such as a picture."""
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + digits + np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes()


def retimed(source: Path, target: Path, when: Callable[[float], float]) -> Path:
    """The same packets at other times, in seconds."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.size and packet.pts is not None:
                packet.pts = packet.dts = round(when(float(packet.pts * packet.time_base)) / packet.time_base)
                packet.stream = stream
                new.mux(packet)
    return target
