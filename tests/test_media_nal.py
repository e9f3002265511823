"""The few bits that are read of H.264, against bits that were written here."""

from __future__ import annotations

import numpy as np
import pytest

from featurestore.media import nal
from featurestore.media.nal import H264


def exp_golomb(number: int) -> str:
    code = f"{number + 1:b}"
    return "0" * (len(code) - 1) + code


def kept_apart(data: bytes) -> bytes:
    """With the bytes that keep start codes out."""
    found, zeros = bytearray(), 0
    for byte in data:
        if zeros == 2 and byte <= 3:
            found.append(3)
            zeros = 0
        found.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(found)


def headers(count: int) -> list[tuple[nal._Order, bytes, int]]:
    """(where a turn is, a slice, its turn), of which many hold zeros in a row, and some are long."""
    random = np.random.default_rng(3)
    found = []
    for at in range(count):
        order = nal._Order(2 * int(random.integers(2)), int(random.integers(4, 17)), int(random.integers(4, 17)))
        few = at % 2 == 0
        codes = (
            0 if few else int(random.integers(9_000)),
            int(random.integers(10)),
            int(random.integers(1 if few else 300)),
        )
        number = int(random.integers(1 << order.number)) if at % 3 else 0
        turn = int(random.integers(1 << order.turn)) if at % 5 else 0
        bits = "".join(map(exp_golomb, codes)) + "0" * order.planes
        bits += f"{number:0{order.number}b}{turn:0{order.turn}b}"
        rest = bytes(int(each) for each in random.integers(0, 256, random.integers(1, 20)))
        whole = int(bits + "1" + "0" * (-(len(bits) + 1) % 8), 2).to_bytes(-(-(len(bits) + 1) // 8), "big") + rest
        found.append((order, b"\x41" + kept_apart(whole), turn))
    return found


def test_a_slice_says_its_turn_whatever_is_before_it() -> None:
    assert all(order.of(unit, False) == turn for order, unit, turn in headers(5_000))


def test_codes_that_are_taken_for_short_ones_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nal, "_three_codes", lambda start: 3)
    assert not all(order.of(unit, False) == turn for order, unit, turn in headers(5_000))


@pytest.mark.parametrize(
    "unit", [b"\x41" + bytes(range(60)), b"\x41", b"\x01\x9a\0\0\3\1", b"\x65\x88\x80", b"\x06\5\1\0"]
)
@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_picture_alone_in_its_packet_is_what_walking_finds(unit: bytes, width: int) -> None:
    reader = H264(bytes([1, 77, 0, 30, 0xFC | width - 1, 0xE0, 0]))
    for packet in (len(unit).to_bytes(width, "big") + unit, bytes(width), bytes(width - 1), b""):
        (first, *_) = (*(bytes(each) for each in reader.units(memoryview(packet))), b"")
        wanted = first[: nal._HEADER] if first and first[0] & 31 == 1 else b""
        assert reader.alone(memoryview(packet)) == wanted
    assert not H264(b"").alone(memoryview(b"\0\0\0\1\x41\x9a"))
