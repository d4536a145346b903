"""GCN layers and a training step against torch_geometric, used as its users use it: `GCNConv(cached=True)`, dense features.

PyG runs both eager and compiled.
"""

from dataclasses import replace

import pytest
import torch

import amstel
from benchmarks.suite import Implementation, Shape, Work, passes, suite
from benchmarks.workloads import data_root, edge_index, graph_of, graph_shapes

pytest.importorskip(
    "torch_geometric", reason='the peer of this file is torch_geometric: pip install "amstel[bench]"'
)
from torch_geometric.nn import GCNConv

SHAPES = {
    name: replace(shape, most="F128" in name)
    for name, shape in graph_shapes(
        {16: False, 32: True, 64: True, 128: False, 256: True}, random=(64,)
    ).items()
}
PEERS = (Implementation("amstel"), Implementation("PyG"), Implementation("PyG compiled", most=True))
#: Of both passes; it gained a few percent on larger ones.
FEWER = (*PEERS[:2], Implementation("PyG compiled", most=True, only=("cora_F16", "fb100_Cornell5_F16")))


def index_of(name, device):
    if name.startswith("random"):
        return graph_of(name, device).to_edge_index()[0]
    return edge_index(name).to(device)


def layers(at, name, features, step):
    """Our layer and PyG's, with the same weights."""
    index = index_of(name, at.device)
    nodes = int(index.max()) + 1
    graph = amstel.Graph.from_edge_index(index, nodes)
    x = at.randn(nodes, features).requires_grad_()
    ours = amstel.nn.GCNConv(features, features).to(at.device)
    theirs = GCNConv(features, features, cached=True).to(at.device)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.weight.T)
    theirs(x, index)  # what is cached is cached
    compiled = at.compile(theirs)
    grad = at.randn(nodes, features)
    own, leaves = [x, *ours.parameters()], [x, *theirs.parameters()]
    found = {
        "amstel": passes(lambda: ours(x, graph), own, grad),
        "PyG": passes(lambda: theirs(x, index), leaves, grad),
        "PyG compiled": passes(lambda: compiled(x, index), leaves, grad),
    }

    def same_order(gradient):
        """PyG's parameters are bias and the transposed weight."""
        by_shape = sorted(gradient[1:], key=lambda t: t.dim())
        return gradient[0], by_shape[0], by_shape[1].T

    def ours_in_order(gradient):
        by_shape = sorted(gradient[1:], key=lambda t: t.dim())
        return gradient[0], by_shape[0], by_shape[1]

    edges = index.shape[1] + nodes
    factor = 1 if step == "forward" else 3
    return Work(
        {k: p[step] for k, p in found.items()},
        bytes=factor * (2 * nodes * features * 4 + 8 * edges),
        gathered=(factor + 1) // 2 * edges * features * 4,
        flops=factor * 2 * nodes * features**2 + (factor + 1) // 2 * 2 * edges * features,
        read={}
        if step == "forward"
        else {"amstel": ours_in_order, "PyG": same_order, "PyG compiled": same_order},
        holds={} if step == "forward" else {k: p["hold"] for k, p in found.items()},
        facts={"nodes": nodes, "edges": index.shape[1]},
    )


@suite("gcn", "forward", SHAPES, *PEERS)
def test_forward(at, name, features):
    return layers(at, name, features, "forward")


@suite("gcn", "both", SHAPES, *FEWER)
def test_both(at, name, features):
    """Forward, and the gradients of x, weight and bias."""
    return layers(at, name, features, "both")


# nodes, edges, features, classes: Cora's figures
STEPS = {"cora_like": Shape((2708, 10556, 1433, 7), (60, 200, 12, 3))}


@suite("gcn", "step", STEPS, *PEERS)
def test_step(at, nodes, edges, features, classes):
    """Loss and gradients of Kipf's two layers on dense features of Cora's size, without dropout."""
    index = torch.randint(0, nodes, (2, edges), generator=at.generator, device=at.device)
    index = index[:, index[0] != index[1]]
    graph = amstel.Graph.from_edge_index(index, nodes)
    x = at.randn(nodes, features)
    labels = torch.randint(0, classes, (nodes,), generator=at.generator, device=at.device)
    ours = amstel.nn.GCN(features, 16, classes, dropout=0.0).to(at.device)
    one, two = (GCNConv(i, o, cached=True).to(at.device) for i, o in ((features, 16), (16, classes)))
    with torch.no_grad():
        for mine, theirs in zip([p for p in ours.parameters() if p.dim() == 2], (one, two), strict=True):
            theirs.lin.weight.copy_(mine.T)

    def peer(x, index):
        return two(one(x, index).relu(), index)

    peer(x, index)
    compiled = at.compile(peer)
    parameters = [*ours.parameters()], [one.lin.weight, one.bias, two.lin.weight, two.bias]

    def step(forward, weights):
        def run():
            loss = torch.nn.functional.cross_entropy(forward(), labels)
            return loss, *torch.autograd.grad(loss, weights)

        return run

    loss_alone = {k: lambda found: found[0] for k in ("amstel", "PyG", "PyG compiled")}
    return Work(
        {
            "amstel": step(lambda: ours(x, graph), parameters[0]),
            "PyG": step(lambda: peer(x, index), parameters[1]),
            "PyG compiled": step(lambda: compiled(x, index), parameters[1]),
        },
        read=loss_alone,
        flops=2 * 2 * nodes * features * 16,
    )


