"""What the experiments on video share: generated clips, a small network for them, and where the real clips are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amstel.apps.video.settings import Settings

Say = Callable[[str], None]
#: A colored shape among two gray ones, of which each rests or goes its own way.
AMONG: dict[str, Any] = {"frames": 6, "size": 32, "distractors": 2, "speed": (2.0, 4.0), "noise": 0.02}


def root_of(root: Path | None, name: str) -> Path:
    if root is None and "AMSTEL_DATA" not in os.environ:
        raise ValueError("give --root, the folder of the real clips, or set AMSTEL_DATA")
    return (Path(os.environ["AMSTEL_DATA"]) / "video" if root is None else root) / name


def small(model: str, **changes: Any) -> Settings:
    """For generated clips of 32x32 pixels: maps of 8x8."""
    common = {"frame_size": 32, "channels": (16, 32), "hidden": 16, "steps": 6, "epochs": 30}
    return Settings.from_scratch(
        model=model,
        motion="difference",
        learning_rate=3e-3,
        dropout=0.2,
        shift=2,
        brightness=0.1,
        **{**common, **changes},
    )
