"""H.264 and HEVC: packets of NAL units, and the few of their bits that say where decoding may begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from featurestore.media.marks import CLEAN, OPEN, WHOLE, Bitstream

_HEADER = 32  # bytes of a slice that hold all that is read of its header


class Nals(Bitstream):
    """H.264 and HEVC: packets of units, with a length before each or a start code between them."""

    lengths_at = 4

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self.counted = len(extradata) > self.lengths_at and extradata[0] == 1
        self.width = (extradata[self.lengths_at] & 3) + 1 if self.counted else 0
        self.known: set[bytes] = set()  # sets of parameters that a decoder has from the header of the file
        self.later: set[bytes] = set()  # and those that it has only if it was given the packet that has them
        self.sequences: set[bytes] = set()
        self.begin(extradata)

    def begin(self, extradata: bytes) -> None:
        """Take the sets of parameters in the header of the file."""
        raise NotImplementedError

    def units(self, data: memoryview) -> Iterator[Any]:
        """Units of a packet, in order."""
        if not self.counted:
            yield from _between_start_codes(bytes(data))
            return
        at, end = 0, len(data)
        while at + self.width < end:
            length = int.from_bytes(data[at : at + self.width], "big")
            at += self.width
            yield data[at : at + length]
            at += length

    def sequence(self, unit: bytes) -> None:
        """Take note of a set of parameters of a whole sequence."""
        # With another one, another stream begins: what is still to be shown of the last is for the decoder to say.
        self.odd |= bool(self.sequences) and unit not in self.sequences
        self.sequences.add(unit)

    def complete(self, seen: set[bytes]) -> bool:
        """Whether a decoder that begins with this packet has all sets of parameters; `seen` are those in it."""
        self.later |= seen - self.known
        return self.later <= seen


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    at = data.find(b"\0\0\1")
    while at >= 0:
        after = data.find(b"\0\0\1", at + 3)
        yield data[at + 3 : after if after >= 0 else len(data)]
        at = after


class H264(Nals):
    IDR, SEI, SPS, PPS = 5, 6, 7, 8

    def begin(self, extradata: bytes) -> None:
        self.to_go = -1  # pictures of reference until a refresh is complete; -1: none is under way
        self.began = 0
        self.order: _Order | None = None
        self.turn = 0  # of the picture before
        if not self.counted:
            found = list(_between_start_codes(extradata))
        else:
            found, at = [], 5
            for mask in (31, 255):
                count, at = extradata[at] & mask if at < len(extradata) else 0, at + 1
                for _ in range(count):
                    length = int.from_bytes(extradata[at : at + 2], "big")
                    found.append(extradata[at + 2 : at + 2 + length])
                    at += 2 + length
        for unit in found:
            raw = bytes(unit).rstrip(b"\0")
            self.known.add(raw)
            if raw and raw[0] & 31 == self.SPS:
                self.sequence(raw)

    def sequence(self, unit: bytes) -> None:
        super().sequence(unit)
        frames_only, self.order = _sequence(unit)
        # Without this flag each field may be a picture, and a packet, of its own.
        self.odd |= not frames_only
        self.in_order = self.order is not None

    def look(self, data: memoryview, position: int) -> int:
        if self.to_go < 0 and (unit := self.alone(data)):
            if self.watched:
                self.watch(unit, False)
            return 0
        seen, recovery = set(), None
        for unit in self.units(data):
            if not len(unit):
                continue
            kind = unit[0] & 31
            if kind in (self.SPS, self.PPS):
                raw = bytes(unit).rstrip(b"\0")
                seen.add(raw)
                if kind == self.SPS and raw not in self.sequences:
                    self.sequence(raw)
            elif kind == self.SEI:
                recovery = _recovery_point(bytes(unit[1:])) or recovery
            elif kind in (1, 2, self.IDR):
                if self.watched:
                    self.watch(bytes(unit[:_HEADER]), kind == self.IDR)
                return self.picture(kind, unit[0] >> 5 & 3, recovery, self.complete(seen), position)
        self.complete(seen)
        return 0

    def alone(self, data: memoryview) -> bytes:
        """The beginning of a picture that needs others, where nothing is before it in its packet; else nothing.

        Nearly all packets are such, and going through their units would cost more than reading them from the file.
        """
        head = bytes(data[: self.width + _HEADER]) if self.counted else b""
        if len(head) <= self.width or head[self.width] & 31 != 1:
            return b""
        return head[self.width :][: int.from_bytes(head[: self.width], "big")]

    def watch(self, unit: bytes, idr: bool) -> None:
        """See whether a picture is shown after the one before it in the file."""
        if self.order is None or not self.order.turn:
            return
        turn, range_ = self.order.of(unit, idr), 1 << self.order.turn
        self.in_order &= idr or 0 < (turn - self.turn) % range_ < range_ // 2
        self.turn = turn

    def picture(self, kind: int, reference: int, recovery: tuple[int, bool] | None, ready: bool, position: int) -> int:
        if kind == self.IDR:
            self.to_go = -1
            return CLEAN if ready else 0
        flags = 0
        if recovery is not None and recovery[1]:
            if recovery[0] == 0:
                self.to_go = -1
                return OPEN if ready else 0
            if self.to_go < 0:
                self.to_go, self.began = recovery[0], position
                return 0
        if reference and self.to_go >= 0:
            self.to_go -= 1
            if self.to_go <= 0:
                flags, self.begun, self.to_go = WHOLE, self.began, -1
        return flags


class Hevc(Nals):
    lengths_at = 21

    def begin(self, extradata: bytes) -> None:
        self.ended = False
        if not self.counted:
            self.known |= {bytes(unit).rstrip(b"\0") for unit in _between_start_codes(extradata)}
        at = 23
        for _ in range(extradata[22] if self.counted and len(extradata) > 22 else 0):
            count, at = int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
            for _ in range(count):
                length = int.from_bytes(extradata[at : at + 2], "big")
                self.known.add(extradata[at + 2 : at + 2 + length].rstrip(b"\0"))
                at += 2 + length
        for unit in self.known:
            if unit and unit[0] >> 1 & 63 == 33:
                self.sequence(unit)

    def look(self, data: memoryview, position: int) -> int:
        seen = set()
        flags = 0
        for unit in self.units(data):
            if len(unit) < 3:
                continue
            kind = unit[0] >> 1 & 63
            if 32 <= kind <= 34:
                raw = bytes(unit).rstrip(b"\0")
                seen.add(raw)
                if kind == 33 and raw not in self.sequences:
                    self.sequence(raw)
            elif kind < 32:
                flags = self.picture(kind, unit, self.complete(seen), position)
                break
        # After the end of a sequence, pictures that lead the next one are not shown.
        self.ended = bytes(data[-5:]) in (b"\0\0\2\x48\1", b"\0\0\1\x48\1", b"\0\0\1\x4a\1", b"\0\0\2\x4a\1")
        return flags

    def picture(self, kind: int, unit: Any, ready: bool, position: int) -> int:
        self.layers |= unit[1] & 7 > 1
        if not 16 <= kind <= 21:
            return 0
        fresh = kind in (19, 20)
        # Broken links, and sequences that do not show what they hold, are for the decoder to count.
        self.odd |= position > 0 and (kind in (16, 17, 18) or (not fresh and self.ended) or bool(unit[2] & 0x40))
        if not ready:
            return 0
        return CLEAN if fresh else OPEN


class _Bits:
    """The bits of a unit, without the bytes that keep start codes out; zeros after its end."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self.value = int.from_bytes(plain, "big")
        self.left = 8 * len(plain)  # below 0 after the end

    def take(self, count: int) -> int:
        self.left -= count
        whole = self.value >> self.left if self.left >= 0 else self.value << -self.left
        return whole & (1 << count) - 1

    def number(self) -> int:
        """An Exp-Golomb code."""
        rest = self.value & (1 << max(self.left, 0)) - 1
        zeros = self.left - rest.bit_length() if rest else 32
        if zeros > 31:
            self.left -= 32
            return 0
        self.left -= zeros + 1
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass(frozen=True)
class _Order:
    """Where the header of a slice says the turn in which its picture is shown: bits of what is before it, and of it."""

    planes: int
    number: int
    turn: int
    """0: pictures are shown in the order of the file"""

    def of(self, unit: bytes, idr: bool) -> int:
        """The turn that a slice says, modulo 2 ** turn."""
        start = unit[1:9]
        left = 64 - _three_codes(start[:2]) - self.planes - self.number - self.turn
        if left >= 0 and not idr and len(start) == 8 and b"\0\0\3" not in start:
            return int.from_bytes(start, "big") >> left & (1 << self.turn) - 1
        bits = _Bits(unit[1:])
        for _ in range(3):  # first macroblock, type, set of parameters
            bits.number()
        bits.take(self.planes + self.number)
        if idr:
            bits.number()
        return bits.take(self.turn)


