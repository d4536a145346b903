"""The tables published for recurrent inference machines, with our figures next to the published ones.

Denoising of gray images, with the noisy input as it is and clipped and rounded ("quantized"), of color images, and
super-resolution, each with the standard error of the mean over the images; and the loss without the estimate as an input and
without state: from weights trained that way (`amstel restore train --without-estimate`, `--without-state`) if there are any,
else by zeroing these in the bundled network, which was never trained without them and so loses more. A published figure is
shown only next to the row with its method and noise, and only for the images that it was published for.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel import weights
from amstel._words import counted
from amstel.apps.ranks import Outcome, Ranks
from amstel.apps.restoration import evaluate, files
from amstel.nn.rim import RIM, State

Row = dict[str, Any]

#: PSNR in dB at sigma 15, 25, 50 by the row they belong to and by whether the input is quantized.
GRAY: dict[tuple[str, bool], dict[str, tuple[float, float, float]]] = {
    ("amstel", False): {"RIM": (31.31, 28.91, 26.06), "DnCNN": (31.72, 29.23, 26.23)},
    ("amstel", True): {"RIM": (31.10, 28.72, 25.88)},
    ("one network for three tasks", False): {"RIM-3task": (31.19, 28.67, 25.78)},
}
#: At sigma 25.
COLOR: dict[bool, dict[str, float]] = {False: {"RIM": 30.84, "FFDNet": 31.21}, True: {"RIM": 30.67}}
#: PSNR and SSIM of two, three and four times.
LARGER = {"RIM": ((31.39, 0.8885), (28.51, 0.7888), (27.01, 0.7156))}
#: The folder and the number of the images that the figures of a table were published for.
PUBLISHED_FOR = {"gray": ("bsd68", 68), "color": ("cbsd68", 68), "sr": ("bsd300_test", 100)}
SOURCES = {
    "RIM": "P. Putzky and M. Welling, arXiv 1706.04008, and their talk",
    "RIM-3task": "P. Putzky and M. Welling, arXiv 1706.04008, and their talk",
    "DnCNN": "K. Zhang et al., IEEE TIP 26, 2017",
    "FFDNet": "K. Zhang et al., IEEE TIP 27, 2018",
}
SIGMAS, COLOR_SIGMAS, SCALES = (15, 25, 50), (25,), (2, 3, 4)
TITLES = {"gray": "gray denoising", "color": "color denoising", "sr": "super-resolution"}
#: Folders of a data set's root, by table; without them the root itself is the folder of all.
FOLDERS = {"gray": ("bsd68",), "color": ("cbsd68",), "sr": ("bsd300_test", "cbsd68")}
#: Names of weights beside those of "gray", if they are there.
OTHERS = {
    "one network for three tasks": "3task",
    "without the estimate": "gray_no_estimate",
    "without state": "gray_no_state",
}
#: What is zeroed in the network that ships where there are no such weights.
ASIDE = ", zeroed, not retrained"
ZEROED = {"without the estimate": "estimate", "without state": "state"}


def folders(root: str | os.PathLike) -> dict[str, Path]:
    """The folder of images for each table: "gray", "color" (absent if all images are gray) and "sr"."""
    root = Path(root)
    found = {}
    for table, names in FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if there:
            found[table] = there[0]
    if found:
        return found
    images = files.find(root)
    color = [path for path in images if files.read(path).pixels.ndim == 3]
    return {"gray": root, "sr": root} | ({"color": root} if color else {})


def count(root: str | os.PathLike, seeds: int = 1) -> int:
    """How many images the tables need to restore."""
    each = {"gray": 2 * len(SIGMAS) * seeds, "color": 2 * len(COLOR_SIGMAS) * seeds, "sr": len(SCALES)}
    total = sum(each[table] * len(files.find(folder)) for table, folder in folders(root).items())
    gray = folders(root).get("gray")
    return total if gray is None else total + len(_names()) * each["gray"] * len(files.find(gray))


def tables(
    root: str | os.PathLike,
    seeds: int = 1,
    *,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> list[Row]:
    """The rows of `evaluate.denoising` and `evaluate.super_resolution` with "table", "folder", "method" and "published".

    Args:
        root: a folder of images, or one that holds folders bsd68, cbsd68 and bsd300_test.
        seeds, device, progress, ranks, failures: as for `evaluate.denoising`. Color images are gray by their luma in the
            table of gray ones.

    Raises:
        ValueError: a folder without images.
    """
    how: dict[str, Any] = {"device": device, "progress": progress, "ranks": ranks, "failures": failures}
    found, rows = folders(root), []
    if "gray" in found:
        for method in ("amstel", *_names()):
            model = None if method == "amstel" else _other(method, device)
            for quantized in (False, True):
                some = evaluate.denoising(
                    found["gray"], SIGMAS, seeds, quantized=quantized, gray=True, model=model, **how
                )
                rows += _named(some, "gray", found, method)
                theirs = GRAY.get((method, quantized), {}) if _published(some[0]) else {}
                for row, k in zip(some, range(len(SIGMAS)), strict=True):
                    row["published"] = {name: of[k] for name, of in theirs.items()}
    if "color" in found:
        for quantized in (False, True):
            some = evaluate.denoising(found["color"], COLOR_SIGMAS, seeds, quantized=quantized, **how)
            rows += _named(some, "color", found, "amstel")
            some[0]["published"] = dict(COLOR[quantized]) if _published(some[0]) else {}
    if "sr" in found:
        some = evaluate.super_resolution(found["sr"], SCALES, **how)
        rows += _named(some, "sr", found, "amstel")
        larger = LARGER if _published(some[0]) else {}
        for row, k in zip(some, range(len(SCALES)), strict=True):
            row["published"] = {name: of[k][0] for name, of in larger.items()}
            row["published_ssim"] = {name: of[k][1] for name, of in larger.items()}
    return rows


def load(name: str, device: str | torch.device) -> RIM:
    return RIM.pretrained(name).to(device)


def ablated(model: RIM, what: str) -> RIM:
    """A copy of `model` that sees zeros instead of the estimate, or forgets its state after every step."""
    model = copy.deepcopy(model)
    whole, channels = model.step, model.channels

    def step(given: Tensor, state: State = (None, None), sigma: Tensor | None = None) -> tuple[Tensor, State]:
        if what == "state":
            return whole(given, (None, None), sigma)
        blind = torch.cat([torch.zeros_like(given[:, :channels]), given[:, channels:]], 1)
        return whole(blind, state, sigma)

    model.step = step  # type: ignore[method-assign]
    return model


def _names() -> list[str]:
    """The rows of the gray table beside the first."""
    there = weights.names()
    found = [name if f"rim_{file}" in there else f"{name}{ASIDE}" for name, file in OTHERS.items()]
    return [name for name in found if name.removesuffix(ASIDE) in ZEROED or name in OTHERS]


def _other(name: str, device: str | torch.device) -> RIM:
    if name.endswith(ASIDE):
        return ablated(load("gray", device), ZEROED[name.removesuffix(ASIDE)])
    return load(OTHERS[name], device)


def _named(rows: list[Row], table: str, found: dict[str, Path], method: str) -> list[Row]:
    for row in rows:
        row.update(table=table, folder=found[table].resolve().name, method=method)
    return rows


def _published(row: Row) -> bool:
    """Whether the images are those that the figures of its table were published for."""
    folder, count = PUBLISHED_FOR[row["table"]]
    return row["folder"].lower() == folder and row["images"] == count


def text(rows: Sequence[Row]) -> str:
    """The tables to print: mean ± standard error over the images, with the published figures on the right."""
    lines: list[str] = []
    for table, title in TITLES.items():
        of_table = [row for row in rows if row["table"] == table]
        if not of_table:
            continue
        first, method = of_table[0], "amstel"
        heads = (
            f"      {'PSNR':<12}  {'SSIM':<15}  {'bicubic':<13}" if table == "sr" else f"{'':23}{'PSNR':<12}"
        )
        heads += "  published" if any(row["published"] for row in of_table) else ""
        lines += ["", f"{title}: {first['folder']}, {counted(first['images'], 'image')}", heads.rstrip()]
        for row in of_table:
            if row["method"] != method:
                method = row["method"]
                lines.append(f"  {method}:")
            if table == "sr":
                b, ssim = row["bicubic"], row["published_ssim"]
                theirs = [f"{name} {value:.2f} {ssim[name]:.4f}" for name, value in row["published"].items()]
                line = f"x{row['scale']}  {_with(row, 'psnr', 2):<12}  {_with(row, 'ssim', 4):<15}"
                line += f"  {b['psnr']:.2f} {b['ssim']:.4f}"
            else:
                kind = "quantized" if row["quantized"] else "as it is"
                theirs = [f"{name} {value:.2f}" for name, value in row["published"].items()]
                line = f"sigma {row['sigma']:<3g} {kind:<9}  {_with(row, 'psnr', 2):<12}"
            lines.append(f"  {line}  {', '.join(theirs)}".rstrip())
    return "\n".join([*lines[1:], *_notes(rows)])


def _notes(rows: Sequence[Row]) -> list[str]:
    """Sources of the published figures, where there are none, and what ours lack."""
    cited = dict.fromkeys(name for row in rows for name in row["published"])
    by_source: dict[str, list[str]] = {}
    for name in cited:
        by_source.setdefault(SOURCES[name], []).append(name)
    notes = [f"published: {', '.join(names)}: {source}" for source, names in by_source.items()]
    for table in dict.fromkeys(row["table"] for row in rows if not _published(row)):
        folder, count = PUBLISHED_FOR[table]
        notes.append(f"published figures of {TITLES[table]} are of the {count} images of {folder} only")
    methods = {row["method"].removesuffix(ASIDE) for row in rows}
    missing = [name for name in OTHERS if name not in methods]
    notes += [f"no bundled weights for: {', '.join(missing)}"] if missing else []
    return ["", *notes] if notes else []


def _with(row: Row, name: str, digits: int) -> str:
    error = row[f"{name}_se"]
    return f"{row[name]:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
