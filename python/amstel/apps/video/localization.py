"""Tests of localization by the rules of two benchmarks: where in UCF101-24 (tubes), and when in THUMOS14 (intervals)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import _check
from amstel._words import counted
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.video.network import Network
from amstel.apps.video.predict import predict
from amstel.apps.video.samples import Clips, _prepare, _stack, _Video
from amstel.apps.video.settings import ATTENTIVE
from amstel.data.thumos import THUMOS14
from amstel.media.boxes import iou
from amstel.media.scores import average_precisions, interval_iou, recall

#: Overlaps at which tubes are judged; 0.2 is the one of the literature on UCF101-24.
TUBE_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
#: Overlaps at which intervals are judged, of the literature on THUMOS14.
INTERVAL_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
#: Classes of a lower probability make no detection.
LEAST = 0.01


@dataclass
class Found:
    """The result of a localization test: mean average precision and, for tubes, recall at each overlap; the average
    precision of each class; the numbers of detections, truths and videos; the detections as rows."""

    thresholds: tuple[float, ...]
    map: list[float]
    classes: dict[str, list[float]]
    videos: int
    truths: int
    detections: list[dict[str, Any]]
    recall: list[float] | None = None
    mean_iou: float | None = None
    names: list[str] = field(default_factory=list)


def _labels(network: Network, classes: Sequence[str]) -> list[int]:
    """Which output of the network is which class."""
    unknown = [name for name in classes if name not in network.classes]
    if unknown:
        raise ValueError(
            f"the network must have been trained on the classes to be found, got {network.classes} without {unknown[0]}"
        )
    return [network.classes.index(name) for name in classes]


# --------------------------------------------------------------------------------------------- tubes


def _overlaps(tubes: Tensor, truths: Tensor) -> Tensor:
    """Overlap of each tube [A, T, 4] with each true one [G, T, 4]: `tube_iou` of all pairs [A, G]."""
    frames = iou(tubes[:, None], truths[None]).nan_to_num(0).sum(-1)
    present = [~part.isnan().any(-1) for part in (tubes, truths)]
    either = (present[0][:, None] | present[1][None]).sum(-1)
    return frames / either.clamp(min=1)


def tubes(
    network: Network,
    clips: Clips,
    classes: Sequence[str],
    segments: int = 25,
    progress: Callable[[int], None] | None = None,
    *,
    actors: int = 4,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> Found:
    """Video mAP on clips with true tubes, by the rules of UCF101-24.

    Every tube of `predict` is a detection of each class of some probability, with the product of both as its score. The
    overlap of two tubes is the mean over the frames of either of the overlap of their boxes, so it counts when as well
    as where; attention does not show when an action happens: its tubes last as long as it sees something. (The benchmark's
    own code treats tubes that share only one frame as disjoint, against its definition; here that frame counts. This only
    matters if both together last at most ten frames, for the threshold of 0.1, or two, for 0.5.) Recall is the share of
    the true tubes that some tube of any class overlaps by at least the threshold; the mean overlap is that of each true
    box with the best box of its frame.

    Args:
        network: a network with attention.
        clips: with `tubes`, labeled by `classes`.
        classes: names of the labels; the network must have been trained on all of them.
        segments, progress, ranks, failures: as in `amstel.apps.video.evaluate.evaluate`.
        actors: the maximum number of tubes per clip.
    """
    if network.settings.model not in ATTENTIVE:
        _check.fail(
            "network", "a model with attention: alstm, convalstm or videolstm", network.settings.model
        )
    outputs = _labels(network, classes)

    def work(number: int) -> dict[str, Any]:
        clip = clips[number]
        if clip.tubes is None or not len(clip.tubes):
            raise ValueError(f"{clip.name} has no true tubes")
        # The clip is read at the rate of the network already.
        rate = network.settings.fps
        times = [k / rate for k in range(len(clip))] if rate else None
        found = predict(network, clip.frames, segments, times=times, actors=actors)
        if progress is not None:
            progress(1)
        best = iou(found.tubes[:, None], clip.tubes[None]).nan_to_num(0)
        best = best.amax(0) if len(best) else torch.zeros(clip.tubes.shape[:2])
        return {
            "name": clip.name,
            "label": clip.label,
            "probabilities": found.probabilities[outputs],
            "tubes": found.tubes,
            "scores": found.scores,
            "iou": _overlaps(found.tubes, clip.tubes),
            "boxes": best[~clip.tubes.isnan().any(-1)],
        }

    outcomes = each(range(len(clips)), work, ranks or Ranks(), fatal=failures is None)
    values = [done.value for done in succeeded(outcomes, failures) if done.value is not None]
    truths = torch.tensor([one["label"] for one in values for _ in range(one["iou"].shape[1])])
    scores, labels, blocks, rows, first = [], [], [], [], 0
    for one in values:
        count = one["iou"].shape[1]
        known = (one["probabilities"] >= LEAST).nonzero()[:, 0].tolist()
        for tube, score, overlap in zip(one["tubes"], one["scores"].tolist(), one["iou"], strict=True):
            there = (~tube.isnan().any(-1)).nonzero()[:, 0]
            for k in known:
                wide = torch.zeros(len(truths))
                wide[first : first + count] = overlap
                blocks.append(wide)
                labels.append(k)
                scores.append(one["probabilities"][k].item() * score)
                rows.append(
                    {
                        "video": one["name"],
                        "class": classes[k],
                        "score": scores[-1],
                        "first": int(there[0]),
                        "boxes": [[round(v, 2) for v in box] for box in tube[there].tolist()],
                    }
                )
        first += count
    table = torch.stack(blocks) if blocks else torch.zeros(0, len(truths))
    precision = average_precisions(
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.long),
        table,
        truths,
        TUBE_THRESHOLDS,
        protocol="ucf101-24",
    )
    best = torch.cat(
        [one["iou"].amax(0) if len(one["iou"]) else torch.zeros(one["iou"].shape[1]) for one in values]
    )
    return Found(
        TUBE_THRESHOLDS,
        _means(precision),
        {classes[k]: of_class for k, of_class in precision.items()},
        len(values),
        len(truths),
        rows,
        recall(best, TUBE_THRESHOLDS).tolist(),
        torch.cat([one["boxes"] for one in values]).double().mean().item(),
        [one["name"] for one in values],
    )


def _means(precision: dict[int, list[float]]) -> list[float]:
    return [sum(values) / len(values) for values in zip(*precision.values(), strict=True)]


# ------------------------------------------------------------------------------------------ intervals


def _shown(path: Path, rate: float, stride: int) -> Iterator[tuple[np.ndarray, float]]:
    """Every `stride`-th frame of a video and when it begins, in seconds; or, at `rate` a second, what is shown then."""
    from amstel.media.reading import Frames, end

    frames, given, before = Frames(path), 0, None
    for number, frame in enumerate(frames):
        if frames.time is None:
            raise ValueError(
                f"{path} does not say when its frames are shown, which intervals in seconds need"
            )
        if not rate and number % stride == 0:
            yield frame, frames.time
        while rate and before is not None and given / rate < frames.time - 1e-6 / rate:
            if given % stride == 0:
                yield before, given / rate
            given += 1
        before = frame
    over = end(frames) if rate and before is not None else 0.0
    while rate and before is not None and (given == 0 or given / rate < over - 1e-6 / rate):
        if given % stride == 0:
            yield before, given / rate
        given += 1


def _looked_at(path: Path, network: Network) -> Iterator[tuple[Tensor, float]]:
    """The frames of a video that the network looks at, uint8 [S, S, 3] as large as it sees them, and when."""
    settings = network.settings
    for frame, time in _shown(path, settings.fps, settings.stride):
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None]
        if pixels.shape[2:] != (settings.frame_size, settings.frame_size):
            pixels = F.interpolate(pixels, (settings.frame_size,) * 2, mode="bilinear", antialias=True)
        yield pixels[0].permute(1, 2, 0), time


@torch.no_grad()
def timeline(network: Network, path: Path, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Probabilities of the classes over time [n, K] in a video of any length, and the time of each, in seconds [n].

    The network reads segments of T frames, each beginning half a segment after the previous one. The prediction for a
    frame is the mean over the segments that contain it. At most `chunk` frames are in memory.
    """
    network.eval()
    steps = network.settings.steps
    half = (steps + 1) // 2
    size = max(1, (chunk - steps) // half) * half
    kept: list[Tensor] = []
    times: list[float] = []
    found: list[Tensor] = []
    before: Tensor | None = None
    for frame, time in _looked_at(path, network):
        kept.append(frame)
        times.append(time)
        # So many that the last segment of all, which ends with the video, sees none of what is said here.
        if len(kept) == size + steps + half:
            part = _over_time(network, kept[: size + steps], half, before)
            # The segments that begin later see the rest, from half a segment on.
            found.append(part[half if found else 0 : size + half])
            before, kept = kept[size - 1], kept[size:]
    if not kept:
        raise ValueError(f"{path} holds no frame")
    found.append(_over_time(network, kept, half, before)[half if found else 0 :])
    return torch.cat(found), torch.tensor(times, dtype=torch.float64)


def _over_time(network: Network, kept: list[Tensor], half: int, before: Tensor | None) -> Tensor:
    """Probabilities [n, K] of frames uint8 [S, S, 3] that were looked at already; `before` is the one before them."""
    lead = 0 if before is None else 1
    frames = torch.stack(kept if before is None else [before, *kept])
    # The stride was taken when they were read. The frame before says only what moved since.
    video = _prepare(frames, dataclasses.replace(network.settings, stride=1))
    video = _Video(video.frames[lead:], None if video.motion is None else video.motion[lead:])
    frames = frames[lead:]
    count, steps = len(frames), min(network.settings.steps, len(frames))
    starts = [*range(0, count - steps, half), count - steps]
    device = next(network.parameters()).device
    total, seen = torch.zeros(count, len(network.classes)), torch.zeros(count, 1)
    for k in range(0, len(starts), 32):
        index = torch.tensor(starts[k : k + 32])[:, None] + torch.arange(steps)
        parts = [_Video(video.frames[i], None if video.motion is None else video.motion[i]) for i in index]
        batch = _stack(parts, [0] * len(parts), device)
        outputs = network(batch.frames, batch.motion, batch.lengths)
        # Streams are fused by product, as in `evaluate`.
        log_p = sum(logits.log_softmax(-1) for logits, _ in outputs.values())
        probabilities = torch.as_tensor(log_p).softmax(-1).transpose(0, 1).cpu()  # [segments, T, K]
        total.index_add_(0, index.flatten(), probabilities.flatten(0, 1))
        seen.index_add_(0, index.flatten(), torch.ones(index.numel(), 1))
    return total / seen


def spans(curve: Tensor, least: float = 0.05, overlap: float = 0.5) -> list[tuple[int, int, float]]:
    """Intervals (first, last, score) in which a class is probable, from its probability in each frame [n].

    For nine levels between 0 and the greatest probability, the runs of frames at or above the level are candidates. The
    score of a candidate is its mean probability minus that of its surroundings, a quarter of its length on either side. By
    decreasing score, a candidate that overlaps an earlier one by more than `overlap` is dropped.

    Source: Z. Shou et al., AutoLoc, ECCV 2018 (the score, "outer-inner contrast").
    """
    top = float(curve.max())
    if top < least:
        return []
    sums = torch.cat([curve.new_zeros(1), curve.cumsum(0)]).double()
    n, candidates = len(curve), {}
    for level in range(1, 10):
        above = torch.cat(
            [torch.zeros(1, dtype=torch.bool), curve >= top * level / 10, torch.zeros(1, dtype=torch.bool)]
        )
        change = above.int().diff()
        for a, b in zip(
            (change == 1).nonzero()[:, 0].tolist(), (change == -1).nonzero()[:, 0].tolist(), strict=True
        ):
            around = math.ceil((b - a) / 4)
            low, high = max(0, a - around), min(n, b + around)
            inner = float(sums[b] - sums[a]) / (b - a)
            outside = (high - low) - (b - a)
            outer = float(sums[high] - sums[low] - sums[b] + sums[a]) / outside if outside else 0.0
            candidates[a, b] = inner - outer
    kept: list[tuple[int, int, float]] = []
    for (a, b), score in sorted(candidates.items(), key=lambda item: (-item[1], item[0])):
        if score <= 0:
            break
        here = torch.tensor([float(a), float(b)])
        others = torch.tensor([[float(x), float(y) + 1] for x, y, _ in kept]).view(-1, 2)
        if not len(others) or interval_iou(here, others).max() <= overlap:
            kept.append((a, b - 1, score))
    return kept


def intervals(
    network: Network,
    videos: THUMOS14,
    progress: Callable[[int], None] | None = None,
    *,
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> Found:
    """Mean average precision of intervals on long videos, by the rules of THUMOS14.

    Detections are the `spans` of every class over the `timeline` of a video. Those that are wrong and overlap an
    ambiguous part do not count.

    Args:
        network: trained on all classes of the videos, and perhaps on others, such as background, which are not looked for.
        videos: what to find.
        progress, ranks, failures: as in `amstel.apps.video.evaluate.evaluate`.
    """
    outputs = _labels(network, videos.classes)
    truths, ambiguous = videos.intervals, videos.ambiguous

    def work(number: int) -> list[dict[str, Any]]:
        curves, times = timeline(network, videos.paths[number])
        step = float((times[-1] - times[0]) / (len(times) - 1)) if len(times) > 1 else 0.0
        found = [
            {
                "video": videos.names[number],
                "class": name,
                "begin": float(times[a]),
                "end": float(times[b]) + step,
                "score": score,
            }
            for name, k in zip(videos.classes, outputs, strict=True)
            for a, b, score in spans(curves[:, k])
        ]
        if progress is not None:
            progress(1)
        return found

    outcomes = each(range(len(videos)), work, ranks or Ranks(), fatal=failures is None)
    done = {outcome.item: outcome.value or [] for outcome in succeeded(outcomes, failures)}
    rows = [row for found in done.values() for row in found]
    known = [(number, *span) for number in done for span in truths[number]]
    if not known:
        raise ValueError(f"no action is annotated in the {counted(len(done), 'video')} that could be read")
    names = {name: k for k, name in enumerate(videos.classes)}
    of_name = {name: k for k, name in enumerate(videos.names)}
    whose = torch.tensor([of_name[row["video"]] for row in rows])
    spans_of = torch.tensor([[row["begin"], row["end"]] for row in rows], dtype=torch.float64).view(-1, 2)
    true = torch.tensor([[a, b] for _, _, a, b in known], dtype=torch.float64)
    same = whose[:, None] == torch.tensor([number for number, *_ in known])
    # An overlap that is a threshold but for rounding is not more than it.
    table = interval_iou(spans_of[:, None], true[None]).round(decimals=9) * same
    ignored = torch.zeros(len(rows), dtype=torch.bool)
    for number, parts in enumerate(ambiguous):
        for a, b in parts:
            common = spans_of[:, 1].clamp(max=b) - spans_of[:, 0].clamp(min=a)
            # Sums of times end where the next part begins, but for rounding: less than a microsecond is no overlap.
            ignored |= (common > 1e-6) & (whose == number)
    precision = average_precisions(
        torch.tensor([row["score"] for row in rows]),
        torch.tensor([names[row["class"]] for row in rows], dtype=torch.long),
        table,
        torch.tensor([names[name] for _, name, _, _ in known]),
        INTERVAL_THRESHOLDS,
        protocol="thumos14",
        ignored=ignored,
    )
    return Found(
        INTERVAL_THRESHOLDS,
        _means(precision),
        {videos.classes[k]: of_class for k, of_class in precision.items()},
        len(done),
        len(known),
        rows,
        names=[videos.names[number] for number in done],
    )


def official(found: Found, videos: THUMOS14) -> str:
    """The detections in the format of the challenge, one line "video begin end class score" each, for its own evaluation."""
    number = dict(zip(videos.classes, videos.numbers, strict=True))
    return "".join(
        f"{row['video']} {row['begin']:.3f} {row['end']:.3f} {number[row['class']]} {row['score']:.6f}\n"
        for row in found.detections
    )
