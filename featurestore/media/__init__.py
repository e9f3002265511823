"""Media: frames of videos, face crops and sound, decoded in worker processes that a bad file cannot take along.

Everything here is a plain function of a path, so that it can be sent to a worker, and what it returns
is data.  The names below are loaded when they are first used: a worker that is starting must set its
limits before numpy and a decoder are imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.media.audio import Audio, audio_recipe, audio_windows, read_audio
    from featurestore.media.faces import FaceIndex, count_faces, face_recipe, read_faces
    from featurestore.media.pool import DecodePool
    from featurestore.media.resampling import SAMPLE_RATE_HZ
    from featurestore.media.video import DecodedFrames, VideoIndex, decode_frames, index_video, video_recipe

MEDIA_VERSIONS = {"frame": 2, "face": 1, "audio": 2}
"""Part of every recipe, by modality; goes up when the same file would give other numbers, or another failure.

frame 2: pictures of odd files: packed B-frames, fields, gradual refresh, mirrored matrices, starts in the middle
audio 2: sound of all files by FFmpeg, to its real end: joined files, formats that change, lengths that nobody stated
"""

__all__ = [
    "MEDIA_VERSIONS",
    "media_recipe",
    # video
    "DecodedFrames",
    "VideoIndex",
    "decode_frames",
    "index_video",
    "video_recipe",
    # faces
    "FaceIndex",
    "count_faces",
    "face_recipe",
    "read_faces",
    # sound
    "SAMPLE_RATE_HZ",
    "Audio",
    "audio_recipe",
    "audio_windows",
    "read_audio",
    # workers
    "DecodePool",
]

_HOME = {
    "DecodedFrames": "video",
    "VideoIndex": "video",
    "decode_frames": "video",
    "index_video": "video",
    "video_recipe": "video",
    "FaceIndex": "faces",
    "count_faces": "faces",
    "face_recipe": "faces",
    "read_faces": "faces",
    "SAMPLE_RATE_HZ": "resampling",
    "Audio": "audio",
    "audio_recipe": "audio",
    "audio_windows": "audio",
    "read_audio": "audio",
    "DecodePool": "pool",
}


def media_recipe(modality: str, size: tuple[int, int] | None, allow_corrupt: bool = False) -> dict[str, Any]:
    """What the media of a modality contribute to a recipe: decoder, resize rule, colour order, sample rate.

    size    (height, width) of the encoder's images; None for sound and text
    """
    # These modules import no decoder at their top; a recipe is made before the first miss.
    if modality == "frame" and size is not None:
        from featurestore.media.video import video_recipe

        return {"version": MEDIA_VERSIONS[modality], **video_recipe(size, allow_corrupt)}
    if modality == "face" and size is not None:
        from featurestore.media.faces import face_recipe

        return {"version": MEDIA_VERSIONS[modality], **face_recipe(size)}
    if modality == "audio":
        from featurestore.media.audio import audio_recipe

        return {"version": MEDIA_VERSIONS[modality], **audio_recipe()}
    return {}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
