"""Sound: how long the wav of a sample is, and whether anything is in it, for what features of it cannot tell."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

RATE_HZ = 16_000
CUT = 160_000  # samples: audio encoders of MERTools are given pieces of 10 s
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Sound:
    """What an audit needs to know of one wav."""

    samples: int
    """at 16 kHz"""
    silent: bool
    """every sample is 0"""

    @property
    def pieces(self) -> int:
        """How many pieces of 10 s it is cut into; the last one is filled up with zeros."""
        return max(1, -(-self.samples // CUT))

    @property
    def rows(self) -> int:
        """How many frames the scripts make of it: one piece as it is, several of 499 each."""
        return 499 * self.pieces if self.pieces > 1 else max(0, (self.samples - 400) // 320 + 1)

    @property
    def padding(self) -> float:
        """Share of what went in that is zeros behind the end."""
        return 1 - self.samples / (CUT * self.pieces) if self.pieces > 1 else 0.0


def hear(path: Path) -> Sound | None:
    """A wav of plain numbers; None for what cannot be read as one, which decides nothing here."""
    try:
        with wave.open(str(path), "rb") as file:
            count, rate = file.getnframes(), file.getframerate()
            if rate <= 0:
                return None
            zero = 0x80 if file.getsampwidth() == 1 else 0
            silent = True
            while silent and (piece := file.readframes(PIECE)):
                silent = not piece.strip(bytes([zero]))
            return Sound(count * RATE_HZ // rate, silent)
    except (OSError, EOFError, wave.Error):
        return None
