"""Which frames a video has, which packets they come from, and when they are shown.

Where container and codec guarantee that a packet is a picture and has its time, a scan of the packets tells,
which decodes nothing.  Elsewhere the decoder is asked: pictures of two packets, packets of two pictures or of
none, times of the order of the file, and streams that change on the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.errors import MediaError
from featurestore.media.container import opened_video, packets_of
from featurestore.media.counting import counted
from featurestore.media.decoder import EACH, Decoder
from featurestore.media.lengths import missing_seconds
from featurestore.media.marks import CLEAN, HIDDEN, OPEN, WHOLE
from featurestore.media.scan import KEY, SHOWN, Scan
from featurestore.media.source import Reading, check_unchanged, opened_file, source_of


@dataclass(frozen=True)
class VideoIndex:
    """What a scan tells.  The arrays of packets have one entry per packet with data, in the order of the file."""

    path: Path
    total: int
    """frames that a player shows; frame numbers are 0 to total - 1"""
    frames: NDArray[np.int64]
    """(total,) which picture each is: the position of its packet times EACH, plus which of that packet"""
    seconds: NDArray[np.float64] | None
    """(total,) after the first frame; None where the file does not say"""
    pts: NDArray[np.int64]
    """(packets,) presentation time, NO_TIME where a packet has none"""
    size: NDArray[np.int32]
    """(packets,) bytes"""
    flags: NDArray[np.uint8]
    """(packets,) CLEAN, OPEN and WHOLE of `bitstream`: where to begin, and where damage ends"""
    begun: NDArray[np.int32]
    """(packets,) for a WHOLE packet, the position from which on nothing may be damaged; others have their own"""
    source: dict[str, Any]
    """{path, size, mtime_ns, sha256}"""
    track: int
    """number of the stream in the file"""
    missing_s: float = 0.0
    """seconds between the end of the last frame and the end that the header announces: the file is cut off"""
    skips: bool = False
    """pictures that the stream marks as needed by no other may be left out"""
    damaged: NDArray[np.bool_] | None = None
    """(total,) where the decoder was asked: frames that are damaged, or whose number damage makes unsure"""

    @property
    def counted(self) -> bool:
        """Whether the decoder was asked for count, order and times."""
        return self.damaged is not None


def index_video(path: str | Path) -> VideoIndex:
    """Scan the packets of the video stream that is meant: no artwork, and what moves rather than a still.

    Raises MediaError if the file is missing, empty, no video, encrypted, or has no video stream or no frames.
    """
    path = Path(path)
    with opened_file(path) as (file, status):
        reading = Reading(file, path, digest=True)
        with opened_video(path, reading=reading, quick=True) as (container, stream):
            scan = Scan(path, container, stream)
            source = source_of(path, status, reading.sha256())
            missing_s = missing_seconds(path, stream, scan, file)
            index = _index(scan, source, missing_s)
    check_unchanged(source)
    if index.total == 0:
        raise MediaError(f"{path} has a video stream without frames; copy or download it again", path)
    return index


def _index(scan: Scan, source: dict[str, Any], missing_s: float) -> VideoIndex:
    parts: dict[str, Any] = {
        "path": scan.path,
        "pts": scan.pts,
        "size": scan.size,
        "flags": scan.flags & (CLEAN | OPEN | WHOLE),
        "begun": scan.begun,
        "source": source,
        "track": scan.track,
        "missing_s": missing_s,
    }
    if not scan.guaranteed:
        return VideoIndex(**parts, **counted(scan))
    shown = np.flatnonzero((scan.flags & SHOWN > 0) & (scan.flags & HIDDEN == 0))
    shown = shown[np.argsort(scan.pts[shown])]
    shown = shown[_first_shown(scan, shown) :]
    times = scan.pts[shown]
    return VideoIndex(
        **parts,
        total=len(shown),
        frames=shown * EACH,
        seconds=np.asarray((times - times[:1]) * float(scan.time_base), np.float64),
        skips=scan.codec in ("h264", "hevc") and not scan.layers,
    )


def _first_shown(scan: Scan, shown: NDArray[np.int64]) -> int:
    """Pictures at the start that cannot be decoded, because the file begins in the middle, are no frames."""
    clean = np.flatnonzero(scan.flags & CLEAN)
    first_clean = int(clean[0]) if len(clean) else len(scan.flags)
    if first_clean == 0:
        return 0
    out = -1
    with opened_video(scan.path, track=scan.track) as (container, stream):
        decoder = Decoder(stream)
        for position, packet in enumerate(packets_of(scan.path, container, stream)):
            if 0 <= out < position * EACH and scan.flags[position] & (CLEAN | OPEN):
                break
            came = [number for number, _ in decoder.decode(packet, position)]
            out = came[0] if out < 0 and came else out
        came = [number for number, _ in decoder.drain()]
        out = came[0] if out < 0 and came else out
    if out < 0 or (scan.flags[0] & KEY and 0 in decoder.damaged):
        return 0  # that it is damaged is said of the frame that is asked for
    # What follows a picture that begins anew is a frame, and damaged if it does not come out.
    before = (scan.pts[shown] < scan.pts[out // EACH]) & (shown < first_clean)
    return int(np.count_nonzero(before))
