"""The bundled weights: one safetensors file each, with a card that says how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from amstel import _files
from amstel._optional import need

FOLDER = Path(__file__).parent


def _safetensors(module: str) -> Any:
    return need(module, extra=("track", "restore"), purpose="amstel.weights")


def names() -> list[str]:
    """Names of the bundled weights."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def path(name: str) -> Path:
    """The file with the weights `name`. Raises a ValueError if there are none by that name."""
    file = FOLDER / f"{name}.safetensors"
    if name not in names():
        raise ValueError(f"`name` must be one of {', '.join(names())}, got {name!r}")
    return file


def load(name: str) -> dict[str, Tensor]:
    """The weights `name` as a state_dict. Needs safetensors, which is part of the extras [track] and [restore].

    Example:
        >>> amstel.nn.SINT().load_state_dict(amstel.weights.load("sint_light"))
        <All keys matched successfully>
    """
    return _safetensors("safetensors.torch").load_file(path(name))


def save(file: str | Path, state: Mapping[str, Tensor], said: Mapping[str, str]) -> None:
    """Write a state_dict in the format of this folder: contiguous tensors and metadata."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    module = _safetensors("safetensors.torch")
    with _files.replacing(file, argument="file") as temporary:
        module.save_file(tensors, temporary, dict(said))


def metadata(name: str) -> dict[str, str]:
    """The metadata of the file: format, recipe, seed, license."""
    with _safetensors("safetensors").safe_open(path(name), "pt") as file:
        return file.metadata()
