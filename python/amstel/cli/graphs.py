"""`amstel graphs`: node classification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel.apps.graphs.settings import (
    MODELS,
    MOST_FANOUT,
    MOST_SEEDS,
    MOST_UNITS,
    OLD_MODELS,
    SAMPLERS,
    STOPPING,
    Settings,
)
from amstel.cli import _values as values
from amstel.cli._command import Common, command, family
from amstel.cli._family import Force, Resume, new, report

app = family("Classify the nodes of a graph with graph convolutional networks (GCN).")

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        parser=values.folder_there,
        help="folder of the ind.* files [default: $AMSTEL_DATA/planetoid]",
    ),
]
Checkpoints = Annotated[
    list[Path],
    typer.Argument(
        metavar="CHECKPOINT", parser=values.file_there, help="checkpoint.pt from amstel graphs train"
    ),
]


def _up_to(most: int) -> Callable[[str], int]:
    """An integer >= 1, and not so large that it must be a mistake."""

    def parse(text: str) -> int:
        value = values.positive(text)
        return value if value <= most else values.fail(f"should be an integer >= 1 and <= {most}, got {text}")

    return parse


def _fanouts(text: str) -> tuple[int, ...]:
    """15,10: two numbers of neighbors, of which -1 means all."""
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 2 or not all(f == -1 or 1 <= f <= MOST_FANOUT for f in found):
        values.fail(f"should be two integers, each >= 1 or -1, such as 15,10, got {text}")
    return found


_OPTIONS: dict[str, Any] = {
    "early_stopping": {"parser": values.choice(STOPPING), "help": ", ".join(STOPPING)},
    "epochs": {"parser": _up_to(2**31 - 1), "help": "maximum epochs", "default": "the paper's, 200"},
    "hidden": {"parser": _up_to(MOST_UNITS), "help": "hidden units", "default": "the paper's, 16 or 64"},
    "dropout": {"parser": values.number(0, 1, below=True), "help": "dropout rate", "default": "the paper's"},
    "weight_decay": {
        "parser": values.number(0),
        "help": "weight decay of the first layer",
        "default": "the paper's",
    },
    "learning_rate": {"parser": values.number(0), "help": "learning rate of Adam"},
    "sampler": {"parser": values.choice(SAMPLERS), "help": "neighbor trains on sampled batches"},
    "fanouts": {
        "parser": _fanouts,
        "help": "of --sampler: neighbors drawn at both steps, -1 for all",
        "default": "15,10",
    },
    "batch_size": {"parser": _up_to(2**31 - 1), "help": "of --sampler: training nodes of a batch"},
}


def _apart(json: Path | None, others: Sequence[Path | None]) -> None:
    """An error where --json names a file that the command reads or writes otherwise."""
    from amstel import _files

    if json is not None:
        _files.distinct(json, *(path for path in others if path is not None), argument="json")


def _train(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", metavar="NAME", help="cora, citeseer, pubmed, nell; block-model needs no files"
        ),
    ],
    root: Root = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="M",
            parser=values.choice(MODELS, cheb="cheb2", **OLD_MODELS),
            help=f"{', '.join(MODELS)} [default: gcn]",
        ),
    ] = "gcn",
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds", metavar="N", parser=_up_to(MOST_SEEDS), help="number of seeds [default: 100]"
        ),
    ] = 100,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", parser=values.folder_to_write, help="folder for the checkpoint"),
    ] = None,
    resume: Resume = False,
    force: Force = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            parser=values.writes(".png", ".svg", ".pdf", ".jpg", ".jpeg"),
            help="write a histogram of the accuracies",
        ),
    ] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="spread the graph over the processes of torchrun")
    ] = False,
    parts: Annotated[
        Path | None,
        typer.Option(
            "--parts", metavar="DIR", help="of --distributed: the partition, made if it is not there"
        ),
    ] = None,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train by Kipf and Welling's protocol, all seeds at once."""
    from amstel import _optional
    from amstel.apps import ranks as processes
    from amstel.apps.graphs import distributed as spread
    from amstel.apps.graphs import evaluate, predict, train

    if {"fanouts", "batch_size"} & set(given) and given.get("sampler", "none") == "none":
        raise ValueError("--fanouts and --batch-size need --sampler neighbor")
    if parts is not None and not distributed:
        raise ValueError("--parts needs --distributed")
    if plot:
        _optional.need("matplotlib", extra="cli", purpose="--plot")
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the checkpoint")
    _apart(common.json, [plot, out and out / train.CHECKPOINT])
    if out is not None and not resume:
        new([out / train.CHECKPOINT], force)
    first = common.seed or 0
    with processes.group(common.device) as ranks, spread.one_voice(out) if distributed else nullcontext():
        data: Any
        if distributed:
            data = spread.load(
                dataset, root, parts or (out / f"parts-{ranks.world}" if out else None), ranks.device
            )
            name = data.meta["name"]
        else:
            data = predict.load_data(dataset, root)
            name = data.name
        settings = Settings.for_data(name, **given)
        with common.progress(seeds * settings.epochs if ranks.first else 0, "epochs") as update:
            result = train.study(
                data,
                model,
                range(first, first + seeds),
                settings,
                progress=update,
                out=out,
                resume=resume,
                force=force,
                device=ranks.device,
            )
        if not ranks.first:
            return 0
    common.say(
        f"{result.dataset} {result.model}: test accuracy {100 * result.mean:.2f} ± {100 * result.std:.2f} % "
        f"over {seeds} seeds, early stopping {settings.early_stopping}, {result.seconds:.1f} s"
    )
    if out is not None:
        common.say(f"wrote {out / train.CHECKPOINT}")
    common.write_json(result.to_json())
    if plot:
        evaluate.plot(plot, result)
    return 0


