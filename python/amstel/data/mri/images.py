"""Multi-coil k-space made from magnitude images, for training a reconstruction."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import _files
from amstel._check import ends, fail, integer, pair
from amstel._optional import need
from amstel.data.mri.masks import cartesian_mask, poisson_disc_mask, radial_mask, sides
from amstel.data.mri.readers import read_admmnet
from amstel.data.mri.sensitivities import estimate_sensitivities, loop_sensitivities
from amstel.inverse import MRI
from amstel.media.formats import ANIMATED, STILLS, is_animation, warn_of_strangers
from amstel.media.images import read as read_picture


def smooth_phase(shape: Sequence[int], rng: np.random.Generator, spread: float = 0.6) -> Tensor:
    """A slowly varying phase in radians, float32 [H, W]: a random field of 5 x 5 nodes, and a ramp."""
    nodes = rng.normal(0, spread, (5, 5)) + np.add.outer(
        *(np.linspace(-2, 2, 5) * rng.normal(0, spread, (2, 1)))
    )
    field = torch.from_numpy(nodes.astype(np.float32))[None, None]
    return F.interpolate(field, sides(shape), mode="bicubic", align_corners=True)[0, 0]


class CoilImages:
    """Undersampled multi-coil k-space made from magnitude images, for training a reconstruction.

    1. An image is cropped, resized, flipped, rotated and changed in contrast. Half of the images are cut to an ellipse,
       like a head in its field of view, and half of these get a dark and a bright ring, like bone and fat.
    2. It gets a smooth phase and the sensitivities of `loop_sensitivities`. k-space gets noise and a mask (one per
       batch) of columns, a Poisson disc or radial lines, with a center of 10 to 18 samples per side.
    3. Sensitivities S are estimated from that center, as for real data. The target is what they make of the noise-free,
       fully sampled coil images m_c: x = sum conj(S_c) m_c.
    4. x and y are divided by the largest magnitude of the zero-filled reconstruction A^H y.

    Args:
        root: the folder of ADMM-Net's images (`read_admmnet`), or images float [count, H, W] in [0, 1].
        size: side, or (H, W), of the results; default: that of the images.
        photographs: a folder of pictures (needs pillow) that replace half of the images, for more variety.
        coils: smallest and largest number of coils.
        noise: smallest and largest standard deviation of the noise in the real and in the imaginary part of k-space,
            log-uniform, for an image with a largest magnitude of 1.

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: `root` holds other images, a size is below 32, or the folder has no pictures.

    Example:
        >>> images = amstel.data.mri.CoilImages(torch.rand(3, 64, 64), size=48)
        >>> x, physics, y = images.batch(2, np.random.default_rng(0))
        >>> x.shape, x.dtype, y.shape[2:]
        (torch.Size([2, 48, 48]), torch.complex64, torch.Size([48, 48]))
    """

    def __init__(
        self,
        root: str | os.PathLike | Tensor,
        size: int | tuple[int, int] | None = None,
        *,
        photographs: str | os.PathLike | None = None,
        coils: tuple[int, int] = (4, 12),
        noise: tuple[float, float] = (0.001, 0.02),
    ):
        images = root if isinstance(root, Tensor) else read_admmnet(root)
        if images.dim() != 3 or not images.is_floating_point() or not images.numel():
            fail("root", "a folder, or a real tensor [count, H, W]", images)
        self.size = pair("size", tuple(images.shape[1:]) if size is None else size, 32)
        expected = "two integers >= 1 in ascending order"
        low, high = ends("coils", coils, expected)
        self.coils = integer("coils", low, 1, expected), integer("coils", high, 1, expected)
        self.noise = ends("noise", noise, "two positive numbers in ascending order", above=0)
        self._images = images.float()
        self._photographs: list[Path] = []
        if photographs is not None:
            if not Path(photographs).is_dir():
                raise FileNotFoundError(f"the folder {photographs} does not exist")
            root = Path(photographs)
            inside = [p for p in sorted(root.rglob("*")) if "/." not in f"/{p.relative_to(root).as_posix()}"]
            folders = [root, *(p for p in inside if p.is_dir())]
            named = [p for p in inside if p.suffix.lower() in STILLS and not p.is_dir()]
            moving = dict.fromkeys(filter(is_animation, named))
            lost = [p for p in named if not os.path.exists(p)]
            passed = {*moving, *lost}
            self._photographs = [p for p in named if p not in passed]
            reason = "without the extension of an image"
            warn_of_strangers(root, folders, STILLS, reason, lost)
            warn_of_strangers(root, (), (), ANIMATED, moving)
            if not self._photographs:
                fail("photographs", f"a folder of pictures ({', '.join(STILLS)})", str(photographs))

    def __len__(self) -> int:
        return len(self._images)

    def _identity(self) -> list[Any]:
        files = [(path.name, _files.size_of(path)) for path in self._photographs]
        return [*((image, self.size, self.coils, self.noise) for image in self._images), *files]

    def _magnitude(self, rng: np.random.Generator) -> Tensor:
        """An image [H, W] with a largest value of 1."""
        if self._photographs and rng.random() < 0.5:
            image = _gray(self._photographs[int(rng.integers(len(self._photographs)))])
        else:
            image = self._images[int(rng.integers(len(self)))]
        if rng.random() < 0.5:
            image = image.T
        height, width = self.size
        # A window of so many pixels of the image for each one that is made.
        limit = min(image.shape[0] / height, image.shape[1] / width)
        zoom = min(0.8, limit) * max(1.0, limit / 0.8) ** rng.random()
        for _ in range(8):  # a window that is not just background
            h, w = int(height * zoom), int(width * zoom)
            i, j = int(rng.integers(image.shape[0] - h + 1)), int(rng.integers(image.shape[1] - w + 1))
            window = image[i : i + h, j : j + w]
            if window.mean() > 0.05:
                break
        flips = [axis for axis in (0, 1) if rng.random() < 0.5]
        x = F.interpolate(window.flip(flips)[None, None], self.size, mode="bicubic", antialias=True)[0, 0]
        x = (x.clamp_min(0) / x.max().clamp_min(1e-3)).pow(math.exp(rng.uniform(-0.5, 0.3)))
        if rng.random() < 0.5:
            x = _head(x, rng)
        return x / x.max().clamp_min(1e-3)

    def _mask(self, rng: np.random.Generator) -> Tensor:
        width = self.size[1]
        kind, center = rng.random(), rng.uniform(10, 18)
        if kind < 0.6:
            # One of 2.5 to 7 columns outside of the center, whatever the width.
            sampled = (center + (width - center) / rng.uniform(2.5, 7)) / width
            return cartesian_mask(width, 1 / sampled, center / width, rng, equispaced=rng.random() < 0.5)
        if kind < 0.7:
            return radial_mask(self.size, rng.uniform(3, 8), center / 2, rng)
        mask = poisson_disc_mask(self.size, rng.uniform(4, 16), center, rng)
        if rng.random() < 0.5:  # k-space is nearly symmetric, so that a part of one side is often left out
            mask[:, int(width * rng.uniform(0.8, 1)) :] = False
        return mask

    def batch(self, count: int, rng: np.random.Generator) -> tuple[Tensor, MRI, Tensor]:
        """Images, their forward model and their k-space.

        Returns:
            x: complex64 [N, H, W], N = `count`.
            physics: `amstel.inverse.MRI`, centered, with sigma = 1, so that its gradient is A^H (A x - y).
            y: complex64 [N, coils, H, W], noisy where the mask of the batch samples it and 0 elsewhere.

        Everything is determined by the state of `rng`.
        """
        coils = int(rng.integers(self.coils[0], self.coils[1] + 1))
        x = torch.stack(
            [torch.polar(self._magnitude(rng), smooth_phase(self.size, rng)) for _ in range(count)]
        )
        made = torch.stack([loop_sensitivities(coils, self.size, rng) for _ in range(count)])
        mask = self._mask(rng)
        low, high = np.log(self.noise)
        sigma = np.exp(rng.uniform(low, high, (count, 1, 1, 1))).astype(np.float32)
        noise = torch.from_numpy(sigma[..., None] * rng.standard_normal((*made.shape, 2), dtype=np.float32))
        y = MRI(mask, made, centered=True)(x) + mask * torch.view_as_complex(noise)
        estimated = estimate_sensitivities(y, mask)
        physics = MRI(mask, estimated, centered=True)
        x = (estimated.conj() * made).sum(1) * x
        peak = physics.adjoint(y).abs().amax((1, 2)).clamp_min(1e-6)[:, None, None]
        return x / peak, physics, y / peak[:, None]


def _gray(path: Path) -> Tensor:
    picture = need("PIL.Image", extra="restore", purpose="amstel.data.mri").fromarray(read_picture(path))
    return torch.from_numpy(np.asarray(picture.convert("L"), np.float32) / 255)


def _head(x: Tensor, rng: np.random.Generator) -> Tensor:
    """`x` cut to an ellipse with a soft edge, sometimes in a dark and a bright ring (bone and fat)."""
    height, width = x.shape
    center, half = rng.uniform(-0.08, 0.08, 2), rng.uniform(0.65, 0.95, 2)
    y = (torch.linspace(-1, 1, height)[:, None] - center[0]) / half[0]
    radius = (y.square() + ((torch.linspace(-1, 1, width) - center[1]) / half[1]).square()).sqrt()
    soft = 2 / min(height, width)

    def inside(limit: float) -> Tensor:
        return ((limit - radius) / soft).clamp(0, 1)

    if rng.random() < 0.5:
        return x * inside(1)
    fat = rng.uniform(0.03, 0.1)
    bone = fat + rng.uniform(0.03, 0.08)
    return x * inside(1 - bone) + rng.uniform(0.4, 1.2) * (inside(1) - inside(1 - fat)) * (0.7 + 0.3 * x)
