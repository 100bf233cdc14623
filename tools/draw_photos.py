# SPDX-License-Identifier: MIT
"""Draw the pictures that "Try it" offers to the model of chapter 7: python -m tools.draw_photos.

They are made here, light, shadow and grain included, so that no photograph of anybody's is needed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from tools.set_repository import ROOT

OUT = ROOT / "book" / "_static" / "live" / "photos"
SIZE = 96  # pixels; the model reads 32
OVER = 3  # drawn so much larger and averaged, so that edges are smooth

Pixels = np.ndarray


class Scene:
    """A picture (H, W, 3) in [0, 1] to paint on, in coordinates from 0 to 1."""

    def __init__(self, top: tuple[float, ...], low: tuple[float, ...], seed: int) -> None:
        side = SIZE * OVER
        self.y, self.x = (np.mgrid[0:side, 0:side] + 0.5) / side
        self.rng = np.random.default_rng(seed)
        self.pixels = np.array(top) + (np.array(low) - np.array(top)) * self.y[..., None]

    def noise(self, cells: int, across: int | None = None) -> Pixels:
        """Smooth noise (H, W) from -1 to 1, with so many hills from top to bottom and across."""
        small = self.rng.uniform(-1, 1, (cells, across or cells)).astype(np.float32)
        large = Image.fromarray(small).resize((SIZE * OVER,) * 2, Image.Resampling.BICUBIC)
        return np.asarray(large)

    def clouds(self) -> Pixels:
        """Noise of many sizes (H, W)."""
        return sum(self.noise(3 * 2**i) / 1.7**i for i in range(5)) / 2  # type: ignore[return-value]

    def paint(self, where: Pixels, colour: tuple[float, ...] | Pixels, share: float = 1.0) -> None:
        """Lay a colour (3) or (H, W, 3) over the places ``where``, a mask or shares (H, W)."""
        amount = (share * np.asarray(where, float))[..., None]
        self.pixels = self.pixels * (1 - amount) + np.asarray(colour) * amount

    def ball(
        self, x: float, y: float, radius: float, colour: tuple[float, ...], rough: int
    ) -> Pixels:
        """Paint a ball lit from the upper left, with its shadow; return where it is."""
        dx, dy = (self.x - x) / radius, (self.y - y) / radius
        shadow = np.exp(-(((dx - 0.25) / 1.1) ** 2) - ((dy - 1.0) / 0.22) ** 2)
        self.paint(shadow, (0.05, 0.04, 0.04), 0.55)
        inside = dx**2 + dy**2 < 1
        depth = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
        light = np.clip(0.25 + 0.9 * (0.62 * depth - 0.45 * dx - 0.55 * dy), 0.12, 1.15)
        skin = 1 + 0.10 * self.noise(rough)
        self.paint(inside, np.array(colour) * (light * skin)[..., None])
        shine = np.exp(-((dx + 0.38) ** 2 + (dy + 0.42) ** 2) / 0.03)
        self.paint(inside * shine, (1, 1, 1), 0.6)
        return inside

    def picture(self, grain: float = 0.02) -> Image.Image:
        """The picture, averaged to its size, with a camera's grain."""
        side = (SIZE, OVER, SIZE, OVER, 3)
        small = self.pixels.clip(0, 1).reshape(side).mean((1, 3))
        small = small + self.rng.normal(0, grain, small.shape)
        return Image.fromarray((small.clip(0, 1) * 255).round().astype(np.uint8))


def orange() -> Image.Image:
    """An orange on white paper."""
    scene = Scene((0.96, 0.95, 0.93), (0.86, 0.85, 0.83), 1)
    scene.ball(0.5, 0.52, 0.38, (1.0, 0.56, 0.06), 60)
    spot = np.exp(-(((scene.x - 0.55) / 0.03) ** 2) - ((scene.y - 0.28) / 0.02) ** 2)
    scene.paint(spot, (0.25, 0.35, 0.08), 0.8)
    return scene.picture()


