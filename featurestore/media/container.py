"""Opening a media file with PyAV, such that every error names the file and nothing but the file is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.errors import MediaError, MissingPackageError
from featurestore.media.magic import what_it_is
from featurestore.media.source import Reading, Span, opened_file

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

# Readers of FFmpeg for files that hold pictures or sound themselves.  Others follow names in a file to other
# files (concat, hls, dash, imf, sdp, image2), make something up (lavfi), or read any text or number as a picture.
DEMUXERS = (
    # pictures, with or without sound
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,asf_o,ogg,mxf,nut,ivf,rm,gxf,dv,wtv,nuv,nsv,"
    "gif,apng,yuv4mpegpipe,obu,av1,h264,hevc,vvc,m4v,mpegvideo,mjpeg,h261,h263,vc1,vc1test,dirac,cavsvideo,swf,bink,smk,roq,"
    # sound
    "wav,w64,aiff,au,caf,flac,mp3,aac,loas,ac3,eac3,ac4,dts,dtshd,truehd,mlp,amr,amrnb,amrwb,ape,wv,tta,tak,mpc,mpc8,shn,"
    "voc,sox,ircam,nistsphere,avr,dsf,iff,gsm,g722,g729,qcp,oma,aa,aax,act,dss,sbc,codec2,osq,qoa,lc3,iamf,xwma,pvf,w64"
)
_STILLS = {"heic", "heix", "heim", "heis", "mif1", "avif"}  # what an ISO file says that it is


@contextmanager
def opened_video(
    path: Path, track: int | None = None, reading: Reading | None = None, quick: bool = False
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """(container, its video stream): the one with number `track`, or the one that is meant; MediaError if it has none.

    reading    the open file, if it is open already
    quick      decode no picture while it is opened, where the file's header tells what this would; what it does not
               tell is then not known: the format of the pictures, and how far a stream without a word about it reorders

    Whatever PyAV raises inside the `with` becomes a MediaError.  Opened for each use: a container that two
    processes share hangs, and one that is not closed keeps its threads and buffers.
    """
    with _opened(path, reading, quick) as container:
        if not quick or track is not None or _is_told(container):
            stream: Any = container.streams[_meant(path, container) if track is None else track]
            _check_codec(path, stream)
            stream.codec_context.thread_count = 1  # parallel over clips, which costs less in all
            yield container, stream
            return
    with opened_video(path, track, reading) as found:
        yield found


def _is_told(container: InputContainer) -> bool:
    """Whether quick opening told enough: there is no choice of tracks, and how the pictures are ordered is known."""
    videos = container.streams.video
    contexts = [stream.codec_context for stream in videos if stream.codec_context is not None]
    # The packets of H.264 say themselves in which order they are shown; other decoders know it with the format, or not.
    return len(videos) == 1 and all(each.name == "h264" or each.pix_fmt is not None for each in contexts)


@contextmanager
def opened_audio(path: Path, reading: Reading | Span) -> Iterator[tuple[InputContainer, AudioStream]]:
    """(container, the best of its audio streams); otherwise as `opened_video`."""
    av = import_av()
    with _opened(path, reading) as container:
        stream = container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            raise MediaError(f"{path} has no audio stream; name a file with audio", path)
        _check_codec(path, stream)
        yield container, stream


def packets_of(path: Path, container: InputContainer, stream: Any, *others: Any) -> Iterator[Packet[Any]]:
    """Packets with data, of other streams too if wanted; the last one that PyAV yields only says that the file is over.

    Raises MediaError if they are encrypted: a decoder would call them damaged.
    """
    for packet, _ in told_packets(path, container, stream, *others):
        yield packet


def told_packets(
    path: Path, container: InputContainer, stream: Any, *others: Any
) -> Iterator[tuple[Packet[Any], bool]]:
    """(packet, whether it has side data), otherwise as `packets_of`."""
    if "enc_key_id" in stream.metadata:
        raise encrypted(path)
    again = import_av().error.BlockingIOError
    for _ in range(_ASTRAY):
        try:
            for packet in container.demux(stream, *others):
                if packet.size:
                    # What they are costs ten times as much to ask, of each packet.
                    beside = next(packet.iter_sidedata(), None) is not None
                    if beside and packet.has_sidedata("encryption_info"):
                        raise encrypted(path)
                    yield packet, beside
            return
        except again:  # among bytes that are no packets, which some demuxers step over a piece at a time
            continue
        except IndexError:  # at the end, where PyAV does not know a stream that began in the middle
            return


def encrypted(path: Path) -> MediaError:
    """What is said of a protected file, by its name: its whole path is in the record of the failure."""
    return MediaError(
        f"{path.name} is encrypted: it is whole, and cannot be read without its key; name a file that is not protected",
        path,
    )


def import_av() -> Any:
    """PyAV, which costs 0.1 s: importing a module of ours must not."""
    try:
        import av
        import av.filter  # not loaded by the above
    except ImportError as error:
        raise MissingPackageError("reading media needs PyAV: pip install 'featurestore[encoders]'") from error
    av.logging.set_skip_repeated(False)  # a decoder that says the same of two files says it of both
    return av


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Make what PyAV raises a MediaError of this file."""
    av = import_av()
    try:
        yield
    except MemoryError as error:  # before FFmpeg's, one of which is this as well
        raise out_of_memory(path) from error
    except av.error.FFmpegError as error:
        raise _undecodable(path, error.strerror) from error


