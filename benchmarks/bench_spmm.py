"""The graph operator against torch.sparse, MKL and compiled code: forward, backward, both, and construction.

The peers of the forward product get the finished normalized matrix, with self-loops, as their users cache it: `A @ x` with
int32 CSR (MKL on the CPU, cuSPARSE on CUDA), `torch.sparse.mm(A, x, "sum")` with int64, MKL's inspected matrix,
`embedding_bag` (FBGEMM: a row's columns are a bag), and the plain formula compiled. For gradients to x and the weights only `torch.sparse.mm` (on the CPU) and the
compiled formula are peers: the weight gradient of `A @ x` is a dense N x N matrix on its way.
"""

import torch
from torch.nn.functional import embedding_bag

import amstel
from benchmarks import mkl
from benchmarks.suite import SHORT, Implementation, Shape, Work, passes, suite
from benchmarks.workloads import graph_of, graph_shapes

FORWARD = graph_shapes({16: False, 32: True, 64: False, 128: True, 256: False}, random=(16, 64, 256))
GRADIENT = graph_shapes({16: False, 32: True, 64: False, 128: True, 256: True}, random=(64,))
# The inspection settles the number of threads, which is the largest then.
INSPECTED = [Implementation("MKL inspected", devices=("cpu",), most=True)] if mkl.available() else []
MM = "torch.sparse.mm sum"


def sparse(crow, col, values, columns, index=torch.int64):
    size = (crow.numel() - 1, columns)
    return torch.sparse_csr_tensor(crow.to(index), col.to(index), values, size, check_invariants=False)


def normalized(graph):
    """crow, col and values of D^-1/2 (A + I) D^-1/2, which users of the peers compute once and keep."""
    crow, col, nodes = graph.crow.long(), graph.col.long(), graph.num_nodes
    everyone = torch.arange(nodes, device=col.device)
    target = torch.cat([torch.repeat_interleave(everyone, crow.diff()), everyone])
    source = torch.cat([col, everyone])
    order = torch.argsort(target * nodes + source)
    target, source = target[order], source[order]
    degree = torch.bincount(target, minlength=nodes)
    scale = degree.float().rsqrt()
    return torch.cat([degree.new_zeros(1), degree.cumsum(0)]), source, scale[target] * scale[source], target


def plain(x, source, target, values):
    """The formula in plain PyTorch: gather, scale, scatter."""
    out = torch.zeros_like(x)
    return out.index_add(0, target, values.to(x.dtype)[:, None] * x[source])


def amounts(nodes, edges, features, size):
    return {
        "bytes": 2 * nodes * features * size + 8 * edges + 4 * nodes,
        "gathered": edges * features * size,
        "flops": 2 * edges * features,
    }


#: Where the compiled formula is measured on the CPU: forward it is 40 times slower than the others, and with larger
#: graphs or more features it falls behind in the gradients too.
COMPILED = ("cora_F16", "fb100_Cornell5_F16")


@suite(
    "spmm", "forward", FORWARD,
    Implementation("amstel", SHORT),
    Implementation("torch CSR int32", devices=("cpu",)),
    Implementation(MM, devices=("cpu",)),
    *INSPECTED,
    Implementation("embedding_bag", devices=("cpu",), most=True),
    Implementation("cuSPARSE", SHORT, devices=("cuda",)),
    Implementation("compiled formula", most=True, only=COMPILED[:1]),
)  # fmt: skip
def test_forward(at, name, features):
    graph = graph_of(name, at.device)
    x = at.randn(graph.num_nodes, features)
    crow, source, values, target = normalized(graph)
    n = graph.num_nodes
    functions = {"amstel": lambda: amstel.ops.spmm(graph, x)}
    if at.dtype == torch.float32:
        narrow, wide = sparse(crow, source, values, n, torch.int32), sparse(crow, source, values, n)
        formula = at.compile(plain, dynamic=True)
        functions |= {
            "torch CSR int32": lambda: narrow @ x,
            MM: lambda: torch.sparse.mm(wide, x, "sum"),
            "compiled formula": lambda: formula(x, source, target, values),
        }
        index, offsets = source.int(), crow[:-1].int()
        functions["embedding_bag"] = lambda: embedding_bag(
            index, x, offsets, mode="sum", per_sample_weights=values
        )
        if INSPECTED and at.device == "cpu":
            product = mkl.Product(crow, source, values, features)
            functions["MKL inspected"] = lambda: product(x)
    cached = sparse(crow, source, values.to(at.dtype), n, torch.int32)
    # A dry run has no bfloat16 product on the CPU.
    functions["cuSPARSE"] = lambda: (
        cached @ x if at.device == "cuda" else (cached.float() @ x.float()).to(x.dtype)
    )
    facts = {"nodes": n, "edges": graph.num_edges}
    return Work(functions, **amounts(n, source.numel(), features, x.element_size()), facts=facts)


