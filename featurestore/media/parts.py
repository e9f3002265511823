"""Parts: sounds that follow each other in one file, and what is stated about the length of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featurestore.errors import MediaError


@dataclass
class Part:
    """One of them; a file that was not joined has one."""

    spans: list[tuple[int, int]]
    """(first byte, byte after the last) of what a demuxer is given, one behind the other"""
    samples: int = 0
    """that an Ogg stream says it has; 0 if it does not"""
    rate: int = 0
    """samples in a second of those"""
    frames: int = 0
    """that were counted"""
    stated_frames: int = 0
    """that an MP3 says it has; 0 if it does not"""
    stated: bool = False
    """a header says how long the part is, in whatever unit, and all of it is there"""
    incomplete: bool = False
    """it begins or ends with a piece of a frame"""


def cut_off(path: Path, announced: str, there: str) -> MediaError:
    return MediaError(
        f"{path} is cut off: its header announces {announced}, and {there} are there; copy or extract it again", path
    )
