"""Track objects from their first boxes, and score the tracks."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from amstel.tracking.attributes import by_attribute
from amstel.tracking.dataset import DatasetEvaluation, evaluate_dataset
from amstel.tracking.evaluation import Evaluation, evaluate, overlap
from amstel.tracking.files import read_boxes, write_boxes
from amstel.tracking.overlaps import AverageOverlap, average_overlap
from amstel.tracking.plots import plot, plot_attributes
from amstel.tracking.robustness import PerturbedSequence, perturbed
from amstel.tracking.synthetic import generate_sequence
from amstel.tracking.vot import ExpectedOverlap, expected_overlap

if TYPE_CHECKING:
    from amstel.tracking.multi import MultiTracker
    from amstel.tracking.settings import Settings
    from amstel.tracking.tracker import SINTTracker

# The tracker brings the models with it, which reading and scoring boxes does not need.
_LAZY = {
    "MultiTracker": "amstel.tracking.multi",
    "SINTTracker": "amstel.tracking.tracker",
    "Settings": "amstel.tracking.settings",
}

__all__ = [
    "AverageOverlap",
    "DatasetEvaluation",
    "Evaluation",
    "ExpectedOverlap",
    "MultiTracker",
    "PerturbedSequence",
    "SINTTracker",
    "Settings",
    "average_overlap",
    "by_attribute",
    "evaluate",
    "evaluate_dataset",
    "expected_overlap",
    "generate_sequence",
    "overlap",
    "perturbed",
    "plot",
    "plot_attributes",
    "read_boxes",
    "write_boxes",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
