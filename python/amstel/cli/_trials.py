"""`amstel graphs` for the other tasks than node classification: link prediction and graph classification."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from amstel import _words
from amstel._words import counted
from amstel.cli import _values as values
from amstel.cli._family import new, outcome

if TYPE_CHECKING:
    from amstel.apps.graphs.trials import Trials
    from amstel.cli._command import Common

#: What an evaluation may report.
PARTS = {
    "train": "train",
    "val": "val",
    "val_auc": "val AUC",
    "val_ap": "average precision",
    "test": "test",
    "test_auc": "test AUC",
    "test_ap": "average precision",
}


def only(task: str, settings: type, given: dict[str, Any]) -> None:
    """An error where an option is of another task."""
    for name in given:
        if name not in settings.__dataclass_fields__:  # type: ignore[attr-defined]
            raise ValueError(f"--{name.replace('_', '-')} is for another task, got --task {task}")


def _application(task: str) -> Any:
    from amstel.apps.graphs import classify, links

    return links if task == "link" else classify


def train(
    task: str,
    dataset: str,
    root: Path | None,
    model: str,
    seeds: range,
    out: Path | None,
    resume: bool,
    force: bool,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Train, and say and write what was found."""
    from amstel.apps import ranks as processes
    from amstel.apps.graphs.trials import CHECKPOINT, KINDS

    kind = KINDS[task]
    only(task, kind.settings, given)
    settings, application = kind.settings(**given), _application(task)
    ranks = processes.current(common.device)
    data = application.load_data(dataset, root)
    total = len(seeds) * application.steps(data, settings)
    with common.progress(total if ranks.first else 0, "steps") as update:
        result = application.train(
            data,
            model,
            seeds,
            settings,
            update,
            out=out,
            resume=resume,
            force=force,
            device=ranks.device,
        )
    if not ranks.first:
        return 0
    common.say(
        f"{result.dataset} {result.model}: test {result.said()} {_words.over(len(seeds))}, {result.seconds:.1f} s"
    )
    if out is not None:
        common.say(outcome(common, resume, counted(len(result.seeds), "seed"), out / CHECKPOINT))
    common.write_json(result.to_json())
    return 0


def predict(
    result: Trials, output: Path | None, root: Path | None, count: int, force: bool, common: Common
) -> int:
    """The links or the classes that the best network finds."""
    from amstel.apps.graphs import sources

    application = _application(result.task)
    data = sources.of_result(result, root, application.load_data)
    what = "links" if result.task == "link" else "classes"
    target = output or values.file_named(result.dataset, f"_{what}.csv")
    new([target], force)
    if result.task == "link":
        pairs, probabilities = application.predict(result, data, count, common.device)
        application.write(target, pairs, probabilities)
        columns = {"source": pairs[0].tolist(), "target": pairs[1].tolist()}
        common.say(
            f"{counted(pairs.shape[1], 'pair')} of the {counted(data.num_nodes, 'node')} of {result.dataset}"
        )
    else:
        found = application.predict(result, data, common.device)
        names = getattr(data, "classes", [])
        application.write(target, found, names)
        probabilities, classes = found.max(1)
        columns = {"class": [names[k] for k in classes.tolist()] if names else classes.tolist()}
        common.say(f"{counted(len(data), 'graph')} of {result.dataset}, {counted(data.num_classes, 'class')}")
    common.say(f"wrote {target}")
    common.write_json({"dataset": result.dataset, **columns, "probability": probabilities.tolist()})
    return 0


def evaluated(result: Trials, root: Path | None, device: Any) -> dict[str, Any]:
    """A row of `amstel graphs evaluate`."""
    from amstel.apps.graphs import sources

    application = _application(result.task)
    found = application.evaluate(result, sources.of_result(result, root, application.load_data), device)
    return {"dataset": result.dataset, "model": result.model, "task": result.task, **found}


def said(row: dict[str, Any]) -> str:
    """Such a row, of any task, in lines of at most 100 columns."""
    links = row.get("task") == "link"
    parts = [f"{text} {100 * row[name]:.2f}%" for name, text in PARTS.items() if name in row]
    own = "\n  ".join([", ".join(parts[:2]), ", ".join(parts[2:])]) if len(parts) == 4 else ", ".join(parts)
    spread = f" ± {100 * row['std']:.2f}%" if row["seeds"] > 1 else "%"
    return (
        f"{row['dataset']} {row['model']}, seed {row['seed']}: {own}\n"
        f"  {_words.over(row['seeds'])}: test{' AUC' if links else ''} {100 * row['mean']:.2f}{spread}"
    )
