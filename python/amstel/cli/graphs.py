"""`amstel graphs`: classification of nodes and of graphs, prediction of links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from amstel._numerals import parsed
from amstel._words import counted, over, percent
from amstel.apps.graphs.settings import (
    GRAPH_MODELS,
    LINK_MODELS,
    MODELS,
    MOST_FANOUT,
    MOST_SEEDS,
    MOST_UNITS,
    OLD_MODELS,
    POOLS,
    SAMPLERS,
    STOPPING,
    TASKS,
    Settings,
)
from amstel.cli import _trials as trials
from amstel.cli import _values as values
from amstel.cli._command import Common, command, family
from amstel.cli._family import Force, Resume, folder_of, new, outcome, report, restartable

app = family("Classify nodes or graphs, or predict links (GCN).")

Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        parser=values.folder_there,
        help="folder of the files [default: $AMSTEL_DATA/planetoid; none for task graph]",
    ),
]
Checkpoints = Annotated[
    list[Path],
    typer.Argument(
        metavar="CHECKPOINT", parser=values.file_there, help="checkpoint.pt from amstel graphs train"
    ),
]


def _fanouts(text: str) -> tuple[int, ...]:
    """15,10: two numbers of neighbors, of which -1 means all."""
    try:
        found = tuple(parsed(part.strip(), int) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 2 or not all(f == -1 or 1 <= f <= MOST_FANOUT for f in found):
        values.fail(f"should be two integers, each >= 1 or -1, such as 15,10, got {text}")
    return found


_OPTIONS: dict[str, Any] = {
    "early_stopping": {"parser": values.choice(STOPPING), "help": f"task node: {', '.join(STOPPING)}"},
    "epochs": {
        "parser": values.up_to(2**31 - 1),
        "help": "maximum epochs",
        "default": "200; task graph: 100",
    },
    "hidden": {
        "parser": values.up_to(MOST_UNITS),
        "help": "hidden units",
        "default": "the paper's, 16 or 64; link: 32; graph: 64",
    },
    "latent": {
        "parser": values.up_to(MOST_UNITS),
        "help": "task link: size of an embedding",
        "default": "16",
    },
    "layers": {"parser": values.up_to(1000), "help": "task graph: convolutions", "default": "3"},
    "pool": {"parser": values.choice(POOLS), "help": f"task graph: {', '.join(POOLS)}", "default": "mean"},
    "dropout": {
        "parser": values.number(0, 1, below=True),
        "help": "dropout rate",
        "default": "the paper's; task graph: 0.5",
    },
    "weight_decay": {
        "parser": values.number(0),
        "help": "on the first layer; link, graph: on all",
        "default": "the paper's; link: 0.0003; graph: 0",
    },
    "learning_rate": {"parser": values.number(0), "help": "learning rate of Adam"},
    "sampler": {"parser": values.choice(SAMPLERS), "help": "neighbor: train on sampled batches"},
    "fanouts": {
        "parser": _fanouts,
        "help": "neighbors per layer, -1: all",
        "default": "15,10",
    },
    "batch_size": {
        "parser": values.up_to(2**31 - 1),
        "help": "for --sampler or task graph",
        "default": "512; 32",
    },
}
#: Models of every task; the first is the default, but for links.
_MODELS = {"node": MODELS, "link": LINK_MODELS, "graph": GRAPH_MODELS}
_DEFAULTS = {"node": ("gcn", 100), "link": ("vgae", 10), "graph": ("gcn", 10)}


def _apart(json: Path | None, others: Sequence[Path | None]) -> None:
    """An error where --json names a file that the command reads or writes otherwise."""
    from amstel import _files

    if json is not None:
        _files.distinct(json, *(path for path in others if path is not None), argument="json")


@restartable
def _train(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="cora, citeseer, pubmed, nell, block-model, or a folder made by amstel graphs convert; "
            "task graph: MUTAG, PROTEINS, ..., colored-graphs",
        ),
    ],
    root: Root = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            metavar="T",
            parser=values.choice(TASKS),
            help="node: classify nodes; link: predict links; graph: classify graphs [default: node]",
        ),
    ] = "node",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="M",
            parser=values.choice(
                tuple(dict.fromkeys(m for some in _MODELS.values() for m in some)), cheb="cheb2", **OLD_MODELS
            ),
            help=f"{', '.join(MODELS)} [default: gcn]; task link: {', '.join(LINK_MODELS)} [default: vgae]; "
            f"task graph: {', '.join(GRAPH_MODELS)} [default: gcn]",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            metavar="N",
            parser=values.up_to(MOST_SEEDS),
            help="number of seeds [default: 100; link, graph: 10]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        values.out("folder for the checkpoint"),
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
        bool, typer.Option("--distributed", help="split the graph across the processes of torchrun")
    ] = False,
    parts: Annotated[
        Path | None,
        typer.Option("--parts", metavar="DIR", help="folder of the partition, made if missing"),
    ] = None,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train one network per seed, following Kipf and Welling."""
    from amstel import _optional
    from amstel.apps import ranks as processes
    from amstel.apps.graphs import distributed as spread
    from amstel.apps.graphs import evaluate, predict, train

    model, seeds = model or _DEFAULTS[task][0], seeds or _DEFAULTS[task][1]
    if model not in _MODELS[task]:
        raise ValueError(f"--model of --task {task} must be one of {', '.join(_MODELS[task])}, got {model!r}")
    if task != "node" and (plot or distributed or parts):
        option = "--plot" if plot else "--distributed" if distributed else "--parts"
        raise ValueError(f"{option} is for --task node, got --task {task}")
    if task == "node" and {"fanouts", "batch_size"} & set(given) and given.get("sampler", "none") == "none":
        raise ValueError("--fanouts and --batch-size need --sampler neighbor")
    if parts is not None and not distributed:
        raise ValueError("--parts needs --distributed")
    if plot:
        _optional.need("matplotlib", extra="cli", purpose="--plot")
    if resume and out is None:
        raise ValueError("--resume needs --out, the folder of the checkpoint")
    _apart(common.json, [plot, out and out / train.CHECKPOINT])
    new([plot], force or resume)
    first = common.seed or 0
    if task != "node":
        if out is not None and not resume:
            new([out / train.CHECKPOINT], force)
        return trials.train(
            task, dataset, root, model, range(first, first + seeds), out, resume, force, given, common
        )
    trials.only("node", Settings, given)
    ranks = processes.current(common.device)
    if out is not None and not resume:
        new([out / train.CHECKPOINT], force)
    data: Any
    if distributed:
        folder = parts or (out / f"parts-{ranks.world}" if out else None)
        # Samples are drawn on the CPU.
        device = ranks.device if given.get("sampler", "none") == "none" else "cpu"
        data = spread.load(dataset, root, folder, device)
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
        f"{result.dataset} {result.model}: test accuracy {percent(result.accuracy)} "
        f"{over(seeds)}, early stopping {settings.early_stopping}, {result.seconds:.1f} s"
    )
    if out is not None:
        common.say(outcome(common, resume, counted(len(result.seeds), "seed"), out / train.CHECKPOINT))
    common.write_json(result.to_json())
    if plot:
        folder_of(plot)
        evaluate.plot(plot, result)
        common.say(f"wrote {plot}")
    return 0


