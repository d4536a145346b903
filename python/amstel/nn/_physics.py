"""What `amstel.nn.RIM` needs from a physics, ours or another library's: the noise level and the gradient of the likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from amstel import _check, ops
from amstel.reference.rim import as_complex, psi


def sigma_of(physics: Any, images: Tensor) -> Tensor:
    """The physics' σ as [N], or its map [N, 1, H, W], or 1 as in a `ForwardModel` that is told nothing."""
    sigma, n = getattr(physics, "sigma", 1.0), images.shape[0]
    if not isinstance(sigma, Tensor):
        return images.real.new_full((n,), float(sigma))
    if sigma.dim() == 4 and sigma.shape in ((n, 1, *images.shape[2:]), (1, 1, *images.shape[2:])):
        return sigma.detach().to(images.real)
    if sigma.is_complex() or sigma.numel() not in (1, n):
        _check.fail("physics.sigma", f"a number or [{n}], one per image", sigma)
    return sigma.detach().to(images.real).reshape(-1).expand(n)


def likelihood_of(y: Tensor, physics: Any, complex_: bool) -> Callable[[Tensor, str], Tensor]:
    """(η, link) -> [η, g]: the physics' own where it has one, or made of its gradient."""
    prepared: Any = physics.prepare(y) if hasattr(physics, "prepare") else None
    if hasattr(prepared, "network_input"):
        return prepared.network_input

    def network_input(eta: Tensor, link: str) -> Tensor:
        x = psi(eta, link)
        if complex_:
            x = as_complex(x)
        gradient = prepared.gradient(x) if prepared is not None else physics.gradient(x, y)
        if complex_:
            gradient = torch.view_as_real(gradient.resolve_conj()).permute(0, 3, 1, 2)
        return ops.rim_input(eta, gradient, link=link)

    return network_input