_SHARED: dict[str, Any] = {"settings": Settings(), "own": _OPTIONS, "seed_names": ("--seed", "--first-seed")}
command(app, "train", **_SHARED)(_train)


def add_old_name(root: typer.Typer) -> None:
    """`amstel gcn`, as the first release had it."""
    command(root, "gcn", hidden=True, **_SHARED)(_train)


@command(app, "predict")
def predict(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", parser=values.file_there, help="checkpoint.pt from amstel graphs train"
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            parser=values.writes(".csv", ".json"),
            help="one line per node, .csv or .json [default: DATASET_classes.csv]",
        ),
    ] = None,
    root: Root = None,
    *,
    common: Common,
) -> int:
    """Predict the class of every node with the network that validated best."""
    from amstel.apps.graphs import predict, train

    study = train.read(checkpoint)
    _apart(common.json, [checkpoint, output])
    data = predict.load_data(study.dataset, root)
    target = output or values.file_to_write(f"{study.dataset.replace(' ', '-')}_classes.csv")
    probabilities = predict.predict(study, data, common.device)
    predict.write(target, probabilities)
    common.say(f"{data.num_nodes} nodes of {study.dataset}, {data.num_classes} classes\nwrote {target}")
    best, classes = probabilities.max(1)
    common.write_json({"dataset": study.dataset, "class": classes.tolist(), "probability": best.tolist()})
    return 0


@command(app, "evaluate", "eval")
def evaluate(checkpoint: Checkpoints, root: Root = None, *, common: Common) -> int:
    """Report the accuracy on the training, validation and test nodes."""
    from amstel.apps import ranks as processes
    from amstel.apps.graphs import evaluate, predict, train

    def work(path: Path) -> dict[str, Any]:
        study = train.read(path)
        found = evaluate.evaluate(study, predict.load_data(study.dataset, root), ranks.device)
        return {"checkpoint": str(path), "dataset": study.dataset, "model": study.model, **found}

    _apart(common.json, checkpoint)
    with processes.group(common.device) as ranks:
        outcomes = processes.each(checkpoint, work, ranks)
        if not ranks.first:
            return 0
    rows = [outcome.value for outcome in outcomes if outcome.value is not None]
    for row in rows:
        own = ", ".join(f"{part} {100 * row[part]:.2f} %" for part in ("train", "val", "test") if part in row)
        common.say(
            f"{row['dataset']} {row['model']}, seed {row['seed']}: {own}; "
            f"all {row['seeds']} seeds: test {100 * row['mean']:.2f} ± {100 * row['std']:.2f} %"
        )
    failed = report(outcomes)
    common.write_json({"rows": rows, **failed})
    return 1 if failed else 0
