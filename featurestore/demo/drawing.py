"""Draw a face: a few ellipses and curves whose place and bend follow an expression."""

from __future__ import annotations

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
        center, axes = fixed_point([(cx, cy), (rx, ry)]).tolist()
        cv2.ellipse(picture, center, axes, 0, 0, 360, color, -1, cv2.LINE_AA, 4)

    def curve(points: list[tuple[float, float]], color: tuple[int, int, int], thickness: int) -> None:
        cv2.polylines(picture, [fixed_point(points)], False, color, thickness, cv2.LINE_AA, 4)

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
    upper, lower = lips(x, y + 44, expression)
    if expression.open_mouth > 0.05:
        cv2.fillPoly(picture, [fixed_point(upper + lower[::-1])], DARK, cv2.LINE_AA, 4)
    curve(upper, LIP, 4)
    curve(lower, LIP, 4)
    return picture


def fixed_point(points: list[tuple[float, float]]) -> NDArray[np.int32]:
    """Pixels with four binary digits after the point, as OpenCV draws them: slow movements stay smooth."""
    fixed: NDArray[np.int32] = np.rint(np.array(points) * 16).astype(np.int32)
    return fixed


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


def lips(x: float, y: float, expression: Expression) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Points of the upper and of the lower lip, left to right.  The corners move by `smile`, the middle stays."""
    across = np.linspace(-1, 1, 13)
    corners = 13 * expression.smile * across**2
    arch = 1 - across**2
    upper = y - 10 * expression.open_mouth * arch - corners
    lower = y + 18 * expression.open_mouth * arch - corners + 6 * max(0.0, expression.smile) * expression.open_mouth
    return list(zip(x + 24 * across, upper, strict=True)), list(zip(x + 24 * across, lower, strict=True))
