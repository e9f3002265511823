"""The samples of a sound, each in its place, or a word about what is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.clock import ANEW, Clock
from featurestore.media.container import import_av, packets_of
from featurestore.media.frames import mpeg_bytes
from featurestore.media.lengths import stated_seconds
from featurestore.media.parts import Part, cut_off
from featurestore.media.resampling import Mono
from featurestore.media.source import TOLERANCE_S, Span

# Containers that begin and end anywhere, as what is broadcast does: the first and the last packet may be pieces.
_STREAMS = ("mp3", "aac", "loas", "ac3", "eac3", "dts", "truehd", "mlp", "mpegts", "mpeg", "amr")
# Those that are nothing but frames, so that each byte is of one (mp3 and aac: see `frames`).
_BARE = ("loas", "ac3", "eac3", "amr")
# Those whose packets are pieces of any size: the last one is short, and that says nothing.
_PIECES = ("wav", "w64", "aiff", "au", "caf", "voc", "sox", "ircam", "nistsphere", "iff", "pvf", "avr", "mp3", "xwma")
# Those whose length is, to FFmpeg, that of the header.
_LENGTHS = ("wv", "tta", "ape", "tak", "mpc8", "mpc", "dsf", "shn", "nistsphere", "caf")
# Decoders that make something of a piece of a frame, and those that tell what they find to the log only.
_MPEG_AUDIO = ("mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float")
_LOGGED = (*_MPEG_AUDIO, "wmav1", "wmav2")
_REST = 1 << 16  # bytes that are looked at
_MOST_SUSPECTS = 1000


class Soundtrack:
    """Decodes the sound of a part of a file into `mono`.

    Attributes:
        samples: how many were decoded, in the rates of the stream.
        incomplete: a packet at the end, or at the beginning of a broadcast, is, and was left out.
    """

    def __init__(self, path: Path, part: Part, file: Span, container: Any, stream: Any, mono: Mono) -> None:
        self.path = path
        self.part = part
        self.mono = mono
        self.samples = 0
        self.incomplete = part.incomplete
        self._file = file
        self._container = container
        self._stream = stream
        self._format = container.format.name
        self._codec = stream.codec_context.name
        self._clock = Clock(path, self._format)
        self._began = mono.seconds
        self._known = self._tracks()
        self._places: dict[int, tuple[int, int]] = {}  # of the first and the last packet of each stream
        self._end = 0  # of the last packet, in the file
        self._broken = False
        self._suspects: list[Any] = []  # frames of packets that are marked, and may be whole
        # FFmpeg takes away too much or too little where all Vorbis of an Ogg stream is in one page, and of ALAC in CAF.
        self._most = part.samples if self._codec == "vorbis" else 0
        if self._most or (self._codec == "alac" and self._format == "caf"):
            stream.codec_context.flags2 |= import_av().codec.context.Flags2.skip_manual
        stream.codec_context.thread_count = 1  # parallel over clips, which costs less in all
        stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}

    def decode(self) -> None:
        """All of it.  Raises MediaError if it is damaged, shorter than stated, or goes on in another stream."""
        others = [each for each in self._container.streams.audio if each.index != self._stream.index]
        wanted = packets_of(self.path, self._container, self._stream, *(others if self._format in ANEW else ()))
        for number, packet in enumerate(wanted):
            if packet.stream.type != "audio":  # what another recording has under this number
                continue
            first, _ = self._places.get(packet.stream.index, (number, 0))
            self._places[packet.stream.index] = first, number
            if packet.stream.index == self._stream.index:
                self._hear(packet, number == first)
        for frame in self._frames(None):
            self._take(frame)
        self.incomplete |= self._broken or bool(self._suspects) or self._left_out(self._file.seek(0, 2))
        self._check_alone()
        self._check_length()

    def _hear(self, packet: Any, first: bool) -> None:
        if self._format in _BARE and packet.pos is not None:
            self._broken |= self._left_out(packet.pos)
            self._end = packet.pos + packet.size
        frames = self._frames(packet)
        if self._most and first:  # what it would overlap with is not there
            return
        if self._codec in _MPEG_AUDIO and packet.size < mpeg_bytes(bytes(memoryview(packet)[:4])):
            self._broken, frames = True, []
        if packet.is_corrupt and self._format not in _PIECES:
            self._suspects += frames
            if len(self._suspects) > _MOST_SUSPECTS:
                raise self._damaged()
            return
        for frame in frames:
            self._take(frame)

    def _frames(self, packet: Any) -> list[Any]:
        av = import_av()
        try:
            if self._codec not in _LOGGED:
                return list(self._stream.decode(packet))
            av.logging.set_level(av.logging.ERROR)
            try:
                with av.logging.Capture() as said:
                    frames = list(self._stream.decode(packet))
            finally:
                av.logging.set_level(None)
            if not said:
                return frames
        except (av.error.InvalidDataError, av.error.ArgumentError, av.error.EOFError):
            pass
        self._broken = True
        return []

    def _take(self, frame: Any) -> None:
        """Add a frame that is whole, and those before it that turn out to be; MediaError if something is missing."""
        if frame.is_corrupt:
            self._broken = True
            return
        suspects, self._suspects = self._suspects, []
        if self._broken or suspects:
            joined = not self._broken and self._clock.begins_anew(suspects[0])
            if self._format not in _STREAMS or (self.samples and not joined):
                raise self._damaged()
            if not self.samples:  # it begins in the middle
                self.incomplete, suspects = True, []
        self._broken = False
        for each in (*suspects, frame):
            self.mono.add_silence(self._clock.silence_before(each, self.mono.seconds))
            block = planes(each)
            if self._most:
                block = block[:, : self._most - self.samples]
            self.mono.add(block, each.sample_rate)
            self.samples += block.shape[1]

    def _tracks(self) -> int:
        """How many streams of sound FFmpeg knows of by now; PyAV lists those of the beginning."""
        logging = import_av().logging
        logging.set_level(logging.INFO)  # or there is nothing to read
        try:
            return str(self._container.dumps_format()).count(": Audio: ")
        finally:
            logging.set_level(None)

    def _left_out(self, before: int) -> bool:
        """Whether there is a piece of a packet between the last one and a place in the file."""
        at = self._file.tell()
        if self._format == "mpegts":
            self._file.seek(0)
            piece = before % (188 if self._file.read(1) == b"\x47" else 192) > 0
        elif self._format not in _BARE or not 0 < self._end < before:
            return False
        else:
            self._file.seek(self._end)
            piece = bool(self._file.read(min(before - self._end, _REST)).strip(b"\0"))
        self._file.seek(at)
        return piece

    def _check_alone(self) -> None:
        first, last = self._places.get(self._stream.index, (0, 0))
        apart = any(begin > last or end < first for begin, end in self._places.values())
        if apart or (self._format in ANEW and self._tracks() > self._known):
            raise MediaError(
                f"{self.path} has an audio stream that begins where another ends: recordings were joined; cut it "
                "into files of one each, or make one sound of them, e.g. by ffmpeg's filter concat",
                self.path,
            )

    def _check_length(self) -> None:
        part = self.part
        if self._broken and not self.samples:
            raise MediaError(
                f"{self.path}: none of its sound can be decoded ({self._codec} in {self._format}): it is damaged, or "
                "of a kind that FFmpeg does not read; copy it again, or convert it, e.g. to flac",
                self.path,
            )
        if part.frames < part.stated_frames - 1:  # some count the one that states it
            raise cut_off(self.path, f"{part.stated_frames} frames", f"{part.frames}")
        total = self._flac_samples()
        if self.samples < total:
            raise cut_off(self.path, f"{total} samples", f"{self.samples}")
        stated = part.samples / part.rate if part.rate else 0.0
        if self._format.startswith(("mov", "matroska")) or self._format in _LENGTHS:
            format = "mov" if self._format in _LENGTHS else self._format
            seconds, of_this = stated_seconds(format, self._stream, self._file)
            stated = seconds if of_this else 0.0
        heard = max(float(self.mono.seconds - self._began), self._clock.end_s)
        if heard < stated - TOLERANCE_S:
            raise cut_off(self.path, f"{stated:.2f} s", f"{heard:.2f} s")
        if self._clock.filled and heard > (self._container.duration or 0) / 1e6 + TOLERANCE_S:
            raise MediaError(
                f"{self.path} is damaged: its times go on after its end; copy or download it again", self.path
            )
        if self.incomplete and (part.stated or part.stated_frames or total or stated):
            raise MediaError(f"{self.path} is damaged at the end of its sound; copy or download it again", self.path)

    def _flac_samples(self) -> int:
        """That the header of a FLAC states; 0 if it does not."""
        header = bytes(self._stream.codec_context.extradata or b"") if self._format == "flac" else b""
        return int.from_bytes(header[13:18], "big") & (1 << 36) - 1

    def _damaged(self) -> MediaError:
        return MediaError(
            f"{self.path} is damaged at {float(self.mono.seconds):.2f} s of its sound; copy or download it again",
            self.path,
        )


def planes(frame: Any) -> NDArray[np.float32]:
    """(channels, samples) in [-1, 1] of a decoded frame of any number format."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values * 2.0 ** (1 - 8 * values.dtype.itemsize)
    return np.asarray(values, np.float32)
