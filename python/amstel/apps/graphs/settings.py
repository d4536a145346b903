"""Settings of node classification, and the names that they choose from.

Without torch, so that the command line can show the options of a training at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amstel.apps import checks

MODELS = ("gcn", "cheb2", "cheb3", "first_order", "single", "neighbors", "mlp")
#: A name of the last release.
OLD_MODELS = {"neighbours": "neighbors"}
STOPPING = ("none", "kipf", "loss")


@dataclass(frozen=True)
class Settings:
    """Kipf & Welling's settings (section 5.2) for the citation graphs; `for_data` gives those of NELL.

    Attributes:
        hidden: units of the hidden layer.
        dropout: rate, on the inputs of both layers.
        weight_decay: L2 on the first layer: weight_decay * sum(W**2) / 2.
        learning_rate: of Adam.
        epochs: the most epochs.
        early_stopping: "none": all epochs; "kipf": from epoch 12 on, stop where the validation cost, L2
            included, is above the mean of the `patience` epochs before it, as his code does; "loss": the
            same rule on the cross-entropy alone. The weights tested are those of the last epoch.
        patience: see above.
    """

    hidden: int = 16
    dropout: float = 0.5
    weight_decay: float = 5e-4
    learning_rate: float = 0.01
    epochs: int = 200
    early_stopping: str = "none"
    patience: int = 10

    def __post_init__(self) -> None:
        if self.early_stopping not in STOPPING:
            checks.fail("early_stopping", f"one of {', '.join(STOPPING)}", self.early_stopping)
        for name in ("hidden", "epochs", "patience"):
            if getattr(self, name) < 1:
                checks.fail(name, "an integer >= 1", getattr(self, name))
        if not 0 <= self.dropout < 1:
            checks.fail("dropout", "in [0, 1)", self.dropout)
        for name in ("weight_decay", "learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                checks.fail(name, "a finite number >= 0", getattr(self, name))

    @classmethod
    def for_data(cls, name: str, **changes: object) -> Settings:
        """The paper's settings for a data set, with some changed."""
        paper = {"hidden": 64, "dropout": 0.1, "weight_decay": 1e-5} if name.startswith("nell") else {}
        return cls(**{**paper, **changes})  # type: ignore[arg-type]
