"""amstel.interop.dgl.GraphConv against the formula in DGL's documentation, on a stand-in with the interface of its graphs."""

import itertools
import pickle
import subprocess
import sys

import pytest
import torch

import amstel
from amstel.interop.dgl import GraphConv, from_dgl


class Stand:
    """The documented methods of a DGLGraph that the layer uses, and no others."""

    def __init__(self, source, target, sources, targets, etypes=1):
        self.ends, self.sizes = (source, target), (sources, targets)
        self.canonical_etypes = [("a", f"e{k}", "b") for k in range(etypes)]

    def edges(self, form="uv", order="eid"):
        return self.ends

    def num_src_nodes(self):
        return self.sizes[0]

    def num_dst_nodes(self):
        return self.sizes[1]


def graph(sources=6, targets=6, edges=25, seed=0):
    """With parallel edges, loops where it is square, and an incoming edge for every node."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(sources, (edges,), generator=generator)
    target = torch.randint(targets, (edges,), generator=generator)
    target[:targets] = torch.arange(targets)
    return Stand(source, target, sources, targets)


def formula(stand, x, norm, weight):
    """Edge by edge, with degrees that count edges and are at least 1."""
    source, target = stand.ends
    out = torch.bincount(source, minlength=stand.sizes[0]).clamp(min=1).double()
    into = torch.bincount(target, minlength=stand.sizes[1]).clamp(min=1).double()
    scale = {
        "both": (out[source] * into[target]).rsqrt(),
        "right": 1 / into[target],
        "left": 1 / out[source],
        "none": torch.ones(len(source), dtype=torch.float64),
    }[norm]
    scale = scale if weight is None else scale * weight
    shape = (-1,) + (1,) * (x.dim() - 1)
    return x.new_zeros(stand.sizes[1], *x.shape[1:]).index_add(0, target, x[source] * scale.reshape(shape))


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
@pytest.mark.parametrize("sizes", [(6, 6), (9, 4)])
@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_values_and_gradients(norm, sizes, widths):
    stand = graph(*sizes)
    conv = GraphConv(*widths, norm=norm, activation=torch.tanh).double()
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(sizes[0], widths[0], dtype=torch.float64, requires_grad=True)
    w = torch.randn(25, dtype=torch.float64, requires_grad=True)
    for weight in (None, w):
        expected = (formula(stand, x, norm, weight) @ conv.weight + conv.bias).tanh()
        leaves = [x, conv.weight, conv.bias, *([] if weight is None else [w])]
        for given in (stand, from_dgl(stand)):
            y = conv(given, x, edge_weight=weight)
            torch.testing.assert_close(y, expected)
            found = torch.autograd.grad(y.square().sum(), leaves, retain_graph=True)
            wanted = torch.autograd.grad(expected.square().sum(), leaves, retain_graph=True)
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a, b)
    torch.testing.assert_close(conv(stand, (x, None), edge_weight=w[:, None]), conv(stand, x, edge_weight=w))


def test_more_dimensions_no_weight_and_one_from_outside():
    stand, x = graph(), torch.randn(6, 2, 4, 3, dtype=torch.float64)
    bare = GraphConv(3, 5, weight=False, bias=False)
    assert list(bare.state_dict()) == [] and list(GraphConv(3, 5).state_dict()) == ["weight", "bias"]
    torch.testing.assert_close(bare(stand, x), formula(stand, x, "both", None))
    outside = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(bare(stand, x, outside), formula(stand, x, "both", None) @ outside)
    with pytest.raises(ValueError, match="`weight` must be None"):
        GraphConv(3, 5)(stand, x.float(), outside.float())


def test_degrees_count_edges_whatever_the_weights_of_the_graph():
    stand, x = graph(), torch.randn(6, 3)
    index = torch.stack(stand.ends)
    weighted = amstel.Graph.from_edge_index(index, 6, torch.rand(25) + 1)
    conv = GraphConv(3, 2)
    torch.testing.assert_close(conv(weighted, x), conv(stand, x))


def test_nodes_without_incoming_edges():
    stand = Stand(torch.tensor([0, 1]), torch.tensor([1, 1]), 3, 3)
    conv, x = GraphConv(2, 2), torch.randn(3, 2)
    torch.nn.init.normal_(conv.bias)
    with pytest.raises(ValueError, match="an incoming edge for every node"):
        conv(stand, x)
    conv.set_allow_zero_in_degree(True)
    assert torch.equal(conv(stand, x)[[0, 2]], conv.bias.expand(2, -1))


def test_what_is_no_graph_and_other_mistakes():
    conv, x = GraphConv(3, 2), torch.randn(6, 3)
    with pytest.raises(TypeError, match="`graph` must be a DGL graph"):
        conv(torch.zeros(2, 3, dtype=torch.int64), x)
    with pytest.raises(ValueError, match="of one edge type"):
        conv(Stand(torch.tensor([0]), torch.tensor([0]), 6, 6, etypes=2), x)
    with pytest.raises(ValueError, match=r"must"):
        conv(Stand(torch.tensor([0]), torch.tensor([7]), 6, 6), x)
    for feat in (torch.randn(5, 3), torch.randn(6, 4), torch.randn(6), torch.ones(6, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="`feat` must be"):
            conv(graph(), feat)
    for weight in (torch.ones(24), torch.ones(25, 2), torch.ones(25, dtype=torch.int64)):
        with pytest.raises(ValueError, match="`edge_weight` must be"):
            conv(graph(), x, edge_weight=weight)
    with pytest.raises(ValueError, match="`feat` must be float32 like the parameters"):
        conv(graph(), x.double())
    bare = GraphConv(3, 2, weight=False)
    for weight in (
        torch.ones(4, 2),
        torch.ones(3, 3),
        torch.ones(3),
        torch.ones(3, 2).long(),
        torch.ones(3, 2).to_sparse(),
    ):
        with pytest.raises(ValueError, match="`weight` must be"):
            bare(graph(), x, weight)
    with pytest.raises(TypeError, match="`weight` must be"):
        bare(graph(), x, [[1.0, 0.0]] * 3)
    with pytest.raises(ValueError, match="`weight` must be float32 like `feat`"):
        bare(graph(), x, torch.ones(3, 2).double())
    with torch.autocast("cpu", torch.bfloat16):
        assert bare(graph(), x, torch.ones(3, 2)).dtype == bare(graph(), x.bfloat16(), torch.ones(3, 2)).dtype
    with pytest.raises(ValueError, match="`norm` must be"):
        GraphConv(3, 2, norm="sym")
    with pytest.raises(TypeError, match="`activation` must be"):
        GraphConv(3, 2, activation="relu")


def test_dtypes_pickles_and_no_import_of_dgl():
    stand = graph()
    for dtype, norm in itertools.product((torch.float64, torch.float32, torch.bfloat16), ("both", "left")):
        conv, x = GraphConv(3, 2, norm=norm, dtype=dtype), torch.randn(6, 3, dtype=dtype)
        y = conv(stand, x, edge_weight=torch.rand(25, dtype=dtype))
        assert y.dtype == dtype
        again = pickle.loads(pickle.dumps(conv))
        assert torch.equal(again(stand, x), conv(stand, x))
    code = "import sys, amstel.interop.dgl; sys.exit('dgl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
