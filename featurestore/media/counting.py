"""Count, order and times of frames by the decoder itself, where the packets do not guarantee them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.media.container import opened_video, packets_of
from featurestore.media.decoder import EACH, Decoder
from featurestore.media.marks import CLEAN, OPEN, WHOLE
from featurestore.media.scan import NO_TIME, SHOWN, TIMED, Scan

_ONE_EACH = ("mpeg1video", "mpeg2video")  # codecs of which a packet is a picture, if a decoder finds it


def counted(scan: Scan) -> dict[str, Any]:
    """Decode everything, and take count, order and times from what comes out."""
    frames: list[int] = []
    keys: list[int] = []
    came_before: list[tuple[int, int]] = []
    with opened_video(scan.path, track=scan.track) as (container, stream):
        decoder = Decoder(stream)

        def told(pictures: Iterator[tuple[int, Any]]) -> None:
            for number, picture in pictures:
                frames.append(number)
                if picture.key_frame:
                    keys.append(number // EACH)

        for position, packet in enumerate(packets_of(scan.path, container, stream)):
            if position >= len(scan.flags):
                break
            known = len(decoder.damaged)
            told(decoder.decode(packet, position))
            if len(decoder.damaged) > known:
                came_before.append((position, len(frames)))
        told(decoder.drain())
    return _numbered(scan, frames, keys, decoder.damaged, came_before)


def _numbered(
    scan: Scan, frames: list[int], keys: list[int], broken: list[int], came_before: list[tuple[int, int]]
) -> dict[str, Any]:
    """Frame numbers for the pictures as they came; `came_before` tells of damage: (position, pictures before)."""
    hidden = scan.flags & SHOWN == 0
    lasts = [number for number in frames if not hidden[number // EACH]]
    # A decoder may make pictures up until the first that it can decode.
    first = next((at for at, number in enumerate(lasts) if number // EACH in keys), 0)
    order = np.array(lasts[first:], np.int64)
    # A packet that gives no picture at all is a frame that is lost, unless it is at either end.
    given = {number // EACH for number in frames}
    lost = [position for position, count in came_before if position not in given and 0 < count < len(frames)]
    if scan.codec in _ONE_EACH:
        lost = sorted({*lost, *_silent(given, keys)})
    unsure = len(order)
    if lost and len(given) + len(lost) == len(scan.flags) and len(np.unique(scan.pts)) == len(scan.flags):
        order = np.array([*order, *(position * EACH for position in lost if not hidden[position])])
        order = order[np.argsort(scan.pts[order // EACH])]
    elif lost:  # the numbers of those that came after it are not sure
        came = next((at for at, number in enumerate(frames) if number // EACH > lost[0]), len(frames))
        came = min([came, *(count for position, count in came_before if position in lost)])
        unsure = max(came - (len(frames) - len(order)), 0)
    begins = np.flatnonzero(scan.flags & (CLEAN | OPEN | WHOLE)) if scan.marked else np.unique(keys)
    damaged = _damaged(order, begins.astype(np.int64), scan.begun, np.unique([*broken, *lost]))
    damaged[unsure:] = True
    return {
        "total": len(order),
        "frames": order,
        "seconds": _seconds(scan, order),
        "damaged": damaged,
    }


def _silent(given: set[int], keys: list[int]) -> list[int]:
    """Positions without a picture, though the decoder said nothing, between those that have one."""
    if not keys:
        return []
    after = min(keys) + 1
    while after not in given and after < max(given):  # pictures that lead the first one need what is not there
        after += 1
    return [position for position in range(after, max(given)) if position not in given]


def _seconds(scan: Scan, order: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Of the frames, as far as the file states them: those of their packets, or the steady rate of an AVI."""
    if scan.format == "avi":
        times = np.sort(scan.dts)
        if not scan.rate or len(times) < len(order) or (scan.dts == NO_TIME).any():
            return None
        return np.arange(len(order)) / float(scan.rate)
    times = scan.pts[order // EACH]
    if scan.format not in TIMED and scan.format not in ("mpeg", "asf", "asf_o", "ogg", "mxf", "rm", "dv", "gif"):
        return None
    if not len(times) or (times == NO_TIME).any() or (np.diff(times) < 0).any():
        return None
    return np.asarray((times - times[0]) * float(scan.time_base), np.float64)


def _damaged(
    order: NDArray[np.int64], begins: NDArray[np.int64], begun: NDArray[np.int32], broken: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(frames,) whether a picture was decoded after damage, without one that makes all whole between."""
    found = np.zeros(len(order), np.bool_)
    if not len(broken):
        return found
    position = order // EACH
    shown_at = {int(each): at for at, each in enumerate(position)}
    for at, each in enumerate(position):
        start = 0
        for begin in reversed(begins[: np.searchsorted(begins, each, "right")]):
            if shown_at.get(int(begin), len(order)) <= at:
                start = int(begun[begin])
                break
        found[at] = bool(np.searchsorted(broken, start) < np.searchsorted(broken, each, "right"))
    return found
