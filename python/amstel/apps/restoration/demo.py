"""The restoration part of `amstel demo`: three bundled images, degraded, restored step by step, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from amstel import inverse
from amstel._words import counted
from amstel.apps.demo import Exhibit, Show
from amstel.apps.restoration import evaluate as evaluation
from amstel.apps.restoration import files
from amstel.data import mri
from amstel.data.mri.images import smooth_phase
from amstel.inverse.restore import mri_physics, sr_sigma
from amstel.nn.rim import RIM


@dataclass(frozen=True)
class Example:
    """One restoration.

    Attributes:
        name, title: for the file, and above the pictures.
        before: the result without the network, with its name.
        measured: the measurement as a picture, with its name.
        steps: the network's estimates, in order; arrays [H, W] or [H, W, 3] in [0, 1], as `before` and `truth`.
        code: the function that did it.
        white: the value drawn as white.
        errors: also draw the errors and the PSNR per step.
    """

    name: str
    title: str
    measured: tuple[str, np.ndarray]
    before: tuple[str, np.ndarray]
    steps: list[np.ndarray]
    truth: np.ndarray
    code: Callable[..., object]
    white: float = 1.0
    errors: bool = False

    @property
    def scores(self) -> list[float]:
        """PSNR in dB before, and after every step."""
        return [evaluation.psnr(x, self.truth) for x in (self.before[1], *self.steps)]

    def said(self) -> str:
        first, *steps = self.scores
        return f"{self.title}: PSNR {first:.1f} dB {self.before[0]}; step by step " + " ".join(
            f"{score:.1f}" for score in steps
        )

    def draw(self, path: Path) -> Path:
        """The pictures side by side with their PSNR, and on request the errors below them."""
        figures = files.module("matplotlib.figure")
        agg = files.module("matplotlib.backends.backend_agg")
        first, *steps = self.scores
        pictures = [
            (self.measured[0], self.measured[1]),
            (f"{self.before[0]}, {first:.1f} dB", self.before[1]),
            (f"RIM, {steps[-1]:.1f} dB", self.steps[-1]),
            ("truth", self.truth),
        ]
        if self.measured[1] is self.before[1]:
            del pictures[0]
        rows = 2 if self.errors else 1
        figure = figures.Figure(figsize=(3.1 * len(pictures), 3.4 * rows), layout="constrained")
        agg.FigureCanvasAgg(figure)
        # Without errors a picture fills half of the page, and is shown as small as that.
        size = 10 if self.errors else 4.5 * len(pictures)
        figure.suptitle(self.title, fontsize=1.2 * size)
        axes = figure.subplots(rows, len(pictures), squeeze=False)
        for place in axes[0]:  # a thin frame, because white borders would blend into the page
            place.set(xticks=[], yticks=[])
            place.spines[:].set_color("#c0c0c0")
        for place in axes[1:].flat:
            place.set_axis_off()
        for place, (title, picture) in zip(axes[0], pictures, strict=True):
            place.imshow(picture.clip(0, 1), cmap="gray", vmin=0, vmax=self.white, interpolation="nearest")
            place.set_title(title, fontsize=size)
        if self.errors:
            self._draw_errors(figure, axes[1])
        figure.savefig(path, dpi=100)
        return path

    def _draw_errors(self, figure: object, axes: np.ndarray) -> None:
        wrong = [abs(x - self.truth) for x in (self.before[1], self.steps[-1])]
        top = float(np.quantile(wrong[0], 0.99))
        for place, title, error in zip(axes[1:3], (self.before[0], "RIM"), wrong, strict=True):
            shown = place.imshow(error, cmap="magma", vmin=0, vmax=top)
            place.set_title(f"error, {title}", fontsize=10)
        # Beside the errors, in the column of the truth, and outside the layout.
        scale = axes[3].inset_axes((0.02, 0.1, 0.06, 0.8))
        figure.colorbar(shown, cax=scale)  # type: ignore[attr-defined]
        axes[0].set_axis_on()
        axes[0].plot(self.scores, "o-", color="#0072B2")
        axes[0].set(xlabel="step", ylabel="PSNR, dB")
        axes[0].set_box_aspect(0.8)


def run(show: Show) -> None:
    for example in examples():
        first, *steps = example.scores
        show.figures |= {f"{example.name}_psnr_before": first, f"{example.name}_psnr": steps[-1]}
        show.say("  " + example.said())
        shown = []
        with show.needs(f"rim_{example.name}.png"):
            shown.append(show.wrote(example.draw(show.folder / f"rim_{example.name}.png")))
        title = example.title[:1].upper() + example.title[1:]
        reached = (
            f"PSNR after {counted(len(steps), 'step')}; {first:.1f} dB for the {example.before[0]} image"
        )
        show.exhibits.append(
            Exhibit(title, f"{steps[-1]:.1f} dB", reached, shown, [example.code], wide=example.errors)
        )


def examples() -> Iterator[Example]:
    """Denoising, super-resolution and MRI, one after the other; ImportError if scikit-image is missing."""
    pictures = files.module("skimage.data")
    yield denoising(pictures.astronaut()[:288, 60:348] / np.float32(255))
    yield super_resolution(evaluation.luma(pictures.coffee()[40:340, 150:450] / np.float32(255)))
    phantom = files.module("skimage.transform").resize(
        pictures.shepp_logan_phantom(), (192, 192), anti_aliasing=True
    )
    yield reconstruction(torch.from_numpy(phantom).float())


def denoise(y: Tensor, sigma: float) -> list[Tensor]:
    """The estimates after every step; sigma in units of the image."""
    model = RIM.pretrained("color")
    return model(y, inverse.Denoising(sigma))


def enlarge(y: Tensor, start: Tensor, scale: int) -> list[Tensor]:
    """The estimates after every step, from a bicubic start."""
    model = RIM.pretrained("sr")
    physics = inverse.SuperResolution(scale, sr_sigma(scale))
    return model(y, physics, initial=start)


def reconstruct(y: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The zero-filled image, and the estimates after every step, from k-space [N, coils, H, W]."""
    maps = mri.estimate_sensitivities(y, mask)
    physics = inverse.MRI(mask, maps, centered=True)
    zero_filled = physics.adjoint(y)
    peak = zero_filled.abs().max()
    model = RIM.pretrained("mri")
    return zero_filled, [peak * x for x in model(y / peak, mri_physics(physics))]


