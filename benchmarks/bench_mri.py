"""The gradient of the likelihood of multi-coil MRI, A^H (A x - y), against torch.fft as its users write it and deepinv.

`centered` shifts both origins to the middle before and after every transform, as is usual in MRI code; `plain` does
not. Inductor does not generate code for complex numbers, so there is no compiled peer.
"""

import math

import torch

from amstel import inverse, ops
from benchmarks.suite import Implementation, Shape, Work, passes, suite

TINY = (2, 12, 10)
# kind of mask, coils, height, width
SHAPES = {
    f"{kind}_{coils}x{h}x{w}": Shape((kind, coils, h, w), (kind, *TINY), devices)
    for coils, h, w, devices in (
        (15, 640, 368, ("cpu", "cuda")),
        (12, 218, 170, ("cpu", "cuda")),
        (8, 320, 320, ("cuda",)),
    )
    for kind in ("columns", "points")
}
PEERS = (Implementation("centered"), Implementation("plain"))
try:
    from deepinv.physics import MultiCoilMRI

    DEEPINV = (Implementation("deepinv"),)
except ImportError:
    DEEPINV = ()


def problem(at, kind, coils, height, width):
    complex64 = torch.complex64
    x = at.randn(1, height, width, dtype=complex64)
    maps = at.randn(1, coils, height, width, dtype=complex64) / coils**0.5
    size = (width,) if kind == "columns" else (height, width)
    mask = (at.rand(*size) < 0.25).float()
    y = mask * at.randn(1, coils, height, width, dtype=complex64)
    return x, maps, mask, y


def about_the_middle(transform, x):
    """A 2-D transform with both origins in the middle."""
    dims = (-2, -1)
    return torch.fft.fftshift(transform(torch.fft.ifftshift(x, dim=dims), norm="ortho"), dim=dims)


def centered(x, maps, mask, y):
    k = mask * about_the_middle(torch.fft.fft2, maps * x[:, None]) - mask * y
    return (maps.conj() * about_the_middle(torch.fft.ifft2, mask * k)).sum(1)


def plain(x, maps, mask, y):
    k = mask * (torch.fft.fft2(maps * x[:, None], norm="ortho") - y)
    return (maps.conj() * torch.fft.ifft2(k, norm="ortho")).sum(1)


def amounts(x, maps, kind):
    """Maps and three images once; two transforms a coil of every row, and unless columns of k-space are left out as a
    whole of every column, each of 5 n log2 n operations, and the products with the maps."""
    height, width = x.shape[-2:]
    lengths = (width,) if kind == "columns" else (width, height)
    flops = maps.numel() * (14 + sum(2 * 5 * math.log2(n) for n in lengths))
    return {"bytes": 8 * maps.numel() + 3 * 8 * x.numel(), "flops": round(flops)}


@suite("mri", "forward", SHAPES, Implementation("amstel"), Implementation("amstel unprepared"), *PEERS)
def test_forward(at, *shape):
    """One step of a reconstruction: y and the maps are known in advance."""
    x, maps, mask, y = problem(at, *shape)
    step = inverse.MRI(mask, maps).prepare(y)
    # The same problem about the middle: every grid rolled by half its sides.
    other = [torch.fft.fftshift(t, dim=tuple(range(-min(t.dim(), 2), 0))) for t in (x, maps, mask, y)]
    return Work(
        {
            "amstel": lambda: step.gradient(x),
            "amstel unprepared": lambda: ops.mri_gradient(x, y, mask, maps),
            "centered": lambda: centered(*other),
            "plain": lambda: plain(x, maps, mask, y),
        },
        judge="plain",
        read={"centered": lambda found: torch.fft.ifftshift(found, dim=(-2, -1))},
        **amounts(x, maps, shape[0]),
    )


@suite("mri", "both", SHAPES, Implementation("amstel"), Implementation("plain"))
def test_both(at, *shape):
    """The gradient, and its gradient with respect to x, as in training."""
    x, maps, mask, y = problem(at, *shape)
    x.requires_grad_()
    step = inverse.MRI(mask, maps).prepare(y)
    grad = at.randn(*x.shape, dtype=x.dtype)
    found = {
        "amstel": passes(lambda: step.gradient(x), [x], grad),
        "plain": passes(lambda: plain(x, maps, mask, y), [x], grad),
    }
    return Work(
        {name: p["both"] for name, p in found.items()},
        holds={name: p["hold"] for name, p in found.items()},
        **{k: 2 * v for k, v in amounts(x, maps, shape[0]).items()},
    )


@suite("mri", "maps", SHAPES, Implementation("amstel"), Implementation("plain"))
def test_maps(at, *shape):
    """The gradient, and its gradients with respect to x and the sensitivities, as where a network refines them."""
    x, maps, mask, y = problem(at, *shape)
    leaves = [x.requires_grad_(), maps.requires_grad_()]
    grad = at.randn(*x.shape, dtype=x.dtype)
    found = {
        "amstel": passes(lambda: ops.mri_gradient(x, y, mask, maps), leaves, grad),
        "plain": passes(lambda: plain(x, maps, mask, y), leaves, grad),
    }
    return Work(
        {name: p["both"] for name, p in found.items()},
        holds={name: p["hold"] for name, p in found.items()},
        **{k: 3 * v for k, v in amounts(x, maps, shape[0]).items()},
    )


if DEEPINV:

    @suite("mri", "deepinv", SHAPES, Implementation("amstel"), *DEEPINV)
    def test_against_deepinv(at, *shape):
        """deepinv's MultiCoilMRI: real images of two channels, centered transforms."""
        x, maps, mask, y = problem(at, *shape)
        full = mask.expand(shape[2], shape[3]).contiguous()
        physics = MultiCoilMRI(
            mask=full[None, None], coil_maps=maps, img_size=(2, shape[2], shape[3]), device=at.device
        )
        step = inverse.MRI(mask, maps, centered=True).prepare(y)
        pairs = torch.view_as_real(x).permute(0, 3, 1, 2).contiguous()
        measured = torch.view_as_real(y).permute(0, 4, 1, 2, 3).contiguous()

        def peer():
            return physics.A_adjoint(physics.A(pairs) - measured)

        return Work(
            {"amstel": lambda: step.gradient(x), "deepinv": peer},
            read={"deepinv": lambda found: torch.view_as_complex(found.permute(0, 2, 3, 1).contiguous())},
            **amounts(x, maps, shape[0]),
        )
