"""A labeled video."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(repr=False, eq=False)
class Clip:
    """One labeled video.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB.
        label: index of its class.
        name: what to call it.
        boxes: float32 [T, 4], x1, y1, x2, y2 in pixels, NaN in frames without a box; None if no boxes are known.
        tubes: the boxes of every actor, float32 [A, T, 4]; `boxes` is the first of them. None if none are known.

    Example:
        >>> clip = amstel.data.Clip(torch.zeros(8, 32, 48, 3, dtype=torch.uint8), label=2, name="jump")
        >>> clip.frames.shape, clip.boxes
        (torch.Size([8, 32, 48, 3]), None)
    """

    frames: Tensor
    label: int
    name: str
    boxes: Tensor | None = None
    tubes: Tensor | None = None

    def __post_init__(self) -> None:
        if self.tubes is None and self.boxes is not None:
            self.tubes = self.boxes[None]

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        boxes = "" if self.boxes is None else ", boxes"
        return f"Clip({self.name}, label={self.label}, frames={list(self.frames.shape)}{boxes})"
