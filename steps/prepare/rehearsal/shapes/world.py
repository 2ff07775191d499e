"""Captions of one flat shape on a plain background, and drawings of them: functions of a seed.

9,072 captions: three sizes, eight colours, six shapes, nine places, seven backgrounds. A fixed
shuffle shares them out: the first 5,000, as many as MLCommons' dataset has, are evaluated, the next
500 are for calibration, the rest for training.
"""

import random
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

from PIL import Image, ImageDraw

SIDE_PIXELS = 32
OVERSAMPLED = 4
"""Drawn so many times larger and shrunk, so that edges are smooth."""

UNITS = 64
"""Places and sizes are in so many parts of a side."""

SIZES = {"small": 9, "medium": 14, "large": 19}
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 60, 180),
    "orange": (240, 140, 30),
    "black": (25, 25, 25),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring", "diamond")
PLACES = {
    "at the top left": (18, 18),
    "at the top": (32, 18),
    "at the top right": (46, 18),
    "on the left": (18, 32),
    "in the middle": (32, 32),
    "on the right": (46, 32),
    "at the bottom left": (18, 46),
    "at the bottom": (32, 46),
    "at the bottom right": (46, 46),
}

EVALUATED = 5_000
CALIBRATED = 500
SEED = 7


class Scene(NamedTuple):
    """What one caption says."""

    size: str
    colour: str
    shape: str
    place: str
    background: str

    @property
    def caption(self) -> str:
        return (
            f"a {self.size} {self.colour} {self.shape} {self.place} of a {self.background} picture"
        )


@cache
def scenes() -> tuple[Scene, ...]:
    """All of them, in the order in which they are shared out."""
    found = [Scene(*words) for words in product(SIZES, COLOURS, SHAPES, PLACES, COLOURS)]
    found = [scene for scene in found if scene.colour != scene.background]
    random.Random(SEED).shuffle(found)
    return tuple(found)


def evaluation() -> tuple[Scene, ...]:
    return scenes()[:EVALUATED]


def calibration() -> tuple[Scene, ...]:
    return scenes()[EVALUATED : EVALUATED + CALIBRATED]


def training() -> tuple[Scene, ...]:
    return scenes()[EVALUATED + CALIBRATED :]


def words() -> list[str]:
    """Every word of the captions, sorted."""
    return sorted({word for scene in scenes() for word in scene.caption.split()})


def drawn(scene: Scene, chance: random.Random) -> Image.Image:
    """One drawing: the place varies a little, as in photographs of one caption."""
    scale = SIDE_PIXELS * OVERSAMPLED / UNITS
    x, y = (scale * (at + chance.randint(-1, 1)) for at in PLACES[scene.place])
    radius = scale * SIZES[scene.size]
    side = SIDE_PIXELS * OVERSAMPLED
    picture = Image.new("RGB", (side, side), COLOURS[scene.background])
    canvas = ImageDraw.Draw(picture)
    colour = COLOURS[scene.colour]
    if scene.shape in ("circle", "ring"):
        canvas.ellipse(_box(x, y, radius, radius), fill=colour)
    if scene.shape == "ring":
        hole = 0.52 * radius
        canvas.ellipse(_box(x, y, hole, hole), fill=COLOURS[scene.background])
    if scene.shape == "square":
        canvas.rectangle(_box(x, y, 0.88 * radius, 0.88 * radius), fill=colour)
    if scene.shape == "cross":
        canvas.rectangle(_box(x, y, radius, 0.36 * radius), fill=colour)
        canvas.rectangle(_box(x, y, 0.36 * radius, radius), fill=colour)
    if scene.shape == "triangle":
        low = y + 0.8 * radius
        canvas.polygon([(x, y - radius), (x - radius, low), (x + radius, low)], fill=colour)
    if scene.shape == "diamond":
        wide = 0.8 * radius
        canvas.polygon([(x, y - radius), (x - wide, y), (x, y + radius), (x + wide, y)], colour)
    return picture.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)


def drawings(chosen: Sequence[Scene], seed: int) -> list[Image.Image]:
    """One of each, the same for a seed."""
    chance = random.Random(seed)
    return [drawn(scene, chance) for scene in chosen]


def _box(x: float, y: float, wide: float, high: float) -> tuple[float, float, float, float]:
    return (x - wide, y - high, x + wide, y + high)
