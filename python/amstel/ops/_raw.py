"""How the raw operators, `torch.ops.amstel`, are called, and how PyTorch's transforms handle them.

A public function calls them through `operators`, beneath autograd: it has its own gradient, which is faster than one in
the dispatcher. Where somebody else may look (torch.func, forward-mode AD, an exported program that is trained) the call
goes through the dispatcher, which knows two rules. Derivatives of any kind are those of the operator's plain form
(`amstel.ops.decompositions`), and an operator without one refuses; `torch.vmap` calls the operator for each element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_dynamo_compiling

from amstel import _library
from amstel._torch import is_exporting
from amstel._torch import transformed as transformed
from amstel.ops import _plain

_WITHOUT = (
    "edge_add", "spmm_keep", "spmm_kept", "spmm_grad", "epilogue_grad", "conv_lstm_gates", "conv_lstm_gates_grad", "conv_lstm_grad",
    "conv_lstm_steps", "conv_lstm_steps_grad",
    "conv_gru_gates_grad", "conv_gru_pixels", "conv_gru_pixels_grad", "rim_input_grad", "mri_normal_grad",
    "kspace_residual",
    "winograd_weight", "winograd_conv", "winograd_lstm",
    "winograd_planes", "roi_pool_grad", "roi_match_grad",
    "roi_align_grad", "ps_roi_pool_grad",
)  # fmt: skip
_below_autograd = torch._C._AutoDispatchBelowAutograd
_are_transforms_active = torch._C._are_functorch_transforms_active
_is_any_autocast = torch._C._is_any_autocast_enabled
_is_grad_enabled = torch.is_grad_enabled
_is_tracing = torch._C._is_tracing
_is_legacy = torch._C._functorch.is_legacy_batchedtensor


# These functions run at every call and are written for speed.


def dispatched() -> bool:
    """Whether calls go through the dispatcher: a transform looks, or a program is written down, which shall hold the
    operators themselves."""
    if is_compiling():
        return is_exporting() or transformed()
    return _are_transforms_active() or forward_ad._current_level >= 0 or _is_tracing()


def nobody_looks(x: Tensor) -> bool:
    """Outside of a compiler: whether no tracer, transform or autocast is on, and no gradient of x is asked."""
    return not (
        _is_any_autocast()
        or _are_transforms_active()
        or forward_ad._current_level >= 0
        or _is_tracing()
        or (_is_grad_enabled() and (x.requires_grad or _is_legacy(x)))
    )


def channels_last(t: Tensor) -> Tensor:
    """t with neighboring channels; as it is beneath torch.vmap, which knows of no such layout."""
    return t if transformed() else t.contiguous(memory_format=torch.channels_last)


def tracked(*tensors: Any) -> bool:
    """Whether reverse mode will ask for a gradient of one of these."""
    if torch.is_grad_enabled():
        for t in tensors:
            if isinstance(t, Tensor) and t.requires_grad:
                return True
    return False


def own_gradient(*tensors: Any) -> bool:
    """Whether a public function shall record its own gradient: where reverse mode asks and nobody else looks."""
    if not torch.is_grad_enabled():
        return False
    asked = tracked(*tensors)
    if asked and dispatched():
        return False
    refuse_lost_graphs(*tensors)
    return asked


def refuse_lost_graphs(*tensors: Any) -> None:
    """The vmap of torch.autograd.grad(is_grads_batched=True) loses the graph of an autograd.Function, and hides that one
    is asked for: with create_graph=True what is derived from it would be wrong."""
    if is_compiling():
        return
    for t in tensors:
        if isinstance(t, Tensor) and _is_legacy(t):
            raise RuntimeError(
                "gradients in batches (is_grads_batched=True, vectorize=True) of this operator have no derivative, "
                "pass create_graph=False or use torch.vmap with torch.func.vjp, whose gradients have one"
            )


def watched(*grads: Tensor | None) -> bool:
    """Whether a backward pass is itself transformed; torch.autograd.grad(is_grads_batched=True) has its own vmap."""
    if is_compiling() or transformed():
        return transformed()
    return any(g is not None and _is_legacy(g) for g in grads)


def plain_gradients(
    function: Callable, inputs: Sequence[Any], needs: Sequence[bool], grads: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Gradients that have derivatives themselves: those of function(*inputs), which is made of operations that have.

    Each input counts for itself alone, also where it was computed from another of them or is given twice.
    """
    further = torch.is_grad_enabled()  # whether somebody will derive from them
    with torch.enable_grad():
        own = [t.view_as(t) if need else t for t, need in zip(inputs, needs, strict=True)]
        outputs = function(*own)
        pairs = [(y, g.to(y.dtype)) for y, g in zip(outputs, grads, strict=True) if g is not None]
        wanted = [t for t, need in zip(own, needs, strict=True) if need]
        ys, gs = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(ys, wanted, gs, create_graph=further, allow_unused=True))
    return [next(found) if need else None for need in needs]


def _rewritten() -> bool:
    """Whether torch.func.functionalize, or an export beneath a transform, writes a program down: neither takes an
    autograd.Function, and the operators in its `forward` have rules of their own."""
    if not _are_transforms_active():
        return False
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack() or ()
    return is_compiling() or any(level.key() == functorch.TransformType.Functionalize for level in stack)