def apple() -> Image.Image:
    """A red apple with a stalk and a leaf."""
    scene = Scene((0.97, 0.97, 0.96), (0.90, 0.90, 0.89), 2)
    body = scene.ball(0.5, 0.56, 0.36, (0.82, 0.10, 0.10), 30)
    streaks = np.clip(scene.noise(4, 40), 0, 1)
    scene.paint(body * streaks, (0.95, 0.65, 0.25), 0.35)
    dip = np.exp(-(((scene.x - 0.5) / 0.10) ** 2) - ((scene.y - 0.24) / 0.05) ** 2)
    scene.paint(dip * body, (0.25, 0.05, 0.03), 0.8)
    stalk = (np.abs(scene.x - 0.5 - 0.25 * (0.24 - scene.y)) < 0.014) & (scene.y > 0.08)
    scene.paint(stalk & (scene.y < 0.26), (0.30, 0.18, 0.08))
    u, v = (scene.x - 0.64) + 0.5 * (scene.y - 0.14), (scene.y - 0.14) + 0.4 * (scene.x - 0.64)
    scene.paint((u / 0.11) ** 2 + (v / 0.05) ** 2 < 1, (0.22, 0.52, 0.14))
    return scene.picture()


def sea() -> Image.Image:
    """The sea under a few clouds."""
    scene = Scene((0.35, 0.60, 0.90), (0.80, 0.90, 0.98), 3)
    scene.paint(np.clip(scene.clouds() * (0.6 - scene.y), 0, 0.4) * 2.5, (1, 1, 1))
    below = scene.y > 0.42
    depth = np.clip((scene.y - 0.42) / 0.58, 0, 1)[..., None]
    water = np.array([0.16, 0.42, 0.62]) * (1 - depth) + np.array([0.03, 0.20, 0.38]) * depth
    waves = scene.noise(40, 8) * 0.6 + scene.noise(80, 24) * 0.4
    scene.paint(below, water * (1 + 0.35 * waves[..., None]))
    scene.paint(below * np.clip(waves - 0.45, 0, 1) * 1.5, (0.9, 0.95, 1.0))
    return scene.picture()


def mountain() -> Image.Image:
    """A mountain with snow."""
    scene = Scene((0.30, 0.52, 0.86), (0.78, 0.88, 0.97), 4)
    rough = scene.clouds()
    for middle, height, shade in ((0.2, 0.48, 0.75), (0.85, 0.42, 0.85), (0.52, 0.14, 1.0)):
        ridge = height + 0.95 * np.abs(scene.x - middle) + 0.05 * scene.noise(1, 24)
        rock = np.array([0.36, 0.36, 0.40]) * shade
        lit = 1 + 0.5 * rough - 0.35 * (scene.x > middle + 0.06 * scene.noise(14, 1))
        scene.paint(scene.y > ridge, rock * lit[..., None])
        snow = scene.y < ridge + 0.22 + 0.10 * scene.noise(1, 16) + 0.08 * rough
        scene.paint(
            (scene.y > ridge) & snow,
            np.array([0.97, 0.98, 1.0]) * (0.62 + 0.38 * np.clip(lit, 0, 1))[..., None],
        )
    wood = 0.84 + 0.03 * scene.noise(1, 60)
    scene.paint(scene.y > wood, np.array([0.10, 0.22, 0.12]) * (1 + 0.4 * rough)[..., None])
    return scene.picture()


def sunflower() -> Image.Image:
    """A sunflower in a field."""
    scene = Scene((0.45, 0.66, 0.92), (0.16, 0.36, 0.10), 5)
    leaves = scene.clouds()
    scene.paint(np.clip(leaves + 1.6 * (scene.y - 0.45), 0, 1), (0.14, 0.36, 0.08))
    dx, dy = scene.x - 0.5, scene.y - 0.47
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    for count, length, turn, colour in (
        (17, 0.42, 0.0, (0.90, 0.58, 0.03)),
        (19, 0.38, 0.5, (1.0, 0.78, 0.08)),
    ):
        petal = length * (0.70 + 0.30 * np.abs(np.cos(count * (angle + turn) / 2)) ** 0.7)
        lit = 0.82 + 0.25 * np.cos(count * (angle + turn)) * 0.5 + 0.1 * leaves
        scene.paint(radius < petal, np.array(colour) * lit[..., None])
    seeds = radius < 0.19 + 0.006 * np.cos(30 * angle)
    rings = 0.8 + 0.5 * np.sin(190 * radius) * np.cos(34 * angle + 60 * radius)
    brown = np.array([0.30, 0.17, 0.06]) * (rings * (0.55 + 3.0 * radius))[..., None]
    scene.paint(seeds, brown)
    return scene.picture()


