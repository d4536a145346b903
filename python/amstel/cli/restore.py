"""`amstel restore`: images and k-space, training and evaluation."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._words import counted
from amstel.apps.restoration.settings import Settings
from amstel.cli import _values as values
from amstel.cli._command import Common, command, family
from amstel.cli._family import (
    Average,
    Force,
    Out,
    Resume,
    folder_of,
    new,
    outcome,
    report,
    restartable,
    with_plan,
)
from amstel.cli._restore import OPTIONS, TASKS, Level, Scale, Weights, level, model, only
from amstel.cli._restore_evaluate import evaluate

app = family(
    "Restore images and reconstruct MRI scans (RIM).\n\nExample: amstel restore IMAGE --sigma 25",
    default="predict",
    epilog="To restore a file named like a command, write ./train or ./evaluate.",
)

#: Tasks of training whose images are noisy.
NOISY = ("gray", "color", "3task")
Task = Annotated[
    str,
    typer.Option(
        "--task", metavar="T", parser=values.choice(TASKS), help=f"{', '.join(TASKS)} [default: denoise]"
    ),
]


@command(app, "predict", said={"output": "-o", "model": "--weights"})
def predict(
    input: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            parser=values.there,
            help="image or folder; mri: k-space as .npy .npz .h5 .mat .cfl",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="file or folder [default: INPUT_TASK, here]",
            parser=values.target,
        ),
    ] = None,
    task: Task = "denoise",
    sigma: Annotated[
        Any,
        typer.Option(
            "--sigma",
            metavar="S",
            parser=level,
            help="noise level, 0..255, auto, or a file with a map [default: that of --add-noise, else auto; inpaint: 1]",
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            "--kernel",
            metavar="K",
            help="deblur: gaussian:SIGMA, motion:LENGTH:DEGREES, disk:RADIUS, or a file",
        ),
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", metavar="N", parser=Scale, help="sr: factor [default: 2]")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            parser=values.file_there,
            help="inpaint: white where pixels are known, or .npy; mri: .npy of 0 and 1, applied to INPUT [default: all]",
        ),
    ] = None,
    sensitivities: Annotated[
        Any,
        typer.Option(
            "--sensitivities",
            metavar="FILE",
            parser=lambda text: text if text == "espirit" else values.file_there(text),
            help="mri: coil maps, or espirit [default: estimated from the center]",
        ),
    ] = None,
    slice: Annotated[
        int | None,
        typer.Option(
            "--slice", metavar="N", parser=values.integer(0), help="mri: slice to reconstruct [default: all]"
        ),
    ] = None,
    add_noise: Annotated[
        float | None,
        typer.Option(
            "--add-noise",
            metavar="S",
            parser=Level,
            help="add noise of this level first, and report the PSNR",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            parser=values.positive,
            help="inference steps [default: what suits the task]",
        ),
    ] = None,
    weights: Weights = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Restore an image or a folder of images, or reconstruct k-space."""
    noisy = ("denoise", "inpaint", "deblur")
    only(
        task,
        sigma=(sigma, noisy),
        add_noise=(add_noise, ("denoise", "inpaint")),
        kernel=(kernel, ("deblur",)),
        scale=(scale, ("sr",)),
        mask=(mask, ("inpaint", "mri")),
        sensitivities=(sensitivities, ("mri",)),
        slice=(slice, ("mri",)),
    )
    if mask is None and task == "inpaint":
        raise ValueError(f"--task {task} needs --mask FILE")
    if kernel is None and task == "deblur":
        raise ValueError("--task deblur needs --kernel: the blur must be known")
    if common.seed is not None and add_noise is None:
        raise ValueError("--seed needs --add-noise S, the noise that it draws")
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps.restoration import files, predict

    began = time.perf_counter()
    if task == "mri":
        if input.is_dir():
            raise ValueError(f"{input} is a folder; --task mri takes a file of k-space")
        sources, targets = [input], [output or Path(f"{input.stem}_mri.png")]
        files.check_writable(targets[0])
        written = [targets[0], targets[0].with_suffix(".npy")]
    else:
        sources, targets = predict.targets(input, output, task)
        written = list(targets)
        if input.is_dir():
            folder_of(targets[0])
            # Path.resolve fails for a loop of links.
            if set(map(os.path.realpath, targets)) & set(map(os.path.realpath, sources)):
                raise ValueError(
                    f"-o must be another folder than the input, got {targets[0].parent} for both"
                )
    for path in written:
        values.file_to_write(str(path))
    given = [input, mask, sigma, sensitivities, weights, None if kernel is None else Path(kernel)]
    read = [path for path in given if isinstance(path, Path) and path.is_file()]
    for path in written:
        _files.distinct(path, *read, argument="output")
    if common.json not in (None, values.STDOUT):
        _files.distinct(common.json, *read, *written, argument="json")
    new([*written, common.json], force)
    with processes.group(common.device) as ranks:
        options = predict.Options(
            task,
            model(weights, ranks.device),
            sigma=sigma,
            scale=scale or 2,
            mask=mask,
            kernel=kernel,
            slice=slice,
            sensitivities=sensitivities,
            add_noise=add_noise,
            seed=common.seed or 0,
            steps=steps,
        )
        if task == "mri":
            from amstel.apps.restoration import kspace

            record = kspace.reconstruct(sources[0], targets[0], options, ranks)
            outcomes = [processes.Outcome(0, record)]
        else:
            alone = len(sources) == 1
            total, unit = (files.pixels(sources), "pixels") if alone else (len(sources), "images")
            with common.progress(total if ranks.first else 0, unit) as update:
                outcomes = predict.images(sources, targets, options, ranks, update)
        if not ranks.first:
            return 0
    done = [outcome.value for outcome in outcomes if outcome.value is not None]
    failed = report(outcomes, lambda number: str(sources[number]))
    common.write_json(
        {
            "task": task,
            "weights": None if weights is None else str(weights),
            "seconds": round(time.perf_counter() - began, 3),
            "images": done,
            **failed,
        }
    )
    for record in done:
        common.say(_said(record))
    return 1 if failed else 0


