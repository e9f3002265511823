"""Decoding one clip against its bound, and handing pictures from a worker to the program.

    python benchmarks/decoding.py [--rounds 9] [--quick]                               about 1 minute

Against rivals: real footage of ../shared/media, 6 s of 720p coded again at a keyframe every 12 frames, at one
keyframe, and under noise at 3 Mbit/s; open, index and exact RGB frames of the source's size, ours with its digest.
Left out where there is no footage, and rivals that are not installed (see rivals.py).  `--hours 2` adds a video of
1080p of that length.

Against the bound: the clip is 5 s of 720p h264 with one keyframe, made in code; `uniform/8` needs all of it, and a
tight group of frames in the middle a half.  The bound is what cannot be avoided: decoding what other frames are
predicted from, up to the last frame asked for, and eight pictures through libavfilter's scale.  CPU
seconds, because the bound is on one thread.
Does not show: other codecs, a slow disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from multiprocessing import get_context, shared_memory
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import write_clip, write_long
from handing import PICTURES, pictures, pictures_in_shared_memory
from harness import options, save, scratch, spread, table
from numpy.typing import NDArray
from rivals import recoded, rivals

from featurestore.media import DecodePool, decode_frames, index_video, worker
from featurestore.media.decoder import EACH
from featurestore.media.scaling import Scale
from featurestore.media.source import file_source
from featurestore.media.video import VideoIndex


def main() -> None:
    chosen = options(__doc__, rounds=(9, 1), hours=(0, 0))
    rounds = chosen.rounds
    with scratch(chosen.dir) as root:
        raced = against_rivals(root, rounds)
        lasting = [long_video(root / "long.mp4", chosen.hours)] if chosen.hours else []
        write_clip(root / "clip.mp4", 5.0, 0)
        index = index_video(root / "clip.mp4")
        cases = {
            "uniform/8": [i * index.total // 8 for i in range(8)],
            "8 in the middle": [index.total // 2 + i for i in range(-4, 4)],
        }
        rows = [row for name, asked in cases.items() for row in against_bound(name, index, asked, rounds)]
        rows += before_decoding(index, rounds)
        handed = hand_over(10 * rounds)
    result = {"rounds": rounds, "frames": index.total, "rows": rows, "handed_over": handed, "rivals": raced}
    save("decoding", {**result, "long": lasting})
    for found in (raced, lasting):
        if found:
            print(table(found))
            print()
    print(table(rows))
    print()
    print(table(handed))


def against_bound(name: str, index: VideoIndex, asked: list[int], rounds: int) -> list[dict[str, Any]]:
    last = int(index.frames[asked].max()) // EACH
    frames = some_frames(index)
    rivals: dict[str, Callable[[], Any]] = {
        "bound": lambda: (decode_referenced(index.path, last), scale_all(index, frames)),
        "decode_frames": lambda: decode_frames(index, asked),
        "every frame, full size": lambda: decode_all(index.path, set(asked)),
    }
    taken = cpu_interleaved(rivals, rounds)
    least = min(taken["bound"])
    return [
        {"frames": name, "what": rival, **spread(times, 1e3), "times bound": round(min(times) / least, 3)}
        for rival, times in taken.items()
    ]


def before_decoding(index: VideoIndex, rounds: int) -> list[dict[str, Any]]:
    """The digest is part of the index."""
    taken = cpu_interleaved(
        {"index": lambda: index_video(index.path), "digest": lambda: file_source(index.path)}, rounds
    )
    return [{"frames": "", "what": what, **spread(times, 1e3)} for what, times in taken.items()]


FOOTAGE = Path(__file__).resolve().parents[2] / "shared" / "media" / "real" / "liveportrait_s32.mp4"


def against_rivals(root: Path, rounds: int) -> list[dict[str, Any]]:
    """CPU milliseconds of each reader, and whether its frames are those of decoding everything by PyAV."""
    if not FOOTAGE.is_file():
        return []
    noisy = {"b": "3M", "maxrate": "3M", "bufsize": "3M", "crf": "-1"}
    clips = {
        "keyframe every 12": recoded(FOOTAGE, root / "gop12.mp4", 12),
        "one keyframe": recoded(FOOTAGE, root / "gop250.mp4", 999),
        "noisy, 3 Mbit/s, keyframe every 12": recoded(FOOTAGE, root / "noisy.mp4", 12, noisy, 12),
    }
    chosen = {"uniform/8": [i * 180 // 8 for i in range(8)], "emotion_peak/8": [0, 45, 88, 89, 90, 91, 92, 135]}
    rows = []
    for clip, path in clips.items():
        for name, numbers in chosen.items():
            readers = rivals()
            truth = decode_frames(index_video(path), range(180), (720, 1280)).pixels[numbers]
            same = {each: bool(np.array_equal(read(path, numbers), truth)) for each, read in readers.items()}
            calls = {each: partial(read, path, numbers) for each, read in readers.items()}
            taken = cpu_interleaved(calls, rounds)
            for each, times in taken.items():
                row = {"clip": clip, "frames": name, "reader": each, **spread(times, 1e3), "equal": same[each]}
                rows.append({**row, "ours is": round(min(taken["featurestore"]) / min(times), 3)})
    return rows


def long_video(path: Path, hours: int) -> dict[str, Any]:
    """CPU seconds and MiB at most of uniform/8 of a long video of 1080p, in a process of its own."""
    write_long(path, hours)
    with get_context("spawn").Pool(1) as alone:
        return alone.apply(measure_long, (path,))


def measure_long(path: Path) -> dict[str, Any]:
    start = time.process_time()
    index = index_video(path)
    indexed = time.process_time()
    decode_frames(index, [i * index.total // 8 for i in range(8)])
    done = time.process_time()
    most = most_mib()
    file_source(path)
    digested = time.process_time()
    packets(path)
    read = time.process_time()
    return {
        "frames of the video": index.total,
        "MiB of the file": path.stat().st_size >> 20,
        "index with digest, CPU s": round(indexed - start, 2),
        "uniform/8, CPU s": round(done - indexed, 2),
        "most MiB": most,
        "digest alone, CPU s": round(digested - done, 2),
        "packets alone, CPU s": round(read - digested, 2),
    }


def packets(path: Path) -> None:
    """What PyAV takes to hand out each packet, which no one looks at."""
    with av.open(str(path)) as movie:
        for _ in movie.demux(video=0):
            pass


def most_mib() -> int:
    """Of this process alone: `ru_maxrss` begins with what the one that started it had."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10


