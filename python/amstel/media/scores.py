"""Score detections: recall and average precision at thresholds of overlap, by the rules of three benchmarks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amstel._check import fail, fail_type, number, tensor
from amstel.media import _arguments

#: How detections are matched to what is true, and what is made of it; see `mean_average_precision`.
PROTOCOLS = ("voc", "ucf101-24", "thumos14")


def recall(iou: Tensor, thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> Tensor:
    """Share of the true boxes, or tubes, that are found: the mean of iou >= threshold, one value per threshold, float64.

    Args:
        iou: overlap of each true box with the one found for it, of any shape.
        thresholds: numbers in [0, 1].

    Raises:
        ValueError: there are no values, or NaN: first remove frames without a true box.

    Example:
        >>> amstel.video.recall(torch.tensor([0.05, 0.3, 0.45, 0.9]), (0.1, 0.5))
        tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    tensor("iou", iou, "a floating tensor")
    if not iou.numel() or iou.isnan().any():
        fail("iou", "not empty and without NaN", iou)
    thresholds = _thresholds(thresholds)
    return torch.stack([(iou >= threshold).double().mean() for threshold in thresholds])


def _thresholds(given: Sequence[float]) -> list[float]:
    expected = "one or more numbers from 0 to 1"
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        fail_type("thresholds", expected, given)
    found = [number("thresholds", value, expected, least=0, most=1) for value in given]
    if not found:
        fail("thresholds", expected, given)
    return found


