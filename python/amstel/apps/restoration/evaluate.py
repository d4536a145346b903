"""Restoration quality, by the protocols of the literature on denoising and super-resolution.

All protocols start from the 8-bit images of a folder, and all scores are means over the images.

- Denoising. The noise is sigma / 255 times numpy.random.default_rng([seed, number of the image, in the order of the
  names]).standard_normal(shape), [H, W] or [H, W, 3], in float32; the noisy image is neither clipped nor rounded, or, if
  "quantized", clipped to [0, 1] and rounded to 8 bits. Gray images stay gray, others are RGB, with one PSNR over the three
  channels. The mean is over seeds 0, 1, ... too; the same noise, but for its size, serves every sigma.
- Super-resolution. Gray images are used unchanged; others are converted to luma, Y = 16 + 65.481 R + 128.553 G + 24.966 B
  (BT.601, R, G and B in [0, 1]), rounded to 8 bits, as in MATLAB's rgb2ycbcr. The image is cropped at the right and at the
  bottom to a multiple of the scale; the small image is its antialiased bicubic reduction (a = -0.5, as in MATLAB's
  imresize), clipped and rounded to 8 bits. `scale` pixels per side are left out of the scores.

PSNR is 10 log10(1 / MSE), of the result as it is, and of the result clipped and rounded to 8 bits. SSIM is scikit-image's
with Gaussian weights of sigma = 1.5 and without the sample covariance, of the 8-bit result; for color images, the mean over
the channels. Its window has 11 x 11 pixels, so smaller images raise an error.
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
from amstel._words import counted
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.restoration import files
from amstel.inverse.color import to_ycbcr
from amstel.inverse.restore import restore
from amstel.nn.rim import RIM

Row = dict[str, Any]
#: Side of the window of SSIM.
WINDOW = 11


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


def scored(what: str | os.PathLike, shape: Sequence[int], least: int = WINDOW) -> None:
    """ValueError if an image [H, W, ...] is too small to be scored."""
    if min(shape[:2]) < least:
        raise ValueError(
            f"{what} must have at least {least} x {least} pixels to be scored, got {shape[1]} x {shape[0]}"
        )


def rounded(x: np.ndarray) -> np.ndarray:
    """As stored in an 8-bit file."""
    return files.quantize(x) / np.float32(255)


def _scores(x: np.ndarray, truth: np.ndarray) -> np.ndarray:
    eight = rounded(x)
    return np.array([psnr(x, truth), psnr(eight, truth), ssim(eight, truth)])


def _row(scores: np.ndarray) -> Row:
    """Means of [images, 3], and the standard errors of the mean over the images (None for a single image)."""
    names, count = ("psnr", "psnr_8bit", "ssim"), len(scores)
    with np.errstate(invalid="ignore"):  # the PSNR of equal images is infinite
        errors = (scores.std(0, ddof=1) / np.sqrt(count)).tolist() if count > 1 else [None] * 3
    means = dict(zip(names, scores.mean(0).tolist(), strict=True))
    return means | {f"{name}_se": error for name, error in zip(names, errors, strict=True)}


def denoising(
    root: str | os.PathLike,
    sigmas: Sequence[float] = (15, 25, 50),
    seeds: int = 3,
    *,
    quantized: bool = False,
    gray: bool = False,
    model: RIM | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> list[Row]:
    """Scores on the images of a folder, one row per sigma.

    Args:
        root: the folder (or one image).
        sigmas: standard deviations of the noise, 0..255.
        seeds: how many.
        quantized: clip the noisy images to [0, 1] and round them to 8 bits, as in a file.
        gray: convert color images to their ITU-R 601 luma, rounded to 8 bits.
        model: default: the bundled weights.
        progress: called with 1 after every restored image.
        ranks: processes that each take a share of the images.
        failures: collects the images that cannot be read, which are then left out; default: raise their error.

    Returns:
        Rows of "sigma", "quantized", "images", "seeds", "noisy" (PSNR), "psnr", "psnr_8bit" and "ssim", each with its
        standard error ("psnr_se"), and "psnr_seeds".
    """
    _positive("sigmas", sigmas)
    paths, progress = files.find(root), progress or (lambda n: None)

    def work(number: int) -> np.ndarray:
        """[sigmas, seeds, (noisy, psnr, psnr_8bit, ssim)]"""
        truth = rounded(files.read(paths[number]).pixels)
        scored(paths[number], truth.shape)
        if gray and truth.ndim == 3:
            truth = rounded(truth @ np.array([0.299, 0.587, 0.114], np.float32))
        found = np.empty((len(sigmas), seeds, 4))
        for i, sigma in enumerate(sigmas):
            for seed in range(seeds):
                noise = np.random.default_rng([seed, number]).standard_normal(truth.shape)
                y = (truth + sigma / 255 * noise).astype(np.float32)
                y = rounded(y) if quantized else y
                x = restore(y, "denoise", sigma / 255, model=model, device=device)
                found[i, seed] = psnr(y, truth), *_scores(x, truth)
                progress(1)
        return found

    done = succeeded(each(range(len(paths)), work, ranks or Ranks(), fatal=failures is None), failures)
    scores = np.stack([outcome.value for outcome in done], 2)  # type: ignore[misc]
    return [
        {"sigma": sigma, "quantized": quantized, "images": len(done), "seeds": seeds}
        | {"noisy": float(of_sigma[..., 0].mean())}
        | _row(of_sigma[..., 1:].mean(0))
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
    """Scores on the images of a folder, one row per scale; arguments as for `denoising`.

    Returns:
        Rows of "scale", "images", "bicubic" (the same scores of bicubic enlargement), "psnr", "psnr_8bit" and "ssim", each
        with its standard error.
    """
    _positive("scales", scales)
    paths, progress = files.find(root), progress or (lambda n: None)

    def work(path: Path) -> np.ndarray:
        """[scales, (bicubic, restored), (psnr, psnr_8bit, ssim)]"""
        image = luma(rounded(files.read(path).pixels))
        # What a window needs, in multiples of the scale, and `scale` pixels per side that are left out.
        scored(path, image.shape, max((-(-WINDOW // scale) + 2) * scale for scale in scales))
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


def pairs(
    noisy: str | os.PathLike,
    clean: str | os.PathLike,
    sigma: float | None = None,
    *,
    model: RIM | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> list[Row]:
    """Scores on your own noisy images and the clean ones with the same stems; arguments as for `denoising`.

    Args:
        noisy, clean: two folders, or two files.
        sigma: of the noise, 0..255; None: estimate it from each image.

    Returns:
        One row of "sigma" (for None, the mean of the estimates), "estimated", "images", "noisy" (the same scores before),
        "psnr", "psnr_8bit" and "ssim", each with its standard error.

    Raises:
        ValueError: an image without a partner, or with several.
    """
    paths, partners = files.find(noisy), {}
    several: dict[str, list[str]] = {}
    for path in files.find(clean):
        partners[path.stem] = path
        several.setdefault(path.stem, []).append(path.name)
    progress = progress or (lambda n: None)
    if not Path(noisy).is_dir() and not Path(clean).is_dir():
        partners = {paths[0].stem: next(iter(partners.values()))}
    for path in paths:
        if path.stem not in partners:
            raise ValueError(f"{clean} must hold an image for each of {noisy}, got none for {path.stem}")
        if len(same := several.get(path.stem, [])) > 1:
            raise ValueError(f"{clean} must hold one image for {path}, got {' and '.join(same)}")

    def work(path: Path) -> tuple[np.ndarray, float]:
        """[(noisy, restored), (psnr, psnr_8bit, ssim)], sigma"""
        y, truth = files.read(path).pixels, files.read(partners[path.stem]).pixels
        if y.shape != truth.shape:
            sizes = [" x ".join(map(str, t.shape)) for t in (y, truth)]
            raise ValueError(f"{path} must have the size and channels of {partners[path.stem]}, got {sizes}")
        scored(path, y.shape)
        level = "auto" if sigma is None else sigma / 255
        x, found = restore(y, "denoise", level, model=model, device=device, return_sigma=True)
        progress(1)
        return np.stack([_scores(y, truth), _scores(x, truth)]), 255 * found

    done = succeeded(each(paths, work, ranks or Ranks(), fatal=failures is None), failures)
    scores = np.stack([outcome.value[0] for outcome in done])  # type: ignore[index]
    level = float(np.mean([outcome.value[1] for outcome in done]))  # type: ignore[index]
    row: Row = {"sigma": level, "estimated": sigma is None, "images": len(done)}
    return [row | {"before": _row(scores[:, 0])} | _row(scores[:, 1])]


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
    """The rows of `denoising`, `pairs` or `super_resolution` as text, PSNR in dB, next to the scores of the noisy or bicubically enlarged input."""
    lines = []
    if "before" in rows[0]:
        lines.append(f"{'':5s} {'noisy':>15s} {'restored':>23s}")
        lines.append(f"{'sigma':>5s} {'PSNR':>7s} {'SSIM':>7s} {'PSNR':>7s} {'8 bits':>7s} {'SSIM':>7s}")
        for r in rows:
            scores = f"{r['psnr']:7.2f} {r['psnr_8bit']:7.2f} {r['ssim']:7.4f}"
            b = r["before"]
            lines.append(f"{r['sigma']:5.1f} {b['psnr']:7.2f} {b['ssim']:7.4f} {scores}")
        last = counted(rows[0]["images"], "image") + (", sigma estimated" if rows[0]["estimated"] else "")
    elif "sigma" in rows[0]:
        lines.append(f"{'sigma':>5s} {'noisy':>7s} {'PSNR':>7s} {'8 bits':>7s} {'SSIM':>7s}")
        for r in rows:
            scores = f"{r['noisy']:7.2f} {r['psnr']:7.2f} {r['psnr_8bit']:7.2f} {r['ssim']:7.4f}"
            lines.append(f"{r['sigma']:5g} {scores}")
        last = f"{counted(rows[0]['images'], 'image')}, {counted(rows[0]['seeds'], 'seed')}"
        last += ", noisy images clipped and rounded to 8 bits" if rows[0]["quantized"] else ""
    else:
        lines.append(f"{'':5s} {'bicubic':>15s} {'restored':>23s}")
        lines.append(f"{'scale':>5s} {'8 bits':>7s} {'SSIM':>7s} {'PSNR':>7s} {'8 bits':>7s} {'SSIM':>7s}")
        for r in rows:
            b = r["bicubic"]
            scores = f"{r['psnr']:7.2f} {r['psnr_8bit']:7.2f} {r['ssim']:7.4f}"
            lines.append(f"{r['scale']:5d} {b['psnr_8bit']:7.2f} {b['ssim']:7.4f} {scores}")
        last = counted(rows[0]["images"], "image")
    return "\n".join([*lines, last])