def forward_mode(function: Any, jvp: Callable) -> Callable[..., Any]:
    """The `apply` of an autograd.Function with this derivative in forward mode; without, where Dynamo looks, which takes
    none and needs none: it writes such programs with the operators themselves."""
    dual: Any = type(function.__name__, (function,), {"jvp": staticmethod(jvp)})

    def apply(*args: Any) -> Any:
        if is_dynamo_compiling():
            return function.apply(*args)
        if _rewritten():
            return function.forward(*args)
        if torch.is_grad_enabled():
            refuse_lost_graphs(*args)
        return dual.apply(*args)

    return apply


def _call_unseen(op: Any) -> Callable:
    run = op._op  # a call less than that of op itself

    def call(*args: Any) -> Any:
        try:
            with _below_autograd():
                return run(*args)
        except (MemoryError, RuntimeError) as error:
            if _library.short_of_memory(error) and not isinstance(error, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError(str(error)) from error
            raise

    return call


def _call(op: Any, unseen: Callable, plain: Callable | None) -> Callable:
    def call(*args: Any) -> Any:
        if is_compiling() or _are_transforms_active() or forward_ad._current_level >= 0 or _is_tracing():
            if torch.onnx.is_in_onnx_export():  # which knows no other operators than its own
                if not is_exporting():
                    raise ValueError(
                        "the operators of amstel cannot be exported to ONNX with dynamo=False, pass dynamo=True"
                    )
                if plain is not None:
                    return plain(*args)
            return op(*args)
        return unseen(*args)

    return call


def has_tangent(t: Any) -> bool:
    return isinstance(t, Tensor) and torch._VF._unpack_dual(t, level=0)[1] is not None


def _derive(op: Any, plain: Callable, loops: bool) -> Callable:
    """The kernel of the Autograd key: the operator itself where nobody asks for a derivative, else its plain form; but not
    where a program is exported, whose derivative is asked for when it runs, and the plain form loops over a size."""

    def kernel(keyset: Any, *args: Any) -> Any:
        # A compiled torch.func.jvp enters its level behind the back of forward_ad.
        level = forward_ad._current_level >= 0 or torch._C._functorch.maybe_current_level() is not None
        forward = level and torch._C._is_fwd_grad_enabled()
        if tracked(*args) or (forward and any(map(has_tangent, args))):
            if not (loops and is_exporting()):
                return plain(*args)
        with _below_autograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    return kernel


def _refuse(name: str) -> Callable:
    def plain(*args: Any) -> Any:
        raise RuntimeError(
            f"torch.ops.amstel.{name} has no derivative: call the functions of amstel.ops, which have one"
        )

    return plain


def _each(op: Any) -> Callable:
    """The rule of torch.vmap: one call for each element of the batch."""

    def rule(info: Any, in_dims: tuple, *args: Any) -> Any:
        def call(number: int | None) -> Any:
            taken = []
            for a, d in zip(args, in_dims, strict=True):
                if d is None:
                    taken.append(a)
                elif number is None:
                    taken.append(a.new_zeros(a.shape[:d] + a.shape[d + 1 :]))
                else:
                    taken.append(a.select(d, number).contiguous())
            return op(*taken)

        if info.batch_size == 0:  # for the shapes alone
            one = call(None)
            many = [one] if isinstance(one, Tensor) else list(one)
            stacked = [t.new_empty(0, *t.shape) for t in many]
        else:
            found = [call(b) for b in range(info.batch_size)]
            one = found[0]
            columns = [found] if isinstance(one, Tensor) else list(zip(*found, strict=True))
            stacked = [torch.stack(column) for column in columns]
        if isinstance(one, Tensor):
            return stacked[0], 0
        return (
            (stacked, [0] * len(stacked)) if isinstance(one, list) else (tuple(stacked), (0,) * len(stacked))
        )

    return rule


def _pool(input: Tensor, rois: Tensor, scale: float, ph: int, pw: int, need_argmax: bool, *look: Any) -> Any:
    """roi_pool with a derivative: the values are taken again where the operator has found them."""
    output, argmax = torch.ops.amstel.roi_pool.default(input.detach(), rois, scale, ph, pw, True, *look)
    taken = _plain.roi_pool_gather(input, argmax, rois)
    found = torch.where(argmax >= 0, taken, output)
    return found, argmax if need_argmax else argmax.new_empty(0)


def _match(input: Tensor, rois: Tensor, query: Tensor, scale: float, ph: int, pw: int, *look: Any) -> Tensor:
    pooled = torch.ops.amstel.roi_pool.default(input, rois, scale, ph, pw, False, *look)[0].flatten(1)
    wide = pooled.to(torch.promote_types(input.dtype, torch.float32))
    return torch.stack([wide.square().sum(1), wide @ query.to(wide.dtype)], 1)


# Where derivatives have a better way than the plain form.
_RULES = {"roi_pool": _pool, "roi_match": _match}


def _register() -> tuple[SimpleNamespace, SimpleNamespace]:
    calls, unseen = {}, {}
    for name in (*_plain.PLAIN, *_WITHOUT):
        op = getattr(torch.ops.amstel, name).default
        plain = _plain.PLAIN.get(name)
        unseen[name] = _call_unseen(op)
        calls[name] = _call(op, unseen[name], plain)
        rule: Any = _RULES.get(name) or plain or _refuse(name)
        kernel = _derive(op, rule, name == "conv_lstm")
        _fragment.impl(name, kernel, "Autograd", with_keyset=True)
        if not op._schema.is_mutable:
            torch.library.register_vmap(f"amstel::{name}", _each(op))
    return SimpleNamespace(**calls), SimpleNamespace(**unseen)


_fragment = torch.library.Library("amstel", "IMPL")
#: The operators, and the same for a caller who knows that nobody looks.
operators, unseen_operators = _register()
