"""Pairs of frames of the same target, both made from one still image.

The target moves, turns and changes its size against the background, the light changes, the camera blurs, something
covers a part of the target, and similar objects are placed beside it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _check, _files
from amstel._check import fail, fail_type
from amstel.data._pair import FramePair, check_geometry, frame_pair
from amstel.data._pair import cv2 as _cv2
from amstel.media import _arguments
from amstel.media.formats import STILLS, others, stills
from amstel.media.images import read


@dataclass
class _Thing:
    """A piece of an image with a soft, bumpy outline between an ellipse and a box."""

    image: np.ndarray
    center: np.ndarray
    half: np.ndarray
    power: float
    bumps: np.ndarray  # [4, 2], amplitude and phase of the harmonics of the outline

    def extent(self, linear: np.ndarray) -> np.ndarray:
        """Half the width and height of the ellipse in its box after a linear map."""
        return np.sqrt(np.square(linear * self.half).sum(1))

    def matte(self, linear: np.ndarray, grid: np.ndarray) -> np.ndarray:
        """Opacity of the outline at places [h, w, 2] relative to its center: [h, w, 1]."""
        u = grid @ (np.linalg.inv(linear).T / self.half).astype(np.float32)
        angle = np.arctan2(u[..., 1], u[..., 0])
        radius = (np.abs(u) ** np.float32(self.power)).sum(-1) ** np.float32(1 / self.power)
        for k, (amplitude, phase) in enumerate(self.bumps.astype(np.float32), 2):
            radius = radius * (1 + amplitude * (1 + np.cos(k * angle + phase)))
        soft = np.float32(1.5 / self.extent(linear).min())
        return np.clip((1 - radius) / soft + 0.5, 0, 1)[..., None]


def _linear(zoom: float, rng: np.random.Generator, stretch: float, turn: float, shear: float) -> np.ndarray:
    """Rotation, shear, change of the aspect and enlargement; the spreads are standard deviations."""
    angle, lean, aspect = rng.normal(size=3).clip(-2, 2) * (turn, shear, stretch)
    c, s = math.cos(angle), math.sin(angle)
    return zoom * np.array([[c, -s], [s, c]]) @ np.array([[math.exp(aspect), lean], [0, math.exp(-aspect)]])


def _warp(
    image: np.ndarray, linear: np.ndarray, center: np.ndarray, place: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """A view [h, w, 3] of an image, size = (w, h): `center` comes to `place`."""
    cv2 = _cv2()
    matrix = np.concatenate([linear, (place - linear @ center)[:, None]], 1)
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _grid(x: int, y: int, w: int, h: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(x, x + w), np.arange(y, y + h)), -1).astype(np.float32)


def _paste(frame: np.ndarray, thing: _Thing, linear: np.ndarray, place: np.ndarray) -> None:
    reach = thing.extent(linear) + 3
    x, y = (place - reach).astype(int).clip(0)
    right, low = (place + reach).astype(int).clip(0, len(frame))
    if right <= x or low <= y:
        return
    w, h = int(right - x), int(low - y)
    matte = thing.matte(linear, _grid(x, y, w, h) - place.astype(np.float32))
    part = frame[y:low, x:right]
    part += matte * (_warp(thing.image, linear, thing.center, place - [x, y], (w, h)) - part)


class StillPairs:
    """Pairs made from still images, one image per pair: no video is needed to learn matching.

    The target is a textured piece of an image. It is shown twice, in front of its own surroundings or pasted with a soft
    outline onto those of another image, which may differ between the two frames. Each time it is in another place, and
    the second time it is scaled, stretched, rotated, sheared and bent. The pieces of the same image that look most like
    it are pasted beside it, and a piece of another image may cover a part of it. Each frame then gets its own light
    (gain, gamma, color temperature, a ramp), blur (defocus, motion), noise and JPEG compression, at the low resolution
    of targets in videos (18 to 100 pixels), before it is resized to what the network sees.

    Args:
        images: files, folders of them, or uint8 RGB arrays [H, W, 3] of at least 64 pixels per side.
        size: side of the frames.
        target: side of the square with the area of the first target, in pixels of the frame.
        scale: range of the side of that square at the low resolution, in pixels.

    Raises:
        TypeError: `images` is not a list, or holds something else; a number has another type.
        ValueError: there is no image, or one is too small or cannot be read; a number is out of its range.
        ImportError: opencv is missing.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        >>> pair = amstel.data.StillPairs([image]).sample(0, np.random.default_rng(1))
        >>> pair.frames.shape
        torch.Size([2, 3, 208, 208])
    """

    def __init__(
        self,
        images: Sequence[str | os.PathLike | np.ndarray],
        size: int = 208,
        target: float = 64.0,
        scale: tuple[float, float] = (18.0, 100.0),
    ):
        size = check_geometry(size, target)
        expected = "two numbers >= 4 in ascending order"
        self.size, self.target, self.scale = size, target, _check.ends("scale", scale, expected, least=4)
        # A name is a sequence too, of characters, and an image is one of rows.
        if isinstance(images, np.ndarray) and images.ndim != 4:
            found = f"one array {list(images.shape)}"
            raise TypeError(f"`images` must be a list of files, folders and arrays, got {found}")
        if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Iterable):
            fail_type("images", "a list of files, folders and arrays", images)
        self._images: list[Path | np.ndarray] = []
        for image in images:
            if isinstance(image, np.ndarray):
                self._images.append(_check.unmasked("images", image))
            elif (path := _arguments.path("images", image)).is_dir():
                found = stills(path)
                if not found:
                    raise ValueError(
                        f"`images`: {path} must hold at least one image ({', '.join(STILLS)}), got {others(path, ()) or 'none'}"
                    )
                self._images += found
            else:
                self._images.append(path)
        if not self._images:
            fail("images", "at least one image", images)
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._images)

    def _identity(self) -> list[Any]:
        how = self.size, self.target, self.scale
        images = [i if isinstance(i, np.ndarray) else (i.name, _files.size_of(i)) for i in self._images]
        return [(image, *how) for image in images]

    def _image(self, index: int) -> np.ndarray:
        if index not in self._kept:
            image = self._images[index]
            if isinstance(image, Path):
                image = read(image)
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape[:2]) < 64:
                shape = f"{image.dtype} {list(image.shape)}"
                fail("images", "uint8 RGB arrays [H, W, 3] of at least 64 pixels per side", shape)
            self._kept[index] = np.ascontiguousarray(image)
        return self._kept[index]

    def _other(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Another image, if there is one."""
        return self._image((index + int(rng.integers(1, max(2, len(self))))) % len(self))

    def _thing(self, image: np.ndarray, rng: np.random.Generator, side: float) -> _Thing:
        """The piece with the most contrast and detail of a few random ones."""
        height, width = image.shape[:2]
        best, found = -1.0, None
        for _ in range(6):
            aspect = math.exp(rng.normal(0, 0.4))
            size = np.array([math.sqrt(aspect), 1 / math.sqrt(aspect)]) * side
            size = np.minimum(size, [0.9 * width, 0.9 * height])
            corner = rng.random(2) * ([width, height] - size)
            x, y, w, h = (int(v) for v in (*corner, *size))
            piece = image[y : y + h, x : x + w].astype(np.float32).mean(2)
            detail = sum(np.abs(np.diff(piece, axis=axis)).mean() for axis in (0, 1)) + piece.std() / 4
            if detail > best:
                best, found = detail, (corner + size / 2, size / 2)
        assert found is not None
        bumps = np.stack([rng.exponential(0.06, 4).clip(0, 0.2), rng.uniform(0, 2 * math.pi, 4)], 1)
        return _Thing(image, *found, float(rng.choice([2.0, 2.5, 4.0, 10.0])), bumps)

    def _alike(self, thing: _Thing, rng: np.random.Generator) -> _Thing:
        """The piece of the same image, elsewhere, that looks most like this one."""
        cv2, image = _cv2(), thing.image
        room = np.array(image.shape[1::-1]) - 2 * thing.half

        def small(center: np.ndarray) -> np.ndarray:
            (x, y), (w, h) = (center - thing.half).astype(int), (2 * thing.half).astype(int)
            piece = cv2.resize(image[y : y + h, x : x + w], (6, 6), interpolation=cv2.INTER_AREA)
            return piece.astype(np.float32)

        centers = [thing.half + rng.random(2) * room for _ in range(16)]
        centers = [c for c in centers if (abs(c - thing.center) > 1.2 * thing.half).any()] or centers[:1]
        own = small(thing.center)
        center = min(centers, key=lambda c: float(np.abs(small(c) - own).mean()))
        return _Thing(image, center, thing.half, thing.power, thing.bumps)

    def sample(self, index: int, rng: np.random.Generator) -> FramePair:
        """Draw pair number `index`; the same generator state gives the same pair."""
        image = self._image(index)
        low, high = (math.log(s) for s in self.scale)
        native = math.exp(rng.uniform(low, high))
        side = native * math.exp(rng.uniform(math.log(0.8), math.log(2.0)))
        size = round(self.size * native / self.target)
        thing = self._thing(image, rng, side)
        zoom = native / (2 * math.sqrt(thing.half.prod()))
        # Behind the target in the two frames: its own surroundings or another image, the same one or not.
        kind = rng.random()
        first = image if kind < 0.55 else self._other(index, rng)
        second = first if kind < 0.35 or 0.55 <= kind < 0.85 else self._other(index, rng)
        alike = [self._alike(thing, rng) for _ in range(int(rng.integers(0, 3)))]
        cover = None
        if rng.random() < 0.25:
            cover = self._thing(self._other(index, rng), rng, side * rng.uniform(0.5, 1.0))
        gray, view, frames, boxes, others = rng.random() < 0.15, None, [], [], []
        for number, behind in enumerate((first, second)):
            place = size * rng.uniform(0.3, 0.7, 2)
            growth = 2 ** float(np.clip(rng.normal(0, 0.2), -0.5, 0.5))
            if number == 0:
                linear = _linear(zoom, rng, 0, 0, 0)
            else:
                linear = _linear(zoom * growth, rng, 0.06, 0.12, 0.05)
            if behind is image:
                frame = _warp(image, linear, thing.center, place, (size, size)).astype(np.float32)
            else:
                if view is None:
                    view = (
                        rng.random(2) * behind.shape[1::-1],
                        _linear(zoom * rng.uniform(0.7, 1.4), rng, 0, 0, 0),
                    )
                turned = _linear(math.exp(rng.normal(0, 0.08)), rng, 0.02, 0.06, 0.02) @ view[1]
                middle = size * rng.normal(0.5, 0.1, 2)
                frame = _warp(behind, turned, view[0], middle, (size, size)).astype(np.float32)
            reach, beside = thing.extent(linear), []
            for piece in alike:
                where = size * rng.random(2)
                if (abs(where - place) >= 1.5 * reach).any():
                    _paste(frame, piece, linear, where)
                    beside.append(where)
            if behind is not image:
                _paste(frame, thing, linear, place)
            if cover is not None and number == 1:
                angle = rng.uniform(0, 2 * math.pi)
                away = np.array([math.cos(angle), math.sin(angle)]) * (reach + 0.3 * cover.extent(linear))
                _paste(frame, cover, linear, place + away * rng.uniform(0.7, 1.0))
            if number == 1:
                frame = _bend(frame, place, native, rng)
            frames.append(_film(frame, rng, native, gray, self.size))
            # The middle of pixel 0 lies at 0 for what warps, and at 1/2 in a box.
            at = [np.concatenate([p - reach, p + reach]) + 0.5 for p in (place, *beside)]
            boxes.append(at[0] * (self.size / size))
            others.append([b * (self.size / size) for b in at[1:]])
        return frame_pair(frames, boxes, others)


