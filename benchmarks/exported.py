"""Exported programs against eager calls, in turns: `python -m benchmarks.exported [threads [FILE.json]]`.

One line per model: both medians in milliseconds and their ratio, which should stay below 1.2. The file gets the same, for
benchmarks/results/exported.json, from which the table in docs/guide/pytorch.md is.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

import amstel
from amstel import nn, ops


class Pool(torch.nn.Module):
    def forward(self, x, boxes):
        return ops.roi_pool(x, boxes, 7, 0.25)


class OnGraph(torch.nn.Module):
    """A model that contains its graph, because an exported program takes only tensors."""

    def __init__(self, graph):
        super().__init__()
        self.model, self.graph = nn.GCN(1433, 16, 7), graph

    def forward(self, x):
        return self.model(x, self.graph)


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.RIM(features=32, steps=5, network="conv")

    def forward(self, y):
        return self.model(y, amstel.inverse.Denoising(0.1))[-1]


def models():
    torch.manual_seed(0)
    corners = torch.rand(303, 2) * 256
    boxes = torch.cat([torch.zeros(303, 1), corners, corners + torch.rand(303, 2) * 200], 1)
    graph = amstel.Graph.from_edge_index(torch.randint(0, 2708, (2, 10556)), 2708)
    yield "RoI pooling, 303 boxes on 512 x 128 x 128", Pool(), (torch.randn(1, 512, 128, 128), boxes)
    yield "GCN of Cora's size", OnGraph(graph), (torch.randn(2708, 1433),)
    yield (
        "ConvLSTM, 16 to 32 channels, 8 steps of 2 x 32 x 32",
        nn.ConvLSTM(16, 32),
        (torch.randn(8, 2, 16, 32, 32),),
    )
    yield "RIM, 5 steps on 64 x 64", Denoiser(), (torch.randn(1, 1, 64, 64),)


def by_turns(functions, seconds=5.0):
    """The median time of each in milliseconds."""
    times = [[] for _ in functions]
    for f in functions:
        f()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 7:
        for f, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            f()
            taken.append(time.perf_counter() - start)
    return [1e3 * statistics.median(t) for t in times]


def main(threads="1", file=None):
    torch.set_num_threads(int(threads))
    found = {}
    with torch.no_grad():
        for name, model, inputs in models():
            model.eval()
            program = torch.export.export(model, inputs).module()
            eager, exported = by_turns([lambda m=m, i=inputs: m(*i) for m in (model, program)])
            print(f"{name}: eager {eager:.2f}, exported {exported:.2f}, ratio {exported / eager:.2f}")
            found[name] = {"eager": eager, "exported": exported}
    if file:
        facts = {"torch": torch.__version__, "isa": torch.ops.amstel.cpu_isa(), "threads": int(threads)}
        Path(file).write_text(json.dumps({**facts, "milliseconds": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
