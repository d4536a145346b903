"""Find the data with a given name, and check that they are the data of a result.

Names are not unique: a graph that somebody converts may be called "cora" too. So a result keeps a digest of its data.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel.apps.graphs.problem import PARTS
from amstel.data import GraphDataset, GraphFolder
from amstel.data.graph_folder import is_folder, read_facts
from amstel.data.nodes import NodeData, as_csr
from amstel.distributed.folder import digest_of, hash_of


def graph_folder(name: str, root: Path | None) -> Path | None:
    """The path of the `GraphFolder` with this name, if there is one; a root that is one comes before all others."""
    if root is not None and is_folder(root):
        own = read_facts(root)["name"]
        if plain(name) not in map(plain, (own, str(root), root.name)):
            raise ValueError(f"{root} holds the graph {own!r}, not {name!r}")
        return root
    places = [Path(name)] if root is None else [root / name, Path(name)]
    for place in places:
        if is_folder(place):
            return place
        if place.suffix.lower() == ".npz" and place.is_file():
            raise ValueError(
                f"{place} is an .npz file; convert it first: amstel graphs convert {place} FOLDER"
            )
    for place in [*places, *([] if root is None else [root, root / name.replace("-", "_")])]:
        if (place / "raw").is_dir() and (place / "split").is_dir():
            raise ValueError(
                f"{place} is in OGB's layout; convert it first: amstel graphs convert {place} FOLDER"
            )
    return None


def plain(name: str) -> str:
    """A name as it is compared: "block model" is "block-model" on the command line."""
    return name.replace(" ", "-").lower()


def contents(data: NodeData) -> dict[str, Any]:
    """A node classification problem as `partition` and `digest_of` take it."""
    x = data.features
    if x is not None and x.layout == torch.sparse_coo:
        x = as_csr(x)
    splits = {part: getattr(data, part) for part in PARTS}
    return {"x": x, "y": data.labels, "splits": splits, "name": data.name, "num_classes": data.num_classes}


def digest(data: NodeData | GraphDataset, *, labels: bool = True) -> str:
    """Equal for equal contents only: the graph, the features, and with `labels` the classes and their split.

    The "graph" in a partition's meta.json is the same. O(E + N F): all features are read once, mapped ones too.
    """
    if isinstance(data, GraphDataset):
        batch = data._all.to("cpu")
        parts: dict[str, Tensor | None] = {"crow": batch._crow, "col": batch._col}
        parts["weight"] = None if batch._weight is None else batch._values(batch._weight.dtype)
        parts["sizes"] = torch.tensor(data._bounds[0])
        parts |= {"features": data._features, "labels": data.labels}
        return hash_of({name: _bytes(part) for name, part in parts.items()}, str(data.num_classes))
    graph, own = data.graph.to("cpu"), contents(data)
    return digest_of(graph, **own if labels else {"x": own["x"], "num_classes": 0})


def _bytes(part: Tensor | None) -> Any:
    if part is None:
        return None
    part = part.detach().cpu().contiguous()
    return (part.float() if part.dtype == torch.bfloat16 else part).numpy()


def place(data: Any) -> str | None:
    """Where a `GraphFolder` lies, also one whose parts these are, to find it again; None for other data."""
    root = data.root if isinstance(data, GraphFolder) else getattr(data, "origin", None)
    return None if root is None else str(root.resolve())


def same_data(saved: Any, wanted: Any) -> None:
    """ValueError if a run continues with other data; checkpoints of the first releases have no digest."""
    if saved.digest and saved.digest != wanted.digest:
        raise ValueError(
            f"the data must be those of the checkpoint, but {wanted.dataset} has a different graph, features, labels or "
            "splits, or the same in another order, layout or type"
        )


def of_result(result: Any, root: Path | None, load: Callable[[str, Path | None], Any]) -> Any:
    """The data of the checkpoint of a `Study` or of `Trials`.

    Args:
        root: where to look, their folder or its parent; default: in the folder that they came from, and then where `load`
            looks.
        load: finds data by name and root.

    Raises:
        ValueError: the data that are found have the same name, but other contents.
    """
    known = None if result.folder is None else Path(result.folder)
    if known is not None and root is not None:
        known = root if is_folder(root) else root / known.name
    data: Any
    if known is not None and is_folder(known):
        data = GraphFolder(known)
    else:
        data = load(result.dataset, root)
    if result.digest and digest(data, labels=getattr(result, "task", "node") != "link") != result.digest:
        raise ValueError(
            f"the network was trained on {result.dataset}, but {data!r} has a different graph, features, labels or "
            "splits, or the same in another order, layout or type; `root` must be the folder of the training data"
        )
    return data
