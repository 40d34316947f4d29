"""Signed distances of the six shapes, in units of the shape's own radius.

Each function maps coordinates x (right) and y (down), both [...], to the distance to the outline [...],
negative inside. The unit of length is the radius that a scene gives its object.

Source: Inigo Quilez, "2D distance functions" (polygon, heart); constants chosen so that the shapes look equally big.
"""

import numpy as np

SQUARE_HALF = 0.76
CIRCLE_RADIUS = 0.90
CORNER = 0.07  # outlines are rounded by this much


def circle(x, y):
    """Distance to a circle, [...]."""
    return np.hypot(x, y) - CIRCLE_RADIUS


def square(x, y):
    """Distance to a square with rounded corners, [...]."""
    half = SQUARE_HALF - CORNER
    dx, dy = np.abs(x) - half, np.abs(y) - half
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
    return outside + np.minimum(np.maximum(dx, dy), 0) - CORNER


def polygon(x, y, corners):
    """Distance to a closed polygon, [...].

    Args:
        x: [...] coordinates to the right.
        y: [...] coordinates downwards.
        corners: list of (x, y), in order.
    """
    squared = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        if ey != 0:  # even-odd rule: a horizontal edge crosses no horizontal ray
            inside ^= ((y >= ay) != (y >= by)) & (x < ax + ex * (wy / ey))
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance)


def _ring(count, radius, turn):
    angles = turn + 2 * np.pi * np.arange(count) / count
    return [(float(radius * np.sin(a)), float(-radius * np.cos(a))) for a in angles]


TRIANGLE = [(0.0, -0.94), (0.88, 0.68), (-0.88, 0.68)]
STAR = [corner for pair in zip(_ring(5, 1.0, 0.0), _ring(5, 0.45, np.pi / 5), strict=True) for corner in pair]
ARM, REACH = 0.27, 0.86
CROSS = [
    (-ARM, -REACH), (ARM, -REACH), (ARM, -ARM), (REACH, -ARM), (REACH, ARM), (ARM, ARM),
    (ARM, REACH), (-ARM, REACH), (-ARM, ARM), (-REACH, ARM), (-REACH, -ARM), (-ARM, -ARM),
]  # fmt: skip


def triangle(x, y):
    """Distance to a triangle that points up, [...]."""
    return polygon(x, y, TRIANGLE) - CORNER


def star(x, y):
    """Distance to a five-pointed star, one point up, [...]."""
    return polygon(x, y, STAR) - CORNER / 2


def cross(x, y):
    """Distance to an upright cross with equal arms, [...]."""
    return polygon(x, y, CROSS) - CORNER


def heart(x, y):
    """Distance to a heart, [...]."""
    scale = 1.62
    px, py = np.abs(x) / scale, 0.55 - y / scale
    lobe = np.hypot(px - 0.25, py - 0.75) - np.sqrt(2) / 4
    half = 0.5 * np.maximum(px + py, 0)
    tip = np.minimum(np.hypot(px, py - 1.0), np.hypot(px - half, py - half)) * np.sign(px - py)
    return scale * np.where(px + py > 1, lobe, tip)


DISTANCES = {"circle": circle, "square": square, "triangle": triangle, "star": star, "heart": heart, "cross": cross}
