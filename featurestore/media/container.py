"""Opening a media file with PyAV, such that every error names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import MediaError, MissingPackageError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream


@contextmanager
def opened_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """(container, the best of its video streams, which is not cover art); MediaError if it has none.

    Whatever PyAV raises inside the `with` becomes a MediaError.  Opened for each use: a container that two
    processes share hangs, and one that is not closed keeps its threads and buffers.
    """
    av = import_av()
    with _opened(path) as container:
        stream = container.streams.best("video")
        if not isinstance(stream, av.VideoStream) or stream.disposition & av.stream.Disposition.attached_pic:
            kinds = ", ".join(sorted({other.type for other in container.streams})) or "nothing"
            raise MediaError(f"{path} has no video stream, only {kinds}; name a file with pictures", path)
        _check_codec(path, stream)
        stream.codec_context.thread_count = 1  # parallel over clips, which costs less in all
        yield container, stream


@contextmanager
def opened_audio(path: Path) -> Iterator[tuple[InputContainer, AudioStream]]:
    """(container, the best of its audio streams); otherwise as `opened_video`."""
    av = import_av()
    with _opened(path) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise MediaError(f"{path} has no audio stream; name a file with sound", path)
        _check_codec(path, stream)
        yield container, stream


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Packets with data; the last one that PyAV yields only says that the file is over."""
    return (packet for packet in container.demux(stream) if packet.size)


def import_av() -> Any:
    """PyAV, which costs 0.1 s: importing a module of ours must not."""
    try:
        import av
        import av.filter  # not loaded by the above
    except ImportError as error:
        raise MissingPackageError("reading video needs PyAV: pip install 'featurestore[encoders]'") from error
    return av


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Make what PyAV raises a MediaError of this file."""
    av = import_av()
    try:
        yield
    except av.error.FFmpegError as error:
        advice = "look what it is, e.g. with ffprobe, and copy or download it again"
        raise MediaError(f"{path} is not media that can be decoded: {error.strerror}; {advice}", path) from error
    except MemoryError as error:
        failed = MediaError(f"{path} needs more memory than this process may have", path)
        failed.deterministic = False
        raise failed from error


def _check_codec(path: Path, stream: Stream) -> None:
    if stream.codec_context is None:
        raise MediaError(f"{path} has a {stream.type} stream of a codec that cannot be decoded here", path)


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    av = import_av()
    av.logging.set_level(None)  # what it has to say is in its exceptions
    # `file:` because a name may contain a colon; only files, because a playlist could name anything.
    options = {"protocol_whitelist": "file"}
    with named(path), av.open(f"file:{path}", metadata_errors="replace", options=options) as container:
        yield container
