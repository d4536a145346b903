"""A table that compares models: RGB, flow and both, each averaged over the tested splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amstel.apps.video.evaluate import Evaluation
from amstel.apps.video.settings import MODELS

STREAMS = ("rgb", "flow", "fused")


@dataclass
class Tested:
    """A network on a test list: what it is, its split (None: the clips it held out), and its predictions."""

    model: str
    split: int | None
    evaluation: Evaluation


def _accuracy(probabilities: Tensor, labels: Tensor) -> float:
    return (probabilities.argmax(1) == labels).double().mean().item()


def rows(tested: Sequence[Tested]) -> list[dict[str, Any]]:
    """One row per model, single frames first: {"model", and for "rgb", "flow", "fused" the mean and each split}.

    "fused" is the product of the probabilities of both streams of a clip, of one network that has both or of two on the
    same clips.

    Raises:
        ValueError: two networks of one model, stream and split, or streams to fuse that were tested on other clips.
    """
    known: dict[tuple[str, int | None], dict[str, Evaluation]] = {}
    for one in tested:
        own = known.setdefault((one.model, one.split), {})
        for stream in one.evaluation.streams:
            if stream in own:
                where = "without a split" if one.split is None else f"of split {one.split}"
                raise ValueError(
                    f"two of the networks are {one.model} on {stream} {where}; a table has room for one"
                )
            own[stream] = one.evaluation
    found: dict[str, dict[str, dict[int | None, float]]] = {}
    for (model, split), own in known.items():
        cells = found.setdefault(model, {name: {} for name in STREAMS})
        for stream, evaluation in own.items():
            cells[stream][split] = _accuracy(evaluation.streams[stream], evaluation.labels)
        if len(own) == 2:
            rgb, flow = own["rgb"], own["flow"]
            if rgb.names != flow.names:
                raise ValueError(
                    f"the streams of {model} must be tested on the same clips to be fused, got others"
                )
            if rgb is flow:
                both = rgb.probabilities
            else:
                both = torch.stack([rgb.streams["rgb"], flow.streams["flow"]]).clamp_min(1e-12).log().sum(0)
            cells["fused"][split] = _accuracy(both, rgb.labels)
    return [
        {"model": model}
        | {
            stream: {"mean": sum(of_split.values()) / len(of_split), "splits": _by_name(of_split)}
            for stream, of_split in found[model].items()
            if of_split
        }
        for model in ("cnn", *(name for name in MODELS if name != "cnn"))
        if model in found
    ]


def _by_name(of_split: dict[int | None, float]) -> dict[str, float]:
    return {"held out" if split is None else str(split): value for split, value in of_split.items()}


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, with accuracies in percent, and the number of splits if there are several."""

    def cell(row: dict[str, Any], stream: str) -> str:
        if stream not in row:
            return "-"
        count = len(row[stream]["splits"])
        return f"{100 * row[stream]['mean']:.1f}" + (f" ({count} splits)" if count > 1 else "")

    lines = [("model", *STREAMS), *((row["model"], *(cell(row, s) for s in STREAMS)) for row in found)]
    widths = [max(len(line[k]) for line in lines) for k in range(4)]
    texts = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(texts)
