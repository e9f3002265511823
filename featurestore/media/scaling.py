"""From a decoded frame to the pixels of an encoder: upright, squashed, red first."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.container import import_av, named

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# Display matrix in degrees, counter-clockwise -> filters that turn the picture upright.
_UPRIGHT = {
    0: (),
    90: (("transpose", "cclock"),),
    -90: (("transpose", "clock"),),
    180: (("hflip", ""), ("vflip", "")),
    -180: (("hflip", ""), ("vflip", "")),
}


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
        kind = (frame.width, frame.height, frame.format.name, frame.rotation)
        with named(self.path):
            if kind != self._made_for:
                self._graph, self._made_for = self._make(frame), kind
            self._graph.push(frame)
            plane = self._graph.pull().planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(self.height, plane.line_size)
        return rows[:, : self.width * 3].reshape(self.height, self.width, 3)

    def _make(self, frame: VideoFrame) -> Any:
        if frame.rotation not in _UPRIGHT:
            raise MediaError(f"{self.path} turns its picture by {frame.rotation} degrees, not by a quarter", self.path)
        graph = import_av().filter.Graph()
        graph.threads = 1
        chain = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=self.time_base),
            *(graph.add(name, arguments) for name, arguments in _UPRIGHT[frame.rotation]),
            graph.add("scale", f"{self.width}:{self.height}:flags=bilinear"),
            graph.add("format", "rgb24"),
            graph.add("buffersink"),
        ]
        graph.link_nodes(*chain).configure()
        return graph
