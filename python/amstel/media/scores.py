"""Scores of detections: recall and average precision at thresholds of overlap."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amstel._check import fail, tensor
from amstel.media import _arguments


def recall(iou: Tensor, thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5)) -> Tensor:
    """Share of the true boxes, or tubes, that are found: mean over all of iou >= threshold, a value per threshold.

    Args:
        iou: overlap of each true box with the one found for it, of any shape.
        thresholds: numbers in [0, 1].

    Raises:
        ValueError: no value, or NaN: leave out frames without a true box first.

    Example:
        >>> amstel.video.recall(torch.tensor([0.05, 0.3, 0.45, 0.9]), (0.1, 0.5))
        tensor([0.7500, 0.2500])
    """
    tensor("iou", iou, "a floating tensor")
    if not iou.numel() or iou.isnan().any():
        fail("iou", "not empty and without NaN", iou)
    return torch.stack([(iou >= threshold).double().mean() for threshold in thresholds]).float()


def average_precision(scores: Tensor, correct: Tensor, num_truths: int) -> float:
    """Area under the curve of precision over recall, all points, as PASCAL VOC has it since 2010.

    Precision is first made to fall: at each recall the best precision at that recall or above.

    Args:
        scores: confidence of each detection [D]; equal ones keep their order.
        correct: whether it is right [D], bool; each truth can make one detection right.
        num_truths: how many there are to find.

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
    best = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    return float((best * right).sum() / num_truths)


def mean_average_precision(
    scores: Tensor,
    classes: Tensor,
    iou: Tensor,
    truth_classes: Tensor,
    thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
) -> Tensor:
    """Mean over classes of the average precision of detections, boxes or tubes: one value per threshold.

    By falling score, a detection is right if the truth of its class that it overlaps best overlaps it by at least
    the threshold and was not found before. A class without truth does not count.

    Args:
        scores: confidence of each detection [D].
        classes: its class [D], int64.
        iou: overlap of each detection with each truth [D, G], 0 between different videos.
        truth_classes: class of each truth [G], int64, G >= 1.
        thresholds: numbers in [0, 1].

    Returns:
        float32 [len(thresholds)].

    Raises:
        ValueError: shapes that do not fit, NaN, or no truth.

    Source: M. Everingham et al., The PASCAL Visual Object Classes Challenge, IJCV 2010 (devkit of 2010 on).

    Example:
        >>> scores, classes = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
        >>> iou = torch.tensor([[0.3], [0.6]])
        >>> amstel.video.mean_average_precision(scores, classes, iou, torch.tensor([0]), (0.2, 0.5))
        tensor([1.0000, 0.5000])
    """
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
    result = []
    for threshold in thresholds:
        values = []
        for label in truth_classes.unique().tolist():
            own, truths = classes == label, truth_classes == label
            order = scores[own].argsort(descending=True, stable=True)
            best, which = iou[own][:, truths][order].max(1)
            correct, taken = torch.zeros(len(order), dtype=torch.bool), set()
            for d, (overlap, truth) in enumerate(zip(best.tolist(), which.tolist(), strict=True)):
                if overlap >= threshold and truth not in taken:
                    correct[d] = True
                    taken.add(truth)
            values.append(average_precision(scores[own][order].cpu(), correct, int(truths.sum())))
        result.append(sum(values) / len(values))
    return torch.tensor(result)
