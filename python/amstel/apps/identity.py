"""Identify the data of a run, so that a resumed run does not continue with other data unnoticed.

Every item has a digest: of its contents where they are in memory, else of its name and the size of its file, so that no file
is read. Data sets that read files implement `_identity`, which says what tells their items apart. Others are known by their
kind and number alone, and so are those with parts of an unknown kind.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amstel._words import counted


def of(data: Any) -> dict[str, Any] | None:
    """The kind of the data, their number, and a digest of every item, int64 [count], or None; of no data None."""
    if data is None:
        return None
    items: Any = data if isinstance(data, (list, tuple)) else None
    if hasattr(data, "_identity"):
        items = data._identity()
    elif items is not None and not all(isinstance(i, (np.ndarray, Tensor)) or is_dataclass(i) for i in items):
        items = None
    try:
        digests = None if items is None else torch.tensor([_digest(i) for i in items], dtype=torch.int64)
    except _UnknownError:
        digests = None
    return {"kind": type(data).__name__, "count": len(data), "items": digests}


class _UnknownError(Exception):
    """Nothing but a place in memory may tell a part from others."""


def _digest(item: Any) -> int:
    state = hashlib.blake2b(digest_size=8)
    _add(state, item)
    return int.from_bytes(state.digest(), "little", signed=True)


def _add(state: Any, part: Any) -> None:
    if is_dataclass(part):
        part = tuple(getattr(part, field.name) for field in fields(part))
    if isinstance(part, (list, tuple)):
        state.update(f"({len(part)}".encode())
        for one in part:
            _add(state, one)
    elif isinstance(part, (np.ndarray, Tensor)):
        state.update(f"{part.dtype} {tuple(part.shape)};".encode())
        if isinstance(part, Tensor):
            if part.layout != torch.strided or part.is_nested or part.is_meta:
                raise _UnknownError
            # NumPy lacks some of torch's dtypes.
            plain = part.detach().cpu().resolve_conj().resolve_neg().contiguous()
            part = plain.reshape(-1).view(torch.uint8).numpy()
        if part.dtype.hasobject:
            raise _UnknownError
        state.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    elif part is None or isinstance(part, (str, int, float, Path, np.number, np.bool_)):
        state.update(f"{part!r};".encode())
    else:
        raise _UnknownError


def check(name: str, before: Any, now: Any, folder: Path | None, may_grow: bool = False) -> None:
    """ValueError if the data `name` are not those of the run in `folder`, if that recorded any."""
    if before is None:
        return
    known = before["items"] is not None and now is not None and now["items"] is not None
    if known:
        old, new = before["items"], now["items"]
        if torch.equal(old, new) or (may_grow and bool(torch.isin(old, new).all())):
            return
        among = int(torch.isin(new, old).sum())
        ordered = torch.equal(old.sort()[0], new.sort()[0])
        found = "them in another order" if ordered else f"{len(new)}, of which {among} are among them"
        wanted = counted(len(old), "item")
    else:
        wanted, found = counted(before["count"], "item"), "none: give it again"
        if now is not None:
            wanted, found = (f"{data['count']} of {data['kind']}" for data in (before, now))
        if found == wanted:
            return
    raise ValueError(f"`{name}` must be that of the run in {folder}, {wanted}, got {found}")
