"""A decoder that says which packet each picture is of, and which packets it found damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from featurestore.media.container import import_av

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

EACH = 8
"""pictures are numbered by the position of their packet times this, plus how many came of the same packet before"""

# Decoders that look over more than they tell unless they are asked, and one that tells its checksums to the log only.
_ASKED = ("hevc", "mjpeg")
_LOGGED = ("ffv1",)


class Decoder:
    """Of one opened stream.

    Attributes:
        damaged: positions of packets that could not be decoded, or whose picture the decoder calls damaged.
        skips: whether pictures that no other needs may be left out.
    """

    def __init__(self, stream: Any, skips: bool = False, allow_corrupt: bool = False) -> None:
        av = import_av()
        self.damaged: list[int] = []
        self.skips = skips
        self._stream = stream
        self._context = stream.codec_context
        self._wrong = (av.error.InvalidDataError, av.error.ArgumentError)
        self._logging = av.logging
        self._logged = self._context.name in _LOGGED
        self._context.flags |= av.codec.context.Flags.copy_opaque
        if self._context.name in _ASKED and not allow_corrupt:
            self._context.options = {"err_detect": "crccheck+explode"}
        self._skipping = False
        self._last = (-1, 0)  # position of the picture that came last, and how many came of that packet

    def decode(self, packet: Any, position: int, wanted: bool = True) -> Iterator[tuple[int, VideoFrame]]:
        """(number, picture) of all that come out now; a picture that is not wanted need not."""
        packet.opaque = [position]  # an object of its own: PyAV finds it again by its address
        if self.skips and self._skipping == wanted:
            self._skipping = not wanted
            self._context.skip_frame = "DEFAULT" if wanted else "NONREF"
        yield from self._told(packet, position)

    def drain(self) -> Iterator[tuple[int, VideoFrame]]:
        """What is still inside; after it another part of the file may begin."""
        yield from self._told(None, self._last[0])
        self._context.flush_buffers()

    def _told(self, packet: Any, position: int) -> Iterator[tuple[int, VideoFrame]]:
        try:
            if self._logged:
                self._logging.set_level(self._logging.ERROR)
                with self._logging.Capture() as said:
                    frames = self._stream.decode(packet)
                self._logging.set_level(None)
                if said:
                    self.damaged.append(position)
            else:
                frames = self._stream.decode(packet)
        except self._wrong:
            self.damaged.append(position)
            return
        for frame in frames:
            (of,) = frame.opaque
            self._last = (of, self._last[1] + 1 if self._last[0] == of else 0)
            if frame.is_corrupt:
                self.damaged.append(of)
            yield of * EACH + min(self._last[1], EACH - 1), frame