_SHARED: dict[str, Any] = {
    "settings": Settings(),
    "own": _OPTIONS,
    "seed_names": ("--seed", "--first-seed"),
    "said": {"data": "--dataset", "name": "--dataset"},
}
command(app, "train", **_SHARED)(_train)


def add_old_name(root: typer.Typer) -> None:
    """`amstel gcn`, as the first release had it."""
    command(root, "gcn", hidden=True, **_SHARED)(_train)


@command(app, "predict", said={"data": "the data"}, without=("seed",))
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
            help="one line per node, link or graph, .csv or .json "
            "[default: DATASET_classes.csv, DATASET_links.csv]",
        ),
    ] = None,
    root: Root = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", parser=values.positive, help="task link: number of links [default: 1000]"
        ),
    ] = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Predict node or graph classes, or missing links.

    The network with the best validation score is used.
    """
    from amstel import _files
    from amstel.apps.graphs import predict, sources, tasks
    from amstel.apps.graphs.trials import Trials

    study = tasks.read(checkpoint)
    _apart(common.json, [checkpoint, output])
    if output is not None:
        _files.distinct(output, checkpoint, argument="output")
    if count is not None and getattr(study, "task", "node") != "link":
        raise ValueError(f"--count is for --task link, got {checkpoint} of another task")
    if isinstance(study, Trials):
        return trials.predict(study, output, root, count or 1000, force, common)
    data = sources.of_result(study, root, predict.load_data)
    target = output or values.file_named(study.dataset, "_classes.csv")
    new([target], force)
    probabilities = predict.predict(study, data, common.device)
    predict.write(target, probabilities)
    said = f"{counted(data.num_nodes, 'node')} of {study.dataset}, {counted(data.num_classes, 'class')}"
    common.say(f"{said}\nwrote {target}")
    best, classes = probabilities.max(1)
    common.write_json({"dataset": study.dataset, "class": classes.tolist(), "probability": best.tolist()})
    return 0


@command(app, "evaluate", "eval", said={"data": "the data"}, without=("seed",))
def evaluate(checkpoint: Checkpoints, root: Root = None, *, common: Common) -> int:
    """Report the accuracy, or AUC and average precision for links.

    Training, validation and test data are reported separately.
    """
    from amstel.apps import ranks as processes
    from amstel.apps.graphs import evaluate, predict, sources, tasks
    from amstel.apps.graphs.trials import Trials

    def work(path: Path) -> dict[str, Any]:
        study = tasks.read(path)
        if isinstance(study, Trials):
            return {"checkpoint": str(path), **trials.evaluated(study, root, ranks.device)}
        data = sources.of_result(study, root, predict.load_data)
        found = evaluate.evaluate(study, data, ranks.device)
        return {"checkpoint": str(path), "dataset": study.dataset, "model": study.model, **found}

    _apart(common.json, checkpoint)
    with processes.group(common.device) as ranks:
        outcomes = processes.each(checkpoint, work, ranks)
        if not ranks.first:
            return 0
    rows = [outcome.value for outcome in outcomes if outcome.value is not None]
    for row in rows:
        common.say(trials.said(row))
    failed = report(outcomes)
    common.write_json({"rows": rows, **failed})
    return 1 if failed else 0


@command(app, "convert", without=("seed", "device"))
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            parser=values.there,
            help="a folder in OGB's layout, or an .npz file with edge_index",
        ),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", parser=values.folder_to_write, help="the folder to write")
    ],
    undirected: Annotated[
        bool, typer.Option("--undirected", help="add the reverse of every edge, and drop duplicates")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="S", help="folder in split/ to use [default: the only one]"),
    ] = None,
    force: Force = False,
    *,
    common: Common,
) -> int:
    """Convert a large graph to a memory-mapped folder.

    Pass the folder to amstel graphs train as --dataset.
    """
    from amstel import _files
    from amstel.data import convert_graph

    _files.distinct(folder, source, argument="folder")
    _apart(common.json, [source, folder])
    facts = convert_graph(source, folder, undirected=undirected, split=split, force=force)
    width = "no features" if facts["features"] is None else counted(facts["features"], "feature")
    common.say(
        f"{facts['name']}: {counted(facts['nodes'], 'node')}, {counted(facts['edges'], 'edge')}, {width}, {counted(facts['classes'], 'class')}"
        f"\nwrote {folder}"
    )
    common.write_json(facts)
    return 0
