"""Pictures that Pillow misreads, cuts to 8 bits or cannot open: their samples, unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amstel._optional import need
from amstel.media import pictures, stacks


def kind(path: Path) -> str | None:
    """ "tiff" or "picture" for such a file, else None."""
    try:
        with path.open("rb") as file:
            tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        with need("PIL.Image", extra=("video", "restore"), purpose="amstel.media.images").open(path) as image:
            if tiff:
                pages = range(getattr(image, "n_frames", 1))
                if len(pages) == 1 < stacks.announced(image.tag_v2.get(270)):
                    return "tiff"  # a stack of which Pillow knows the first image
                return "tiff" if any(image.seek(page) or _mistaken(image.tag_v2) for page in pages) else None
            mode, raw = image.mode, image.tile[0][3] if image.tile else ""
            deep = image.format == "PNG" and ";16" in str(raw) and getattr(image, "n_frames", 1) == 1
            deep |= image.format == "PPM" and mode == "RGB" and isinstance(raw, tuple) and raw[1] > 255
            return (
                "picture"
                if deep or (image.format == "JPEG2000" and mode in ("L", "LA", "RGB", "RGBA"))
                else None
            )
    except OSError:  # Pillow's error for a file that it cannot open is one too
        return "tiff" if path.is_file() and tiff else None
    except Exception:  # a file that was cut; reading it says so
        return None


def _mistaken(tags: Any) -> bool:
    """Whether Pillow halves color of 16 bits, mixes up its planes, takes white for black or a sign for a value, or mixes up
    the bytes of floating point."""
    bits, samples, kinds = max(tags.get(258, (1,))), tags.get(277, 1), tags.get(339, (1,))
    if samples == 2 and tags.get(284) == 2:  # gray and alpha, of which it knows no planes
        return True
    return bool((2 in kinds and bits == 8) or 3 in kinds) or (
        bits == 16 and (samples > 1 or tags.get(262) == 0)
    )


Page = tuple[np.ndarray, bytes | None]


def pages(path: Path, kind: str) -> Iterator[Page]:
    """The picture, or the pages of a TIFF as tifffile reads them: upright samples [H, W] or [H, W, C], and ICC profiles."""
    if kind == "picture":
        return _picture(path)
    return _tiff(path, need("tifffile", extra="video", purpose="TIFF of this kind"))


def _picture(path: Path) -> Iterator[Page]:
    data, orientation, about = pictures.by_pillow(path, False)
    yield pictures.upright(data, orientation), about.get("icc_profile")


def _tiff(path: Path, tifffile: Any) -> Iterator[Page]:
    with tifffile.TiffFile(path) as file:
        whole = pictures.whole_pages(file)
        for page in whole:
            if page.dtype is not None and page.dtype.kind == "i":
                raise ValueError(f"{8 * page.dtype.itemsize} bits with a sign, whose white level is unknown")
            if page.photometric not in (0, 1, 2) or page.dtype is None or page.dtype.kind not in "uf":
                raise ValueError(f"a page of {page.dtype} and photometric {page.photometric}")
            for number in range(stacks.count(whole) // len(whole)):
                data = pictures.upright(pictures.samples(page, number), int(page.tags.valueof(274, 1)))
                yield data, page.tags.valueof(34675)


def count(path: Path, kind: str) -> tuple[int, int]:
    """Pages of a TIFF that are no small copies of others, and how many ImageJ announces; a picture is one."""
    if kind == "picture":
        return 1, 0
    with need("tifffile", extra="video", purpose="TIFF of this kind").TiffFile(path) as file:
        pages = pictures.whole_pages(file)
        return stacks.count(pages), stacks.announced(pages[0].tags.valueof(270))
