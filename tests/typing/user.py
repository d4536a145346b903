"""A user's program, as strict type checkers see it: `mypy --strict` and `pyright` must have nothing to say."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import amstel
from amstel.interop.torchvision import RoIPool, roi_pool


class Classifier(nn.Module):
    """A GCN layer of the user's own, and one of the library's."""

    def __init__(self, graph: amstel.Graph, features: int, classes: int) -> None:
        super().__init__()
        self.graph = graph
        self.first = amstel.nn.GCNConv(features, 16)
        self.weight = nn.Parameter(torch.zeros(16, classes))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x, self.graph)
        return amstel.ops.spmm(self.graph, hidden.relu() @ self.weight, norm="sym", self_loops=1.0)


def graphs() -> float:
    data = amstel.data.karate_club()
    nodes: int = data.num_nodes
    edges, weights = data.graph.to_edge_index()
    graph = amstel.Graph.from_edge_index(edges, nodes, weights)
    logits: Tensor = Classifier(graph, 8, data.num_classes)(torch.randn(nodes, 8))
    return float((logits.argmax(1) == data.labels).float().mean())


def video() -> tuple[Tensor, Tensor]:
    x = torch.randn(4, 1, 3, 8, 8)
    lstm = amstel.nn.ConvLSTM(3, 4)
    output, (h, c) = lstm(x)
    weight_x, weight_h, bias = torch.randn(16, 3, 3, 3), torch.randn(16, 4, 3, 3), torch.zeros(16)
    ours, (last_h, last_c) = amstel.ops.conv_lstm(x, weight_x, weight_h, bias)
    assert (
        output.shape == ours.shape and h.shape[1:] == last_h.shape[-4:] and c.shape[1:] == last_c.shape[-4:]
    )
    return output, ours


def tracking(frames: np.ndarray) -> Tensor:
    tracker = amstel.tracking.SINTTracker(redetect=True)
    tracker.init(frames[0], [10.0, 10.0, 20.0, 20.0])
    box: np.ndarray = tracker.update(frames[1])
    boxes = torch.from_numpy(np.stack([np.array([10.0, 10.0, 20.0, 20.0]), box]))
    scores = amstel.tracking.evaluate(boxes, boxes, protocol="otb")
    auc: float = scores.auc
    assert auc > 0.9
    rois = torch.tensor([[0.0, 1, 1, 9, 9]])
    features = torch.randn(1, 2, 16, 16)
    pooled: Tensor = roi_pool(features, rois, 7, spatial_scale=0.5)
    module: Tensor = RoIPool(7, 0.5)(features, rois)
    matched: Tensor = amstel.ops.roi_match([features], rois, torch.randn(2 * 49), 7, [0.5])
    return pooled + module + matched[:, None, None, None]


def restoration(noisy: np.ndarray) -> list[Tensor]:
    clean: np.ndarray = amstel.restore(noisy, sigma=0.1)
    assert clean.shape == noisy.shape
    physics = amstel.inverse.MRI(torch.arange(16) % 2 == 0, torch.ones(2, 16, 16, dtype=torch.cfloat))
    y: Tensor = physics(torch.zeros(1, 16, 16, dtype=torch.cfloat))
    gradient: Tensor = physics.prepare(y).gradient(torch.zeros(1, 16, 16, dtype=torch.cfloat))
    assert gradient.shape == (1, 16, 16)
    estimates: list[Tensor] = amstel.nn.RIM(channels=1, features=8, steps=2)(
        torch.from_numpy(noisy)[None, None].float(), amstel.inverse.Denoising(sigma=0.1)
    )
    return estimates


if __name__ == "__main__":
    graphs()
    video()
    tracking(np.zeros((2, 64, 64, 3), np.uint8))
    restoration(np.zeros((16, 16)))
