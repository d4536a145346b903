"""Evaluation of multi-coil MRI reconstruction against zero filling and total variation, on retrospectively undersampled data.

Protocol. k-space is fully sampled and centered; a mask [H, W] that is smaller than it takes its center, at lower resolution.
Methods see the samples of the mask only, also to estimate the coil sensitivities (`estimate_sensitivities`). The truth comes
from all of k-space, in two forms: the magnitude of the combination sum conj(S_c) m_c of the coil images with sensitivities
from its own center, and their root sum of squares, as in the literature, which adds up the noise of all coils where there
is no object. Magnitudes are compared: PSNR with the largest value of the truth as peak, and SSIM with it as data range,
Gaussian weights of sigma = 1.5 and without the sample covariance, on the whole field of view.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel._words import counted
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.restoration.evaluate import psnr, scored, ssim
from amstel.data.mri import cartesian_mask, estimate_sensitivities, read_mask, read_scan
from amstel.data.mri.scans import ENDINGS, check_finite
from amstel.inverse import MRI, total_variation
from amstel.inverse.reconstruct import reconstruct
from amstel.inverse.restore import pretrained
from amstel.media.formats import NOT_DEEPER, others, visible, warn_of_folders, warn_of_others
from amstel.nn.rim import RIM
from amstel.reference.mri import ifft2

Row = dict[str, Any]

#: Weights of total variation among which the baseline is given the best.
TV_WEIGHTS = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005)

#: The method and the name of the networks that ship.
SHIPPED = (("plug-and-play", "complex"), ("RIM", "mri"))


def _central(kspace: Tensor, mask: Tensor) -> Tensor:
    """The center of k-space that has the size of the mask."""
    height, width = kspace.shape[-2:]
    h, w = mask.shape if mask.dim() == 2 else (height, width)
    if mask.dim() not in (1, 2) or mask.shape[-1] != w or h > height or w > width:
        fail("mask", f"[{width}], or [h, w] with h <= {height} and w <= {width}", mask)
    i, j = height // 2 - h // 2, width // 2 - w // 2
    return kspace[..., i : i + h, j : j + w]


@torch.no_grad()
def evaluate(
    kspace: Tensor,
    mask: Tensor,
    model: RIM | None = None,
    *,
    steps: int | None = None,
    device: str | torch.device = "cpu",
    weights: Sequence[float] = TV_WEIGHTS,
) -> list[Row]:
    """Scores of zero filling, total variation and `amstel.restore` on one slice, by the protocol above.

    Args:
        kspace: fully sampled and centered, complex [coils, H, W].
        mask: [W], or [h, w] at most as large as k-space.
        model: a network for MRI, or a denoiser as the prior of plug-and-play; default: the bundled ones, one after the
            other.
        steps: of the model; default: as in `amstel.restore`.
        device: where to reconstruct.
        weights: of total variation; the one with the best PSNR on this slice counts, which favors the baseline.

    Returns:
        One row per method: `method`, `psnr` and `ssim` against the combination of the coils, `psnr_rss` and `ssim_rss`
        against their root sum of squares, and `weight` of total variation.

    Raises:
        ValueError: k-space that is not complex [coils, H, W], a mask that is larger or does not sample the center.
    """
    if tensor("kspace", kspace, "complex [coils, H, W]").dim() != 3 or not kspace.is_complex():
        fail("kspace", "complex [coils, H, W]", kspace)
    device = torch.device(device)
    if model is None:
        models = [(method, pretrained(name, device)) for method, name in SHIPPED]
    else:
        denoises = model.channels == 1 or model.trained_sigma is not None
        models = [("plug-and-play" if denoises else "RIM", model.to(device).eval())]
    mask = tensor("mask", mask, "a tensor [W] or [H, W]").to(device)
    full = _central(kspace.to(device), mask)
    scored("`kspace` within the mask", full.shape[-2:])
    y = mask * full
    maps = estimate_sensitivities(y, mask)
    physics = MRI(mask, maps, centered=True)
    peak = physics.adjoint(y[None]).abs().max()
    y, full = y[None] / peak, full / peak

    images = ifft2(full, centered=True)
    combined = (estimate_sensitivities(full).conj() * images).sum(0).abs()
    truths = {"": combined, "_rss": images.abs().square().sum(0).sqrt()}

    def row(method: str, x: Tensor, **more: float) -> Row:
        scores: Row = {"method": method}
        for name, truth in truths.items():
            found, expected = ((t / truth.max()).cpu().numpy() for t in (x[0].abs(), truth))
            scores |= {f"psnr{name}": psnr(found, expected), f"ssim{name}": ssim(found, expected)}
        return scores | more

    tv = [row("total variation", total_variation(y, physics, w), weight=w) for w in weights]
    return [
        row("zero-filled", physics.adjoint(y)),
        *([max(tv, key=lambda r: r["psnr"])] if tv else []),
        *(row(method, reconstruct(m, y, mask, maps, steps)) for method, m in models),
    ]


def find(path: str | os.PathLike) -> list[Path]:
    """The file, or the k-space files in the folder in the order of their names; ValueError if there is none."""
    path = Path(path)
    if path.is_file():
        return [path]
    found = sorted(visible(path, ENDINGS)) if path.is_dir() else []
    if not found:
        got = (others(path, ()) if path.is_dir() else "") or "none"
        raise ValueError(f"{path} must hold at least one file of k-space, {' '.join(ENDINGS)}, got {got}")
    headers = [file.with_suffix(".hdr") for file in found]
    warn_of_others(path, [*found, *headers], "without the extension of k-space")
    warn_of_folders(path, [], NOT_DEEPER)
    return found


def evaluate_files(
    paths: Sequence[str | os.PathLike],
    masks: Mapping[str, Sequence[Tensor]] | None = None,
    model: RIM | None = None,
    *,
    seeds: int = 3,
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
    **options: Any,
) -> list[Row]:
    """`evaluate` on files of k-space; scores are means over the files and the masks of a kind.

    Args:
        paths: fully sampled and centered k-space of one or more slices, as for `amstel.data.mri.read_scan`. Slices
            without samples are left out, with a warning.
        masks: masks by kind; default "columns 4x", `seeds` of them: a quarter of the columns, 8% of them in the
            center, the others at random (`cartesian_mask` with numpy.random.default_rng(seed)).
        progress: called with 1 after every mask of a file.
        ranks: processes that each take a share of the files.
        failures: collects the files that cannot be evaluated, which are then left out; default: raise their error.
        options: for `evaluate`.

    Returns:
        The rows of `evaluate` with `mask`, its kind, and `sampled`, the share of k-space.

    Raises:
        FileNotFoundError: a file is missing.
    """
    if not isinstance(seeds, int) or seeds < 1:
        fail("seeds", "an integer >= 1", seeds)

    def work(path: str | os.PathLike) -> dict[str, list[list[Row]]]:
        scan = read_scan(path)
        if scan.mask is not None and not scan.mask.all():
            raise ValueError(
                f"{path} must hold fully sampled k-space, got {scan.mask.float().mean():.1%} of it"
            )
        scored(path, scan.kspace.shape[-2:])
        for number, kspace in enumerate(scan.kspace):
            check_finite(path, number, kspace)
        slices = [number for number, kspace in enumerate(scan.kspace) if kspace.any()]
        if not slices:
            raise ValueError(f"{path} must hold samples other than 0, got none")
        if len(slices) < len(scan.kspace):
            empty = [str(n) for n in range(len(scan.kspace)) if n not in slices]
            said = f"{path}: {counted(len(empty), 'slice')} not scored (without samples): {', '.join(empty)}"
            warnings.warn(said, stacklevel=2)
        width = scan.kspace.shape[-1]
        columns = lambda seed: cartesian_mask(width, 4, 0.08, np.random.default_rng(seed))  # noqa: E731
        of_file = masks or {"columns 4x": [columns(seed) for seed in range(seeds)]}
        found: dict[str, list[list[Row]]] = {}
        for kind, some in of_file.items():
            for mask in some:
                sampled = mask.float().mean().item()
                for number in slices:
                    rows = evaluate(scan.kspace[number], mask, model, **options)
                    found.setdefault(kind, []).append([{**row, "sampled": sampled} for row in rows])
                if progress is not None:
                    progress(1)
        return found

    done = succeeded(each(paths, work, ranks or Ranks(), fatal=failures is None), failures)
    rows = []
    for kind in done[0].value:  # type: ignore[union-attr]
        for same in zip(*(rows for outcome in done for rows in outcome.value[kind]), strict=True):  # type: ignore[index]
            method = same[0]["method"]
            means = {name: float(np.mean([r[name] for r in same])) for name in same[0] if name != "method"}
            rows.append({"mask": kind, "sampled": means.pop("sampled"), "method": method, **means})
    return rows


def evaluate_folder(
    root: str | os.PathLike, model: RIM | None = None, *, seeds: int = 3, **options: Any
) -> list[Row]:
    """`evaluate_files` on the 8-coil brain slice of the ESPIRiT examples, with three kinds of masks.

    - "columns 4x", as there;
    - "Poisson disc R5" and "R10": the first masks of those for the Calgary-Campinas data, 218 x 170 (Souza et al.).

    Args:
        root: the folder that holds `espirit_brain_8ch/full_kspace_8x230x180.npy` and `cc359_masks/R*_218x170.npy`.
        seeds: how many masks of each kind (3 times `seeds` in all).
        options: for `evaluate_files`.

    Raises:
        FileNotFoundError: a file is missing.
    """
    root = Path(root)
    file = root / "espirit_brain_8ch" / "full_kspace_8x230x180.npy"
    found = evaluate_files([file], None, model, seeds=seeds, **options)
    masks = {
        f"Poisson disc {name}": [
            read_mask(root / "cc359_masks" / f"{name}_218x170.npy", index) for index in range(seeds)
        ]
        for name in ("R5", "R10")
    }
    return found + evaluate_files([file], masks, model, seeds=seeds, **options)


def table(rows: Sequence[Row]) -> str:
    """Rows of `evaluate_folder` to print."""
    width = max(17, *(len(row["mask"]) for row in rows))
    lines = [
        f"{'mask':<{width}}{'sampled':>8}  {'method':<16}{'PSNR':>7}{'SSIM':>8}{'PSNR (RSS)':>13}{'SSIM (RSS)':>12}"
    ]
    lines += [
        f"{r['mask']:<{width}}{r['sampled']:>8.1%}  {r['method']:<16}{r['psnr']:>7.2f}{r['ssim']:>8.4f}"
        f"{r['psnr_rss']:>13.2f}{r['ssim_rss']:>12.4f}"
        for r in rows
    ]
    return "\n".join(lines)
