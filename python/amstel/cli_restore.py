"""`amstel restore INPUT`, `amstel restore train` and `amstel restore eval`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from amstel.cli import _device, _file, _positive, _progress

if TYPE_CHECKING:
    from amstel.nn import RIM

TASKS = ("denoise", "inpaint", "sr", "mri")


def _level(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


_level.__name__ = "number > 0"  # argparse: "invalid number > 0 value: '0'"


def _scale(text: str) -> int:
    value = int(text)
    if value < 2:
        raise ValueError
    return value


_scale.__name__ = "integer >= 2"


def _new(paths: list[Path], force: bool) -> None:
    """OSError where one of the files cannot be written, or would be overwritten."""
    for path in paths:
        if not path.parent.is_dir() or path.is_dir():
            raise FileNotFoundError(
                f"cannot write {path}: {path.parent} is not a folder, or it is one itself"
            )
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists; --force overwrites it")


def _only(args: argparse.Namespace, **tasks: tuple[str, ...]) -> None:
    """ValueError for an option of another task: better said than left out of account."""
    for name, allowed in tasks.items():
        if getattr(args, name) is not None and args.task not in allowed:
            raise ValueError(f"--{name.replace('_', '-')} is for --task {' and '.join(allowed)}")


def _model(args: argparse.Namespace) -> RIM | None:
    from amstel.apps.restoration import train as restore

    return None if args.weights is None else restore.load(args.weights).to(args.device)


# ---------------------------------------------------------------------------------------------- restore


def _restore(args: argparse.Namespace) -> int:
    noisy = ("denoise", "inpaint")
    _only(args, sigma=noisy, add_noise=noisy, scale=("sr",), mask=("inpaint", "mri"), sensitivities=("mri",))
    if args.mask is None and args.task in ("inpaint", "mri"):
        raise ValueError(f"--task {args.task} needs --mask FILE")
    began = time.perf_counter()
    done = _kspace(args) if args.task == "mri" else _images(args)
    if args.json:
        record = {
            "task": args.task,
            "weights": None if args.weights is None else str(args.weights),
            "seconds": round(time.perf_counter() - began, 3),
            "images": done,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _images(args: argparse.Namespace) -> list[dict[str, Any]]:
    from amstel import restore
    from amstel.apps.restoration import evaluate as evaluation
    from amstel.apps.restoration import files
    from amstel.inverse.restore import SIGMA

    sources = files.find(args.input)
    if args.input.is_dir():
        folder = args.output or Path(f"{args.input.resolve().name}_{args.task}")
        if folder.is_file():
            raise ValueError(f"{folder} must be a folder, as {args.input} is one")
        targets = [folder / f"{source.stem}.png" for source in sources]
        if len(set(targets)) < len(targets):
            twice = next(t for t in targets if targets.count(t) > 1)
            raise ValueError(f"{args.input} holds more than one image of the name {twice.stem}")
        folder.mkdir(parents=True, exist_ok=True)
    else:
        targets = [args.output or Path(f"{args.input.stem}_{args.task}.png")]
        files.check_writable(targets[0])
    _new([*targets, *([args.json] if args.json else [])], args.force)
    model, mask = _model(args), None
    if args.mask is not None:
        known = files.read(args.mask).pixels
        mask = (known if known.ndim == 2 else known.mean(2)) > 0.5
    options: dict[str, Any] = {"model": model, "device": args.device, "steps": args.steps, "mask": mask}
    sigma = args.sigma or args.add_noise
    if args.task == "sr":
        options["scale"] = args.scale or 2
    else:
        options["sigma"] = SIGMA[args.task] if sigma is None else sigma / 255
    update, close = _progress(files.pixels(sources), " pixels")
    done: list[dict[str, Any]] = []
    lines = []
    try:
        for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
            picture = files.read(source)
            files.check_writable(target, picture)
            y = truth = picture.pixels
            if mask is not None and mask.shape != y.shape[:2]:
                sizes = [f"{s[1]} x {s[0]} pixels" for s in (mask.shape, y.shape)]
                raise ValueError(f"the mask {args.mask} has {sizes[0]}, but the image {source} {sizes[1]}")
            if args.add_noise:
                noise = np.random.default_rng([args.seed, number]).standard_normal(y.shape)
                y = (y + args.add_noise / 255 * noise).astype(np.float32)
            x = restore(y, args.task, progress=update, **options)
            alpha = picture.alpha
            if alpha is not None and args.task == "sr":
                alpha = evaluation.enlarged(alpha, options["scale"])
            files.write(target, files.Picture(x, alpha, picture.bits))
            entry: dict[str, Any] = {
                "input": str(source),
                "output": str(target),
                "width": y.shape[1],
                "height": y.shape[0],
                "channels": 1 if y.ndim == 2 else 3,
                "bits": picture.bits,
                "alpha": alpha is not None,
            }
            entry |= {key: options[key] for key in ("sigma", "scale") if key in options}
            line = f"wrote {target}"
            if args.add_noise:
                scores = [evaluation.psnr(image, truth) for image in (y, x)]
                entry |= {"noisy_psnr": scores[0], "psnr": scores[1]}
                line += f": PSNR {scores[0]:.2f} dB with noise, {scores[1]:.2f} dB restored"
            done.append(entry)
            lines.append(line)
    finally:
        close()
        # After the bar, which would be torn by them.
        if lines:
            print("\n".join(lines))
    return done


def _kspace(args: argparse.Namespace) -> list[dict[str, Any]]:
    from amstel import restore
    from amstel.apps.restoration import files
    from amstel.data import mri

    target = args.output or Path(f"{args.input.stem}_mri.png")
    files.check_writable(target)
    numbers = target.with_suffix(".npy")
    _new([target, numbers, *([args.json] if args.json else [])], args.force)
    kspace, mask = mri.read_kspace(args.input), mri.read_mask(args.mask)
    maps = None if args.sensitivities is None else mri.read_kspace(args.sensitivities)
    x = restore(
        kspace[None],
        "mri",
        mask=mask if mask.dim() == 1 else mask[None, None],
        sensitivities=maps,
        model=_model(args),
        device=args.device,
        steps=args.steps,
    )[0].numpy()
    magnitude = np.abs(x)
    files.write(target, files.Picture(magnitude / max(magnitude.max(), 1e-30)))
    np.save(numbers, x)
    coils, height, width = kspace.shape
    share = float(mask.float().mean())
    print(f"{coils} coils, {share:.1%} of k-space sampled\nwrote {target} and {numbers}")
    return [
        {
            "input": str(args.input),
            "output": str(target),
            "complex_output": str(numbers),
            "width": width,
            "height": height,
            "coils": coils,
            "sampled": share,
        }
    ]


# ---------------------------------------------------------------------------------------- eval and train


def _evaluate(args: argparse.Namespace) -> int:
    from amstel.apps.restoration import evaluate as evaluation
    from amstel.apps.restoration import files, mri

    _only(args, sigma=("denoise",), seeds=("denoise", "mri"), scale=("sr",))
    if args.json:
        _new([args.json], args.force)
    sigmas, scales, seeds = args.sigma or [15.0, 25.0, 50.0], args.scale or [2, 3, 4], args.seeds or 3
    if args.task == "mri":
        total = 3 * seeds
    else:
        total = len(files.find(args.root)) * (len(scales) if args.task == "sr" else len(sigmas) * seeds)
    update, close = _progress(total, " images")
    options: dict[str, Any] = {"model": _model(args), "device": args.device, "progress": update}
    try:
        if args.task == "mri":
            rows = mri.evaluate_folder(args.root, seeds=seeds, **options)
        elif args.task == "sr":
            rows = evaluation.super_resolution(args.root, scales, **options)
        else:
            rows = evaluation.denoising(args.root, sigmas, seeds, **options)
    finally:
        close()
    print(mri.table(rows) if args.task == "mri" else evaluation.table(rows))
    if args.json:
        weights = None if args.weights is None else str(args.weights)
        record = {"task": args.task, "root": args.root.name, "weights": weights, "rows": rows}
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _train(args: argparse.Namespace) -> int:
    from amstel.apps.restoration import train as restore

    given = {name: value for name in _TRAINING if (value := getattr(args, name)) is not None}
    if args.sigma is not None:
        given["sigma"] = tuple(args.sigma)
    checkpoint = args.out / restore.CHECKPOINT
    if args.resume:
        if given.keys() - {"iterations"} or args.weights:
            raise ValueError(
                "--resume goes on with the settings of the checkpoint: give none but --iterations"
            )
        settings = dataclasses.replace(restore.read(checkpoint).settings, **given)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        _new([checkpoint], args.force)
        settings = restore.Settings(**given)
    for root in args.root:
        if not root.is_dir():
            raise FileNotFoundError(f"{root} does not exist; it should be a folder")
    source: Any = args.root
    if settings.task == "mri":
        from amstel.data import mri

        if len(args.root) > 2:
            raise ValueError("--task mri takes a folder of magnitude images, and one of photographs")
        source = mri.CoilImages(
            args.root[0], settings.size, photographs=args.root[1] if args.root[1:] else None
        )
    initial = None if args.weights is None else restore.load(args.weights).state_dict()
    # Under torchrun every process takes its share of each batch.
    grouped = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if grouped:
        torch.distributed.init_process_group()
    first = not grouped or torch.distributed.get_rank() == 0
    update, close = _progress(settings.iterations if first else 0, " batches")
    try:
        result = restore.train(
            source,
            settings,
            args.out,
            resume=args.resume,
            initial=initial,
            device=args.device,
            progress=(lambda entry: update(restore.EVERY)) if first else None,
        )
    finally:
        close()
    if grouped:
        torch.distributed.destroy_process_group()
    if first:
        said = f"{settings.iterations} batches"
        if result.history:
            said += f": loss {result.history[-1]['loss']:.4g}, PSNR {result.history[-1]['psnr']:.2f} dB"
        print(f"{said}\nwrote {checkpoint}")
    return 0


#: Options of `restore train` that are settings of the recipe, with their types.
_TRAINING: dict[str, Callable[[str], Any]] = {
    "task": str,
    "features": _positive,
    "steps": _positive,
    "stride": _positive,
    "depth": _positive,
    "iterations": _positive,
    "batch": _positive,
    "size": _positive,
    "learning_rate": float,
    "seed": int,
}


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Register the three; `command(name, run, help)` makes a parser."""
    from amstel.apps.restoration import train as recipe

    restore = command("restore", _restore, "denoise, inpaint or enlarge images, or reconstruct MRI (RIM)")
    restore.epilog = (
        "also: amstel restore train, amstel restore eval; a file of one of these names is ./train, ./eval"
    )
    restore.add_argument(
        "input", type=Path, metavar="INPUT", help="an image or a folder of images; for mri k-space, .npy"
    )
    restore.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="PATH",
        help="the file, or the folder if INPUT is one (default: INPUT_TASK.png or INPUT_TASK, here); mri writes the "
        "magnitude, and the complex image as .npy beside it",
    )
    restore.add_argument("--sigma", type=_level, metavar="S", help="noise, 0..255 (default: 25; inpaint: 1)")
    restore.add_argument("--scale", type=_scale, metavar="N", help="of sr (default: 2)")
    restore.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="inpaint: an image, white where pixels are known, black where they are to be found; mri: a .npy of 0 and 1, "
        "[W] or [H, W]",
    )
    restore.add_argument(
        "--sensitivities",
        type=Path,
        metavar="FILE",
        help="of the coils, .npy (default: estimated from the centre of k-space)",
    )
    restore.add_argument(
        "--add-noise", type=_level, metavar="S", help="add noise, 0..255, and print the PSNR before and after"
    )
    restore.add_argument("--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)")
    restore.add_argument(
        "--steps", type=_positive, metavar="N", help="of the inference (default: as trained)"
    )
    restore.add_argument("--json", type=_file, metavar="FILE", help="write what was done")

    evaluate = command("restore eval", _evaluate, "score restorations by the protocols of the field")
    evaluate.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the images; mri: of espirit_brain_8ch and cc359_masks",
    )
    evaluate.add_argument(
        "--sigma", type=_level, nargs="+", metavar="S", help="noise, 0..255 (default: 15 25 50)"
    )
    evaluate.add_argument("--scale", type=_scale, nargs="+", metavar="N", help="of sr (default: 2 3 4)")
    evaluate.add_argument("--seeds", type=_positive, metavar="N", help="of the noise (default: 3)")
    evaluate.add_argument("--json", type=_file, metavar="FILE", help="write the table")

    train = command("restore train", _train, "train a RIM on patches of images")
    train.add_argument(
        "root",
        type=Path,
        nargs="+",
        metavar="ROOT",
        help="folders of images; for mri one of magnitude images (chest_train_100.npy), and if wanted one of "
        "photographs",
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    default = recipe.Settings()
    for name, convert in _TRAINING.items():
        tasks = {"choices": list(recipe.TASKS)} if name == "task" else {}
        said = f"one of {', '.join(recipe.TASKS)} " if tasks else ""
        train.add_argument(
            f"--{name.replace('_', '-')}",
            type=convert,
            metavar="X",
            help=f"{said}(default: {getattr(default, name)})",
            **tasks,  # type: ignore[arg-type]
        )
    train.add_argument(
        "--sigma",
        type=_level,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help=f"noise of denoising, 0..255 (default: {default.sigma[0]:g} {default.sigma[1]:g})",
    )
    for sub in (restore, evaluate):
        sub.add_argument(
            "--task",
            choices=TASKS if sub is restore else [t for t in TASKS if t != "inpaint"],
            default="denoise",
            metavar="T",
            help=f"one of {', '.join(TASKS)} (default: denoise)",
        )
    for sub in (restore, evaluate, train):
        sub.add_argument(
            "--weights",
            type=Path,
            metavar="FILE",
            help="checkpoint of `restore train` "
            + ("to start from (default: none)" if sub is train else "(default: the shipped weights)"),
        )
        sub.add_argument("--force", action="store_true", help="overwrite files that are there")
        sub.add_argument(
            "--device", type=_device, default="cpu", metavar="D", help="cpu, cuda, ... (default: cpu)"
        )
