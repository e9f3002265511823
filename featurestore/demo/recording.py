"""Record a clip: pictures, sound, and the mp4, wav and face files they go into."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurestore.demo.drawing import crop_face, draw_face
from featurestore.demo.script import CLIPS, EMOTIONS, FPS, Clip
from featurestore.errors import MissingPackageError

MOVIE_RATE_HZ, WAV_RATE_HZ = 44100, 16000
# Two B-frames and one keyframe. Without cpu-independent the same pictures give other bytes from run to run.
X264 = {"preset": "veryfast", "crf": "23", "bf": "2", "g": "250", "x264-params": "cpu-independent=1"}


def require_packages() -> None:
    """MissingPackageError where what the demo dataset is made with is not installed."""
    try:
        import av  # noqa: F401 - to know that it is there
        import cv2  # noqa: F401 - as well
    except ImportError as error:
        raise MissingPackageError(
            "the demo dataset is made with av and opencv, which are not installed: pip install 'featurestore[encoders]'"
        ) from error


def intensity(clip: Clip) -> NDArray[np.float64]:
    """How strong the expression is, (n_frames,) in 0 to 1.  A cusp: 1 at the peak frame and clearly less beside it."""
    distance = np.abs(np.arange(clip.n_frames) - clip.peak_index)
    return np.exp(-distance / (clip.n_frames / 8))


def pictures(clip: Clip) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(n_frames, 288, 360, 3) and the faces in them, (n_frames, 112, 112, 3), both uint8 BGR."""
    number = CLIPS.index(clip)
    whole, faces = [], []
    for index, amount in enumerate(intensity(clip)):
        seconds = index / FPS
        # A nod and a sway, so that no two frames are equal.
        shift = (14 * np.sin(0.9 * seconds + number), 7 * np.sin(1.7 * seconds + 2 * number))
        picture = draw_face(number, EMOTIONS[clip.emotion].expression.times(float(amount)), shift)
        whole.append(picture)
        faces.append(crop_face(picture, shift))
    return np.stack(whole), np.stack(faces)


def sound(clip: Clip, rate_hz: int) -> NDArray[np.float32]:
    """A voice-like hum as long as the clip, (samples,) in [-1, 1]; louder and higher with the expression."""
    number = CLIPS.index(clip)
    seconds = np.arange(clip.n_frames * rate_hz // FPS) / rate_hz
    amount = np.interp(seconds * FPS, np.arange(clip.n_frames), intensity(clip))
    pitch_hz = (110 + 15 * (number % 6)) * (1 + 0.4 * amount)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / rate_hz
    hum = sum(np.sin(k * phase) / k for k in range(1, 9))
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 3.5 * seconds)
    voice: NDArray[np.float32] = (0.25 * hum * syllables * (0.35 + 0.65 * amount)).astype(np.float32)
    return voice


def write_movie(path: Path, clip: Clip, frames: NDArray[np.uint8]) -> None:
    """h264 (yuv420p, 2 B-frames, one keyframe, as most MER2023 clips) with stereo AAC sound at 44.1 kHz."""
    import av  # an extra; only who makes the demo dataset needs it

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as movie:
        video = movie.add_stream("libx264", rate=FPS, options=X264)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        video.codec_context.thread_count = 1
        audio = movie.add_stream("aac", rate=MOVIE_RATE_HZ, layout="stereo", options={"aac_coder": "fast"})
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            movie.mux(video.encode(frame))
        stereo = np.stack([sound(clip, MOVIE_RATE_HZ)] * 2)
        for start in range(0, stereo.shape[1], 1024):
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(stereo[:, start : start + 1024]), format="fltp", layout="stereo"
            )
            piece.sample_rate, piece.pts, piece.time_base = MOVIE_RATE_HZ, start, Fraction(1, MOVIE_RATE_HZ)
            movie.mux(audio.encode(piece))
        movie.mux(video.encode(None))
        movie.mux(audio.encode(None))


def write_wav(path: Path, clip: Clip) -> None:
    """16 kHz mono, 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(WAV_RATE_HZ)
        file.writeframes((sound(clip, WAV_RATE_HZ) * 32767).astype("<i2").tobytes())
