"""Graph: an immutable sparse matrix in CSR form, with what the operators derive from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from amstel import _batch, _check, _convert, _derived, _subgraph
from amstel._derived import plainly
from amstel._matrix import Matrix

_STATE = ("crow", "col", "edge", "weight")


class Graph(Matrix):
    """A graph or, more generally, a sparse matrix A [num_rows, num_cols]: row = target, column = source.

    Create one with `from_edge_index`, `from_csr`, `from_scipy` or `from_networkx`. All of them check their input in
    O(E) and raise a ValueError that shows the first bad position. A Graph never changes. Its transpose, degrees and
    normalization factors are computed on first use and kept, so use one Graph for all layers and epochs. Parallel
    edges add up and are not merged.

    The kernels do not check the arrays of a Graph again, so these are private. Every public accessor (`crow`, `col`,
    `edge`, `weight`, `transposed()`, `values()`, `degree()`, `scales()`) returns a copy, in O(E), and changing it does not
    change the Graph. A pickle holds the four arrays, which are checked when it is read (torch.load(weights_only=True), too).

    A Graph is constant and refuses weights that require a gradient. Pass those to the call: `spmm(graph, x,
    edge_weight)`. Under torch.compile, graphs of different sizes share their compiled code.

    Attributes:
        crow: the row pointers of the CSR structure, int32 if they fit, else int64.
        col: its column numbers, of the same dtype. Within a row, edges keep the order in which they were given.
        edge: for each slot, the position of its edge in the input, or None if the order is unchanged.
        weight: weights of the edges in the order given, or None.

    Example:
        >>> import torch, amstel
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
        >>> graph
        Graph(num_nodes=3, num_edges=3)
        >>> graph.crow.tolist(), graph.col.tolist()  # target 0 has source 2, target 1 has source 0, ...
        ([0, 1, 2, 3], [2, 0, 1])
    """

    def __init__(self, crow: Tensor, col: Tensor, edge: Tensor | None, weight: Tensor | None, num_cols: int):
        """From the arrays themselves, which are checked and copied; `from_csr` is the constructor for users."""
        num_cols = _derived.check_parts(crow, col, edge, weight, num_cols)
        weight = _derived.own_weight("weight", weight, col.shape[0], col.device)
        self._set(crow.clone(), col.clone(), edge if edge is None else edge.clone(), weight, num_cols)

    @classmethod
    def _trusted(
        cls, crow: Tensor, col: Tensor, edge: Tensor | None, weight: Tensor | None, num_cols: int
    ) -> Graph:
        """A Graph of arrays that were checked, or made, and that nobody else holds."""
        graph = cls.__new__(cls)
        graph._set(crow, col, edge, weight, num_cols)
        return graph

    # Constructors

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, num_nodes: int | None = None, edge_weight: Tensor | None = None
    ) -> Graph:
        """From `edge_index` [2, E], int32 or int64: row 0 holds the sources, row 1 the targets.

        `num_nodes` defaults to the largest index + 1, or to the size of a `torch_geometric.EdgeIndex`. `edge_weight` [E]
        is floating point.

        Example:
            >>> amstel.Graph.from_edge_index(torch.tensor([[0, 0], [1, 2]]), edge_weight=torch.tensor([0.5, 2.0]))
            Graph(num_nodes=3, num_edges=2, weighted)
        """
        expected = "an int32 or int64 tensor [2, E]"
        _check.tensor("edge_index", edge_index, expected)
        size = 0
        if type(edge_index) is not Tensor and hasattr(edge_index, "as_tensor"):  # PyG's EdgeIndex
            index: Any = edge_index
            size = max((known for known in index.sparse_size() if known is not None), default=0)
            edge_index = index.as_tensor()
        fits = edge_index.dim() == 2 and edge_index.shape[0] == 2 and edge_index.layout == torch.strided
        if not fits or edge_index.dtype not in (torch.int32, torch.int64):
            _check.fail("edge_index", expected, edge_index)
        if num_nodes is None:
            num_nodes = max(int(edge_index.max()) + 1 if edge_index.numel() else 0, size)
        else:
            num_nodes = _check.integer("num_nodes", num_nodes, 0)

        def make() -> Graph:
            weight = _derived.own_weight("edge_weight", edge_weight, edge_index.shape[1], edge_index.device)
            source, target = edge_index[0].contiguous(), edge_index[1].contiguous()
            crow, col, edge = _derived.csr_from_coo(target, source, num_nodes, num_nodes, weight)
            return cls._trusted(crow, col, edge, weight, num_nodes)

        return _derived.checked(make, edge_index=edge_index)

    @classmethod
    def from_csr(cls, indptr: Any, indices: Any, weight: Any = None, num_cols: int | None = None) -> Graph:
        """From CSR arrays (tensors or NumPy): row = target, column = source.

        `num_cols` defaults to the number of rows; give it for a rectangular (bipartite) graph.

        Example:
            >>> ratings = amstel.Graph.from_csr(torch.tensor([0, 2, 3]), torch.tensor([0, 4, 4]), num_cols=5)
            >>> amstel.ops.spmm(ratings, torch.arange(5.0)[:, None], norm="row", self_loops=0).tolist()
            [[2.0], [4.0]]
        """
        indptr, indices = _derived.as_tensor("indptr", indptr), _derived.as_tensor("indices", indices)
        for name, value in (("indptr", indptr), ("indices", indices)):
            whole = value.dtype in (torch.int32, torch.int64)
            if value.dim() != 1 or not whole or value.layout != torch.strided:
                _check.fail(name, "a vector of int32 or int64", value)
        if indptr.numel() == 0:
            _check.fail("indptr", "[rows + 1], at least [0]", indptr)
        if indices.device != indptr.device:
            _check.fail("indices", f"on {indptr.device} like indptr", indices)
        rows, edges = indptr.numel() - 1, indices.numel()
        columns = rows if num_cols is None else _check.integer("num_cols", num_cols, 0)

        def make() -> Graph:
            own = _derived.own_weight("weight", weight, edges, indptr.device)
            same = indptr.dtype == indices.dtype
            crow, col = (t.contiguous() if same else t.long().contiguous() for t in (indptr, indices))
            _derived.csr_check(crow, col, own, columns)
            # Copies, so that nobody can change a checked index afterwards.
            dtype = torch.int32 if max(rows, columns, edges) < 2**31 - 1 else torch.int64
            crow, col = (t.to(dtype, copy=True) for t in (crow, col))
            return cls._trusted(crow, col, None, own, columns)

        return _derived.checked(make, indptr=indptr, indices=indices)

    @classmethod
    def from_scipy(cls, A: Any) -> Graph:
        """From a SciPy sparse matrix or array with A[target, source]; its values are the weights.

        float32 and float64 values keep their dtype. Others become float32, or float64 if float32 cannot hold them
        exactly. Complex values, and values that float64 cannot hold, raise an error.

        Example:
            >>> import scipy.sparse
            >>> A = scipy.sparse.csr_array([[0, 2], [0, 1]])  # 1 -> 0 with weight 2, and a loop
            >>> amstel.Graph.from_scipy(A).to_edge_index()
            (tensor([[1, 1],
                    [0, 1]]), tensor([2., 1.]))
        """
        return cls.from_csr(*_convert.from_scipy(A))

    @classmethod
    def from_networkx(cls, G: Any) -> Graph:
        """From a NetworkX graph, with nodes in its order; the weight of an edge is its attribute "weight", or 1.

        An undirected graph gives both directions of every edge, and a multigraph gives every parallel edge. The
        weights are float32 if that holds all of them exactly, else float64.

        Example:
            >>> import networkx
            >>> G = networkx.Graph([("a", "b", {"weight": 3.0}), ("b", "c")])
            >>> graph = amstel.Graph.from_networkx(G)  # node 0 is "a", node 1 is "b", ...
            >>> graph.degree(torch.float32).tolist()
            [3.0, 4.0, 1.0]
        """
        return cls.from_edge_index(*_convert.from_networkx(G))

    def __repr__(self) -> str:
        sources = "" if self.is_square else f", num_sources={self.num_cols}"
        weight = "" if self._weight is None else ", weighted"
        device = "" if self.device.type == "cpu" else f", device={self.device}"
        graphs = "" if self._offsets is None else f", num_graphs={self.num_graphs}"
        return (
            f"Graph(num_nodes={self.num_rows}{sources}, num_edges={self.num_edges}{weight}{graphs}{device})"
        )

    # Batches

    @classmethod
    def batch(cls, graphs: Iterable[Graph]) -> Graph:
        """One block-diagonal Graph from several, in order; `unbatch` splits it again.

        Nodes, edges and weights follow one another graph by graph, so the features of the batch are the torch.cat of
        those of the graphs. If only some graphs have weights, the others get weights of 1; the widest dtype is used.
        A batch among the graphs counts as the graphs in it. `ptr` and `batch_index` say which node belongs to which
        graph; `amstel.nn.global_mean_pool` and its siblings pool graph by graph. O(N + E).

        Example:
            >>> one = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
            >>> batch = amstel.Graph.batch([one, one])
            >>> batch.to_edge_index()[0].tolist(), batch.ptr.tolist()
            ([[0, 1, 2, 3], [1, 0, 3, 2]], [0, 2, 4])
        """
        return _batch.join(cls, graphs)

    def unbatch(self) -> list[Graph]:
        """The graphs of a batch, unchanged except for added weights of 1. For a Graph that is not a batch, a list
        with a copy of it.

        Example:
            >>> small, large = (amstel.Graph.from_edge_index(torch.tensor([[0], [n]])) for n in (1, 7))
            >>> amstel.Graph.batch([small, large]).unbatch()
            [Graph(num_nodes=2, num_edges=1), Graph(num_nodes=8, num_edges=1)]
        """
        return _batch.split(self)

    @property
    def num_graphs(self) -> int:
        """Number of graphs in the batch, or 1."""
        return 1 if self._offsets is None else len(self._offsets[0]) - 1

    @property
    def ptr(self) -> Tensor:
        """First node of every graph in the batch, and the end of the last: int64 [num_graphs + 1], a copy."""
        return _batch.offsets(self)[0].clone()

    @property
    def batch_index(self) -> Tensor:
        """Index of each node's graph in the batch: int64 [N] (`batch` in PyG)."""
        return _batch.index(self)

    # Pickles and copies

    def __getstate__(self) -> dict[str, Any]:
        arrays = {name: getattr(self, "_" + name) for name in _STATE}
        return arrays | {"num_cols": self._num_cols} | _batch.state(self._offsets)

    def __setstate__(self, state: Any) -> None:
        missing = {*_STATE, "num_cols"} - (state.keys() if isinstance(state, dict) else set())
        if missing:
            raise ValueError(f"Graph: a pickled Graph must hold {sorted(missing)}")
        crow, col, edge, weight = (state[name] for name in _STATE)
        try:
            num_cols = _derived.check_parts(crow, col, edge, weight, state["num_cols"])
        except TypeError as error:
            raise ValueError(f"Graph: a pickled Graph is damaged: {error}") from None
        self._set(crow, col, edge, weight, num_cols)
        self._offsets = _batch.checked(state.get("offsets"), self)

    def __copy__(self) -> Graph:
        graph = type(self).__new__(type(self))
        graph._set(self._crow, self._col, self._edge, self._weight, self._num_cols, self._turned)
        graph._offsets = self._offsets
        return graph

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        memo[id(self)] = copied = self._map(Tensor.clone)
        return copied

    def _map(self, f: Callable[[Tensor], Tensor]) -> Graph:
        edge, weight = (None if t is None else f(t) for t in (self._edge, self._weight))
        copied = type(self)._trusted(f(self._crow), f(self._col), edge, weight, self._num_cols)
        copied._offsets = _batch.moved(self._offsets, f)
        return copied

    # Conversions

    def to(self, device: Any, non_blocking: bool = False) -> Graph:
        """The same graph on another device (itself if it is already there); derived data is computed again."""
        try:
            device = torch.device(device)
        except TypeError:
            _check.fail_type("device", "a torch.device, or a string or index for one", device)
        if device == self.device:
            return self
        moved = plainly(lambda: self._map(lambda t: t.to(device, non_blocking=non_blocking)))
        return self if moved.device == self.device else moved  # "cuda" is the current one

    def cpu(self) -> Graph:
        """This graph on the CPU (itself if it is already there)."""
        return self.to("cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Graph:
        """The same graph on a GPU, the current one by default."""
        if isinstance(device, int) and not isinstance(device, bool):
            device = torch.device("cuda", device)
        return self.to("cuda" if device is None else device, non_blocking)

    def pin_memory(self) -> Graph:
        """The same graph in pinned memory, for asynchronous copies to a GPU; a DataLoader calls it."""
        return plainly(lambda: self._map(Tensor.pin_memory))

    def is_pinned(self) -> bool:
        """Whether the structure is in pinned memory."""
        return self._col.is_pinned()

    def share_memory_(self) -> Graph:
        """Move the arrays to shared memory, so that other processes need no copy; returns itself."""
        for name in _STATE:
            if (t := getattr(self, "_" + name)) is not None:
                t.share_memory_()
        for offset in self._offsets or ():
            offset.share_memory_()
        return self

    def is_shared(self) -> bool:
        """Whether the structure is in shared memory."""
        return self._col.is_shared()

    def to_scipy(self) -> Any:
        """The matrix A[target, source] as a SciPy CSR array; weights default to 1, and parallel edges are kept.

        Example:
            >>> amstel.Graph.from_edge_index(torch.tensor([[0, 0, 1], [1, 1, 0]])).to_scipy().toarray()
            array([[0., 1.],
                   [2., 0.]], dtype=float32)
        """
        return _convert.to_scipy(self)

    def to_networkx(self) -> Any:
        """A networkx.DiGraph on the nodes 0 to N - 1, source to target; a MultiDiGraph if there are parallel edges.
        Weights are the edge attribute "weight". Needs networkx.

        Example:
            >>> import networkx
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
            >>> networkx.shortest_path(graph.to_networkx(), 0, 2)
            [0, 1, 2]
        """
        return _convert.to_networkx(self)

    def to_pyg(self) -> Any:
        """A torch_geometric.data.Data with num_nodes, edge_index and, if there are weights, edge_weight, in the
        original order of the edges; a `Batch` for a batch. Needs torch_geometric.

        Example:
            >>> amstel.Graph.from_edge_index(torch.tensor([[0, 1], [1, 0]])).to_pyg()
            Data(edge_index=[2, 2], num_nodes=2)
        """
        return _convert.to_pyg(self)

    def reorder(self, method: str = "rcm") -> tuple[Graph, Tensor]:
        """Renumber the nodes for locality.

        Args:
            method: "rcm", reverse Cuthill-McKee (SciPy), which numbers neighbors close to each other: for meshes and
                similar graphs. "degree": by decreasing out-degree, so that the rows that are read most are neighbors.

        Compared with the original order, `spmm` of 128 features on one thread took 0.73 ("rcm") and 0.82 ("degree")
        of the time on PubMed, 0.93 and 1.01 on GitHub's users, 0.99 and 0.89 on Facebook's Cornell, and 0.52 and
        0.83 on a shuffled grid. If hubs already have low numbers, nothing is gained.

        Returns the new graph and `order` [N]: node i of the new graph is node order[i] of this one. Features become
        `x[order]`, and a result y on the new graph is `y[order.argsort()]` in the old numbering. Edges keep the order
        in which they were given.

        Example:
            >>> star = amstel.Graph.from_edge_index(torch.tensor([[3, 3, 3], [0, 1, 2]]))
            >>> renumbered, order = star.reorder("degree")  # the hub, node 3, comes first
            >>> order.tolist(), renumbered.to_edge_index()[0].tolist()
            ([3, 0, 1, 2], [[0, 0, 0], [1, 2, 3]])
        """
        if not self.is_square:
            raise ValueError(f"`reorder` needs as many sources as targets, got {self!r}")
        _check.choice("method", method, ("rcm", "degree"))
        order = _convert.cuthill_mckee(self) if method == "rcm" else _convert.falling_degree(self)
        index, weight = self.to_edge_index()
        return Graph.from_edge_index(order.argsort()[index], self.num_rows, weight), order

    def subgraph(self, nodes: Any) -> Graph:
        """The subgraph induced by some nodes: the nodes and the edges between them, on the CPU.

        Args:
            nodes: distinct indices (a list, an array or a tensor), or a mask [N]; node i of the result is nodes[i],
                so its features are `x[nodes]`.

        Edges keep their order and their weights. O(sum of the degrees of the nodes), whatever the size of the graph.
        To select edge weights or edge features to match, take the edges with both ends in `nodes`.

        Example:
            >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
            >>> graph.subgraph([3, 2, 1]).to_edge_index()[0].tolist()
            [[2, 1], [1, 0]]
        """
        return _subgraph.subgraph(self, nodes)

    def k_hop(self, nodes: Any, k: int) -> tuple[Graph, Tensor]:
        """The subgraph induced by some nodes and all nodes that reach them in at most k steps, on the CPU.

        Args:
            nodes: as for `subgraph`.
            k: number of steps, >= 0, against the direction of the edges: what k layers read.

        Returns:
            the subgraph, and the indices of its nodes in this graph, int64: the given nodes come first, in their
                order, and the others follow by distance. Degrees are counted within the subgraph, so nodes at
                distance k have smaller degrees than in this graph; `amstel.data.NeighborLoader(fanouts=[-1] * k)`
                keeps the original ones.

        Example:
            >>> path = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]]))
            >>> around, nodes = path.k_hop([3], 2)
            >>> nodes.tolist(), around.num_edges
            ([3, 2, 1], 2)
        """
        return _subgraph.k_hop(self, nodes, k)


# torch.load(weights_only=True) may make a Graph: __setstate__ checks what it is given.
torch.serialization.add_safe_globals([Graph])