def _said(record: dict[str, Any]) -> str:
    if "coils" in record:
        slices = f"{counted(record['slices'], 'slice')}, " if record["slices"] > 1 else ""
        sampled = f"{slices}{counted(record['coils'], 'coil')}, {record['sampled']:.1%} of k-space sampled"
        return f"{sampled}\nwrote {record['output']} and {record['complex_output']}"
    line = f"wrote {record['output']}"
    if record.get("estimated"):
        from amstel.inverse.restore import DOUBT

        line += f": sigma {255 * record['sigma']:.1f} estimated"
        if "kernel" not in record and record["sigma"] < DOUBT[0]:
            line += ", so little that it is left alone"
    if "psnr" in record:
        line += f": PSNR {record['noisy_psnr']:.2f} dB with noise, {record['psnr']:.2f} dB restored"
    return line


command(app, "evaluate", "eval", said={"model": "--weights"})(evaluate)


@command(
    app,
    "train",
    settings=Settings(),
    own=OPTIONS,
    said={"source": "ROOT", "images": "ROOT", "initial": "--weights"},
)
@restartable
def train(
    root: Annotated[
        list[Path],
        typer.Argument(
            metavar="ROOT",
            parser=values.there,
            help="folders of images; mri: .npy of magnitudes",
        ),
    ],
    out: Out,
    resume: Resume = False,
    force: Force = False,
    weights: Annotated[
        Any,
        typer.Option(
            "--weights",
            metavar="FILE",
            parser=values.weights_there,
            help="a checkpoint to start from, or gray, color, ...",
        ),
    ] = None,
    sigma: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--sigma",
            metavar="LOW HIGH",
            parser=values.number(0),
            help="noise levels, 0..255 [default: conv 5 55; unet 0 75]",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            "--validation",
            metavar="DIR",
            parser=values.there,
            help="data like ROOT, tested every 50 batches",
        ),
    ] = None,
    average: Average = None,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train a RIM on patches of images."""
    from amstel.apps import ranks as processes
    from amstel.apps.restoration import train

    if common.seed is not None:
        given["seed"] = common.seed
    if sigma is not None:
        given["sigma"] = tuple(sigma)
    checkpoint, done = out / train.CHECKPOINT, 0
    if resume:
        if not common.restarted and (given.keys() - {"iterations"} or weights or average is not None):
            raise ValueError("--resume keeps the settings of the checkpoint: only change --iterations")
        saved = train.read(checkpoint)
        settings, done = dataclasses.replace(saved.settings, **given), saved.iteration
    else:
        new([checkpoint], force)
        settings = Settings(**given)
        only(settings.task, **{name: (name in given, NOISY) for name in ("sigma", "rounded", "drawn")})
        for name in ("rounded", "drawn", "fixed_size"):
            if name in given and settings.network != "unet":
                raise ValueError(f"--{name.replace('_', '-')} is for --network unet")
    new([common.json], True)
    source: Any = root
    if settings.task == "mri":
        from amstel.data import mri

        if len(root) > 2:
            raise ValueError("--task mri takes a file of magnitude images, and a folder of photographs")
        source = mri.CoilImages(root[0], settings.size, photographs=root[1] if root[1:] else None)
    else:
        for folder in root:
            if not folder.is_dir():
                raise ValueError(f"{folder} is a file; it should be a folder of images")
    tested: Any = validation
    if validation is not None and settings.task == "mri":
        tested = mri.CoilImages(validation, settings.size)
    initial = None if weights is None else train.weights(weights)
    left = sum(train.stage(settings, step).batch for step in range(done, settings.iterations))
    ranks = processes.current(common.device)
    with common.progress(left if ranks.first else 0, "patches") as update:
        result = train.train(
            source,
            settings,
            out,
            resume=resume,
            force=force,
            initial=initial,
            validation=tested,
            device=ranks.device,
            progress=update,
            **with_plan(None, average),
        )
    if not ranks.first:
        return 0
    said = counted(settings.iterations, "batch")
    if result.history:
        said += f": loss {result.history[-1]['loss']:.4g}, PSNR {result.history[-1]['psnr']:.2f} dB"
    common.say(f"{said}\n{outcome(common, resume, counted(settings.iterations, 'batch'), checkpoint)}")
    common.write_json(
        {
            "settings": dataclasses.asdict(settings),
            "loss": [entry["loss"] for entry in result.history],
            "history": result.history,
        }
    )
    return 0
