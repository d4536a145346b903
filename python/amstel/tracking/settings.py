"""How SINT's tracker searches."""

from __future__ import annotations

import functools
import math
import numbers
import warnings
from dataclasses import dataclass
from typing import Any

from amstel import _check
from amstel._check import fail
from amstel.tracking.candidates import RADIUS, SCALES


@dataclass(frozen=True)
class Settings:
    """How `SINTTracker` searches.

    Attributes:
        object_size: the network sees a window around the last box, resized so that the first box has the area of a
            square with this side in pixels; None: the whole frame at 512x512, as in the paper.
        margin: pixels of the resized window beyond the candidates. With the network's `receptive_field`, the maps
            would equal those of the whole frame; a smaller margin works as well.
        threads: CPU threads while tracking; None: torch's. A window is so small that a second thread gains nothing.
            It waits for the first at every layer, and if another process is busy, it waits many times longer than it
            works.
        scales: of the candidates, relative to the size of the search, which starts as that of the first box.
        scale_rate: how far the size of the search moves from the last one to that of the best candidate, on a logarithmic
            scale, between a fifth and five times the size of the first box; the window and its zoom follow. 0: constant, as
            in the paper. (0.15 follows targets that grow or shrink, but drifts away from others more often.)
        adapt: weight of the target's recent appearance in the query; the rest is the first box. Candidates are verified
            against the first box alone (`redetect`), and nothing is learned from frames in which this fails. 0: as in the
            paper.
        adapt_rate: how far the recent appearance moves toward each new box.
        near: how much more similar a candidate at the border of the search must be than one at its center, growing with
            the square of the distance. 0: as in the paper.
        alpha: of the ridge regression of boxes.
        radius: of the search around the last box, as a fraction of the frame's width; 30/512 in the paper.
        longest_side: images with a longer side are shrunk to this before they go through the network.
        refine: stages of a finer search around the best candidate. Each halves the spacing of positions and the step of the
            scale, so the circles can be sparse far from the last box. 0: one stage. (More stages find more accurate boxes,
            but also wrong ones more often.)
        redetect: default for `SINTTracker`.
        search_gap: while the target is lost and a search of the whole frame finds nothing, the next search comes 1, 2, 4, ...
            frames later, up to this many. 1: in every frame. (If the appearance has changed for good, the similarity stays
            below the threshold for hundreds of frames, and a frame takes five times as long with a search.)
        size_rate: how far the reported width and height move from the last ones to those found now, on a logarithmic
            scale; 1: all the way, as in the paper. Sizes found in single frames vary by a tenth or more. This does not
            affect the search.
        normalize: whether the regression gets features of norm 1, so that `alpha` does not depend on their scale; False:
            unchanged, as in the paper.

    Raises:
        ValueError or TypeError: a setting is not as described.

    Example:
        >>> settings = amstel.tracking.Settings(adapt=0.0, radius=60 / 512)  # faster targets, whose look stays
        >>> amstel.tracking.SINTTracker(settings=settings).settings.radius * 320  # pixels of a frame of 320
        37.5
    """

    object_size: float | None = 64.0
    margin: int = 24
    threads: int | None = 1
    scales: tuple[float, ...] = SCALES
    alpha: float = 1.0
    normalize: bool = True
    radius: float = 45 / 512
    longest_side: int = 512
    refine: int = 0
    redetect: bool = True
    search_gap: int = 4
    size_rate: float = 0.15
    scale_rate: float = 0.0
    adapt: float = 0.4
    adapt_rate: float = 0.05
    near: float = 0.2

    def __post_init__(self) -> None:
        for name in ("object_size", "margin", "alpha", "radius", "near"):
            value = getattr(self, name)
            least = 0 if name in ("margin", "radius", "near") else 1e-9
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not (name == "object_size" and value is None) and not (number and least <= value < math.inf):
                fail(name, "a finite number > 0 (margin, radius and near may be 0)", value)
        for name, least in (("threads", 1), ("longest_side", 64), ("refine", 0), ("search_gap", 1)):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not (name == "threads" and value is None) and (not whole or value < least):
                fail(name, f"an integer >= {least}{' or None' if name == 'threads' else ''}", value)
        if self.object_size is not None and self.longest_side <= 2 * self.margin:
            fail("longest_side", f"more than the two margins, {2 * self.margin}", self.longest_side)
        for name in ("size_rate", "scale_rate", "adapt", "adapt_rate"):
            rate = getattr(self, name)
            number = isinstance(rate, numbers.Real) and not isinstance(rate, bool)
            if not number or not 0 <= rate <= 1 or (name == "size_rate" and rate == 0):
                fail(name, "a number from 0 to 1 (size_rate above 0)", rate)
        object.__setattr__(self, "redetect", _check.flag("redetect", self.redetect))
        several = "one or more finite numbers > 0"
        if isinstance(self.scales, str) or not hasattr(self.scales, "__iter__"):
            _check.fail_type("scales", several, self.scales)
        scales = tuple(float(_check.number("scales", scale, several, above=0)) for scale in self.scales)
        if not scales:
            fail("scales", several, self.scales)
        object.__setattr__(self, "scales", scales)

    @classmethod
    def paper(cls) -> Settings:
        """The settings of the paper, with the constants of the authors' code.

        Example:
            >>> paper = amstel.tracking.Settings.paper()
            >>> paper.object_size, paper.redetect, paper.adapt  # the whole frame, no search for what is lost
            (None, False, 0.0)
        """
        return cls(
            object_size=None,
            margin=0,
            threads=None,
            normalize=False,
            radius=RADIUS,
            longest_side=1024,
            refine=0,
            redetect=False,
            search_gap=1,
            size_rate=1.0,
            scale_rate=0.0,
            adapt=0.0,
            near=0.0,
        )

    @property
    def normalise(self) -> bool:
        """`normalize`, as the last release had it."""
        _renamed()
        return self.normalize


def _renamed() -> None:
    warnings.warn("Settings.normalise is now Settings.normalize", DeprecationWarning, stacklevel=3)


def _takes_old_name(init: Any) -> Any:
    @functools.wraps(init)
    def wrapped(self: Settings, *args: Any, **options: Any) -> None:
        if "normalise" in options:
            _renamed()
            options["normalize"] = options.pop("normalise")
        init(self, *args, **options)

    return wrapped


Settings.__init__ = _takes_old_name(Settings.__init__)  # type: ignore[method-assign]
