"""How well images are restored, by the protocols of the literature on denoising and super-resolution.

All begin from the 8-bit images of a folder, and all scores are means over the images.

- Denoising. The noise is sigma / 255 times numpy.random.default_rng([seed, number of the image, in the order of the
  names]).standard_normal(shape), [H, W] or [H, W, 3], in float32; the noisy image is neither clipped nor rounded. Gray
  images stay gray, others are RGB, with one PSNR over the three channels. The mean is over seeds 0, 1, ... too; the same noise,
  but for its size, serves every sigma.
- Super-resolution. Gray images are taken as they are; of others the luma Y = 16 + 65.481 R + 128.553 G + 24.966 B
  (BT.601, R, G and B in [0, 1]), rounded to 8 bits, as MATLAB's rgb2ycbcr gives it. The image is cropped at the right and
  at the bottom to a multiple of the scale; the small image is its antialiased bicubic reduction (a = -0.5, as MATLAB's
  imresize), clipped and rounded to 8 bits. `scale` pixels a side are left out of the scores.

PSNR is 10 log10(1 / MSE), of the result as it is, and of the result clipped and rounded to 8 bits. SSIM is scikit-image's
with Gaussian weights of sigma = 1.5 and without the sample covariance, of the 8-bit result; of color the mean over the
channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amstel import ops
from amstel._check import fail
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.restoration import files
from amstel.inverse.color import to_ycbcr
from amstel.inverse.restore import restore
from amstel.nn.rim import RIM

Row = dict[str, Any]


def psnr(x: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of images in [0, 1]."""
    error = np.square(x.astype(np.float64) - truth).mean()
    return float(10 * np.log10(1 / error)) if error else float("inf")