@lru_cache(1 << 8)
def _three_codes(start: bytes) -> int:
    """How many bits three Exp-Golomb codes take, of which the first bytes are given; 64 if they are longer."""
    bits = _Bits(start)
    for _ in range(3):
        bits.number()
    return 8 * len(start) - bits.left if bits.left >= 0 else 64


_WITH_CHROMA = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles


def _sequence(unit: bytes) -> tuple[bool, _Order | None]:
    """Of a sequence parameter set of H.264: whether all pictures are whole frames, and how each says its turn."""
    bits = _Bits(unit[1:])
    planes = 0
    profile = bits.take(8)
    bits.take(16)
    bits.number()
    if profile in _WITH_CHROMA:
        chroma = bits.number()
        if chroma == 3:
            planes = bits.take(1)
        bits.number()
        bits.number()
        bits.take(1)
        if bits.take(1):
            for matrix in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if matrix < 6 else 64)
    number = bits.number() + 4
    order = bits.number()
    turn = 0
    if order == 0:
        turn = bits.number() + 4
    elif order == 1:
        bits.take(1)
        bits.number()
        bits.number()
        for _ in range(min(bits.number(), 255)):
            bits.number()
    bits.number()
    bits.take(1)
    bits.number()
    bits.number()
    return bool(bits.take(1)), _Order(2 * planes, number, turn) if order != 1 else None


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.number()
            following = (last + (code + 1 >> 1) * (1 if code & 1 else -1)) & 255
        last = following or last


def _recovery_point(data: bytes) -> tuple[int, bool] | None:
    """(pictures until all is whole, whether it is then exact) of a supplemental message of H.264, if it has one."""
    at = 0
    while at + 2 < len(data):
        kind = size = 0
        while at < len(data) and data[at] == 255:
            kind, at = kind + 255, at + 1
        kind, at = kind + data[at], at + 1
        while at < len(data) and data[at] == 255:
            size, at = size + 255, at + 1
        if at >= len(data):
            return None
        size, at = size + data[at], at + 1
        if kind == 6:
            bits = _Bits(data[at : at + size])
            return bits.number(), bool(bits.take(1))
        at += size
    return None