def _bend(frame: np.ndarray, place: np.ndarray, native: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth deformation that leaves `place` where it is."""
    cv2, size = _cv2(), len(frame)
    field = rng.normal(size=(5, 5, 2)).astype(np.float32) * native * float(rng.choice([0.0, 0.03, 0.06]))
    field = cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)
    x, y = place.astype(int).clip(0, size - 1)
    grid = _grid(0, 0, size, size) + field - field[y, x]
    return cv2.remap(frame, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _film(frame: np.ndarray, rng: np.random.Generator, native: float, gray: bool, size: int) -> np.ndarray:
    """Light, blur, noise and compression as a camera adds them, then the size that the network sees; uint8."""
    cv2, side = _cv2(), len(frame)
    if gray:
        frame = np.repeat(frame @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, 2)
    gain = math.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.0 if gray else 0.06, 3))
    gamma = np.float32(math.exp(rng.normal(0, 0.15)))
    frame = 255 * np.clip(frame * gain.astype(np.float32) / 255, 0, 1) ** gamma
    if rng.random() < 0.3:  # a shadow or a lamp at one side
        ramp = np.linspace(-1, 1, side, dtype=np.float32)
        a, b = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
        frame = frame * (1 + a * ramp[:, None] + b * ramp)[..., None]
    if rng.random() < 0.35:
        sigma = native / 64 * rng.uniform(0.5, 2.5)
        frame = cv2.GaussianBlur(frame, (0, 0), sigma)
    if rng.random() < 0.3:
        length, angle = native * rng.uniform(0.05, 0.5), rng.uniform(0, math.pi)
        reach = math.ceil(length / 2)
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
        for step in np.linspace(-length / 2, length / 2, 4 * reach + 1):
            x, y = reach + step * math.cos(angle), reach + step * math.sin(angle)
            kernel[round(y), round(x)] += 1
        frame = cv2.filter2D(frame, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    noise = rng.standard_normal((side, side, 1 if gray else 3), dtype=np.float32)
    frame = frame + noise * np.float32(rng.uniform(0, 8))
    pixels = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))])
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