def some_frames(index: VideoIndex) -> list[av.VideoFrame]:
    with av.open(str(index.path)) as movie:
        return [frame for frame, _ in zip(movie.decode(video=0), range(8), strict=False)]


def scale_all(index: VideoIndex, frames: list[av.VideoFrame]) -> None:
    scale = Scale(index.path, Fraction(1), PICTURES[1:3])
    for frame in frames:
        scale(frame)


def decode_referenced(path: Path, last: int) -> None:
    """Decode what others are predicted from, up to a position in the file, and look at nothing."""
    with av.open(str(path)) as movie:
        stream = movie.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.skip_frame = "NONREF"
        for position, packet in enumerate(movie.demux(stream)):
            packet.decode()
            if position == last:
                break


def decode_all(path: Path, asked: set[int]) -> list[NDArray[Any]]:
    """The plain way: decode every frame, keep those asked for, as large as they are."""
    with av.open(str(path)) as movie:
        movie.streams.video[0].codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24") for i, frame in enumerate(movie.decode(video=0)) if i in asked]


def cpu_interleaved(rivals: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    return taken


# -- from worker to program ----------------------------------------------------------------------------


def receive(name: str) -> NDArray[np.uint8]:
    block = shared_memory.SharedMemory(name=name)
    copied = np.ndarray(PICTURES, np.uint8, block.buf).copy()
    block.close()
    block.unlink()
    return copied


def hand_over(rounds: int) -> list[dict[str, Any]]:
    """Wall milliseconds from the call to the array in the program, of eight pictures that cost nothing to make."""
    wide = worker.PIPE_BYTES
    worker.PIPE_BYTES = 1 << 16  # what a pipe has by default
    with DecodePool(1) as narrow_pool:
        narrow_pool.submit(pictures).result()
        worker.PIPE_BYTES = wide
        with DecodePool(1) as wide_pool:
            rivals: dict[str, Callable[[], Any]] = {
                "nothing": lambda: wide_pool.submit(int).result(),
                "pipe of 64 KiB": lambda: narrow_pool.submit(pictures).result(),
                "pipe of 1 MiB (ours)": lambda: wide_pool.submit(pictures).result(),
                "shared memory": lambda: receive(wide_pool.submit(pictures_in_shared_memory).result()),
            }
            taken: dict[str, list[float]] = {name: [] for name in rivals}
            for _ in range(rounds):
                for name, call in rivals.items():
                    start = time.perf_counter()
                    call()
                    taken[name].append(time.perf_counter() - start)
    return [{"8 pictures by": name, **spread(times, 1e3)} for name, times in taken.items()]


if __name__ == "__main__":
    main()
