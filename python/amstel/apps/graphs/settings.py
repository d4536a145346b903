"""Settings for graph training, and the names they choose from.

Without torch, so that the command line can show the options immediately.
"""

from __future__ import annotations

from dataclasses import dataclass

from amstel.apps import checks

MODELS = ("gcn", "cheb2", "cheb3", "first_order", "single", "neighbors", "mlp")
#: A name from the last release.
OLD_MODELS = {"neighbours": "neighbors"}
SAMPLERS = ("none", "neighbor")
STOPPING = ("none", "kipf", "loss")
TASKS = ("node", "link", "graph")
LINK_MODELS = ("gae", "vgae")
GRAPH_MODELS = ("gcn", "mlp")
POOLS = ("mean", "sum", "max")
#: More hidden units than anyone trains, but few enough that sizes cannot overflow.
MOST_UNITS = 2**20
#: The sampler counts neighbors in 31 bits.
MOST_FANOUT = 2**31 - 2
#: More is a mistake, and their numbers alone would fill the memory.
MOST_SEEDS = 10**7


@dataclass(frozen=True)
class Settings:
    """Kipf & Welling's settings (section 5.2) for the citation graphs; `for_data` gives those for NELL.

    Attributes:
        hidden: units of the hidden layer.
        dropout: rate, on the inputs of both layers.
        weight_decay: L2 on the first layer: weight_decay * sum(W**2) / 2.
        learning_rate: of Adam.
        epochs: the maximum number of epochs.
        early_stopping: "none": all epochs; "kipf": from epoch 12 on, stop where the validation cost, L2
            included, is above the mean of the previous `patience` epochs, as his code does; "loss": the
            same rule on the cross-entropy alone. The weights that are tested are those of the last epoch.
        patience: see above.
        sampler: "none": every step sees the whole graph; "neighbor": a step sees a batch of training nodes and a sample of their
            neighbors, and an epoch covers all training nodes.
        fanouts: how many neighbors to sample one and two steps away from the batch; -1 takes all.
        batch_size: training nodes per batch.
    """

    hidden: int = 16
    dropout: float = 0.5
    weight_decay: float = 5e-4
    learning_rate: float = 0.01
    epochs: int = 200
    early_stopping: str = "none"
    patience: int = 10
    sampler: str = "none"
    fanouts: tuple[int, ...] = (15, 10)
    batch_size: int = 512

    def __post_init__(self) -> None:
        if not isinstance(self.early_stopping, str) or self.early_stopping not in STOPPING:
            checks.fail("early_stopping", f"one of {', '.join(STOPPING)}", self.early_stopping)
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            checks.fail("sampler", f"one of {', '.join(SAMPLERS)}", self.sampler)
        two = isinstance(self.fanouts, (tuple, list)) and len(self.fanouts) == 2
        if not two or any(type(f) is not int or f < -1 or f == 0 or f > MOST_FANOUT for f in self.fanouts):
            checks.fail("fanouts", "two integers, each >= 1 or -1 for all neighbors", self.fanouts)
        object.__setattr__(self, "fanouts", tuple(self.fanouts))
        checked = {
            "batch_size": checks.integer("batch_size", self.batch_size, 1),
            "hidden": checks.integer("hidden", self.hidden, 1, MOST_UNITS),
            "epochs": checks.integer("epochs", self.epochs, 1),
            "patience": checks.integer("patience", self.patience, 1),
            "dropout": checks.number("dropout", self.dropout, "in [0, 1)", below=1),
            "weight_decay": checks.number("weight_decay", self.weight_decay, "a finite number >= 0"),
            "learning_rate": checks.number("learning_rate", self.learning_rate, "a finite number >= 0"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def for_data(cls, name: str, **changes: object) -> Settings:
        """The paper's settings for a data set, with the given changes."""
        paper = {"hidden": 64, "dropout": 0.1, "weight_decay": 1e-5} if name.startswith("nell") else {}
        return cls(**{**paper, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class LinkSettings:
    """Kipf & Welling's settings for graph autoencoders, plus weight decay, which they do not use.

    Attributes:
        hidden, latent: units of the hidden layer, and of the embedding.
        dropout: rate, on the inputs of both layers.
        weight_decay: L2 on all weights: weight_decay * sum(W**2) / 2. The paper's is 0. The default was chosen on the
            validation links of Cora: among 0, 1e-4, 3e-4 and 1e-3, it has the highest mean AUC of VGAE over seeds 0-2.
        learning_rate: of Adam.
        epochs: how many; the weights that are tested are those of the last one.
    """

    hidden: int = 32
    latent: int = 16
    dropout: float = 0.0
    weight_decay: float = 3e-4
    learning_rate: float = 0.01
    epochs: int = 200

    def __post_init__(self) -> None:
        for name in ("hidden", "latent"):
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), 1, MOST_UNITS))
        _check_training(self)


@dataclass(frozen=True)
class GraphSettings:
    """Settings for graph classification.

    Attributes:
        hidden, layers: units of a layer, and number of layers.
        pool: "mean", "sum" or "max" over the nodes.
        dropout: rate, before the classifier.
        weight_decay: L2 on all weights: weight_decay * sum(W**2) / 2.
        learning_rate: of Adam.
        epochs: how many; the weights that are tested are those of the epoch with the best validation accuracy.
        batch_size: graphs per step.
    """

    hidden: int = 64
    layers: int = 3
    pool: str = "mean"
    dropout: float = 0.5
    weight_decay: float = 0.0
    learning_rate: float = 0.01
    epochs: int = 100
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not isinstance(self.pool, str) or self.pool not in POOLS:
            checks.fail("pool", f"one of {', '.join(POOLS)}", self.pool)
        for name, most in (("hidden", MOST_UNITS), ("layers", 1000), ("batch_size", 2**31 - 1)):
            object.__setattr__(self, name, checks.integer(name, getattr(self, name), 1, most))
        _check_training(self)


def _check_training(settings: LinkSettings | GraphSettings) -> None:
    """The checks that all kinds of training share."""
    checked = {
        "epochs": checks.integer("epochs", settings.epochs, 1),
        "dropout": checks.number("dropout", settings.dropout, "in [0, 1)", below=1),
        "weight_decay": checks.number("weight_decay", settings.weight_decay, "a finite number >= 0"),
        "learning_rate": checks.number("learning_rate", settings.learning_rate, "a finite number >= 0"),
    }
    for name, value in checked.items():
        object.__setattr__(settings, name, value)