def ssim(x: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of images in [0, 1] (Wang et al., IEEE TIP 2004)."""
    return files.module("skimage.metrics").structural_similarity(
        x.astype(np.float64),
        truth.astype(np.float64),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2 if truth.ndim == 3 else None,
    )


def rounded(x: np.ndarray) -> np.ndarray:
    """As an 8-bit file has it."""
    return files.quantize(x) / np.float32(255)


def _scores(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    eight = rounded(x)
    return np.array([psnr(x, truth), psnr(eight, truth), ssim(eight, truth)])


def _row(scores: np.ndarray) -> Row:
    return dict(zip(("psnr", "psnr_8bit", "ssim"), np.mean(scores, 0).tolist(), strict=True))


def denoising(
    root: str | os.PathLike,
    sigmas: Sequence[float] = (15, 25, 50),
    seeds: int = 3,
    *,
    model: RIM | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> list[Row]:
    """Scores on the images of a folder, a row for each sigma.

    Args:
        root: the folder (or one image).
        sigmas: standard deviations of the noise, 0..255.
        seeds: how many.
        model: default: the weights that ship.
        progress: called with 1 after every image that is restored.
        ranks: processes of which each takes its share of the images.
        failures: takes images that cannot be read, which are left out then; default: their error is raised.

    Returns:
        Rows of "sigma", "images", "seeds", "noisy" (PSNR, unclipped), "psnr", "psnr_8bit", "ssim", and "psnr_seeds".
    """
    _positive("sigmas", sigmas)
    paths, progress = files.find(root), progress or (lambda n: None)

    def work(number: int) -> np.ndarray:
        """[sigmas, seeds, (noisy, psnr, psnr_8bit, ssim)]"""
        truth = rounded(files.read(paths[number]).pixels)
        found = np.empty((len(sigmas), seeds, 4))
        for i, sigma in enumerate(sigmas):
            for seed in range(seeds):
                noise = np.random.default_rng([seed, number]).standard_normal(truth.shape)
                y = (truth + sigma / 255 * noise).astype(np.float32)
                x = restore(y, "denoise", sigma / 255, model=model, device=device)
                found[i, seed] = psnr(y, truth), *_scores(x, truth)
                progress(1)
        return found

    done = succeeded(each(range(len(paths)), work, ranks or Ranks(), fatal=failures is None), failures)
    scores = np.stack([outcome.value for outcome in done], 2)  # type: ignore[misc]
    return [
        {"sigma": sigma, "images": len(done), "seeds": seeds, "noisy": float(of_sigma[..., 0].mean())}
        | _row(of_sigma[..., 1:].reshape(-1, 3))
        | {"psnr_seeds": of_sigma[..., 1].mean(1).tolist()}
        for sigma, of_sigma in zip(sigmas, scores, strict=True)
    ]


def super_resolution(
    root: str | os.PathLike,
    scales: Sequence[int] = (2, 3, 4),
    *,
    model: RIM | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> list[Row]:
    """Scores on the images of a folder, a row for each scale; arguments as `denoising`.

    Returns:
        Rows of "scale", "images", "bicubic" (the same scores of bicubic enlargement), "psnr", "psnr_8bit", "ssim".
    """
    _positive("scales", scales)
    paths, progress = files.find(root), progress or (lambda n: None)

    def work(path: Path) -> np.ndarray:
        """[scales, (bicubic, restored), (psnr, psnr_8bit, ssim)]"""
        image = luma(rounded(files.read(path).pixels))
        found = np.empty((len(scales), 2, 3))
        for i, scale in enumerate(scales):
            truth = image[: len(image) // scale * scale, : image.shape[1] // scale * scale]
            y = reduced(truth, scale)
            inside = (slice(scale, -scale),) * 2
            plain = enlarged(y, scale)
            x = restore(y, "sr", scale=scale, model=model, device=device)
            found[i] = _scores(plain[inside], truth[inside]), _scores(x[inside], truth[inside])
            progress(1)
        return found

    done = succeeded(each(paths, work, ranks or Ranks(), fatal=failures is None), failures)
    scores = np.stack([outcome.value for outcome in done], 1)  # type: ignore[misc]
    return [
        {"scale": scale, "images": len(done), "bicubic": _row(of_scale[:, 0])} | _row(of_scale[:, 1])
        for scale, of_scale in zip(scales, scores, strict=True)
    ]


def luma(image: np.ndarray) -> np.ndarray:
    """Y of an RGB image in [0, 1], rounded to 8 bits; a gray image as it is."""
    if image.ndim == 2:
        return image
    y = to_ycbcr(torch.from_numpy(image).double().permute(2, 0, 1)[None])[0, 0]
    return rounded(y.numpy())


def reduced(image: np.ndarray, scale: int) -> np.ndarray:
    """The bicubic reduction of an image whose sides are multiples of the scale, rounded to 8 bits."""
    small = ops.bicubic_down(torch.from_numpy(image).double()[None, None], scale)
    return rounded(small[0, 0].numpy())


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """Bicubic enlargement, which is scale^2 times the adjoint of the reduction."""
    large = ops.bicubic_down_adjoint(torch.from_numpy(image).double()[None, None], scale) * scale**2
    return large[0, 0].numpy()


def _positive(name: str, values: Sequence[float]) -> None:
    if not len(values) or not all(value > 0 for value in values):
        fail(name, "at least one number, all > 0", values)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, PSNR in dB; what was not restored, or bicubically enlarged, beside them."""
    lines = []
    if "sigma" in rows[0]:
        lines.append(f"{'sigma':>5s} {'noisy':>7s} {'PSNR':>7s} {'8 bits':>7s} {'SSIM':>7s}")
        for r in rows:
            scores = f"{r['noisy']:7.2f} {r['psnr']:7.2f} {r['psnr_8bit']:7.2f} {r['ssim']:7.4f}"
            lines.append(f"{r['sigma']:5g} {scores}")
        last = f"{rows[0]['images']} images, {rows[0]['seeds']} seeds"
    else:
        lines.append(f"{'':5s} {'bicubic':>15s} {'restored':>23s}")
        lines.append(f"{'scale':>5s} {'8 bits':>7s} {'SSIM':>7s} {'PSNR':>7s} {'8 bits':>7s} {'SSIM':>7s}")
        for r in rows:
            b = r["bicubic"]
            scores = f"{r['psnr']:7.2f} {r['psnr_8bit']:7.2f} {r['ssim']:7.4f}"
            lines.append(f"{r['scale']:5d} {b['psnr_8bit']:7.2f} {b['ssim']:7.4f} {scores}")
        last = f"{rows[0]['images']} images"
    return "\n".join([*lines, last])
