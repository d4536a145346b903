"""`amstel restore evaluate`: scores of restorations by the usual protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from amstel.cli import _values as values
from amstel.cli._command import Common
from amstel.cli._family import Force, new, report
from amstel.cli._restore import Level, Scale, Weights, model, only


def evaluate(
    root: Annotated[
        Path,
        typer.Option(
            "--root",
            "--data",
            metavar="PATH",
            parser=values.there,
            help="folder of images; mri: k-space, or ESPIRiT's folder",
        ),
    ],
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="T",
            parser=values.choice(("denoise", "sr", "mri")),
            help="denoise, sr, mri [default: denoise]",
        ),
    ] = "denoise",
    sigma: Annotated[
        list[float] | None,
        typer.Option(
            "--sigma",
            metavar="S...",
            parser=Level,
            help="noise levels, 0..255 [default: 15 25 50; --clean: estimated]",
        ),
    ] = None,
    scale: Annotated[
        list[int] | None,
        typer.Option("--scale", metavar="N...", parser=Scale, help="sr: factors [default: 2 3 4]"),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            parser=values.file_there,
            help="mri: .npy of 0 and 1; repeat it for more masks",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            metavar="N",
            parser=values.positive,
            help="noise seeds per image [default: 3; --table talk: 1]",
        ),
    ] = None,
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean",
            metavar="PATH",
            parser=values.there,
            help="denoise: clean images for the noisy ones in --root",
        ),
    ] = None,
    quantized: Annotated[
        bool, typer.Option("--quantized", help="denoise: clip and round the noisy images to 8 bits")
    ] = False,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="T",
            parser=values.choice(("talk", "convergence", "classical")),
            help="talk: the published tables and ours; convergence: PSNR per step; classical: holes, blurs, projections",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            parser=values.writes(".png", ".pdf", ".svg"),
            help="convergence: draw the curves",
        ),
    ] = None,
    weights: Weights = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Score restorations by the standard protocols."""
    only(
        task,
        sigma=(sigma, ("denoise",)),
        seeds=(seeds, ("denoise", "mri")),
        scale=(scale, ("sr",)),
        mask=(mask, ("mri",)),
        clean=(clean, ("denoise",)),
        quantized=(quantized, ("denoise",)),
    )
    wrong = {
        "--sigma": sigma,
        "--scale": scale,
        "--clean": clean,
        "--quantized": quantized,
        "--weights": weights,
    }
    given = [name for name, value in wrong.items() if value]
    if table and (given or task != "denoise"):
        raise ValueError(
            f"--table {table} has its own tasks and noise; it does not take {(*given, '--task')[0]}"
        )
    if clean and (quantized or seeds or len(sigma or []) > 1):
        raise ValueError(
            "--clean uses the images as they are: leave out --quantized, --seeds and several --sigma"
        )
    if plot and table != "convergence":
        raise ValueError("--plot is for --table convergence")
    if seeds and table in ("convergence", "classical"):
        raise ValueError(f"--seeds is not for --table {table}; --seed is")
    if common.seed is not None and table not in ("convergence", "classical"):
        raise ValueError("--seed is for --table convergence and classical; --seeds N takes 0 to N - 1")
    if seeds and mask:
        raise ValueError("--seeds is for masks that are drawn; it is not for --mask")
    new([common.json, plot], force)
    from amstel.apps import ranks as processes
    from amstel.apps.restoration import classical, convergence, evaluate, files, kspace, mri, talk

    sigmas, scales, count = sigma or [15.0, 25.0, 50.0], scale or [2, 3, 4], seeds or 3
    failures: list[Any] = []
    with processes.group(common.device) as ranks:
        options: dict[str, Any] = {"model": model(weights, ranks.device), "device": ranks.device}
        options |= {"ranks": ranks, "failures": failures}
        own = task == "mri" and (mask or not (root / "espirit_brain_8ch").is_dir())
        paths = mri.find(root) if own else [] if task == "mri" or table else files.find(root)
        each = {"sr": len(scales), "denoise": len(sigmas) * count, "mri": len(mask or [0] * count)}[task]
        each = 1 if clean else each
        total = len(ranks.share(paths)) * each if paths else 3 * count
        if table == "convergence":
            total = convergence.count()
        elif table == "classical":
            total = classical.count()
        elif table:
            total = talk.count(root, seeds or 1) // ranks.world
        unit = "tasks" if table in ("convergence", "classical") else "images"
        with common.progress(total if ranks.first else 0, unit) as update:
            options["progress"] = update
            if table == "convergence":
                rows = convergence.curves(root, seed=common.seed or 0, progress=update)
            elif table == "classical":
                rows = classical.scores(root, seed=common.seed or 0, device=ranks.device, progress=update)
            elif table:
                del options["model"]
                rows = talk.tables(root, seeds or 1, **options)
            elif clean:
                rows = evaluate.pairs(root, clean, sigma[0] if sigma else None, **options)
            elif own:
                names = [file.name for file in mask or []]
                named = {str(f) if names.count(f.name) > 1 else f.name: f for f in mask or []}
                masks = {name: [kspace.read_mask(f)] for name, f in named.items()} or None
                rows = mri.evaluate_files(paths, masks, seeds=count, **options)
            elif task == "mri":
                rows = mri.evaluate_folder(root, seeds=count, **options)
            elif task == "sr":
                rows = evaluate.super_resolution(root, scales, **options)
            else:
                rows = evaluate.denoising(root, sigmas, count, quantized=quantized, **options)
        if not ranks.first:
            return 0
    if plot:
        convergence.draw(rows, plot)
    tables = {"talk": talk.text, "convergence": convergence.text, "classical": classical.text}
    common.say((tables[table] if table else mri.table if task == "mri" else evaluate.table)(rows))
    if plot:
        common.say(f"wrote {plot}")
    failed = report(failures, lambda item: str(paths[item]) if paths and isinstance(item, int) else str(item))
    said = classical.weights_used() if table == "classical" else None if weights is None else str(weights)
    common.write_json({"task": table or task, "root": root.name, "weights": said, "rows": rows, **failed})
    return 1 if failed else 0
