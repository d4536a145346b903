"""The checkpoint of graph training, for any task."""

from __future__ import annotations

from pathlib import Path

from amstel.apps.graphs import results, trials
from amstel.apps.graphs.checkpoints import loaded
from amstel.apps.graphs.results import Study
from amstel.apps.graphs.trials import Trials


def read(path: str | Path) -> Study | Trials:
    """What `amstel graphs train` wrote: a `Study` of node classification, or `Trials` of another task."""
    return loaded(path, {results.FORMAT: results.of_state, trials.FORMAT: trials.of_state})
