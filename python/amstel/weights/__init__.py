"""The bundled weights: one safetensors file each, with a card that says how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amstel import _check, _files
from amstel._optional import need

FOLDER = Path(__file__).parent


def _safetensors(module: str) -> Any:
    return need(module, extra=("track", "restore"), purpose="amstel.weights")


def names() -> list[str]:
    """Names of the bundled weights.

    Example:
        >>> amstel.weights.names()[-2:]
        ['rim_sr', 'sint_light']
    """
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def path(name: str) -> Path:
    """The file with the weights `name`. Raises a ValueError if there are none by that name.

    Example:
        >>> amstel.weights.path("sint_light").with_suffix(".md").read_text(encoding="utf-8").splitlines()[0]
        '# sint_light'
    """
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
    """Write a state_dict in the format of this folder, safetensors: contiguous tensors and metadata.

    Args:
        file: the file to write; it appears once it is complete.
        state: tensors by name, on any device. Tensors that share memory (tied weights) are each written separately.
        said: the metadata, strings by name.

    Raises:
        TypeError: `state` or `said` is not as described.
        ValueError: a tensor without values, or of a layout or a dtype that the format does not have; a name or text
            that UTF-8 cannot encode, or the name "__metadata__" of a tensor, which the format uses itself.
        FileNotFoundError: the folder to write in does not exist.
        ImportError: safetensors is missing.

    Example:
        >>> amstel.weights.save("mine.safetensors", torch.nn.Linear(3, 2).state_dict(), {"seed": "0"})
        >>> import safetensors.torch
        >>> {key: tuple(value.shape) for key, value in safetensors.torch.load_file("mine.safetensors").items()}
        {'bias': (2,), 'weight': (2, 3)}
    """
    for key, value in _check.mapping("state", state, "a state_dict, tensors by name").items():
        _check_key("state", key)
        if key == "__metadata__":
            _check.fail("state", "a dict without this key, which the format uses itself", key)
        if _check.dense(f"state[{key!r}]", value, "a tensor").is_meta:
            _check.fail(f"state[{key!r}]", "a tensor with values", value)
    for key, text in _check.mapping("said", said, "a dict of strings, by name").items():
        _check_key("said", key)
        if not isinstance(text, str):
            _check.fail_type(f"said[{key!r}]", "a string", text)
        _check_text(f"said[{key!r}]", "a string", text)
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in state.items()
    }
    module = _safetensors("safetensors.torch")
    with _files.replacing(file, argument="file") as temporary:
        try:
            module.save_file(tensors, temporary, dict(said))
        except KeyError as error:
            raise ValueError(f"`state` must have tensors of the dtypes of safetensors, got {error}") from None


def _check_key(argument: str, key: Any) -> None:
    if not isinstance(key, str):
        _check.fail_type(argument, "a dict whose keys are strings", key)
    _check_text(argument, "a dict whose keys are strings", key)


def _check_text(argument: str, expected: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _check.fail(argument, f"{expected} that UTF-8 can encode", text)


def metadata(name: str) -> dict[str, str]:
    """The metadata of the file: format, recipe, seed, license. Raises what `load` raises.

    Example:
        >>> said = amstel.weights.metadata("sint_light")
        >>> said["format"], said["epochs"], said["data"]
        ('amstel sint 1', '6', 'BSDS500: 360 of the 400 images of bsd300_train and bsds500_test, no tracking video')
    """
    with _safetensors("safetensors").safe_open(path(name), "pt") as file:
        said = file.metadata()
    if "licence" in said:  # in files of earlier releases
        said["license"] = said.pop("licence")
    return said
