"""The graph part of `amstel demo`: a synthetic citation graph, and Kipf's karate club, animated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel._words import counted
from amstel.apps.demo import Exhibit, Show
from amstel.apps.graphs import karate
from amstel.apps.graphs.train import study
from amstel.data import block_model
from amstel.data.nodes import NodeData
from amstel.media import points
from amstel.nn import GCN


def run(show: Show) -> None:
    _karate(show)
    _citations(show)


def classify(data: NodeData) -> Tensor:
    """The logits of a GCN trained on a few labels."""
    model = GCN(data.num_features, 16, data.num_classes)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(200):
        logits = model(data.features, data.graph)
        loss = torch.nn.functional.cross_entropy(logits[data.train], data.labels[data.train])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.eval()(data.features, data.graph).detach()


def _pictures(show: Show, stem: str, ending: str, *arguments: Any, **options: Any) -> Path:
    """Always an SVG, for the page; also a PNG or GIF if matplotlib and pillow are installed."""
    svg = show.wrote(points.svg(show.folder / f"{stem}.svg", *arguments, **options))
    with show.needs(f"{stem}.{ending}"):
        show.wrote(points.raster(show.folder / f"{stem}.{ending}", *arguments, **options))
    return svg


def _citations(show: Show) -> None:
    data = block_model()
    show.say(
        f"  {counted(data.num_nodes, 'document')}, {counted(data.graph.num_edges // 2, 'citation')}, {counted(len(data.train), 'label')}"
    )
    alone = study(data, "mlp", seeds=[show.seed]).mean
    with torch.random.fork_rng():
        torch.manual_seed(show.seed)
        logits = classify(data)
    accuracy = (logits.argmax(1) == data.labels)[data.test].float().mean().item()
    show.figures |= {"accuracy": accuracy, "accuracy_from_words_alone": alone}
    tested = f"on the {counted(len(data.test), 'test document')}"
    show.say(f"  accuracy {accuracy:.1%} {tested}; from their words alone {alone:.1%}")
    centered = logits - logits.mean(0)
    axes = torch.linalg.svd(centered, full_matrices=False).Vh[:2]
    caption = f"GCN outputs, principal components; test accuracy {accuracy:.1%}"
    picture = _pictures(
        show, "gcn_embedding", "png", (centered @ axes.T)[None], data.labels, captions=[caption]
    )
    show.exhibits.append(
        Exhibit(
            "Synthetic citation graph",
            f"{accuracy:.1%}",
            f"accuracy {tested}, from {counted(len(data.train), 'label')}; {alone:.1%} without the citations",
            [picture],
            [classify],
        )
    )


def _karate(show: Show) -> None:
    data, embeddings, accuracy = karate.train()
    before, after = accuracy[0], accuracy[-1]
    show.say("  karate club: a GCN with two outputs per member learns from one label per group")
    show.say(
        f"  accuracy on the other {counted(len(data.test), 'member')}: {before:.0%} untrained, {after:.0%} trained"
    )
    show.figures["karate_accuracy"] = after
    every = list(range(0, len(embeddings), 6))
    picture = _pictures(
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
    show.exhibits.append(
        Exhibit(
            "Karate club, as the network learns",
            f"{after:.0%}",
            f"accuracy on {counted(len(data.test), 'member')}, from one label per group (the large dots); "
            f"{before:.0%} before training",
            [picture],
            [karate.KarateGCN, karate.train],
        )
    )
