"""What the tests show of every operator under each of PyTorch's ways of use, as the table of docs/guide/support.md.

`python -m tests.support` writes that page. A cell is read from the parameters of the tests themselves; what no test
covers is a hole, and HOLES names its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import test_cuda_use, test_export, test_support, test_transforms

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "support.md"

ROWS = (
    "spmm", "conv_lstm", "conv_lstm_cell", "conv_gru_cell", "roi_pool", "roi_match", "rim_input", "rim_denoise_input",
    "rim_super_resolve_input", "bicubic_down", "bicubic_down_adjoint", "mri_gradient", "mri_normal",
)  # fmt: skip

#: What has tests of its own instead: see the page.
ASIDE = {"segment_reduce", "roi_align", "ps_roi_pool"}

#: way: (what it means, the tests of it)
WAYS: dict[str, tuple[str, tuple[Callable, ...]]] = {
    "gradient": (
        "reverse and forward mode, also batched",
        (test_transforms.test_first_derivatives, test_transforms.test_forward_mode),
    ),
    "second": (
        "second derivatives, with every combination of the modes",
        (test_transforms.test_second_derivatives, test_transforms.test_second_functional_derivatives),
    ),
    "func": (
        "`torch.func.grad`, `vjp`, `jvp`, `jacrev`, `jacfwd`",
        (test_transforms.test_functional_derivatives,),
    ),
    "hessian": ("`torch.func.hessian`", (test_transforms.test_hessian,)),
    "vmap": (
        "`torch.vmap`, also of derivatives",
        (test_transforms.test_vmap, test_transforms.test_vmap_of_derivatives),
    ),
    "compile": (
        "`torch.compile(fullgraph=True)`, static and dynamic, forward and backward",
        (test_export.test_compile,),
    ),
    "export": (
        "`torch.export`, and training and transforming the exported program",
        (test_export.test_export,),
    ),
    "dynamic": ("`torch.export` with dynamic shapes", (test_export.test_export_with_dynamic_shapes,)),
    "AOTI": ("an AOTInductor package", (test_export.test_ahead_of_time_inductor,)),
    "ONNX": ("`torch.onnx.export(dynamo=True)`, run by onnxruntime", (test_export.test_onnx,)),
    "autocast": ("`torch.autocast`, bfloat16 and float16", (test_support.test_autocast,)),
    "inference": ("`torch.inference_mode`", (test_support.test_inference_mode,)),
    "CUDA graph": ("captured and replayed, if there is a GPU", (test_cuda_use.test_captured,)),
}

# What a case is called where it stands for others, or for several operators.
_STANDS_FOR = {"bicubic": ("bicubic_down", "bicubic_down_adjoint")}

_SAME = "it shares its kernel and rules with `{}`, which is tested"
HOLES: dict[tuple[str, str], str] = {
    **{(row, "hessian"): "PyTorch defines the Hessian only for real tensors" for row in ("mri_gradient", "mri_normal")},
    **{("rim_input", way): _SAME.format("rim_denoise_input") for way in ("dynamic", "AOTI", "CUDA graph")},
    **{("mri_normal", way): _SAME.format("mri_gradient") for way in ("dynamic", "CUDA graph")},
    ("bicubic_down_adjoint", "CUDA graph"): "it runs as the backward pass of `bicubic_down`, which is tested",
    **{
        (row, "AOTI"): "the package holds the same operator as `torch.export`, which is tested; building a package is slow"
        for row in (
            "conv_lstm_cell", "conv_gru_cell", "roi_match", "rim_super_resolve_input", "bicubic_down",
            "bicubic_down_adjoint", "mri_gradient", "mri_normal",
        )
    },
}  # fmt: skip


def operators_of(test: Callable) -> set[str]:
    """The operators among the parameters of a test: names, samples with a name, or pytest.param of those."""
    found = set()
    for mark in test.pytestmark:  # type: ignore[attr-defined]
        if mark.name != "parametrize":
            continue
        for value in mark.args[1]:
            value = value.values[0] if hasattr(value, "values") and not isinstance(value, dict) else value
            name = getattr(value, "name", value)
            if isinstance(name, str):
                stem = name.split("-")[0].split(" ")[0]
                found.update(_STANDS_FOR.get(stem, (stem,)))
    return found & set(ROWS)


def covered(way: str) -> set[str]:
    """The operators that every test of a way has."""
    sets = [operators_of(test) for test in WAYS[way][1]]
    # The hessian test has complex operators among its parameters and leaves them out.
    complex_ = {"mri_gradient", "mri_normal"} if way == "hessian" else set()
    return set.intersection(*sets) - complex_


def page() -> str:
    reasons: list[str] = []
    lines = []
    for row in ROWS:
        cells = []
        for way in WAYS:
            if row in covered(way):
                cells.append("yes")
                continue
            reason = HOLES[row, way]
            if reason not in reasons:
                reasons.append(reason)
            cells.append(f"({reasons.index(reason) + 1})")
        lines.append(f"| `{row}` | " + " | ".join(cells) + " |")
    header = ["| operator | " + " | ".join(WAYS) + " |", "|---|" + "---|" * len(WAYS)]
    means = [f"- **{way}**: {text}." for way, (text, _) in WAYS.items()]
    notes = [f"{n}. {reason[0].upper()}{reason[1:]}." for n, reason in enumerate(reasons, 1)]
    return "\n".join([
        "# What works with what", "",
        "Which PyTorch features work with which operator. Each \"yes\" is backed by a test that compares with eager PyTorch or with",
        "the plain form of the operator. This page is generated from the list of those tests.", "",
        *header, *lines, "", *means, "", "Cases without a test:", "", *notes, "",
        "Resampling by a scale above 64 is plain PyTorch, which exported programs then contain instead of the operator.",
        "",
        "`roi_align` and `ps_roi_pool` have their own tests of derivatives of any order, `vmap`, `torch.export`, bfloat16 and",
        "float16. A `torch.func` gradient of `roi_align` with `sampling_ratio` <= 0 raises an error when it is compiled, and in",
        "an exported program under a `vmap` over its boxes.",
        "`segment_reduce` is built from `spmm` and PyTorch's `scatter_reduce`.", "",
        "## Modules", "",
        "Every module of `amstel.nn` is tested in forward and reverse mode, in batches and ensembles by `torch.vmap` with",
        "`torch.func.functional_call`, under autocast, inference mode and checkpoints, as a copy, in a file, and in float32 and",
        "float64; every model is compiled and exported, too. Four things follow from PyTorch:", "",
        "- `LSTMClassifier` contains `torch.nn.LSTM`, which `torch.compile(fullgraph=True)` does not take. Export does.",
        "- Sparse features work under `torch.compile` without `fullgraph=True`, which does not accept sparse tensors.",
        "- `SpectralConv` compiles with `fullgraph=True` once the `Graph` has been used: its eigenvectors are then constants.",
        "- The edges of a `Graph` must be the same for every element of a `torch.vmap`. Edge weights may differ.", "",
    ])  # fmt: skip


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
