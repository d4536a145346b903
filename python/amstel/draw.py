"""Pictures of embeddings, from `amstel.media.points`."""

from typing import Any

from amstel.media.points import COLORS, raster, svg

__all__ = ["COLORS", "raster", "svg"]


def __getattr__(name: str) -> Any:
    if name == "COLOURS":
        import warnings

        warnings.warn("amstel.draw.COLOURS is now COLORS", DeprecationWarning, stacklevel=2)
        return COLORS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
