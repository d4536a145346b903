"""The old place of image restoration, until 0.1: see `amstel.restore` and `amstel.apps.restoration`. The next release removes it."""

from typing import Any

from amstel import _moved
from amstel.inverse.restore import restore as restore

_moved.modules(
    __name__,
    {
        "demonstration": ("amstel.apps.restoration.demo",),
        "evaluation": ("amstel.apps.restoration.evaluate",),
        "files": ("amstel.apps.restoration.files",),
        "restoring": ("amstel.inverse.restore",),
    },
)


def __getattr__(name: str) -> Any:
    if name == "Picture":
        import warnings

        from amstel.apps.restoration.files import Picture

        said = "amstel.restoration.Picture is now amstel.apps.restoration.files.Picture"
        warnings.warn(said, DeprecationWarning, stacklevel=2)
        return Picture
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
