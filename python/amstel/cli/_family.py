"""Common to the families, besides the options of every command: training options, files to write, failures."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amstel.cli import _values as values
from amstel.cli._errors import in_words_of_the_user

if TYPE_CHECKING:
    from amstel.apps.ranks import Outcome
    from amstel.cli._command import Common

Out = Annotated[
    Path,
    values.out("folder for the checkpoint"),
]
Resume = Annotated[bool, typer.Option("--resume", help="continue from the checkpoint in DIR")]
Force = Annotated[bool, typer.Option("--force", help="overwrite existing files")]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        parser=values.file_there,
        help="a checkpoint [default: bundled weights]",
    ),
]


def restartable(train: Callable[..., int]) -> Callable[..., int]:
    """A training whose processes say an error once, and which goes on where torchrun starts it again (--max-restarts)."""

    @functools.wraps(train)
    def run(*, out: Path | None, resume: bool, common: Common, **arguments: Any) -> int:
        from amstel.apps import ranks, restarts

        with ranks.group(common.device), restarts.one_voice(out):
            common.restarted = restarts.restarted(out)
            return train(out=out, resume=resume or common.restarted, common=common, **arguments)

    return run


def new(paths: Sequence[Path | None], force: bool) -> None:
    """An error where one of the files cannot be written, or would be overwritten."""
    from amstel import _files

    for path in paths:
        if path is None or path == values.STDOUT:
            continue
        if path.parent.is_dir():
            _files.writable(path)
        if path.exists() and not force:
            raise FileExistsError(f"{path} exists; --force overwrites it")


def outcome(common: Common, resume: bool, how_far: str, *written: Path) -> str:
    """What a training says that it wrote, or of a run that was complete before, how far that is."""
    if resume and not common.worked:
        return f"nothing to do: the run was already complete, at {how_far}"
    return f"wrote {' and '.join(map(str, written))}"


def folder_of(target: Path) -> None:
    """Make the folder of a file to write."""
    values.folder_to_write(str(target.parent))
    target.parent.mkdir(parents=True, exist_ok=True)


def report(outcomes: Sequence[Outcome], name: Callable[[Any], str] = str) -> dict[str, Any]:
    """A line on stderr for every failure, and an entry for the JSON output; empty if there is none."""
    from amstel.cli._command import Command

    wrong = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in wrong:
        said, file = " ".join(str(outcome.error).split()), name(outcome.item)
        said = said if file in said else f"{file}: {said}"
        print(f"amstel: {in_words_of_the_user(said, Command.running)}", file=sys.stderr)
    failed = [
        {"input": name(o.item), "error": in_words_of_the_user(str(o.error), Command.running)} for o in wrong
    ]
    return {"failed": failed} if failed else {}


PRECISIONS = ("float32", "bfloat16", "float16")
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="P",
        parser=values.choice(PRECISIONS),
        help=f"{', '.join(PRECISIONS)} [default: float32]",
    ),
]
Average = Annotated[
    float | None,
    typer.Option(
        "--average",
        metavar="X",
        parser=values.number(0, 1, below=True),
        help="decay of the weight average [default: 0, off]",
    ),
]


def with_plan(precision: str | None, average: float | None) -> dict[str, Any]:
    """The options of the training engine that were given."""
    given = {"precision": precision, "average": average}
    return {name: value for name, value in given.items() if value is not None}
