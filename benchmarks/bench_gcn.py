"""GCN layers and trainings against torch_geometric: time, memory, and a whole study of seeds.

PyG is used as its users use it: `GCNConv(cached=True)` on an `edge_index`, dense features.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import amstel
from amstel.testing import assert_close
from benchmarks.workloads import FEATURES, data_root, edge_index, graphs

torch_geometric = pytest.importorskip("torch_geometric", reason="the peer of this file is torch_geometric")
from torch_geometric.nn import GCNConv  # noqa: E402

LARGEST = "fb100_Cornell5"


def layers(index, nodes, features):
    """Our layer and PyG's with the same weights, as functions of nothing that return output and gradients."""
    graph = amstel.Graph.from_edge_index(index, nodes)
    x = torch.randn(nodes, features, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours = amstel.nn.GCNConv(features, features)
    theirs = GCNConv(features, features, cached=True)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.weight.T)
    grad = torch.randn(nodes, features)

    def run(layer, structure):
        y = layer(x, structure)
        return y, *torch.autograd.grad(y, (x, *layer.parameters()), grad)

    return lambda: run(ours, graph), lambda: run(theirs, index)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", graphs())
def test_layer(compare, name, features):
    index = edge_index(name)
    nodes = int(index.max()) + 1
    ours, theirs = layers(index, nodes, features)
    a, b = ours(), theirs()
    assert_close(a[0], b[0].double())
    assert_close(a[1], b[1].double())
    compare(
        f"gcn-layer-{name}-F{features}",
        {"amstel": ours, "torch_geometric": theirs},
        nodes=nodes,
        edges=index.shape[1],
    )


MEMORY = """
import sys, torch
from benchmarks import bench_gcn, workloads
index = workloads.edge_index(sys.argv[2])
ours, theirs = bench_gcn.layers(index, int(index.max()) + 1, int(sys.argv[3]))
step = ours if sys.argv[1] == "amstel" else theirs
step()  # what is cached is cached
open("/proc/self/clear_refs", "w").write("5")
status = lambda key: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(key))
before = status("VmRSS")
step()
print(status("VmHWM") - before)
"""


def test_memory(record):
    """Peak resident memory of one forward and backward over what lay there before."""
    name = LARGEST if LARGEST in graphs() else "generated_powerlaw"
    root = Path(__file__).parent.parent
    for implementation in ("amstel", "torch_geometric"):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MEMORY, implementation, name, "128"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
        record(f"gcn-memory-{name}-F128", implementation, peak_MB=round(int(run.stdout) / 1024, 1))


@pytest.mark.data
def test_cora_training(compare, record):
    """200 epochs of Kipf's protocol, one seed, end to end; then 100 seeds together."""
    from amstel.apps.graphs.train import study
    from amstel.data import Planetoid

    if not (data_root() / "planetoid" / "ind.cora.x").exists():
        pytest.skip("no Planetoid files")
    cora = Planetoid(data_root() / "planetoid", "cora")
    dense = cora.features.to_dense()
    index = cora.graph.to_edge_index()[0]
    train, test = cora.train, cora.test
    accuracy = {}

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = GCNConv(dense.shape[1], 16, cached=True, bias=False)
            self.two = GCNConv(16, cora.num_classes, cached=True, bias=False)

        def forward(self, x):
            x = torch.nn.functional.dropout(x, 0.5, self.training)
            x = torch.nn.functional.dropout(self.one(x, index).relu(), 0.5, self.training)
            return self.two(x, index)

    def peer():
        net = Net()
        optimizer = torch.optim.Adam(
            [{"params": net.one.parameters(), "weight_decay": 5e-4}, {"params": net.two.parameters()}],
            lr=0.01,
        )
        for _ in range(200):
            net.train()
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(dense)[train], cora.labels[train]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            predicted = net(dense).argmax(1)
        accuracy["torch_geometric"] = float((predicted[test] == cora.labels[test]).float().mean())

    def ours():
        accuracy["amstel"] = study(cora, "gcn", seeds=[0]).mean

    compare("gcn-training-cora", {"amstel": ours, "torch_geometric": peer})
    assert min(accuracy.values()) > 0.78, accuracy
    start = time.perf_counter()
    result = study(cora, "gcn", seeds=range(100))
    record(
        "gcn-study-cora-100-seeds", "amstel", seconds=round(time.perf_counter() - start, 2), mean=result.mean
    )


def test_results_of_the_studies_are_what_the_table_says(record):
    """The accuracies that `amstel gcn --json` wrote beside this file, one line each."""
    for path in sorted((Path(__file__).parent / "results" / "gcn").glob("*.json")):
        study = json.loads(path.read_text())
        record(
            f"gcn-accuracy-{path.stem}", "amstel", mean=study["mean"], std=study["std"], seeds=study["seeds"]
        )
