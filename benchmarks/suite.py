"""Defines a benchmark: `@suite` turns a function that builds the work for one workload into parametrized benchmarks.

One benchmark is one (workload, implementation, device, threads, dtype); those of one workload and device are a group,
`<stem>-<pass>-<workload>-<device>`, and stand in one table of pytest-benchmark.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SHORT = ("float32", "bfloat16")
NAMES = "workload, implementation, device, threads, dtype"


@dataclass(frozen=True)
class Shape:
    """A workload: its arguments, those of a dry run, where it runs, and where only with `-m large` (True: anywhere).

    `most`: on the CPU only with the largest number of threads, because its calls take long.
    """

    full: tuple
    tiny: tuple
    devices: tuple[str, ...] = ("cpu", "cuda")
    large: bool | str = False
    most: bool = False


@dataclass(frozen=True)
class Implementation:
    """Ours or a peer: in which dtypes and where.

    `single`: it knows no more than one thread. `most`: only with the largest number of threads, because it is
    compiled for that number, which takes seconds. `only`: the workloads that it runs on the CPU, where compiling it for
    all of them would take longer than measuring all the others.
    """

    name: str
    dtypes: tuple[str, ...] = ("float32",)
    devices: tuple[str, ...] = ("cpu", "cuda")
    single: bool = False
    most: bool = False
    only: tuple[str, ...] = ()


#: Vector instructions of the logistic function and of tanh, right to 2 units in the last place: two of the operations
#: of a matrix product each.
SIGMOID, TANH = 27, 38


@dataclass
class Work:
    """What `build` returns: a function an implementation, and how much they move and compute.

    Every function returns a tensor or a tuple of them, which must equal those of `judge` (default: the first peer),
    after `read[name]` where the layouts differ, within `tolerance` of the largest entry (0: to the bit).
    """

    functions: dict[str, Callable[[], Any]]
    #: Must be read and written at least, whoever does it; must pass through the cache, counted each time; operations,
    #: of which a matrix product does two an instruction and lane.
    bytes: int = 0
    gathered: int = 0
    flops: int = 0
    #: Whose products are the limit where it is not the dtype's: "tf32", as cuDNN convolves float32; "float32" where
    #: short types are computed in it.
    units: str | None = None
    judge: str | None = None
    tolerance: float | None = None
    read: dict[str, Callable[[Any], Any]] = field(default_factory=dict)
    #: Forward passes alone, for what they hold until the backward pass.
    holds: dict[str, Callable[[], Any]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class At:
    """Where and how a work is built: device and dtype, seeded tensors, and whether only the code path counts."""

    device: str
    dtype: torch.dtype
    dry: bool = False

    def __post_init__(self) -> None:
        self.generator = torch.Generator(self.device).manual_seed(0)

    def randn(self, *shape: int, dtype: torch.dtype | None = None, last: bool = False) -> torch.Tensor:
        """Normal numbers; `last`: channels_last over the last three dimensions, whatever comes before them."""
        dtype = dtype or self.dtype
        sample = dtype if dtype.is_complex else torch.float32
        x = torch.randn(*shape, dtype=sample, device=self.device, generator=self.generator).to(dtype)
        return channels_last(x) if last else x

    def rand(self, *shape: int, last: bool = False) -> torch.Tensor:
        x = torch.rand(*shape, device=self.device, generator=self.generator).to(self.dtype)
        return channels_last(x) if last else x

    def compile(self, f: Callable, **options: Any) -> Callable:
        """torch.compile for these shapes; in a dry run without a compiler behind it, which would take most of the time."""
        return torch.compile(f, backend="eager" if self.dry else "inductor", **({"dynamic": False} | options))


def channels_last(x: torch.Tensor) -> torch.Tensor:
    flat = x.flatten(0, -4) if x.dim() > 4 else x
    return flat.contiguous(memory_format=torch.channels_last).view_as(x)


@dataclass(frozen=True)
class Suite:
    stem: str
    step: str
    shapes: dict[str, Shape]
    implementations: tuple[Implementation, ...]
    build: Callable[..., Work]

    def group(self, workload: str, device: str) -> str:
        return f"{self.stem}-{self.step}-{workload}-{device}"

    def rows(self, threads: list[int], dry: bool = False) -> Iterator[tuple[str, str, str, int, str]]:
        """Parameters of all benchmarks, a group after the other; `dry`: one workload of those that are alike then."""
        for device in ("cpu", "cuda"):
            seen = set()
            for workload, shape in self.shapes.items():
                if device not in shape.devices or (dry and shape.tiny in seen):
                    continue
                seen.add(shape.tiny)
                for i in self.implementations:
                    if device not in i.devices or (
                        device == "cpu" and i.only and workload not in i.only and not dry
                    ):
                        continue
                    one = device == "cuda" or i.single
                    for dtype in i.dtypes:
                        for n in [1] if one else [max(threads)] if i.most or shape.most else threads:
                            yield workload, i.name, device, n, dtype


def suite(
    stem: str, step: str, shapes: dict[str, Shape], *implementations: Implementation
) -> Callable[[Callable[..., Work]], Callable]:
    """Decorator of `build(at, *shape) -> Work`; conftest.py makes the parameters and measures."""

    def decorate(build: Callable[..., Work]) -> Callable:
        def test(turns, benchmark, workload, implementation, device, threads, dtype):
            turns(benchmark)

        test.__doc__ = build.__doc__
        test.suite = Suite(stem, step, shapes, implementations, build)  # type: ignore[attr-defined]
        return test

    return decorate


def passes(
    f: Callable[..., Any], leaves: list[torch.Tensor], grad: Any = None
) -> dict[str, Callable[[], Any]]:
    """`forward`, `backward` alone (of one forward pass that is kept) and `both` of f() with respect to leaves."""
    kept: list[Any] = []

    def outputs() -> list[torch.Tensor]:
        found = f()
        return list(found) if isinstance(found, (tuple, list)) else [found]

    def gradient(found: list[torch.Tensor], keep: bool) -> tuple[torch.Tensor, ...]:
        given = list(grad) if isinstance(grad, (tuple, list)) else [grad] * len(found)
        given = [torch.ones_like(o) if g is None else g for o, g in zip(found, given, strict=True)]
        return torch.autograd.grad(found, leaves, given, retain_graph=keep)

    def forward() -> Any:
        with torch.no_grad():
            return f()

    def backward() -> tuple[torch.Tensor, ...]:
        if not kept:
            kept.extend(outputs())
        return gradient(kept, True)

    def both() -> tuple[torch.Tensor, ...]:
        return gradient(outputs(), False)

    return {"forward": forward, "backward": backward, "both": both, "hold": f}


def tensors(found: Any) -> list[torch.Tensor]:
    """All tensors in what an implementation returned, complex ones as pairs of reals."""
    if isinstance(found, torch.Tensor):
        found = found.detach()
        return [torch.view_as_real(found) if found.is_complex() else found]
    if isinstance(found, (tuple, list)):
        return [t for part in found for t in tensors(part)]
    return []


def assert_same(name: str, ours: Any, judge: str, theirs: Any, dtype: str, tolerance: float | None) -> float:
    """The largest difference over the largest entry, per tensor; raises where it is beyond the tolerance."""
    limit = {"float32": 2e-4, "bfloat16": 4e-2}[dtype] if tolerance is None else tolerance
    a, b = tensors(ours), tensors(theirs)
    assert len(a) == len(b), f"{name} returns {len(a)} tensors, {judge} {len(b)}"
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        assert x.shape == y.shape, f"{name} returns {list(x.shape)}, {judge} {list(y.shape)}"
        if x.numel() == 0:
            continue
        x, y = (t.to(torch.float64) for t in (x, y))
        scale = float(y.abs().max()) or 1.0
        difference = float((x - y).abs().max()) / scale
        assert difference <= limit, f"{name} differs from {judge} by {difference:.1e} of the largest entry"
        worst = max(worst, difference)
    return worst


@contextlib.contextmanager
def threads_of(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
