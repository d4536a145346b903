"""Pairs of frames that show the same target, with boxes, for training a matching function.

`SequencePairs` takes two frames of a tracking sequence; `amstel.data.StillPairs` makes both from one still image. Both
give square crops around the target in which the first target has the size that a tracker gives it. Everything random
comes from the NumPy generator that is handed in, so that equal generators give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel._check import fail
from amstel.data._pair import FramePair, check_geometry, cv2, frame_pair
from amstel.data.stills import StillPairs
from amstel.media import _arguments
from amstel.media.boxes import iou

__all__ = [
    "OTHER",
    "SAME",
    "FramePair",
    "Pairs",
    "SequencePairs",
    "StillPairs",
    "box_pairs",
    "overlaps",
    "polar_boxes",
]

#: IoU with the target above which a box is the same, and below which it is another.
SAME, OTHER = 0.7, 0.5


class Pairs(Protocol):
    """What `amstel.apps.tracking.train.train` takes: `len` samples per epoch, each made on demand."""

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator) -> FramePair: ...


# ------------------------------------------------------------------------------------------------- boxes


def overlaps(boxes: Tensor, truth: Tensor) -> Tensor:
    """IoU [K] of boxes [K, 4] with one box [4], all as corners: `amstel.media.boxes.iou`."""
    return iou(boxes, truth)


def polar_boxes(box: Tensor, angles: int = 16, radii: int = 10, scales: Sequence[float] = (1.0,)) -> Tensor:
    """The box moved along circles, [len(scales) * angles * radii, 4]: radii up to max(w, h), in equal steps.

    Source: the training of SINT (arXiv 1605.05863, section 3.2) with the numbers of its authors' public code.

    Example:
        >>> amstel.data.pairs.polar_boxes(torch.tensor([10.0, 10, 30, 20])).shape
        torch.Size([160, 4])
    """
    size = box[2:] - box[:2]
    radius = size.max() * torch.arange(1, radii + 1) / radii
    angle = torch.arange(angles) * (2 * math.pi / angles)
    direction = torch.stack([angle.cos(), angle.sin()], 1)
    center = (box[:2] + box[2:]) / 2 + (radius[:, None, None] * direction).flatten(0, 1)
    half = size / 2 * torch.tensor(scales, dtype=box.dtype)[:, None]
    return torch.cat([center - half[:, None], center + half[:, None]], 2).flatten(0, 1)


def box_pairs(
    box: Tensor,
    size: int,
    rng: np.random.Generator,
    count: int = 64,
    positive: int = 16,
    others: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Boxes of a frame to compare with the target of the other frame: [count, 4], and y [count], whether it is the target.

    The first `positive` have IoU > 0.7 with `box`, the rest IoU < 0.5. Half of the latter are on the circles of
    `polar_boxes` around the target, at the three scales of a tracker; the others are on and around `others`, and anywhere
    in the frame at any of these scales, so that objects that merely look like the target are included. If the frame has no
    room for one of the two kinds, all are of the other kind.

    Args:
        box: the target [4], corners in pixels.
        size: side of the frame; the other boxes have their center in it.
        others: boxes [M, 4] of other objects.

    Raises:
        ValueError: the target is so large that no other box has its center in the frame.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))

    def draw(boxes: Tensor, number: int) -> Tensor:
        order = rng.permutation(len(boxes)) if len(boxes) >= number else rng.integers(len(boxes), size=number)
        return boxes[torch.from_numpy(order[:number])]

    moved = polar_boxes(box, scales=(math.sqrt(0.5), 1.0, math.sqrt(2.0)))
    near = box + (polar_boxes(box, radii=4, scales=(0.9, 1.0, 1.1)) - box) * uniform(0, 0.8, 192, 1)
    place, half = uniform(0, size, 64, 2), (box[2:] - box[:2]) / 2 * uniform(-0.5, 0.5, 64, 1).exp2()
    far = torch.cat([place - half, place + half], 1)
    for other in torch.empty(0, 4) if others is None else others:
        far = torch.cat([far, other[None], polar_boxes(other, angles=8, radii=8)[:16]])
    same = torch.cat([box[None], near, moved])
    same = same[overlaps(same, box) > SAME]
    inside = torch.cat([moved, far])
    center = (inside[:, :2] + inside[:, 2:]) / 2
    kept = (overlaps(inside, box) < OTHER) & ((center >= 0) & (center <= size)).all(1)
    around, away = inside[: len(moved)][kept[: len(moved)]], inside[len(moved) :][kept[len(moved) :]]
    rest = count - positive
    if rest and not kept.any():
        fail(
            "box",
            f"a target that leaves room for other boxes in a frame of {size} pixels",
            box.tolist(),
        )
    around, away = (found if len(found) else inside[kept] for found in (around, away))
    negatives = torch.cat([draw(around, (rest + 1) // 2), draw(away, rest // 2)])
    boxes = torch.cat([draw(same, positive), draw(negatives, rest)])
    return boxes, torch.arange(count) < positive


# --------------------------------------------------------------------------------------------- sequences


def _crop(
    image: np.ndarray, box: np.ndarray, zoom: float, place: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """A square of `size` pixels of the image, enlarged `zoom` times, with the box's center at `place`."""
    center = box[:2] + box[2:] / 2
    shift = place - zoom * center
    matrix = np.array([[zoom, 0, shift[0] + (zoom - 1) / 2], [0, zoom, shift[1] + (zoom - 1) / 2]])
    lib = cv2()
    crop = lib.warpAffine(
        image, matrix, (size, size), flags=lib.INTER_LINEAR, borderMode=lib.BORDER_REPLICATE
    )
    corner = zoom * box[:2] + shift
    return crop, np.concatenate([corner, corner + zoom * box[2:]])


