"""One pass over the packets of a file, which decodes nothing."""

from __future__ import annotations

from array import array
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.media.bitstream import ONE_BY_ONE, bitstream_of
from featurestore.media.container import told_packets
from featurestore.media.marks import WHOLE, Bitstream

NO_TIME = np.iinfo(np.int64).min
# Containers that state for each packet when it is shown.
TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "live_flv", "mpegts", "nut", "ivf")
KEY, SHOWN, _CORRUPT = 32, 64, 128  # beside the flags of `marks`


class Scan:
    """What the packets of a stream say, without their data.

    Attributes:
        pts, dts, durations: (packets,) int64 in units of `time_base` seconds, NO_TIME where there is none.
        size: (packets,) bytes.
        flags: (packets,) those of `marks`, with SHOWN and KEY.
        begun: (packets,) for a WHOLE packet the position at which its refresh began, for others their own.
        guaranteed: whether each packet is a picture, and its time that at which it is shown.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path = path
        self.format = container.format.name
        self.codec = stream.codec_context.name
        self.track = stream.index
        self.time_base = stream.time_base or Fraction(1)
        self.rate = stream.average_rate or stream.guessed_rate
        # Of H.264 that is known only after some pictures, but each packet can be asked.
        reorders = bool(stream.codec_context.has_b_frames) or self.codec == "h264"
        # Data of packets are looked at and left: a list of packets would hold the whole file.
        bits = bitstream_of(self.codec, stream.codec_context.extradata)
        self.marked = bits is not None
        pts, dts, size, flags, begun = array("q"), array("q"), array("i"), array("B"), array("i")
        durations = array("q")
        header = bytes(stream.codec_context.extradata or b"")
        changes = False
        rises = True  # the time of each packet is after that of the one before
        before = None
        for position, (packet, beside) in enumerate(told_packets(path, container, stream)):
            # Each of these costs a tenth of the whole for a long file, so each is asked once.
            time, decoding = packet.pts, packet.dts
            time = NO_TIME if time is None else time
            pts.append(time)
            dts.append(NO_TIME if decoding is None else decoding)
            size.append(packet.size)
            durations.append(packet.duration or 0)
            rises = rises and (before is None or time > before)
            before = time
            found = 0
            if bits is not None:
                bits.watched = reorders and rises
                found = bits.look(memoryview(packet), position)
            begun.append(bits.begun if bits is not None and found & WHOLE else position)
            found |= packet.is_keyframe and KEY
            found |= 0 if packet.is_discard else SHOWN
            found |= packet.is_corrupt and _CORRUPT
            flags.append(found)
            changes |= beside and position > 0 and _other_header(packet, header)
        # The last packet of a file that was cut off is incomplete; it would be a frame made up by the decoder.
        while flags and flags[-1] & _CORRUPT:
            for each in (pts, dts, size, flags, begun, durations):
                each.pop()
        self.pts = np.frombuffer(pts, np.int64) if pts else np.empty(0, np.int64)
        self.dts = np.frombuffer(dts, np.int64) if dts else np.empty(0, np.int64)
        self.durations = np.array(durations, np.int64)
        self.size = np.array(size, np.int32)
        self.flags = np.array(flags, np.uint8)
        self.begun = np.array(begun, np.int32)
        self.layers = bits is not None and bits.layers
        self.guaranteed = self._guaranteed(bits, reorders and rises, changes)

    def _guaranteed(self, bits: Bitstream | None, doubtful: bool, changes: bool) -> bool:
        """Whether a packet is a picture, and its time the time at which it is shown."""
        if bits is None or bits.odd or changes:
            return False
        if self.format not in TIMED and not (self.codec in ONE_BY_ONE or self.codec == "ffv1"):
            return False
        times, decoding = self.pts, self.dts[self.dts != NO_TIME]
        if (times == NO_TIME).any() or len(np.unique(times)) < len(times) or (np.diff(decoding) < 0).any():
            return False
        # Times of decoding that stand in for those of display are in the order of the file, and pictures are not.
        return not doubtful or len(times) < 2 or bits.in_order


def _other_header(packet: Any, header: bytes) -> bool:
    data = bytes(packet.get_sidedata("new_extradata"))
    return bool(data) and data != header
