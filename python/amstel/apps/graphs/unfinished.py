"""The state from which a chunk of seeds resumes, shared by full-batch and sampled training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from amstel.apps.graphs.problem import _EarlyStopping, _Problem
from amstel.apps.task import Task


class Resumable(Task):
    """A training of some seeds on a problem.

    Attributes:
        steps: of an epoch.
        losses: a tensor for every epoch so far.
    """

    problem: _Problem
    seeds: list[int]
    stopping: _EarlyStopping
    losses: list[Tensor]
    steps = 1

    def header(self, step: int) -> dict[str, Any]:
        own = {k: v for k, v in vars(self.stopping).items() if k in ("epochs", "running", "costs")}
        kept = None if self.stopping.rule == "none" else list(self.stopping.kept)
        return {
            "what": repr(self.seeds),
            "of": self._of(),
            "losses": self.losses,
            "stopping": own,
            "kept": kept,
        }

    def _of(self) -> str:
        p = self.problem
        return repr((*p.of, p.features.shape[1], p.outputs, p.totals, p.settings))

    def restored(self, state: dict[str, Any]) -> dict[str, Any] | None:
        """Continue from what `header` and the engine saved; None if that was another chunk.

        Raises:
            ValueError: the saved run has another model, data set or settings, and would be overwritten.
        """
        if state.get("of", self._of()) != self._of():
            raise ValueError(
                f"the unfinished run is of {state['of']} and cannot continue with {self._of()}; "
                "`force` starts over"
            )
        if state.get("what") != repr(self.seeds):
            return None
        device = self.problem.device
        self.model.load_state_dict(state["model"])
        self.losses = [loss.to(device) for loss in state["losses"]]
        for name, value in state["stopping"].items():
            there = [v.to(device) for v in value] if isinstance(value, list) else value.to(device)
            setattr(self.stopping, name, there)
        for kept, saved in zip(self.stopping.kept, state["kept"] or (), strict=False):
            kept.copy_(saved)
        return state