def gradients(at, name, features, step):
    """y = A x with plain weights, and the gradients of x and of the weights."""
    graph = graph_of(name, at.device)
    n, crow, source = graph.num_nodes, graph.crow.long(), graph.col.long()
    target = torch.repeat_interleave(torch.arange(n, device=source.device), crow.diff())
    x, grad = at.randn(n, features), at.randn(n, features)
    values = at.rand(source.numel())
    # The weights in the order of the slots; a graph from edges holds them in that of the edges.
    weight = values.clone()
    if graph.edge is not None:
        weight[graph.edge.long()] = values
    ours = [x.clone().requires_grad_(), weight.requires_grad_()]
    theirs = [x.clone().requires_grad_(), values.clone().requires_grad_()]
    # A leaf: through the constructor of a sparse tensor the peer would make a dense N x N gradient.
    matrix = sparse(crow, source, values, n).requires_grad_()
    formula = at.compile(plain, dynamic=True)
    found = {
        "amstel": passes(
            lambda: amstel.ops.spmm(graph, ours[0], ours[1], norm="none", self_loops=0), ours, grad
        ),
        MM: passes(lambda: torch.sparse.mm(matrix, theirs[0], "sum"), [theirs[0], matrix], grad),
        "compiled formula": passes(lambda: formula(theirs[0], source, target, theirs[1]), theirs, grad),
    }

    def in_slots(gradient):
        return gradient[0], gradient[1] if graph.edge is None else gradient[1][graph.edge.long()]

    work = amounts(n, source.numel(), features, x.element_size())
    factor = 2 if step == "backward" else 3  # the products that a pass consists of
    return Work(
        {k: p[step] for k, p in found.items()},
        **{k: factor * v for k, v in work.items()},
        read={"amstel": in_slots, MM: lambda g: (g[0], g[1].values())},
        holds={k: p["hold"] for k, p in found.items()},
        facts={"nodes": n, "edges": graph.num_edges},
    )


PEERS = (
    Implementation("amstel"),
    Implementation(MM, devices=("cpu",)),
    Implementation("compiled formula", most=True, only=COMPILED),
)


@suite("spmm", "backward", GRADIENT, *PEERS)
def test_backward(at, name, features):
    """Only the gradients, from a stored forward pass."""
    return gradients(at, name, features, "backward")


@suite("spmm", "both", GRADIENT, *PEERS)
def test_both(at, name, features):
    return gradients(at, name, features, "both")


EDGES = {
    f"{nodes}_{order}": Shape((nodes, 1_000_000, order), (50, 300, order), large=nodes == 50_000)
    for nodes in (1000, 50_000, 1_000_000)
    for order in ("random", "sorted")
}


@suite("graph", "construction", EDGES, Implementation("amstel"), Implementation("torch coo to csr"))
def test_construction(at, nodes, edges, order):
    """A CSR matrix from a list of edges."""
    index = torch.randint(0, nodes, (2, edges), generator=at.generator, device=at.device)
    if order == "sorted":
        key = torch.sort(index[1] * nodes + index[0]).values
        index = torch.stack([key % nodes, key // nodes])
    ones = torch.ones(edges, device=at.device)

    def peer():
        return torch.sparse_coo_tensor(index.flip(0), ones, (nodes, nodes)).to_sparse_csr()

    def degrees(crow):
        return crow.long().diff().bool().float()  # the peer merges parallel edges; empty rows agree

    return Work(
        {"amstel": lambda: amstel.Graph.from_edge_index(index, nodes), "torch coo to csr": peer},
        read={"amstel": lambda g: degrees(g.crow), "torch coo to csr": lambda a: degrees(a.crow_indices())},
        bytes=16 * edges + 8 * edges,
    )
