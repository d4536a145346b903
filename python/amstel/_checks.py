"""When the values of arguments are checked, which on CUDA would mean waiting for the device: `set_checks`.

Shapes, dtypes and numbers are always checked. Values of tensors that are: boxes, the lengths of
`conv_lstm`, NaN in the edge weights of `spmm`, the counts of `Poisson`, the labels of `MarginContrastiveLoss`. Whatever they
hold, nothing is read outside of a tensor.

Asynchronous checks leave what they find in notes on the device. A copy of the notes follows in pinned memory, where the
host reads it without waiting: so the next call that checks raises for one before it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from amstel import _check
from amstel._torch import is_exporting, transformed

MODES = ("sync", "async", "off")
#: What is noted, and what it must be.
_KINDS = {
    "boxes": "`boxes` must have finite coordinates and a whole batch index of one of the images",
    "lengths": "`lengths` must be from 1 to T",
    # Before `edge_weight`, which finds what is derived from them, too.
    "matrix": "`edge_index` must be a sparse matrix without NaN",
    "laplacian": "`edge_weight` and `lambda_max` must have a Laplacian without NaN",
    "edge_weight": "`edge_weight` must not be NaN",
    "counts": "`y` must be counts, which are never negative",
    "labels": "`y` must be 1 for a pair of the same target and 0 for another",
}
_mode = "async"


def set_checks(mode: str) -> None:
    """Set when operators check the values of their arguments: boxes, lengths, edge weights, counts and labels of pairs.

    Args:
        mode: "async", the default: immediately on the CPU; on CUDA without waiting for the device, so an error is
            raised by a later operator call or by `raise_pending_checks`, and does not name the call. "sync":
            immediately everywhere; every check on CUDA waits for the device (except in a CUDA graph). "off": never.

    In every mode, invalid values never cause an invalid read: an invalid box is pooled to 0, a length below 1 keeps
    the initial state, a length above T counts as T, and a NaN weight gives NaN. "async" checks also work in a CUDA
    graph, at every replay, if an operator has made a check on this device before the capture. `roi_align` and
    `ps_roi_pool` check as with "sync" also in mode "async", and with "off" still wait for the device. Compiled programs
    check boxes as with "sync", unless they were compiled with "off", and never check lengths, counts or labels.

    Raises:
        ValueError or TypeError: `mode` is none of these.

    Example:
        >>> amstel.set_checks("sync")
        >>> amstel.set_checks("async")
    """
    global _mode
    _mode = _check.choice("mode", mode, MODES)


def raise_pending_checks() -> None:
    """Wait for all devices, and raise any error that asynchronous checks have found.

    Raises:
        ValueError: an operator got an invalid value.

    Example:
        >>> amstel.raise_pending_checks()
    """
    for notes in list(_notes.values()):
        notes.synchronize()
        notes.raise_found()


def enabled() -> bool:
    return _mode != "off"


_get_mode = torch._C._get_dispatch_mode
_TRACERS = (torch._C._TorchDispatchModeKey.PROXY, torch._C._TorchDispatchModeKey.FAKE)


def visible(t: Tensor) -> Tensor | None:
    """The values of t, of all elements of a torch.vmap, to be looked at beneath transforms; None where they cannot be:
    while a program is written down (torch.compile, torch.export, torch.jit, make_fx), and where there are none (fake
    tensors, meta)."""
    if torch.compiler.is_compiling() or torch._C._is_tracing() or t.is_meta:
        return None
    if torch._C._len_torch_dispatch_stack() and any(_get_mode(key) is not None for key in _TRACERS):
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return None if type(t) is not Tensor and hasattr(t, "fake_mode") else t


def hidden(t: Tensor) -> bool:
    """Whether t has no values that can be looked at, or torch.vmap hides a dimension of them."""
    if visible(t) is None:
        return True
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        if torch._C._functorch.is_batchedtensor(t):
            return True
        t = torch._C._functorch.get_unwrapped(t)
    return False


def require(
    t: Tensor, good: Callable[[Tensor], Tensor], expected: str, fail: Callable[[Tensor], object]
) -> None:
    """Call `fail` of the values of t unless `good` of them is true everywhere. What torch.compile makes of it raises a
    RuntimeError `expected` when it runs; not on CUDA, where that would end the process, and not of a transform."""
    if is_dynamo_compiling():
        if not (is_exporting() or transformed() or t.is_cuda or t.is_meta):
            torch._assert_async(good(t).all(), expected)
        return
    seen = visible(t)
    if seen is None:
        return
    with torch._C._DisableFuncTorch(), torch.no_grad():
        if not bool(good(seen).all()):
            fail(seen)


def how(t: Tensor) -> str:
    """How the values of t are looked at now, "sync", "async" or "off"; raises what was found on its device before."""
    if _mode == "off" or hidden(t):
        return "off"
    if not t.is_cuda:
        return "sync"
    capturing = torch.cuda.is_current_stream_capturing()
    if _mode == "sync":
        return "off" if capturing else "sync"
    notes = _notes_on(t.device, capturing)
    if notes is None:
        return "off"
    if not capturing:
        notes.raise_found()
    return "async"


def look(kind: str, t: Tensor, bad: Callable[[Tensor], Tensor]) -> None:
    """Raise, now or later as `how` says, where `bad` of a tensor is true anywhere."""
    seen = visible(t)
    way = "off" if seen is None else how(seen)
    if seen is None or way == "off":
        return
    with torch._C._DisableFuncTorch(), torch.no_grad():
        found = bad(seen)
        if way == "async":
            notes_of(seen).note(kind, found)
        elif bool(found.any()):
            raise ValueError(f"{_KINDS[kind]}, got {seen[found][0].item():g}")


class Notes:
    """What checks on one device have found: for each kind the position of a bad value, or -1; and one that is ignored."""

    def __init__(self, device: torch.device):
        with torch.inference_mode(False), torch.no_grad():
            size = (len(_KINDS) + 1,)
            self.found = torch.full(size, -1, dtype=torch.int64, device=device)
            self.host = torch.full(size, -1, dtype=torch.int64, pin_memory=device.type == "cuda")
            self.slots = {kind: self.found[k : k + 1] for k, kind in enumerate(_KINDS)}
        self._seen = self.host.numpy()[:-1]
        self._nothing = self._seen.tobytes()

    def note(self, kind: str, bad: Tensor) -> None:
        """Note that any of `bad` is true. Only ever written, so that streams need not wait for each other."""
        # Beneath transforms and autograd, none of which these are for.
        with torch._C._DisableFuncTorch(), torch.no_grad():
            slot = torch.where(bad.any(), list(_KINDS).index(kind), len(_KINDS))
            self.found.index_fill_(0, slot.view(1), 0)
        self.post()

    def post(self) -> None:
        """Have the host see what is found, some time later."""
        with torch._C._DisableFuncTorch(), torch.no_grad():
            self.host.copy_(self.found, non_blocking=True)

    def synchronize(self) -> None:
        if self.found.is_cuda:
            torch.cuda.synchronize(self.found.device)
        self.host.copy_(self.found)

    def raise_found(self) -> None:
        if self._seen.tobytes() == self._nothing:
            return
        self.synchronize()  # so that no copy is under way
        kind = next((kind for kind, number in zip(_KINDS, self._seen, strict=True) if number != -1), None)
        self.found.fill_(-1)
        self.host.fill_(-1)
        if kind is not None:
            raise ValueError(
                f"{_KINDS[kind]}, got invalid values in an earlier call on {self.found.device}; "
                "amstel.set_checks('sync') finds the call"
            )


_notes: dict[torch.device, Notes] = {}


def _notes_on(device: torch.device, capturing: bool) -> Notes | None:
    """None while a graph is captured that was the first to check: what it allocates would be its own."""
    found = _notes.get(device)
    if found is None and not capturing:
        found = _notes.setdefault(device, Notes(device))  # those of another thread, where it was first
    return found


def watching(t: Tensor) -> Notes | None:
    """Where an operator that has asked `how` notes what it finds in t; None but for asynchronous checks on CUDA."""
    return _notes.get(t.device) if _mode == "async" and t.is_cuda else None


def notes_of(t: Tensor) -> Notes:
    """Where `how` said "async"."""
    return _notes[t.device]