@torch.no_grad()
def denoising(clean: np.ndarray, sigma: float = 50) -> Example:
    x = torch.from_numpy(clean).permute(2, 0, 1)[None]
    y = x + sigma / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    steps = denoise(y, sigma / 255)
    noisy, *found = [t[0].permute(1, 2, 0).numpy() for t in (y, *steps)]
    title = f"denoising, sigma = {sigma:g}"
    return Example("denoise", title, ("noisy", noisy), ("noisy", noisy), found, clean, denoise)


@torch.no_grad()
def super_resolution(clean: np.ndarray, scale: int = 3) -> Example:
    small = evaluation.reduced(clean, scale)
    bicubic = evaluation.enlarged(small, scale).astype(np.float32)
    y, start = (torch.from_numpy(a)[None, None] for a in (small, bicubic))
    found = [t[0, 0].numpy() for t in enlarge(y, start, scale)]
    title = f"super-resolution by a factor of {scale}"
    return Example("sr", title, ("given", small), ("bicubic", bicubic), found, clean, enlarge)


@torch.no_grad()
def reconstruction(clean: Tensor, coils: int = 8, acceleration: float = 4) -> Example:
    rng = np.random.default_rng(0)
    x = torch.polar(clean, smooth_phase(clean.shape, rng))
    mask = mri.cartesian_mask(clean.shape[1], acceleration, 0.08, rng)
    maps = mri.loop_sensitivities(coils, clean.shape, rng)
    y = inverse.MRI(mask, maps, centered=True)(x[None])
    noise = torch.from_numpy(rng.standard_normal((*y.shape, 2), np.float32))
    y = y + 0.003 * mask * torch.view_as_complex(noise)
    zero_filled, steps = reconstruct(y, mask)
    before, *found = [t[0].abs().numpy() for t in (zero_filled, *steps)]
    columns = mask.expand(clean.shape).float().numpy()
    title = f"MRI, {counted(coils, 'coil')}, {float(mask.float().mean()):.0%} of k-space"
    shown = ("sampled columns", columns), ("zero-filled", before)
    return Example("mri", title, *shown, found, clean.numpy(), reconstruct, white=0.5, errors=True)
