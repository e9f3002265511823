"""From a decoded frame to the pixels of an encoder: upright, squashed, red first."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.container import import_av, named

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# The part of a display matrix that turns and mirrors, in units of a whole -> filters that make the picture upright.
_UPRIGHT: dict[tuple[int, ...], tuple[tuple[str, str], ...]] = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (-1, 0, 0, -1): (("hflip", ""), ("vflip", "")),
    (-1, 0, 0, 1): (("hflip", ""),),
    (1, 0, 0, -1): (("vflip", ""),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
}
_ROUNDING = 0.01
"""by which an element may differ from a whole one: writers compute sine and cosine"""


def orientation(frame: VideoFrame, path: Path) -> tuple[int, ...]:
    """The display matrix of a frame, one of `_UPRIGHT`.  Raises MediaError for others, e.g. a turn by 45 degrees."""
    try:
        beside: Any = frame.side_data  # of which PyAV's types say something else
        data = next((bytes(each) for each in beside if each.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # PyAV has no name for something else that came with the frame
        data = None
        if frame.rotation:
            quarters = {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}
            return quarters.get(frame.rotation, (0, 0, 0, 0))
    if data is None:
        return (1, 0, 0, 1)
    a, b, _, c, d, *_ = struct.unpack("=9i", data[:36])
    # A matrix may scale as well, which is left to whoever shows the picture.
    across, down = math.hypot(a, c) or 1.0, math.hypot(b, d) or 1.0
    parts = (a / across, b / down, c / across, d / down)
    whole = tuple(round(part) for part in parts)
    if whole not in _UPRIGHT or max(abs(part - near) for part, near in zip(parts, whole, strict=True)) > _ROUNDING:
        raise MediaError(
            f"{path} turns or bends its image by something else than quarters (display matrix {a / 65536:.3f} "
            f"{b / 65536:.3f} {c / 65536:.3f} {d / 65536:.3f}); write it upright, e.g. with ffmpeg",
            path,
        )
    return whole


class Scale:
    """Frame -> (height, width, 3) RGB; valid until the next call.  Raises MediaError."""

    def __init__(self, path: Path, time_base: Fraction, size: tuple[int, int]) -> None:
        self.path = path
        self.time_base = time_base
        self.height, self.width = size
        self._made_for: tuple[Any, ...] = ()
        self._graph: Any = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        # A stream may change its picture format on the way.
        kind = (frame.width, frame.height, frame.format.name, orientation(frame, self.path))
        with named(self.path):
            if kind != self._made_for:
                self._graph, self._made_for = self._make(frame), kind
            self._graph.push(frame)
            plane = self._graph.pull().planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(self.height, plane.line_size)
        return rows[:, : self.width * 3].reshape(self.height, self.width, 3)

    def _make(self, frame: VideoFrame) -> Any:
        graph = import_av().filter.Graph()
        graph.threads = 1
        chain = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base),
            *(graph.add(name, arguments) for name, arguments in _UPRIGHT[orientation(frame, self.path)]),
            graph.add("scale", f"{self.width}:{self.height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return graph