def transposed_third(gradient):
    """PyG's weight is ours transposed."""
    return (*gradient[:2], gradient[2].T, *gradient[3:])


def layer_and_peer(at, features):
    """Our layer and PyG's without caching, with the same weights."""
    ours = amstel.nn.GCNConv(features, features).to(at.device)
    theirs = GCNConv(features, features).to(at.device)
    with torch.no_grad():
        theirs.lin.weight.copy_(ours.weight.T)
    return ours, theirs


# nodes, edges, features
WEIGHTED = {"random": Shape((20_000, 200_000, 64), (60, 200, 8))}


@suite("gcn", "weighted", WEIGHTED, *PEERS[:2])
def test_weighted(at, nodes, edges, features):
    """Learnable edge weights: forward, and the gradients of x, the edge weights, weight and bias."""
    index = torch.randint(0, nodes, (2, edges), generator=at.generator, device=at.device)
    index = index[:, index[0] != index[1]]
    graph = amstel.Graph.from_edge_index(index, nodes)
    x, w = (
        at.randn(nodes, features).requires_grad_(),
        at.randn(index.shape[1]).abs().add(0.1).requires_grad_(),
    )
    ours, theirs = layer_and_peer(at, features)
    grad = at.randn(nodes, features)
    found = {
        "amstel": passes(lambda: ours(x, graph, w), [x, w, ours.weight, ours.bias], grad),
        "PyG": passes(lambda: theirs(x, index, w), [x, w, theirs.lin.weight, theirs.bias], grad),
    }
    return Work(
        {k: p["both"] for k, p in found.items()},
        read={"PyG": transposed_third},
        holds={k: p["hold"] for k, p in found.items()},
        flops=3 * 2 * nodes * features**2 + 3 * 2 * index.shape[1] * features,
    )


# graphs, nodes and edges of one, features
BATCHES = {"small_graphs": Shape((256, 30, 120, 64), (4, 10, 20, 8))}


@suite("gcn", "batch", BATCHES, *PEERS[:2])
def test_batch(at, graphs, nodes, edges, features):
    """A batch of small graphs, built in every step: batching, a layer, the mean of each graph, and the gradients."""
    from torch_geometric.data import Batch, Data
    from torch_geometric.nn import global_mean_pool

    drawn = (
        torch.randint(0, nodes, (2, edges), generator=at.generator, device=at.device) for _ in range(graphs)
    )
    parts = [index[:, index[0] != index[1]] for index in drawn]
    mine = [amstel.Graph.from_edge_index(index, nodes) for index in parts]
    data = [Data(edge_index=index, num_nodes=nodes) for index in parts]
    x = at.randn(graphs * nodes, features).requires_grad_()
    ours, theirs = layer_and_peer(at, features)
    grad = at.randn(graphs, features)

    def step():
        batch = amstel.Graph.batch(mine)
        return amstel.nn.global_mean_pool(ours(x, batch), batch)

    def peer():
        batch = Batch.from_data_list(data)
        return global_mean_pool(theirs(x, batch.edge_index), batch.batch, graphs)

    found = {
        "amstel": passes(step, [x, ours.bias, ours.weight], grad),
        "PyG": passes(peer, [x, theirs.bias, theirs.lin.weight], grad),
    }
    return Work(
        {k: p["both"] for k, p in found.items()},
        read={"PyG": transposed_third},
        holds={k: p["hold"] for k, p in found.items()},
        flops=3 * 2 * graphs * nodes * features**2,
    )


if (data_root() / "planetoid" / "ind.cora.x").exists():

    @suite(
        "gcn",
        "training",
        {"cora": Shape((50,), (2,), ("cpu",), most=True)},
        Implementation("amstel"),
        Implementation("PyG"),
    )
    def test_training(at, epochs):
        """Kipf's protocol on Cora, one seed, end to end."""
        from amstel.apps.graphs.train import Settings, study
        from amstel.data import Planetoid

        cora = Planetoid(data_root() / "planetoid", "cora")
        dense, index = cora.features.to_dense(), cora.graph.to_edge_index()[0]
        cross_entropy, dropout = torch.nn.functional.cross_entropy, torch.nn.functional.dropout
        accuracy = {}

        def peer():
            torch.manual_seed(0)
            one = GCNConv(dense.shape[1], 16, cached=True, bias=False)
            two = GCNConv(16, cora.num_classes, cached=True, bias=False)

            def net(training):
                hidden = one(dropout(dense, 0.5, training), index).relu()
                return two(dropout(hidden, 0.5, training), index)

            optimizer = torch.optim.Adam(
                [{"params": one.parameters(), "weight_decay": 5e-4}, {"params": two.parameters()}], lr=0.01
            )
            for _ in range(epochs):
                optimizer.zero_grad()
                cross_entropy(net(True)[cora.train], cora.labels[cora.train]).backward()
                optimizer.step()
            with torch.no_grad():
                found = net(False).argmax(1)
            accuracy["PyG"] = float((found[cora.test] == cora.labels[cora.test]).float().mean())

        settings = Settings.for_data("cora", epochs=epochs)

        def ours():
            accuracy["amstel"] = study(cora, "gcn", seeds=[0], settings=settings).mean

        def learned(_):
            """Both learn: the paper's protocol reaches 0.81 after 200 epochs."""
            assert epochs < 50 or min(accuracy.values()) > 0.7, accuracy
            return torch.zeros(0)

        return Work({"amstel": ours, "PyG": peer}, read={"amstel": learned, "PyG": learned})
