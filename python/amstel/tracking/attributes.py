"""Score a tracker by the attributes of sequences (occlusion, fast motion, ...) that data sets provide."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from amstel import _check
from amstel._check import fail
from amstel.tracking.dataset import DatasetEvaluation
from amstel.tracking.evaluation import Evaluation


def by_attribute(
    evaluation: DatasetEvaluation, attributes: Mapping[str, Any] | str | os.PathLike
) -> dict[str, DatasetEvaluation]:
    """The scores over the sequences that have each attribute, the attribute with the highest AUC first.

    Each sequence has the same weight, as in the toolkits (`DatasetEvaluation`). A sequence counts for all of its
    attributes, so different attributes may share sequences. Names of sequences and attributes are not case-sensitive.
    Sequences that were not evaluated are ignored. O(S A) for S sequences and A attributes.

    Args:
        evaluation: the result of `evaluate_dataset`.
        attributes: the attributes of each sequence, {"Ball": ["OCC", "SV"], ...}, or a JSON file with these; also in the
            form of pysot's JSON files, {"Ball": {"attr": ["Occlusion", ...], ...}, ...}.

    Warns:
        UserWarning: sequences without attributes, which count for none.

    Raises:
        ValueError: no evaluated sequence has an attribute; names are not as described, or match two entries; the file is
            not JSON.
        TypeError: `evaluation` or `attributes` is of another type.
        OSError: the file cannot be read.

    Source: Y. Wu, J. Lim, M.-H. Yang, Object Tracking Benchmark, TPAMI 2015, sections 3.1 and 5.3.

    Example:
        >>> truth = torch.tensor([[10.0, 10, 20, 20]] * 4)
        >>> scores = {"Ball": amstel.tracking.evaluate(truth, truth), "Cup": amstel.tracking.evaluate(truth + 5, truth)}
        >>> whole = amstel.tracking.DatasetEvaluation("otb", scores, {"Ball": 1.0, "Cup": 1.0})
        >>> found = amstel.tracking.by_attribute(whole, {"ball": ["SV"], "cup": ["OCC", "SV"]})
        >>> {name: (len(group.sequences), round(group.auc, 3)) for name, group in found.items()}
        {'SV': (2, 0.702), 'OCC': (1, 0.452)}
    """
    if not isinstance(evaluation, DatasetEvaluation):
        _check.fail_type("evaluation", "a DatasetEvaluation, of `evaluate_dataset`", evaluation)
    own = attributes_of(evaluation.sequences, attributes)
    without = dict.fromkeys(evaluation.runs.get(name, name) for name, given in own.items() if not given)
    if without:
        warnings.warn(
            f"sequences without attributes, counted in none of their scores: {', '.join(without)}",
            stacklevel=2,
        )
    spelled: dict[str, str] = {}
    members: dict[str, dict[str, Evaluation]] = {}
    for sequence, given in own.items():
        for attribute in given:
            name = spelled.setdefault(attribute.casefold(), attribute)
            members.setdefault(name, {})[sequence] = evaluation.sequences[sequence]
    groups = {
        name: replace(
            evaluation,
            sequences=scores,
            seconds={n: s for n, s in evaluation.seconds.items() if n in scores},
            failed={},
            unscored=(),
        )
        for name, scores in members.items()
    }
    return dict(sorted(groups.items(), key=lambda item: -item[1].auc))


def attributes_of(
    names: Iterable[str], attributes: Mapping[str, Any] | str | os.PathLike
) -> dict[str, list[str]]:
    """The attributes of each of the sequences, none for those that `attributes` lacks. Args, errors: as `by_attribute`."""
    table, place = _table(attributes)
    small: dict[str, list[str]] = {}
    for name in table:
        small.setdefault(name.casefold(), []).append(name)
    found: dict[str, list[str]] = {}
    for name in names:
        same = [name] if name in table else small.get(name.casefold(), [])
        if len(same) > 1:
            raise ValueError(f"`attributes` must have one entry for {name}, got {' and '.join(same)}{place}")
        found[name] = _listed(table[same[0]], same[0], place) if same else []
    if not any(found.values()):
        raise ValueError(
            f"`attributes` must give attributes to a sequence that is evaluated ({_some(found)}), "
            f"got them for {_some(table) or 'none'}{place}"
        )
    return found


def _table(attributes: Any) -> tuple[Mapping[str, Any], str]:
    """The entries by sequence, and what an error says of where they are."""
    expected = 'a mapping {sequence: ["OCC", ...], ...}'
    place = ""
    if isinstance(attributes, (str, os.PathLike)):
        place = f" in {os.fspath(attributes)}"
        try:
            attributes = json.loads(Path(attributes).read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"`attributes` must be JSON, got something else{place}: {error}") from None
        if not isinstance(attributes, Mapping):
            raise ValueError(f"`attributes` must be {expected}, got {_check.describe(attributes)}{place}")
    if not isinstance(attributes, Mapping):
        _check.fail_type("attributes", f"{expected} or a JSON file", attributes)
    for name in attributes:
        if not isinstance(name, str):
            fail("attributes", f"{expected}, by names", name)
    return attributes, place


def _listed(entry: Any, name: str, place: str) -> list[str]:
    """The names in the entry of a sequence."""
    given = entry.get("attr") if isinstance(entry, Mapping) else entry
    if not isinstance(given, (list, tuple, set, frozenset)) or not all(
        isinstance(attribute, str) and attribute.strip() for attribute in given
    ):
        raise ValueError(
            f'`attributes` must give {name} a list of names, or {{"attr": such a list}}, '
            f"got {_check.describe(entry)}{place}"
        )
    return [attribute.strip() for attribute in given]


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
