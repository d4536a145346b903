"""Inverse problems that classical methods solve without training, compared with ours: holes, blurs, random projections.

The images are the gray centers of the first images in a folder. The settings of both sides are fixed, so nothing is tuned on
these images; those of total variation are the best on a grid, chosen on images held out of training.

- "inpaint": missing blocks of 12 and of 24 pixels per side, 50% and 80% of the pixels at random, and lines, without noise;
  PSNR over the missing pixels, compared with scikit-image's `inpaint_biharmonic`.
- "deblur": a Gaussian of 1.6 pixels and a motion of 13 pixels at 30 degrees, with noise of 2.55 and 7.65 / 255; what lies
  beyond the border is unknown. Total variation is `amstel.inverse.total_variation` with 100 iterations.
- "projection": P random projections of the N pixels of 32x32 patches, with noise of 1 / 255; total variation as above.
  Below P / N = 0.25, `amstel.inverse.message_passing` continues from total variation, with the same denoiser.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import inverse, weights
from amstel._words import counted
from amstel.apps.restoration import convergence, files
from amstel.inverse.restore import restore
from amstel.nn.rim import _FILES, RIM

Row = dict[str, Any]

#: Pixels a side that are scored, at the most and at the least; how many more the blurs see on both sides together.
SIDE, LEAST, MARGIN = 128, 48, 12
BLOCKS, LOST, SIGMAS, RATIOS = (12, 24), (0.5, 0.8), (2.55, 7.65), convergence.RATIOS
#: For plug-and-play from random projections, whose first estimates are far off. Chosen on images held out of training.
STEPS, FIRST = 100, 75 / 255
#: The P / N from which there are enough measurements for plug-and-play. Chosen the same way.
ENOUGH = 0.25
#: Iterations and weights of total variation: by blur and noise, and by P / N. The best of a grid on images held out of training.
ITERATIONS = 100
BLURRED = {
    ("gaussian", 2.55): 5e-4,
    ("gaussian", 7.65): 3e-3,
    ("motion", 2.55): 6e-4,
    ("motion", 7.65): 3.5e-3,
}
PROJECTED = {0.1: 0.05, 0.2: 0.02, 0.3: 0.01, 0.4: 0.01, 0.5: 0.01}


def masks(side: int, seed: int = 0) -> dict[str, Tensor]:
    """Masks of `side` x `side` pixels, 1 where known and 0 elsewhere, by the name of the holes."""
    generator = torch.Generator().manual_seed(seed)
    i = torch.arange(side)
    found = {}
    for block in BLOCKS:
        # As many as leave twice their width between them, in the middle of equal parts.
        part = side / max(1, side // (3 * block))
        inside = (i % part - part / 2 + 0.5).abs() < block / 2
        found[f"blocks of {block} pixels"] = ~(inside[:, None] & inside)
    for lost in LOST:
        found[f"{lost:.0%} at random"] = torch.rand(side, side, generator=generator) >= lost
    found["lines"] = ~((i % 16 - 6 < 3) & (i % 16 >= 6))[:, None] & ~((i % 24 - 10 < 2) & (i % 24 >= 10))
    return {name: known.float() for name, known in found.items()}


@torch.no_grad()
def scores(
    root: str | os.PathLike,
    *,
    images: int = 10,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """A row for each problem: "task", "problem", "images", "side", "psnr", "method" and "classical", its PSNR.

    Args:
        root: a folder of images of at least 60x60 pixels. The first `images` of them are used, and the central 128x128
            pixels of each, or as many as the smallest image has, minus 12.
        seed: for random holes, noise and projections.
        device: for the networks.
        progress: called with 1 after every problem, of which there are `count()`.

    Raises:
        ValueError: a folder without images, or with smaller ones.
    """
    paths = files.find(root)[:images]
    smallest = min(min(files.read(path).pixels.shape[:2]) for path in paths)
    side = min(SIDE, max(LEAST, smallest - MARGIN))
    wide = torch.stack([convergence.middle(path, side + MARGIN) for path in paths])[:, None]
    x = _cut(wide, side)
    generator = torch.Generator().manual_seed(seed)
    rows: list[Row] = []

    def add(
        task: str, problem: str, truth: Tensor, ours: Tensor, method: str, theirs: Tensor, of: Tensor
    ) -> None:
        """`of` is 1 where pixels are scored."""
        found, other = (_psnr(t.cpu(), truth, of) for t in (ours, theirs))
        row = {"task": task, "problem": problem, "images": len(truth), "side": truth.shape[-1]}
        error = float(found.std() / len(found) ** 0.5) if len(found) > 1 else None
        row |= {"psnr": float(found.mean()), "psnr_se": error}
        rows.append(row | {"method": method, "classical": float(other.mean())})
        if progress is not None:
            progress(1)

    biharmonic = files.module("skimage.restoration").inpaint_biharmonic
    for name, known in masks(side, seed).items():
        ours = restore(x * known, "inpaint", mask=known, device=device)
        filled = [biharmonic((t[0] * known).double().numpy(), known.numpy() == 0) for t in x]
        add("inpaint", name, x, ours, "biharmonic", torch.from_numpy(np.stack(filled))[:, None], 1 - known)

    kernels = {"gaussian": inverse.gaussian_kernel(1.6), "motion": inverse.motion_kernel(13, 30)}
    titles = {"gaussian": "Gaussian of 1.6", "motion": "motion of 13"}
    for kind, kernel in kernels.items():
        physics: inverse.ForwardModel = inverse.Deblurring(kernel, boundary="valid")
        clean = physics(wide)
        truth = _cut(wide, clean.shape[-1])
        for sigma in SIGMAS:
            y = clean + sigma / 255 * torch.randn(clean.shape, generator=generator)
            ours = restore(y, "deblur", sigma / 255, kernel=kernel, device=device)
            theirs = inverse.total_variation(y, physics, BLURRED[kind, sigma], ITERATIONS)
            name = f"{titles[kind]} pixels, sigma {sigma:g}"
            add("deblur", name, truth, ours, "total variation", _cut(theirs, truth.shape[-1]), torch.ones(()))

    small, gray = _cut(x, 32).contiguous(), RIM.pretrained("gray").to(device)
    for ratio in RATIOS:
        physics = inverse.StructuredProjection((1, 32, 32), round(ratio * 1024), 1 / 255, seed=seed)
        y = physics(small)
        y = y + torch.randn(y.shape, generator=generator) / 255
        theirs = inverse.total_variation(y, physics, PROJECTED[ratio], ITERATIONS)
        given = y.to(device), physics.to(device)
        if ratio < ENOUGH:
            ours = inverse.message_passing(*given, partial(_denoised, gray), theirs.to(device))
        else:
            ours = convergence.unprojected(*given, gray, STEPS, FIRST)[-1]
        add("projection", f"P / N = {ratio:g}", small, ours, "total variation", theirs, torch.ones(()))
    return rows


def _denoised(gray: RIM, x: Tensor, level: Tensor) -> Tensor:
    return gray(x, inverse.Denoising(level.clamp_max(FIRST)), 1)[-1]


def count() -> int:
    """How often `scores` calls `progress`."""
    return len(BLOCKS) + len(LOST) + 1 + 2 * len(SIGMAS) + len(RATIOS)


def weights_used() -> str:
    """The file of the gray denoiser and the start of its SHA-256, because the weights behind a name change between releases."""
    name = f"rim_{_FILES.get('gray', 'gray')}"
    return f"{name}, sha256 {hashlib.sha256(weights.path(name).read_bytes()).hexdigest()[:12]}"


def _cut(x: Tensor, side: int) -> Tensor:
    """The center of images."""
    i, j = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., i : i + side, j : j + side]


def _psnr(x: Tensor, truth: Tensor, of: Tensor) -> Tensor:
    """[N], in dB, over the pixels where `of` is 1."""
    of = of.double().expand(truth.shape)
    error = ((x.double() - truth.double()).square() * of).sum((1, 2, 3)) / of.sum((1, 2, 3))
    return -10 * error.clamp_min(1e-20).log10()


def text(rows: Sequence[Row]) -> str:
    """The table to print."""
    width = max(len(row["problem"]) for row in rows)
    first = rows[0]
    lines = [
        f"PSNR of {counted(first['images'], 'image')}, {first['side']} pixels per side, with {weights_used()}"
    ]
    for row in rows:
        error = "" if row["psnr_se"] is None else f" ± {row['psnr_se']:.2f}"
        lines.append(
            f"{row['task']:<10}  {row['problem']:<{width}}  {row['psnr']:.2f}{error}  "
            f"({row['method']} {row['classical']:.2f})"
        )
    if any(row["task"] == "projection" for row in rows):
        lines += [
            f"projection: plug-and-play with {STEPS} steps from P / N = {ENOUGH:g} on, message passing below;",
            f"so better than plug-and-play with {convergence.STEPS} steps in --table convergence",
        ]
    return "\n".join(lines)
