"""Drop-in replacements for modules of other libraries, and converters for their weights."""

from importlib import import_module
from typing import Any

#: Imported when they are first named, as some need the library that they serve.
__all__ = [
    "conv_lstm",
    "convolutional_rnn",
    "deepinv",
    "dgl",
    "got10k",
    "keras",
    "ndrplz",
    "openstl",
    "pyg",
    "pysot",
    "pytracking",
    "rim",
    "torchvision",
    "vot",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
