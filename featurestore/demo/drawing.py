"""Draw a face: a few ellipses and curves whose place and bend follow an expression."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurestore.demo.script import Expression

WIDTH, HEIGHT = 360, 288
CROP = 112

# (skin, hair, wall) in BGR; clips take them in turn.
LOOKS = (
    ((150, 180, 225), (40, 50, 70), (120, 95, 70)),
    ((105, 140, 190), (25, 25, 30), (90, 120, 95)),
    ((175, 200, 240), (60, 110, 170), (135, 125, 150)),
    ((80, 105, 150), (15, 15, 20), (150, 140, 105)),
)
DARK, WHITE, LIP = (35, 30, 35), (245, 245, 245), (85, 75, 175)


def draw_face(look: int, expression: Expression, shift: tuple[float, float]) -> NDArray[np.uint8]:
    """One picture, (288, 360, 3) uint8 BGR, the head `shift` pixels (x, y) away from the middle."""
    import cv2  # an extra; only who makes the demo dataset needs it

    skin, hair, wall = LOOKS[look % len(LOOKS)]
    # A wall that gets lighter to the right, so that mirrored or shifted pictures are not equal.
    ramp = np.linspace(0.75, 1.15, WIDTH)[None, :, None] * np.array(wall, np.float64)
    picture: NDArray[np.uint8] = np.repeat(ramp.clip(0, 255).astype(np.uint8), HEIGHT, axis=0)
    x, y = head_of(shift)

    def oval(cx: float, cy: float, rx: float, ry: float, color: tuple[int, int, int]) -> None:
        # Four binary digits after the point, so that slow movements are smooth.
        center, axes = (round(cx * 16), round(cy * 16)), (max(1, round(rx * 16)), max(1, round(ry * 16)))
        cv2.ellipse(picture, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA, 4)

    def curve(points: list[tuple[float, float]], color: tuple[int, int, int], thickness: int) -> None:
        through = np.array([[round(px * 16), round(py * 16)] for px, py in points], np.int32)
        cv2.polylines(picture, [through], False, color, thickness, cv2.LINE_AA, 4)

    oval(x, y + 150, 105, 60, hair)  # shoulders
    oval(x, y - 14, 76, 92, hair)
    oval(x, y, 66, 84, skin)
    for side in (-1, 1):
        eye_x, eye_y = x + side * 26, y - 16
        oval(eye_x, eye_y, 12, 6.5 + 4 * expression.wide_eyes, WHITE)
        oval(eye_x, eye_y, 5, min(5.0, 6.5 + 4 * expression.wide_eyes), DARK)
        lift = 24 + 9 * expression.raised_brows
        inner = 10 * expression.lowered_brows
        curve(
            [(eye_x + side * 15, eye_y - lift + 4), (eye_x, eye_y - lift), (eye_x - side * 15, eye_y - lift + inner)],
            hair,
            4,
        )
    curve([(x, y - 6), (x - 5, y + 16), (x + 4, y + 18)], DARK, 1)
    _draw_mouth(oval, curve, x, y + 44, expression)
    return picture


def head_of(shift: tuple[float, float]) -> tuple[float, float]:
    """Middle of the head in pixels (x, y)."""
    return WIDTH / 2 + shift[0], HEIGHT / 2 + 8 + shift[1]


def crop_face(picture: NDArray[np.uint8], shift: tuple[float, float]) -> NDArray[np.uint8]:
    """The head alone, (112, 112, 3) uint8 BGR, as a face tracker would cut it."""
    import cv2  # an extra; only who makes the demo dataset needs it

    x, y = (round(value) for value in head_of(shift))
    square = picture[y - 92 : y + 92, x - 92 : x + 92]
    small: NDArray[np.uint8] = cv2.resize(square, (CROP, CROP), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small


def _draw_mouth(oval: Any, curve: Any, x: float, y: float, expression: Expression) -> None:
    if expression.open_mouth > 0.05:
        oval(x, y, 17 + 5 * abs(expression.smile), 16 * expression.open_mouth, DARK)
    # A parabola: the corners move by `smile`, the middle stays.
    across = np.linspace(-1, 1, 13)
    bend = 13 * expression.smile
    upper = [(x + 24 * u, y - 10 * expression.open_mouth * (1 - u * u) - bend * u * u) for u in across]
    lower = [(x + 24 * u, y + 15 * expression.open_mouth * (1 - u * u) - bend * u * u) for u in across]
    curve(upper, LIP, 4)
    curve(lower, LIP, 4)