def _in_picture(box: np.ndarray, picture: np.ndarray) -> bool:
    """Whether any of a box x y w h lies in a picture [H, W, ...]."""
    corner, size = box[:2], np.array(picture.shape[1::-1])
    return bool((corner < size).all() and (corner + box[2:] > 0).all())


class SequencePairs:
    """Two frames of a tracking sequence, at most `gap` apart, cropped around the target.

    Both crops are scaled as the first one requires. Pairs in which a target would be larger than its crop are left out:
    these begin where little of the target is visible, so it is far larger in the other frame.

    Args:
        sequences: as read by `amstel.data.tracking`, or anything with `ground_truth` and `[t]`.
        gap: largest distance between the two frames.
        size: side of the crops.
        target: side of the square with the area of the first target, in pixels of the crop.

    Raises:
        TypeError or ValueError: an argument is not as described; no sequence has two frames with ground truth within
            `gap` and targets that fit into their crops.

    Example:
        >>> pairs = amstel.data.SequencePairs(amstel.data.OTB("OTB100"), gap=10, size=128, target=32)
        >>> pair = pairs.sample(0, np.random.default_rng(0))
        >>> x1, y1, x2, y2 = pair.boxes[0].tolist()
        >>> len(pairs), pair.frames.shape, round(x2 - x1)
        (30, torch.Size([2, 3, 128, 128]), 32)
    """

    _TRIES = 100

    def __init__(self, sequences: Sequence[Any], gap: int = 50, size: int = 208, target: float = 64.0):
        size, gap = check_geometry(size, target), _arguments.integer("gap", gap)
        self.sequences, self.gap, self.size, self.target = sequences, gap, size, target
        self._frames: list[tuple[int, int]] = []
        #: Of each sequence the frames with ground truth, the longer side of the target there, and the longest side that fits
        #: into the crops of a pair that begins there.
        self._known: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for number, sequence in enumerate(sequences):
            name = f"sequences[{number}]"
            truth = _check.with_attributes(name, sequence, "ground_truth").ground_truth
            truth = np.asarray(_check.unmasked(f"{name}.ground_truth", truth))
            known = np.flatnonzero(np.isfinite(truth).all(1) & (truth[:, 2:] > 0).all(1))
            sides = truth[known, 2:].astype(np.float64)
            side, fits = sides.max(1, initial=0), size / target * np.sqrt(sides.prod(1))
            self._known.append((known, side, fits))
            # For nearly all of them the frame before or after will do.
            near, sure = np.diff(known) <= gap, np.zeros(len(known), bool)
            sure[:-1] |= near & (side[1:] <= fits[:-1])
            sure[1:] |= near & (side[:-1] <= fits[1:])
            begins = zip(known.tolist(), (side <= fits).tolist(), sure.tolist(), strict=True)
            self._frames += [
                (number, t) for t, fit, ok in begins if fit and (ok or len(self._partners(number, t)))
            ]
        if not self._frames:
            expected = f"some with two frames of ground truth at most {gap} apart, with targets that fit into their crops"
            fail("sequences", expected, list(sequences))

    def __len__(self) -> int:
        return len(self._frames)

    def _identity(self) -> list[Any]:
        how = self.gap, self.size, self.target
        return [(getattr(s, "name", ""), np.asarray(s.ground_truth), *how) for s in self.sequences]

    def _partners(self, number: int, t: int) -> np.ndarray:
        """The second frames of pairs that begin with frame t of a sequence."""
        known, side, fits = self._known[number]
        low, at, high = np.searchsorted(known, [t - self.gap, t, t + self.gap + 1])
        near = np.arange(low, high)
        return known[near[(near != at) & (side[near] <= fits[at]) & (side[at] <= fits[at])]]

    def sample(self, index: int, rng: np.random.Generator) -> FramePair:
        """Draw pair number `index`; the same generator state gives the same pair. If a target turns out to lie outside
        its frame, which is known only once the frame is read, another pair replaces it."""
        for _ in range(self._TRIES):
            number, t = self._frames[index]
            sequence, zoom, frames, boxes = self.sequences[number], 0.0, [], []
            chosen = t, int(rng.choice(self._partners(number, t)))
            pictures = [np.asarray(_check.unmasked("sequences", sequence[frame])) for frame in chosen]
            truth = [np.asarray(sequence.ground_truth[frame], dtype=np.float64) for frame in chosen]
            if all(map(_in_picture, truth, pictures)):
                break
            index = int(rng.integers(len(self._frames)))
        else:
            fail(
                "sequences",
                "targets in their frames",
                f"{self._TRIES} pairs in a row with one beyond them",
            )
        for box, picture in zip(truth, pictures, strict=True):
            zoom = zoom or self.target / math.sqrt(box[2] * box[3])
            place = self.size * rng.uniform(0.35, 0.65, 2)
            crop, found = _crop(picture, box, zoom, place, self.size)
            frames.append(crop)
            boxes.append(found)
        return frame_pair(frames, boxes, [[], []])
