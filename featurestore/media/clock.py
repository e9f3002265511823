"""When the frames of a sound are heard, by the times of their container: where there is silence, and where damage."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from featurestore.errors import MediaError

# Containers that state when each packet is heard, and those among them in which time may begin anew.
_TIMED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "live_flv", "asf", "asf_o", "nut", "mpegts", "mpeg")
ANEW = ("mpegts", "mpeg")

GAP_S = 0.25
"""seconds without sound between two packets that are heard as silence; less is how exact times are"""
LONGEST_GAP_S = 3600
JUMP_S = 10  # longer ones are another programme, where time may begin anew


class Clock:
    """Follows the frames of one stream.

    Attributes:
        end_s: when the last one ends; 0 where the container does not say.
        filled: there was silence between two packets.
    """

    def __init__(self, path: Path, format: str) -> None:
        self.path = path
        self.end_s = 0.0
        self.filled = False
        self._format = format
        self._timed = format in _TIMED or format == "flac"
        self._next: Fraction | None = None  # the time at which the next frame is expected

    def late(self, frame: Any) -> Fraction:
        """By how many seconds a frame comes after the end of the one before."""
        if not self._timed or frame.pts is None or self._next is None:
            return Fraction(0)
        return Fraction(frame.pts * frame.time_base) - self._next

    def begins_anew(self, frame: Any) -> bool:
        """Whether a frame is of another recording than the one before: it needs nothing of it."""
        return self._format in ANEW and not -GAP_S <= self.late(frame) <= JUMP_S

    def silence_before(self, frame: Any, heard: Fraction) -> Fraction:
        """Seconds of silence between the frame before, where `heard` seconds of sound end, and this one.

        Raises MediaError if times jump as only those of a damaged file do.
        """
        late, anew = self.late(frame), self.begins_anew(frame)
        if self._timed and frame.pts is not None:
            self._next = frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)
            self.end_s = max(self.end_s, float(self._next))
        lost = self._format == "flac" and late != 0  # these are numbers of samples
        if not lost and (abs(late) <= GAP_S or anew):
            return Fraction(0)
        if lost or not 0 < late < LONGEST_GAP_S:
            raise MediaError(
                f"{self.path} is damaged: its times jump by {float(late):.2f} s at {float(heard):.2f} s of its sound "
                f"(up to {LONGEST_GAP_S} s without sound are read as silence); copy or download it again",
                self.path,
            )
        self.filled |= self._format not in ANEW
        return late
