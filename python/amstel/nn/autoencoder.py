"""Graph autoencoders GAE and VGAE: node embeddings whose inner products predict which nodes are linked."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from amstel import _check, _checks
from amstel._derived import plainly
from amstel._torch import wide, without_autocast
from amstel.graph import Graph
from amstel.nn._convolution import Features, prepare
from amstel.nn._recompute import recomputed
from amstel.nn._sparse import dropout
from amstel.nn.gcn import GCNConv

#: Pairs of nodes that are looked at together; more are computed again in the backward pass instead of being kept.
BLOCK = 2**22
#: exp of more is a number that no embedding should have; PyG's bound.
MOST_LOGSTD = 10.0

# The links of graphs as positions of a matrix, found once and dropped with them.
_links: weakref.WeakKeyDictionary[Graph, Tensor] = weakref.WeakKeyDictionary()


class GAE(nn.Module):
    r"""Graph autoencoder: two graph convolutions ``Z = Â dropout(relu(Â dropout(X) W_0)) W_1``, and
    ``sigmoid(z_i · z_j)`` as the probability of a link between nodes i and j.

    Args:
        in_channels, hidden_channels, out_channels: widths of X, of the hidden layer, and of Z. Without features
            in_channels is N; -1 takes it from the first input.
        dropout: rate, on the input of both layers while training; on sparse features it acts on the non-zeros.
        bias: whether the layers have biases; the paper's code does not use any.
        device, dtype: of the parameters.

    forward(x, graph, edge_weight=None): the embeddings Z [N, out_channels] (or [B, N, out_channels]); arguments as
    `GCNConv`. Parameters: those of `hidden` and `mean`, two `GCNConv`.

    Source: T. N. Kipf and M. Welling, Variational Graph Auto-Encoders, NeurIPS workshop on Bayesian deep learning 2016,
    section 1. `amstel graphs train --task link` trains it with the paper's protocol.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model, x = amstel.nn.GAE(4, 8, 2), torch.randn(3, 4)
        >>> model.loss(x, graph).backward()
        >>> model.decode(model(x, graph), torch.tensor([[0, 0], [1, 2]])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 32,
        out_channels: int = 16,
        dropout: float = 0.0,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        hidden_channels = _check.integer("hidden_channels", hidden_channels, 1)
        out_channels = _check.integer("out_channels", out_channels, 1)
        self.dropout = float(_check.number("dropout", dropout, "in [0, 1)", least=0, below=1))
        how: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.hidden = GCNConv(in_channels, hidden_channels, activation="relu", **how)
        self.mean = GCNConv(hidden_channels, out_channels, **how)

    @property
    def in_channels(self) -> int:
        """Width of the features, or N without features."""
        return self.hidden.in_channels

    def reset_parameters(self) -> None:
        """Reset the parameters of every layer."""
        for layer in self.children():
            layer.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Features, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Embeddings Z [N, D] or [B, N, D] for x [N, F] or [B, N, F]; graph and edge_weight [E] as `GCNConv`."""
        graph = self._prepared(x, graph)
        return self.mean(self._hidden(x, graph, edge_weight), graph, edge_weight)

    def decode(self, z: Tensor, edge_index: Tensor) -> Tensor:
        """``z_i · z_j`` for the pairs in edge_index [2, M] int64: logits [M] (or [B, M]), whose `sigmoid` is the
        probability of a link. Differentiable in z; an index outside z raises a ValueError."""
        _embeddings(z)
        source, target = _pairs("edge_index", edge_index, z)
        return (wide(z[..., source, :]) * wide(z[..., target, :])).sum(-1).to(z.dtype)

    def loss(
        self,
        x: Features,
        graph: Graph | Tensor,
        edge_weight: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The training loss of the embeddings that `forward` returns.

        Without `negatives` it is the paper's loss: the cross-entropy of all N² pairs, times N² / (2 (N² - M)), where M is
        the number of distinct links and the links of the graph and the pairs (i, i) are weighted by (N² - M) / M. This
        covers all N² pairs in O(N) memory. With `negatives`, pairs [2, K] int64 without a link, it is the mean of -log(p)
        over the links of the graph plus the mean of -log(1 - p) over these pairs, like PyG's `recon_loss`. Direction,
        weights and multiplicity of links are ignored; a batch of graphs counts as one graph.

        Raises:
            ValueError: the graph has no link between two nodes, `negatives` has no pair, or x is a batch [B, N, F].
        """
        graph = self._prepared(x, graph)
        return self._reconstruction(self(x, graph, edge_weight), graph, negatives)

    def _prepared(self, x: Features, graph: Graph | Tensor) -> Graph:
        if type(x) is tuple:
            _check.fail("x", "a tensor: links are between nodes of one kind", x)
        return prepare(x, graph, self.in_channels)

    def _hidden(self, x: Any, graph: Graph, edge_weight: Tensor | None) -> Tensor:
        h = self.hidden(dropout(x, graph, self.dropout, self.training), graph, edge_weight)
        return dropout(h, graph, self.dropout, self.training)  # type: ignore[return-value]

    def _reconstruction(self, z: Tensor, graph: Graph, negatives: Tensor | None) -> Tensor:
        if z.dim() != 2:
            _check.fail("x", "[N, F] for a loss, not a batch of features", z)
        if not isinstance(graph, Graph):
            _check.fail_type("graph", "an amstel.Graph or an edge_index [2, E]", graph)
        links, nodes = _links_of(graph), graph.num_nodes
        if not torch.compiler.is_compiling() and not links.shape[1]:
            raise ValueError(f"`graph` must have a link between two nodes, and {graph!r} has none")
        with torch.autocast(z.device.type, enabled=False):
            z = wide(z)
            if negatives is not None:
                source, target = _pairs("negatives", negatives, z)
                if not negatives.shape[1]:
                    _check.fail(
                        "negatives", "at least one pair, because the loss is the mean over them", negatives
                    )
                unlinked = softplus((z[source] * z[target]).sum(-1)).mean()
                return softplus(-(z[links[0]] * z[links[1]]).sum(-1)).mean() + unlinked
            one = torch.cat([(z[links[0]] * z[links[1]]).sum(-1), (z * z).sum(-1)])
            count, pairs = links.shape[1], nodes * nodes
            weight = (pairs - count) / count
            total = _of_all_pairs(z) + (weight * softplus(-one) - softplus(one)).sum()
            return total / (2 * (pairs - count))


class VGAE(GAE):
    r"""Variational graph autoencoder: a normal distribution for every node, with links as in `GAE`.

    ``H = relu(Â dropout(X) W_0)``, mean ``Â dropout(H) W_μ`` and log-deviation ``Â dropout(H) W_σ``, and
    ``z_i = mean_i + exp(logstd_i) ε``, ε normal, while training; in eval mode z is the mean.

    Arguments and shapes: as `GAE`. Parameters: those of `hidden`, `mean` and `logstd`, three `GCNConv`.
    The `loss` adds the divergence from N(0, 1), ``-Σ (1 + 2 logstd - mean² - exp(2 logstd)) / (2 N²)``, which
    is PyG's `kl_loss` / N.

    Source: T. N. Kipf and M. Welling, Variational Graph Auto-Encoders, 2016, section 1.

    Example:
        >>> graph = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
        >>> model, x = amstel.nn.VGAE(4, 8, 2), torch.randn(3, 4)
        >>> model.loss(x, graph).backward()
        >>> mean, logstd = model.distribution(x, graph)
        >>> torch.equal(model.eval()(x, graph), mean)
        True
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 32,
        out_channels: int = 16,
        dropout: float = 0.0,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(in_channels, hidden_channels, out_channels, dropout, bias, device, dtype)
        self.logstd = GCNConv(hidden_channels, out_channels, bias=bias, device=device, dtype=dtype)

    def distribution(
        self, x: Features, graph: Graph | Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of every node, each [N, out_channels]; the latter is clamped to at most 10,
        as in PyG."""
        graph = self._prepared(x, graph)
        h = self._hidden(x, graph, edge_weight)
        logstd = self.logstd(h, graph, edge_weight).clamp(max=MOST_LOGSTD)
        return self.mean(h, graph, edge_weight), logstd

    def forward(self, x: Features, graph: Graph | Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Embeddings Z [N, D] or [B, N, D], drawn in training and the means otherwise."""
        return self._sample(*self.distribution(x, graph, edge_weight))

    def loss(
        self,
        x: Features,
        graph: Graph | Tensor,
        edge_weight: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The loss of `GAE` plus the divergence."""
        graph = self._prepared(x, graph)
        mean, logstd = self.distribution(x, graph, edge_weight)
        with without_autocast(mean):  # float16 holds neither exp(20) nor sums over many nodes
            mean, logstd = wide(mean), wide(logstd)
            found = self._reconstruction(self._sample(mean, logstd), graph, negatives)
            divergence = 1 + 2 * logstd - mean.square() - (2 * logstd).exp()
            return found - divergence.sum() / (2 * graph.num_nodes**2)

    def _sample(self, mean: Tensor, logstd: Tensor) -> Tensor:
        return mean + torch.randn_like(mean) * logstd.exp() if self.training else mean


def _of_all_pairs(z: Tensor) -> Tensor:
    """The sum of softplus(z_i · z_j) over all pairs, of which the half is computed, in blocks of rows."""

    def block(rows: Tensor, others: Tensor) -> Tensor:
        return softplus(rows @ rows.T).sum() + 2 * softplus(rows @ others.T).sum()

    nodes = z.shape[0]
    size = max(1, BLOCK // nodes)
    if size >= nodes:
        return softplus(z @ z.T).sum()
    total = z.new_zeros(())
    for begin in range(0, nodes, size):
        rows, others = z[begin : begin + size], z[begin + size :]
        total = total + recomputed(block, rows, others)
    return total


def _links_of(graph: Graph) -> Tensor:
    """The different links [2, M] of two nodes, int64."""

    def find() -> Tensor:
        index = graph._index()
        return torch.unique(index[:, index[0] != index[1]], dim=1)

    if torch.compiler.is_compiling():
        return find()
    if graph not in _links:
        _links[graph] = plainly(find)  # for every later call, whatever mode or transform this one is in
    return _links[graph]


def _embeddings(z: Any) -> None:
    expected = "a floating-point tensor [N, D] or [B, N, D]"
    _check.tensor("z", z, expected)
    if z.dim() not in (2, 3) or z.dtype not in _check.FLOATS or z.layout != torch.strided:
        _check.fail("z", expected, z)


def _pairs(name: str, pairs: Any, z: Tensor) -> Tensor:
    expected = f"an int64 tensor [2, M] on {z.device}"
    _check.tensor(name, pairs, expected)
    if (
        pairs.dim() != 2
        or pairs.shape[0] != 2
        or pairs.dtype != torch.int64
        or pairs.layout != torch.strided
        or pairs.device != z.device
    ):
        _check.fail(name, expected, pairs)
    nodes = z.shape[-2]

    def fail(pairs: Tensor) -> None:
        low, high = pairs.aminmax()
        _check.fail(name, f"of nodes from 0 to {nodes - 1}", int(low if low < 0 else high))

    must = f"`{name}` must be of nodes of the graph"
    _checks.require(pairs, lambda pairs: (pairs >= 0) & (pairs < nodes), must, fail)
    return pairs
