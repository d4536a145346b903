"""What `amstel demo` shows of graphs: a made-up citation graph, and the slides' karate club, animated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from amstel.apps.demo import Show
from amstel.apps.graphs import karate
from amstel.apps.graphs.train import study
from amstel.data import block_model
from amstel.media import points
from amstel.nn import GCN


def run(show: Show) -> None:
    _citations(show)
    _karate(show)


def _pictures(show: Show, stem: str, ending: str, *arguments: Any, **options: Any) -> None:
    """An SVG always, a PNG or GIF too where matplotlib and pillow are installed."""
    show.wrote(points.svg(show.folder / f"{stem}.svg", *arguments, **options))
    with show.needs(f"{stem}.{ending}"):
        show.wrote(points.raster(show.folder / f"{stem}.{ending}", *arguments, **options))


def _citations(show: Show) -> None:
    data = block_model()
    assert data.features is not None
    show.say(f"  {data.num_nodes} documents, {data.graph.num_edges // 2} citations, {len(data.train)} labels")
    alone = study(data, "mlp", seeds=[show.seed]).mean
    with torch.random.fork_rng():
        torch.manual_seed(show.seed)
        model = GCN(data.num_features, 16, data.num_classes)
        first, second = model.parameters()
        groups: list[dict] = [{"params": [first], "weight_decay": 5e-4}, {"params": [second]}]
        adam = torch.optim.Adam(groups, lr=0.01)
        for _ in range(200):
            adam.zero_grad()
            logits = model(data.features, data.graph)
            nn.functional.cross_entropy(logits[data.train], data.labels[data.train]).backward()
            adam.step()
    with torch.no_grad():
        logits = model.eval()(data.features, data.graph)
    accuracy = (logits.argmax(1) == data.labels)[data.test].float().mean().item()
    show.figures |= {"accuracy": accuracy, "accuracy_from_words_alone": alone}
    show.say(
        f"  accuracy {accuracy:.1%} on the {len(data.test)} test documents; from their words alone {alone:.1%}"
    )
    centered = logits - logits.mean(0)
    axes = torch.linalg.svd(centered, full_matrices=False).Vh[:2]
    caption = f"GCN outputs, principal components; test accuracy {accuracy:.1%}"
    _pictures(show, "gcn_embedding", "png", (centered @ axes.T)[None], data.labels, captions=[caption])


def _karate(show: Show) -> None:
    data, embeddings, accuracy = karate.train()
    before, after = accuracy[0], accuracy[-1]
    show.say("  karate club: a GCN with two outputs a member learns from one label a group")
    show.say(f"  accuracy on the other {len(data.test)} members: {before:.0%} untrained, {after:.0%} trained")
    show.figures["karate_accuracy"] = after
    every = list(range(0, len(embeddings), 6))
    _pictures(
        show,
        "karate",
        "gif",
        embeddings[every],
        data.labels,
        edges=data.graph.to_edge_index()[0],
        captions=[f"epoch {t}, accuracy {accuracy[t]:.0%}" for t in every],
        marked=data.train.tolist(),
        rescale=True,
    )
