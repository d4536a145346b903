"""TUDataset: reads the text format of the TU Dortmund collection of graph data sets (MUTAG, PROTEINS, ...)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel import _check
from amstel._text import table
from amstel._words import counted
from amstel.data.graphs import GraphDataset
from amstel.graph import Graph

_PARTS = (
    "A", "graph_indicator", "graph_labels", "graph_attributes", "node_labels", "node_attributes", "edge_labels",
    "edge_attributes",
)  # fmt: skip


class TUDataset(GraphDataset):
    """A data set of the TU Dortmund collection, from its text files `<name>_A.txt`, `<name>_graph_indicator.txt`, ...

    ======================  ==============  =====================================================================
    file                    lines           a line
    ======================  ==============  =====================================================================
    A                       edges           `source, target`: nodes, numbered from 1 through the whole data set
    graph_indicator         nodes           the graph of the node, from 1, never less than in the line before
    graph_labels            graphs          the class, any integer; classes are numbered from 0 in their order
    graph_attributes        graphs          targets; where they are there, they are the labels (see Args)
    node_labels             nodes           integers, each column one-hot from its least value on
    node_attributes         nodes           numbers
    edge_labels             edges           as node_labels
    edge_attributes         edges           as node_attributes
    ======================  ==============  =====================================================================

    The first two files and one of the next two must be there. As in PyG's reader, features are the attributes followed
    by the one-hot labels, loops are dropped, and an edge that is listed more than once is one edge with the sum of
    their features. Every line is checked: nodes and graphs out of range, edges between two graphs, lines that are not
    numbers, integers beyond 2^24 in attributes (float32 does not hold them all), lines too many or too few end in an
    error that names the file and the line.

    Args:
        root: folder of the files, or one with a subfolder `<name>` or `<name>/raw` that has them.
        name: "MUTAG", "PROTEINS", ...
        node_attributes: whether node_attributes, where the file is there, are among the features.
        edge_attributes: the same of edge_attributes.
        graph_attributes: whether graph_attributes, where the file is there, are the labels, and not the classes.

    Attributes: those of `GraphDataset`, and `classes`, the labels of the file by class number.

    Raises:
        FileNotFoundError: a file is missing; the message names it.
        ValueError: a file does not hold what it should.

    Source: C. Morris et al., TUDataset: A collection of benchmark datasets for learning with graphs, ICML 2020
    workshop on graph representation learning and beyond.

    Example:
        >>> data = amstel.data.TUDataset("data", "MUTAG")
        >>> data                                                         # doctest: +SKIP
        TUDataset(MUTAG, num_graphs=188, num_nodes=3371, num_edges=7442, num_features=7, num_classes=2)
    """

    classes: list[int]

    def __init__(
        self,
        root: str | os.PathLike,
        name: str,
        node_attributes: bool = True,
        edge_attributes: bool = True,
        graph_attributes: bool = True,
    ):
        if not isinstance(root, (str, os.PathLike)):
            _check.fail_type("root", "a path", root)
        if not isinstance(name, str):
            _check.fail_type("name", "the name of a data set", name)
        node_attributes = _check.flag("node_attributes", node_attributes)
        edge_attributes = _check.flag("edge_attributes", edge_attributes)
        graph_attributes = _check.flag("graph_attributes", graph_attributes)
        folder = _folder(Path(root), name)
        files = {part: folder / f"{name}_{part}.txt" for part in _PARTS}

        def read(part: str, dtype: type, columns: int | None = None, lines: int | None = None) -> Any:
            return table(files[part], dtype, columns, lines, reader="TUDataset") if there(part) else None

        def there(part: str) -> bool:
            return os.path.lexists(files[part])  # what is no file is an error on reading

        if not there("graph_labels") and not (graph_attributes and there("graph_attributes")):
            raise FileNotFoundError(f"TUDataset: {files['graph_labels']} is missing")
        indicator = table(files["graph_indicator"], np.int64, 1, reader="TUDataset")[:, 0]
        ends = table(files["A"], np.int64, 2, reader="TUDataset")
        targets: Any = read("graph_attributes", np.float64) if graph_attributes else None
        labels = read("graph_labels", np.int64, 1)
        graphs = len(targets) if labels is None else len(labels)
        if targets is not None and len(targets) != graphs:
            raise ValueError(
                f"TUDataset: {files['graph_attributes']} must have {counted(graphs, 'line')}, one per graph, got {len(targets)}"
            )
        _check_indicator(indicator, graphs, files["graph_indicator"])
        nodes, edges = len(indicator), len(ends)
        _check_ends(ends, indicator, files["A"])

        features = _features(
            read("node_attributes", np.float64, lines=nodes) if node_attributes else None,
            read("node_labels", np.int64, lines=nodes),
            files["node_labels"],
        )
        edge_features = _features(
            read("edge_attributes", np.float64, lines=edges) if edge_attributes else None,
            read("edge_labels", np.int64, lines=edges),
            files["edge_labels"],
        )
        self.classes, classes = [], 0
        if targets is not None:
            y = torch.from_numpy(targets.astype(np.float32))
            y = y[:, 0] if y.shape[1] == 1 else y
        else:
            found, number = np.unique(labels, return_inverse=True)
            self.classes, classes = found.tolist(), len(found)
            y = torch.from_numpy(number.reshape(-1).astype(np.int64))

        source, target, edge_features = _merged(ends - 1, nodes, edge_features)
        counts = np.bincount(indicator - 1, minlength=graphs)
        starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
        # The files have the whole data set as one graph already.
        batch = Graph.from_edge_index(torch.from_numpy(np.stack([source, target])), nodes)
        batch._offsets = starts, starts
        self._set(batch, features, y, edge_features, classes or None, name)


def _folder(root: Path, name: str) -> Path:
    """Where the files are."""
    if not root.is_dir():
        raise FileNotFoundError(f"TUDataset: the folder {root} does not exist")
    if not name or Path(name).name != name:
        _check.fail("name", "the name of a data set, such as 'MUTAG'", name)
    for folder in (root, root / name, root / name / "raw"):
        if any(os.path.lexists(folder / f"{name}_{part}.txt") for part in _PARTS):
            return folder
    there = sorted({p.name.removesuffix("_A.txt") for p in [*root.glob("*_A.txt"), *root.glob("*/*_A.txt")]})
    raise FileNotFoundError(f"TUDataset: no files {name}_*.txt in {root}; there are {there or 'none at all'}")


def _check_indicator(indicator: np.ndarray, graphs: int, path: Path) -> None:
    wrong = (indicator < 1) | (indicator > graphs)
    if wrong.any():
        k = int(wrong.argmax())
        raise ValueError(
            f"TUDataset: {path}, line {k + 1}: a graph from 1 to {graphs} is expected, got {indicator[k]}"
        )
    falls = np.diff(indicator) < 0
    if falls.any():
        k = int(falls.argmax()) + 1
        raise ValueError(
            f"TUDataset: {path}, line {k + 1}: nodes must be in the order of their graphs, "
            f"got graph {indicator[k]} after {indicator[k - 1]}"
        )
    if graphs and (not len(indicator) or indicator[-1] != graphs):
        last = indicator[-1] if len(indicator) else 0
        raise ValueError(
            f"TUDataset: {path} must name all {counted(graphs, 'graph')} that have labels, it ends with graph {last}"
        )


def _check_ends(ends: np.ndarray, indicator: np.ndarray, path: Path) -> None:
    wrong = ((ends < 1) | (ends > len(indicator))).any(1)
    if wrong.any():
        k = int(wrong.argmax())
        raise ValueError(
            f"TUDataset: {path}, line {k + 1}: nodes from 1 to {len(indicator)} are expected, got {ends[k].tolist()}"
        )
    graph = indicator[ends - 1]
    across = graph[:, 0] != graph[:, 1]
    if across.any():
        k = int(across.argmax())
        raise ValueError(
            f"TUDataset: {path}, line {k + 1}: an edge must lie in one graph, "
            f"got nodes {ends[k].tolist()} of graphs {graph[k].tolist()}"
        )


#: One-hot columns that a file of labels may ask for: more are identifiers, or damage.
_MOST_LABELS = 100_000


def _features(attributes: np.ndarray | None, labels: np.ndarray | None, path: Path) -> Tensor | None:
    """Attributes, then a one-hot block for each column of labels, from the least label on."""
    parts = [] if attributes is None else [torch.from_numpy(attributes.astype(np.float32))]
    if labels is not None:
        for column in labels.T if len(labels) else []:
            width = int(column.max()) - int(column.min()) + 1
            if width > _MOST_LABELS:
                raise ValueError(
                    f"TUDataset: {path} must hold labels close to each other, got {column.min()} and {column.max()}"
                )
            number = torch.from_numpy(column - column.min())
            parts.append(torch.nn.functional.one_hot(number, width).float())
    return torch.cat(parts, 1) if parts else None


def _merged(
    ends: np.ndarray, nodes: int, features: Tensor | None
) -> tuple[np.ndarray, np.ndarray, Tensor | None]:
    """Edges in order and once each, without loops; features of the same edge add up."""
    kept = ends[:, 0] != ends[:, 1]
    key, number = np.unique(ends[kept, 0] * nodes + ends[kept, 1], return_inverse=True)
    if features is not None:
        place = torch.from_numpy(number.reshape(-1))
        rows = features[torch.from_numpy(kept)]
        features = features.new_zeros(len(key), features.shape[1]).index_add_(0, place, rows)
    return key // max(nodes, 1), key % max(nodes, 1), features
