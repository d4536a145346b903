"""Folders of images, and random patches of them for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amstel import _check
from amstel._optional import need
from amstel.media.formats import STILLS, others, stills
from amstel.media.pictures import read


def _image() -> Any:
    return need("PIL.Image", extra="restore", purpose="amstel.data.ImageFolder")


class ImageFolder:
    """The images of a folder, sorted by name and read on access.

    Args:
        root: a folder, or several, one after the other; folders inside them are passed over, and so are animations and
            files whose names do not end as those of images do; warnings name them.
        mode: "L" for gray [H, W] (the luma of ITU-R 601 of color images), "RGB" for [H, W, 3]. 16 bits are rounded to 8,
            alpha is left out, and the orientation that a camera noted is applied.

    `folder[i]` is a uint8 array, `folder.paths[i]` its file, and `len(folder)` the number of images.

    Raises:
        ValueError: an unknown mode, or a folder without images; FileNotFoundError: the folder does not exist;
        OSError: an image cannot be read.

    Example:
        >>> images = amstel.data.ImageFolder("photographs", mode="L")
        >>> images[0].shape
        (321, 481)
    """

    def __init__(self, root: str | Path | Sequence[str | Path], mode: str = "RGB"):
        if mode not in ("L", "RGB"):
            _check.fail("mode", "'L' or 'RGB'", mode)
        self.mode = mode
        self.paths: list[Path] = []
        for folder in [root] if isinstance(root, (str, Path)) else root:
            if not Path(folder).is_dir():
                raise FileNotFoundError(f"`root`: the folder {folder} does not exist")
            found = sorted(stills(folder))
            if not found:
                got = others(Path(folder), ()) or "none"
                raise ValueError(
                    f"`root`: {folder} must hold at least one image ({', '.join(STILLS)}), got {got}"
                )
            self.paths += found

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        path = self.paths[index]
        picture = read(path)
        pixels = np.rint(255 * np.clip(picture.pixels, 0, 1)).astype(np.uint8)
        if self.mode == "RGB":
            return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)
        return pixels if pixels.ndim == 2 else np.asarray(_image().fromarray(pixels).convert("L"))


def patches(images: Sequence[np.ndarray], count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random squares [count, C, size, size] of uint8 images, each in one of its eight orientations."""
    out = []
    for index in rng.integers(len(images), size=count):
        image = images[index]
        if min(image.shape[:2]) < size:
            _check.fail("size", f"at most the {min(image.shape[:2])} pixels of image {index}", size)
        top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
        patch = np.rot90(image[top : top + size, left : left + size], int(rng.integers(4)))
        patch = patch[:, ::-1] if rng.integers(2) else patch
        out.append(patch[None] if patch.ndim == 2 else patch.transpose(2, 0, 1))
    return np.stack(out)