def rocket() -> Image.Image:
    """A rocket that takes off."""
    scene = Scene((0.20, 0.42, 0.78), (0.62, 0.78, 0.93), 6)
    smoke = scene.clouds()
    plume = np.exp(-(((scene.x - 0.5) / (0.05 + 0.55 * np.clip(scene.y - 0.62, 0, 1))) ** 2))
    puffs = np.clip(plume * (scene.y > 0.68) * (1.0 + 0.7 * smoke), 0, 1)
    scene.paint(puffs, np.array([0.95, 0.93, 0.90]) * (0.85 + 0.2 * smoke)[..., None])
    width = 0.075 * np.clip((scene.y - 0.06) / 0.16, 0, 1) ** 0.55
    body = (np.abs(scene.x - 0.5) < width) & (scene.y < 0.68)
    round_ = 1 - 0.55 * np.clip((scene.x - 0.46) / 0.11, 0, 1)
    scene.paint(body, np.array([0.95, 0.95, 0.96]) * round_[..., None])
    scene.paint(body & (scene.y < 0.17), (0.75, 0.12, 0.10))
    for low in (0.30, 0.52):
        scene.paint(body & (np.abs(scene.y - low) < 0.018), (0.10, 0.10, 0.12))
    fins = (
        (np.abs(scene.x - 0.5) < 0.075 + 0.5 * (scene.y - 0.56))
        & (scene.y > 0.56)
        & (scene.y < 0.68)
    )
    scene.paint(fins & ~body, (0.55, 0.10, 0.10))
    flame = np.exp(-(((scene.x - 0.5) / 0.05) ** 2) - ((scene.y - 0.74) / 0.09) ** 2)
    scene.paint(np.clip(1.6 * flame, 0, 1) * (scene.y > 0.68), (1.0, 0.82, 0.25))
    return scene.picture()


def clock() -> Image.Image:
    """A clock on a wall."""
    scene = Scene((0.72, 0.66, 0.58), (0.62, 0.56, 0.48), 7)
    dx, dy = scene.x - 0.5, scene.y - 0.5
    radius, angle = np.hypot(dx, dy), np.arctan2(dx, -dy) % (2 * np.pi)
    scene.paint(np.exp(-((np.hypot(dx - 0.03, dy - 0.05) / 0.43) ** 16)), (0.1, 0.08, 0.07), 0.5)
    scene.paint(radius < 0.42, (0.12, 0.12, 0.14))
    scene.paint(radius < 0.37, np.array([0.97, 0.96, 0.92]) * (1.0 - 0.12 * scene.y)[..., None])
    hour = np.abs((angle + np.pi / 12) % (np.pi / 6) - np.pi / 12)
    scene.paint((radius > 0.29) & (radius < 0.35) & (hour * radius < 0.013), (0.1, 0.1, 0.1))
    for turn, length, wide in ((5.3, 0.19, 0.020), (1.05, 0.28, 0.013)):
        along = dx * np.sin(turn) - dy * np.cos(turn)
        beside = dx * np.cos(turn) + dy * np.sin(turn)
        scene.paint(
            (np.abs(beside) < wide) & (along > -0.04) & (along < length), (0.08, 0.08, 0.09)
        )
    scene.paint(radius < 0.025, (0.7, 0.1, 0.1))
    return scene.picture()


def road() -> Image.Image:
    """A road to the horizon."""
    scene = Scene((0.40, 0.62, 0.90), (0.85, 0.92, 0.98), 8)
    rough = scene.clouds()
    scene.paint(np.clip(rough * (0.5 - scene.y), 0, 0.4) * 2.2, (1, 1, 1))
    below = scene.y > 0.42
    scene.paint(below, np.array([0.45, 0.52, 0.22]) * (1 + 0.35 * rough)[..., None])
    far = np.clip((scene.y - 0.42) / 0.58, 0, 1)
    half = 0.02 + 0.46 * far
    tar = np.array([0.30, 0.30, 0.32]) * (1 + 0.12 * scene.noise(90))[..., None]
    scene.paint(below & (np.abs(scene.x - 0.5) < half), tar)
    scene.paint(
        below & (np.abs(np.abs(scene.x - 0.5) - 0.9 * half) < 0.025 * far), (0.92, 0.92, 0.90)
    )
    dash = (1 / (far + 0.12) * 2.2) % 1 < 0.5
    scene.paint(below & dash & (np.abs(scene.x - 0.5) < 0.03 * far + 0.002), (0.95, 0.85, 0.30))
    return scene.picture()


PICTURES: dict[str, Callable[[], Image.Image]] = {
    draw.__name__: draw for draw in (apple, clock, mountain, orange, road, rocket, sea, sunflower)
}


def main() -> None:
    """Write all pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw().save(OUT / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main()
