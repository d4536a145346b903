"""The paper's test of action recognition: the mean prediction over 25 segments of every clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from amstel import _check
from amstel import nn as models
from amstel.apps.ranks import Outcome, Ranks, each, succeeded
from amstel.apps.video.network import Network
from amstel.apps.video.samples import Clips, _stack, _Video, prepared


@dataclass
class Evaluation:
    """Clips in order: probabilities [clips, K], labels [clips], names; probabilities of each stream by its name."""

    probabilities: Tensor
    labels: Tensor
    names: list[str]
    streams: dict[str, Tensor] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        return (self.probabilities.argmax(1) == self.labels).double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """How many clips of each class (rows) were predicted as which (columns): int64 [K, K]."""
        count = self.probabilities.shape[1]
        pairs = self.labels * count + self.probabilities.argmax(1)
        return torch.bincount(pairs, minlength=count * count).view(count, count)


@torch.no_grad()
def _segments(
    network: Network, video: _Video, count: int, vote: str = "mean"
) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
    """Probabilities [K] and attention [n, h, w] of a prepared video, each the mean over the segments that see it, and
    the probabilities of each stream."""
    from amstel.media.reading import segments

    n, steps = len(video.frames), min(network.settings.steps, len(video.frames))
    index = torch.unique(segments(n, steps, count), dim=0)
    device = next(network.parameters()).device
    probabilities, total, seen = [], None, torch.zeros(n)
    streams: dict[str, list[Tensor]] = {name: [] for name in network.streams}
    for part in index.split(32):
        crops = [
            _Video(video.frames[i], None if video.motion is None else video.motion[i], video.features)
            for i in part
        ]
        batch = _stack(crops, [0] * len(crops), device)
        outputs = network(batch.frames, batch.motion, batch.lengths, batch.features)
        scores = [logits for logits, _ in outputs.values()]  # of equal length: nothing is padded
        found = [models.predict(x if vote == "mean" else x[-1:]) for x in scores]
        for name, of_stream in zip(outputs, found, strict=True):
            streams[name].append(of_stream)
        # A probability that underflows in one stream must not make the product 0/0.
        probabilities.append(
            found[0] if len(found) == 1 else models.fuse(*(p.clamp_min(1e-12).log() for p in found))
        )
        attention = next(iter(outputs.values()))[1]
        if attention is not None:
            if total is None:
                total = torch.zeros(n, *attention.shape[2:])
            total.index_add_(0, part.T.flatten(), attention.flatten(0, 1).cpu())
            seen.index_add_(0, part.T.flatten(), torch.ones(part.numel()))
    mean = torch.cat(probabilities).mean(0).cpu()
    each_stream = {name: torch.cat(parts).mean(0).cpu() for name, parts in streams.items()}
    return mean, None if total is None else total / seen[:, None, None], each_stream


def evaluate(
    network: Network,
    clips: Clips,
    segments: int = 25,
    progress: Callable[[int], None] | None = None,
    *,
    vote: str = "mean",
    ranks: Ranks | None = None,
    failures: list[Outcome] | None = None,
) -> Evaluation:
    """The paper's test: probabilities for equally spaced segments of T frames, averaged over segments and steps.

    With vote="last", a segment's answer is that of its last step, which has seen all of it. This is better if the
    first frames do not reveal the class.

    Args:
        network: the network to test.
        clips: the clips to test it on.
        segments: per clip.
        progress: called with 1 after every clip.
        vote: see above.
        ranks: processes that each take a share of the clips.
        failures: collects the clips that cannot be read, which are then left out; default: raise their error.
    """
    if vote not in ("mean", "last"):
        _check.fail("vote", "'mean' or 'last'", vote)
    if not len(clips):
        _check.fail("clips", "at least one clip", "none")
    network.eval()

    def work(number: int) -> tuple[Tensor, int, str, dict[str, Tensor]]:
        clip = clips[number]
        found, _, streams = _segments(network, prepared(clip, network.settings), segments, vote)
        if progress is not None:
            progress(1)
        return found, clip.label, clip.name, streams

    outcomes = each(range(len(clips)), work, ranks or Ranks(), fatal=failures is None)
    values = (done.value for done in succeeded(outcomes, failures))
    found, labels, names, parts = zip(*values, strict=True)
    streams = {name: torch.stack([part[name] for part in parts]) for name in network.streams}
    return Evaluation(torch.stack(found), torch.tensor(labels), list(names), streams)
