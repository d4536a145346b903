"""Colors as a viewer shows them: the conversion of a picture's ICC profile to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from amstel._optional import need

#: Levels of 255 by which a profile may differ from sRGB and still be taken for it, so that rounding changes nothing.
_SAME = 2


def of(image: Any) -> bytes | None:
    """The ICC profile of the current page or frame of a Pillow image.

    Example:
        >>> from PIL import Image
        >>> amstel.media.profiles.of(Image.new("RGB", (2, 2))) is None
        True
    """
    tags = getattr(image, "tag_v2", None)
    return image.info.get("icc_profile") if tags is None else tags.get(34675)


def in_srgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """sRGB colors of uint8 [H, W, 3], or [H, W, 4] with alpha, from a profile for RGB or, if the channels are equal, for
    gray; unchanged if the profile is neither, or damaged.

    Example:
        >>> red = np.array([[[255, 0, 0]]], np.uint8)
        >>> amstel.media.profiles.in_srgb(red, None)
        array([[[255,   0,   0]]], dtype=uint8)
    """
    if not profile:
        return pixels
    if pixels.shape[-1] == 4:
        return np.concatenate([in_srgb(pixels[..., :3], profile), pixels[..., 3:]], -1)
    if convert := _converter(profile, "RGB"):
        return convert(pixels)
    convert = _converter(profile, "L")
    alike = convert is not None and (pixels == pixels[..., :1]).all()
    return convert(np.ascontiguousarray(pixels[..., 0])) if convert and alike else pixels


def of_cmyk(image: Any) -> np.ndarray | None:
    """A CMYK image of Pillow, converted by its profile: uint8 [H, W, 3]; None for other modes, or without a usable profile.

    Example:
        >>> from PIL import Image
        >>> amstel.media.profiles.of_cmyk(Image.new("CMYK", (2, 2))) is None
        True
    """
    profile = image.info.get("icc_profile")
    convert = _converter(profile, "CMYK") if profile and image.mode == "CMYK" else None
    return convert(np.asarray(image)) if convert else None


@lru_cache(16)
def _converter(profile: bytes, mode: str) -> Any:
    """A function of the pixels, or None where the profile is of another kind of pixels, damaged, or about sRGB itself."""
    image, cms = (
        need(f"PIL.{part}", extra=("video", "restore"), purpose="colors by an ICC profile")
        for part in ("Image", "ImageCms")
    )
    try:
        given = cms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        transform = cms.buildTransform(given, cms.createProfile("sRGB"), mode, "RGB")
    except (cms.PyCMSError, OSError):
        return None

    def convert(pixels: np.ndarray) -> np.ndarray:
        return np.array(cms.applyTransform(image.fromarray(pixels, mode), transform))

    levels = np.linspace(0, 255, 18 if mode == "RGB" else 256).round().astype(np.uint8)
    if mode == "RGB":
        some = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    elif mode == "L":
        some = levels[None]
    else:
        return convert
    shown = convert(some).astype(int)
    return convert if abs(shown - (some if mode == "RGB" else some[..., None])).max() > _SAME else None
