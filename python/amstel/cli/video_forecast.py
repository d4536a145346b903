"""`amstel video forecast`: the next frames of bouncing digits."""

from __future__ import annotations

import dataclasses
from typing import Any

from amstel._words import counted
from amstel.apps.video import settings as names
from amstel.cli import _values as values
from amstel.cli._command import Common, command
from amstel.cli._family import Force, Out, Resume, new, restartable
from amstel.cli._video import app

_OPTIONS: dict[str, Any] = {
    "size": {"parser": values.integer(16), "help": "side of a frame, in pixels"},
    "digits": {"parser": values.positive, "help": "digits per sequence"},
    "given": {"parser": values.positive, "help": "frames to forecast from"},
    "steps": {"parser": values.positive, "help": "frames to forecast"},
    "hidden": {"parser": values.positive, "help": "hidden channels"},
    "layers": {"parser": values.positive, "help": "layers in the encoder and in the forecaster"},
    "patch": {"parser": values.positive, "help": "frames are cut into squares of X pixels"},
    "iterations": {"parser": values.positive, "help": "batches to train on"},
    "batch": {"parser": values.positive, "help": "sequences per batch"},
    "learning_rate": {"parser": values.number(0), "help": "learning rate"},
}


@command(app, "forecast", settings=names.ForecastSettings(), own=_OPTIONS)
@restartable
def forecast(
    out: Out,
    resume: Resume = False,
    force: Force = False,
    *,
    given: dict[str, Any],
    common: Common,
) -> int:
    """Learn to forecast bouncing digits, and draw the result."""
    from amstel import _files
    from amstel.apps import ranks as processes
    from amstel.apps import training
    from amstel.apps.video import forecast

    if common.seed is not None:
        given["seed"] = common.seed
    checkpoint, picture, record = out / training.CHECKPOINT, out / "forecast.png", out / "forecast.json"
    complete = False
    if resume:
        if given.keys() - {"iterations"} and not common.restarted:
            raise ValueError("--resume keeps the settings of the checkpoint: only change --iterations")
        _, kept, state = forecast.read(checkpoint)
        settings = dataclasses.replace(kept, **given)
        complete = state["training"]["step"] == settings.iterations
    else:
        new([checkpoint, picture, record], force)
        settings = names.ForecastSettings(**given)
    total = 2 * settings.iterations * settings.batch
    ranks = processes.current(common.device)
    with common.progress(total if ranks.first else 0, "sequences") as update:
        found = forecast.train(
            settings, out=out, resume=resume, force=force, device=ranks.device, progress=update
        )
    if not ranks.first:
        return 0
    errors = forecast.evaluate(found)
    forecast.strip(found, picture)
    mean = {name: sum(each) / len(each) for name, each in errors.items()}
    result = {
        "settings": dataclasses.asdict(found.settings),
        "loss": [entry["loss"] for entry in found.history],
        "mean_squared_error": mean,
        "of_each_frame": errors,
    }
    _files.write_json(record, result)
    common.write_json(result)
    for name, error in mean.items():
        common.say(f"{name:17s} mean squared error {error:.4f}, in the last frame {errors[name][-1]:.4f}")
    if complete:  # the CNN beside it has no checkpoint and is trained again
        common.say(f"the run was already complete, at {counted(settings.iterations, 'batch')}")
        common.say(f"wrote {picture} and {record}")
    else:
        common.say(f"wrote {picture}, {checkpoint} and {record}")
    return 0