def interval_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of intervals (begin, end), pair by pair: [..., 2] and [..., 2] to [...], in [0, 1].

    The leading dimensions broadcast. An interval without length overlaps nothing.

    Example:
        >>> amstel.video.interval_iou(torch.tensor([0.0, 2.0]), torch.tensor([[1.0, 3.0], [2.0, 4.0]]))
        tensor([0.3333, 0.0000])
    """
    for argument, value in (("a", a), ("b", b)):
        tensor(argument, value, "a floating tensor [..., 2]")
        if value.dim() < 1 or value.shape[-1] != 2 or not value.is_floating_point():
            fail(argument, "a floating tensor [..., 2]", value)
    dtype = torch.result_type(a, b)
    a, b = _arguments.wide(a, b)
    common = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    lengths = (a[..., 1] - a[..., 0]).clamp(min=0) + (b[..., 1] - b[..., 0]).clamp(min=0)
    return torch.where(common == 0, common, common / (lengths - common)).to(dtype)


def average_precision(
    scores: Tensor, correct: Tensor, num_truths: int, *, interpolated: bool = True
) -> float:
    """Area under the precision-recall curve over all points, as in PASCAL VOC since 2010.

    Precision is first made non-increasing: at each recall, the best precision at that recall or above. With
    `interpolated=False`, it is the sum of the precisions at each correct detection, divided by `num_truths`, as in
    THUMOS14.

    Args:
        scores: confidence of each detection [D]; equal ones keep their order.
        correct: whether each detection is correct [D], bool; each truth makes at most one detection correct.
        num_truths: number of truths to find.
        interpolated: see above.

    Example:
        >>> amstel.video.average_precision(torch.tensor([0.9, 0.8, 0.7]), torch.tensor([True, False, True]), 2)
        0.8333333333333333
    """
    tensor("scores", scores, "a floating tensor [D]")
    tensor("correct", correct, "a bool tensor [D]")
    if scores.dim() != 1 or scores.isnan().any():
        fail("scores", "a floating tensor [D] without NaN", scores)
    if correct.shape != scores.shape or correct.dtype != torch.bool:
        fail("correct", f"bool {list(scores.shape)} as `scores`", correct)
    _arguments.integer("num_truths", num_truths)
    right = correct[scores.argsort(descending=True, stable=True)].double()
    precision = right.cumsum(0) / torch.arange(1, len(right) + 1, device=right.device)
    if interpolated and len(right):
        precision = precision.flip(0).cummax(0).values.flip(0)
    return float((precision * right).sum() / num_truths)


def mean_average_precision(
    scores: Tensor,
    classes: Tensor,
    iou: Tensor,
    truth_classes: Tensor,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    *,
    protocol: str = "voc",
    ignored: Tensor | None = None,
) -> Tensor:
    """Mean over classes of the average precision of detections, boxes, tubes or intervals: one value per threshold.

    Classes without a truth do not count. `protocol` says which detections are correct:

    - "voc": by decreasing score, a detection is correct if the truth of its class that it overlaps best overlaps it by at
      least the threshold and has not been found before;
    - "ucf101-24", video mAP: by decreasing score, a detection is matched to the truth of its class that it overlaps best
      among those not found before, if by more than the threshold;
    - "thumos14": each truth, in order, is matched to the detection of its class that it overlaps best among those not yet
      matched, if by more than the threshold; all others are wrong unless they are `ignored`. Precision is not
      interpolated.

    Args:
        scores: confidence of each detection [D].
        classes: class of each detection [D], int64.
        iou: overlap of each detection with each truth [D, G], 0 between different videos.
        truth_classes: class of each truth [G], int64, G >= 1.
        thresholds: numbers in [0, 1].
        protocol: see above.
        ignored: detections [D], bool, that do not count if they are wrong: in THUMOS14, those that overlap an ambiguous
            part of their video.

    Returns:
        float32 [len(thresholds)].

    Raises:
        ValueError: shapes that do not fit, NaN, no truth, or an unknown protocol.

    Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010 (devkit of 2010 on); the
    evaluation that comes with the corrected annotations of UCF101-24 (S. Saha and G. Singh, 2016); TH14evalDet of the
    THUMOS Challenge 2014.

    Example:
        >>> scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> iou = torch.tensor([[0.3], [0.6]])
        >>> amstel.video.mean_average_precision(scores, classes, iou, torch.tensor([0]), (0.2, 0.5))
        tensor([1.0000, 0.5000])
    """
    found = average_precisions(
        scores, classes, iou, truth_classes, thresholds, protocol=protocol, ignored=ignored
    )
    means = [sum(values) / len(values) for values in zip(*found.values(), strict=True)]
    return torch.tensor(means, dtype=torch.float32)


def average_precisions(
    scores: Tensor,
    classes: Tensor,
    iou: Tensor,
    truth_classes: Tensor,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    *,
    protocol: str = "voc",
    ignored: Tensor | None = None,
) -> dict[int, list[float]]:
    """The average precision of each class that has a truth, one value per threshold; see `mean_average_precision`.

    Example:
        >>> scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
        >>> iou = torch.tensor([[0.3, 0.0], [0.0, 0.6]])
        >>> amstel.media.scores.average_precisions(scores, classes, iou, torch.tensor([0, 1]), (0.2, 0.5))
        {0: [1.0, 0.0], 1: [1.0, 1.0]}
    """
    thresholds = _thresholds(thresholds)
    for argument, value in (("scores", scores), ("classes", classes), ("truth_classes", truth_classes)):
        tensor(argument, value, "a vector")
        if value.dim() != 1:
            fail(argument, "a vector", value)
    tensor("iou", iou, "a floating tensor [D, G]")
    if classes.shape != scores.shape:
        fail("classes", f"{list(scores.shape)} as `scores`", classes)
    if not len(truth_classes):
        fail("truth_classes", "not empty", truth_classes)
    if iou.shape != (len(scores), len(truth_classes)) or iou.isnan().any():
        fail("iou", f"[{len(scores)}, {len(truth_classes)}] without NaN", iou)
    if protocol not in PROTOCOLS:
        fail("protocol", f"one of {', '.join(PROTOCOLS)}", protocol)
    if ignored is None:
        ignored = torch.zeros(len(scores), dtype=torch.bool)
    tensor("ignored", ignored, "a bool tensor [D]")
    if ignored.shape != scores.shape or ignored.dtype != torch.bool:
        fail("ignored", f"bool {list(scores.shape)} as `scores`", ignored)
    match = {"voc": _best, "ucf101-24": _best_left, "thumos14": _of_truths}[protocol]
    found: dict[int, list[float]] = {}
    for label in truth_classes.unique().tolist():
        own, truths = (classes == label).cpu(), (truth_classes == label).cpu()
        order = scores.cpu()[own].argsort(descending=True, stable=True)
        ranked, overlaps = scores.cpu()[own][order], iou.cpu()[own][:, truths][order]
        counts = ~ignored.cpu()[own][order]
        found[label] = []
        for threshold in thresholds:
            correct = match(overlaps, threshold)
            kept = correct | counts
            found[label].append(
                average_precision(
                    ranked[kept], correct[kept], int(truths.sum()), interpolated=protocol != "thumos14"
                )
            )
    return found


def _best(overlaps: Tensor, threshold: float) -> Tensor:
    """Which detections [D], by falling score, are right by the rule of PASCAL VOC; overlaps [D, G]."""
    correct, taken = torch.zeros(len(overlaps), dtype=torch.bool), set()
    best, which = overlaps.max(1)
    enough = best >= threshold  # in the type of the overlaps, as the other rules compare
    for d, (fits, truth) in enumerate(zip(enough.tolist(), which.tolist(), strict=True)):
        if fits and truth not in taken:
            correct[d] = True
            taken.add(truth)
    return correct


def _best_left(overlaps: Tensor, threshold: float) -> Tensor:
    """The same by the rule of UCF101-24."""
    correct, left = torch.zeros(len(overlaps), dtype=torch.bool), overlaps.clone()
    for d in range(len(left)):
        overlap, truth = left[d].max(0)
        if overlap > threshold:
            correct[d] = True
            left[:, truth] = -1
    return correct


def _of_truths(overlaps: Tensor, threshold: float) -> Tensor:
    """The same by the rule of THUMOS14."""
    correct, left = torch.zeros(len(overlaps), dtype=torch.bool), overlaps.clone()
    for truth in range(left.shape[1] if len(left) else 0):
        overlap, d = left[:, truth].max(0)
        if overlap > threshold:
            correct[d] = True
            left[d] = -1
    return correct