def out_of_memory(path: Path) -> MediaError:
    """That says nothing about the file, so it is not recorded."""
    error = MediaError(f"{path} needs more memory than this process may have", path)
    error.deterministic = False
    return error


def _undecodable(path: Path, why: str) -> MediaError:
    what = what_it_is(path)
    if what is not None:
        return MediaError(f"{path} is not media that can be decoded: {what}", path)
    advice = "look what it is, e.g. with ffprobe, and copy or download it again"
    return MediaError(f"{path} is not media that can be decoded: {why}; {advice}", path)


def _meant(path: Path, container: InputContainer) -> int:
    """The number of the video stream that is meant: pictures that move, not artwork.

    A track of one picture beside one that moves is no choice, whatever it is marked as.
    """
    disposition = import_av().stream.Disposition
    no_video = disposition.attached_pic | disposition.timed_thumbnails
    tracks = [stream.index for stream in container.streams.video if not stream.disposition & no_video]
    if not tracks:
        kinds = ", ".join(sorted({other.type for other in container.streams})) or "nothing"
        raise MediaError(f"{path} has no video stream, only {kinds}; name a video", path)
    moving = tracks if len(tracks) == 1 else _moving(path, tracks)
    best = container.streams.best("video")
    if best is not None and best.index in moving:
        return int(best.index)
    if len(moving) > 1:
        raise MediaError(
            f"{path} has several video streams, {' and '.join(map(str, moving))}, and marks another, a still image, "
            "as the one to show; name a file with one of them, e.g. made by ffmpeg -map",
            path,
        )
    return moving[0]


def _moving(path: Path, tracks: list[int]) -> list[int]:
    """Tracks of more than one picture, or all if there is none."""
    count = dict.fromkeys(tracks, 0)
    with _opened(path) as container:
        for packet in container.demux(*(container.streams[track] for track in tracks)):
            count[packet.stream.index] += bool(packet.size)
            if min(count.values()) > 1:
                break
    return [track for track in tracks if count[track] > 1] or tracks


def _check_codec(path: Path, stream: Stream) -> None:
    if stream.codec_context is None:
        raise MediaError(f"{path} has a {stream.type} stream of a codec that cannot be decoded here", path)


@contextmanager
def _opened(path: Path, reading: Reading | Span | None = None, quick: bool = False) -> Iterator[InputContainer]:
    if reading is None:
        with opened_file(path) as (file, _), _opened(path, Reading(file, path), quick) as container:
            yield container
            return
    av = import_av()
    reading.seek(0)
    av.logging.set_level(None)  # what it has to say is in its exceptions
    # What is in a file may name anything: FFmpeg is given its bytes, no name, and no way to open another.
    options = {"protocol_whitelist": "", "format_whitelist": DEMUXERS}
    if isinstance(reading, Reading) and reading.begins_with(_SAYS_ALL):  # `extent` has looked at those of sound
        if reading.header_is_cut():
            raise MediaError(f"{path} is cut off within its table of contents; copy or download it again", path)
        if quick:
            options |= _QUICK
    with named(path):
        try:
            container = av.open(reading, metadata_errors="replace", options=options, buffer_size=_BUFFER)
        except av.error.ArgumentError as error:  # not on the list
            raise _undecodable(path, "it holds no video and no audio itself") from error
        reading.begin()
        with container:
            if container.metadata.get("major_brand", "").strip() in _STILLS:
                raise MediaError(f"{path} is not media that can be decoded: it is a still image (HEIF or AVIF)", path)
            yield container


# Beginnings of files whose header says of each track what it holds.
_SAYS_ALL = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_QUICK = {"skip_frame": "all", "probesize": "2048"}
_BUFFER = 1 << 18  # bytes that are read at a time
_ASTRAY = 10_000
