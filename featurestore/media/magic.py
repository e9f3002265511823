"""Magic: what a file is that is no video and no sound, by its first bytes, so that a message can say it."""

from __future__ import annotations

from pathlib import Path

from featurestore.untrusted_io.files import open_untrusted

_LIST = "it is a list that names other files ({}); name the file that holds the video or the audio"
_STILL = "it is an image ({}), not a video; make a video of it, or name one"
_PAGE = "it is a page of text (HTML), as a server sends it in the place of a file; copy or download it again"

# (offset, bytes, what it is)
_KNOWN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"#EXTM3U", _LIST.format("HLS")),
    (0, b"ffconcat", _LIST.format("ffconcat")),
    (0, b"v=0", _LIST.format("SDP")),
    (0, b"[playlist]", _LIST.format("pls")),
    (0, b"\x89PNG", _STILL.format("PNG")),
    (0, b"\xff\xd8\xff", _STILL.format("JPEG")),
    (0, b"BM", _STILL.format("BMP")),
    (0, b"II*\0", _STILL.format("TIFF")),
    (0, b"MM\0*", _STILL.format("TIFF")),
    (0, b"8BPS", _STILL.format("Photoshop")),
    (0, b"%PDF", "it is a document (PDF)"),
    (0, b"PK\3\4", "it is an archive (zip); unpack it"),
    (0, b"\x1f\x8b", "it is compressed (gzip); unpack it"),
    (0, b"7z\xbc\xaf", "it is an archive (7z); unpack it"),
    (257, b"ustar", "it is an archive (tar); unpack it"),
    (0, b"version https://git-lfs", "it is a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
)


def what_it_is(path: Path) -> str | None:
    """Half a sentence, with what to do; None where it is not known."""
    try:
        with open_untrusted(path) as (file, _):
            head = file.read(1024)
    except OSError:
        return None
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        moves = b"ANIM" in head[:64]
        return "it is a WebP image" + (" that moves, which FFmpeg cannot read; make a video of it" if moves else "")
    for at, begin, what in _KNOWN:
        if head[at : at + len(begin)] == begin:
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return _PAGE
    if text.startswith((b"<?xml", b"<mpd", b"<smil")) and (b"<mpd" in text or b"<smil" in text):
        return _LIST.format("DASH" if b"<mpd" in text else "SMIL")
    if not head.strip(b"\0"):
        return "it begins with zeros only, as a copy that was broken off leaves it; copy or download it again"
    if _scrambled(head):
        return "it is an encrypted (scrambled) broadcast; name a file that is not protected"
    return None


def _scrambled(head: bytes) -> bool:
    """A transport stream whose packets say so."""
    packets = [head[at : at + 4] for at in range(0, len(head) - 3, 188)]
    return all(each[0] == 0x47 for each in packets) and any(each[3] & 0x80 for each in packets)
