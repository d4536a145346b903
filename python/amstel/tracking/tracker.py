"""SINT's tracker: it finds the target of the first frame in every later one, with a matching function learned beforehand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from amstel._check import fail, fail_type, flag
from amstel.media.boxes import iou_xywh as overlap
from amstel.media.flow import flow as optical_flow
from amstel.tracking._given import copied, target, threads
from amstel.tracking.candidates import (
    ANGLES,
    STEP,
    BoxRegression,
    around,
    candidates,
    circles,
    regression_samples,
    targets,
)
from amstel.tracking.frames import Frames, of_one_size
from amstel.tracking.settings import Settings
from amstel.tracking.view import View, Views, Window

#: Side of the square to which the whole frame is resized where there is no window (the paper's).
FRAME_SIZE = 512


class SINTTracker:
    """Tracks one object from its box in the first frame.

    The descriptor of that box is the query. In every frame, the network describes the candidates around the last box,
    and the candidate with the largest inner product with the query wins. The search also mixes into the query what the
    target has looked like lately, and prefers candidates near the last box; the first box alone decides whether the
    target is lost (see `Settings`; in the paper's preset nothing is learned from later frames). Ridge regression, fitted
    on the first frame, refines the reported box; the search continues from the unrefined candidate. Only a window around
    the last box goes through the network.

    Args:
        model: an `amstel.nn.SINT`, or any module with its `features`, `describe`, `match`, `spatial_scales` and
            `output_size`; None: the bundled light network. It is put into evaluation mode, and runs on the device of
            its parameters.
        plus: SINT+. Of the 5 best candidates, only those count that contain more than 25 % of the last box's pixels
            after they are moved by the optical flow between the two frames (DIS; needs opencv). If there are none,
            all 5 count.
        redetect: default: that of the settings, which is True except for the paper's. If the similarity falls below a
            threshold, the target may be hidden or elsewhere, and the whole frame is searched at all scales. If
            something reaches the threshold, the search continues from there; otherwise it continues as before, and
            `lost` is True. The threshold lies halfway between the most similar background in the first frame (boxes
            anywhere that do not touch the target's) and the usual similarity of the target (its mean over the last 20
            frames in which it was not lost). While nothing is found, searches are up to `Settings.search_gap` frames
            apart.
        settings: how to search; default: those of `preset`.
        preset: "default" is `Settings()`, the best measured; "paper" is `Settings.paper()`: the whole frame at
            512x512 and the constants of the authors' code. None: "paper" for the VGG-16 network, else "default".

    Attributes:
        similarity: similarity of the last candidate to the query: the mean cosine over the layers, 1 for the query
            itself.
        lost: with `redetect`, whether the similarity is below the threshold and nothing else in the frame reaches it.

    Images are PIL images, files, or uint8 arrays [H, W, 3] (or [H, W], gray), all of one size. Boxes are x, y, w, h
    in pixels, with a 0-based top left corner. Every reported box is finite, has a positive size, and comes from a
    candidate whose center is inside the frame; parts of it may lie outside. The same frames give bit-identical boxes
    for any number of threads (with `Settings.threads`).

    Raises:
        ValueError: an unknown `preset`, or one together with `settings`; in `init`, a box that is not four finite
            numbers, has no positive size, does not touch the frame, or is more than twice as wide or high as the
            frame; in `update`, a frame of a different size, or `init` was not called; an image that cannot be read.
        TypeError: an image of an unsupported type.
        ImportError: `plus` without opencv.

    Complexity per frame: the network on a window of about (64 + 2 margin + 2 reach)² pixels, at most 512 x 512, where
    reach is 45/512 of the frame's width at the window's scale; and 273 to 543 candidates, for a width of 320 to 640, that
    are pooled and matched, with 51 more for each stage of `Settings.refine`.

    Source: R. Tao, E. Gavves, A. W. M. Smeulders, Siamese Instance Search for Tracking, CVPR 2016 (arXiv 1605.05863),
    sections 3.3 (the tracker) and 4 (re-identification), and the authors' code (constants). The window, the finer
    search, the tracking of the size, the normalized regression features and the threshold rule are ours.

    Example:
        >>> tracker = amstel.tracking.SINTTracker()
        >>> boxes = tracker.track("clip.mp4", [20, 24, 20, 20])
        >>> boxes.shape, boxes[1].round().tolist()
        ((8, 4), [21.0, 24.0, 20.0, 20.0])
        >>> first, second, *_ = amstel.video.Frames("clip.mp4")
        >>> tracker.init(first, [20, 24, 20, 20])  # the same, frame by frame
        >>> bool((tracker.update(second) == boxes[1]).all())
        True
    """

    def __init__(
        self,
        model: Any = None,
        plus: bool = False,
        redetect: bool | None = None,
        *,
        settings: Settings | None = None,
        preset: str | None = None,
    ):
        if model is None:
            from amstel.nn import SINT

            model = SINT.pretrained()
        if not isinstance(model, torch.nn.Module):
            fail_type("model", "an amstel.nn.SINT, a module like it, or None", model)
        if settings is not None and not isinstance(settings, Settings):
            fail_type("settings", "Settings or None", settings)
        self.model = model.eval()
        if preset not in (None, "default", "paper") or (preset is not None and settings is not None):
            fail("preset", '"default" or "paper", and None beside `settings`', preset)
        if settings is None:
            paper = preset == "paper" or (preset is None and getattr(model, "fc6", None) is not None)
            settings = Settings.paper() if paper else Settings()
        self.plus, self.settings = flag("plus", plus), settings
        self.redetect = settings.redetect if redetect is None else flag("redetect", redetect)
        self.similarity, self.lost = 1.0, False
        self._box: Tensor | None = None

    @torch.inference_mode()
    def init(self, image: Any, box: Any) -> None:
        """Start with a frame and the box of the target in it."""
        with threads(self.settings.threads):
            frame = copied("image", image)
            first = target(box, frame)
            self._place(frame, first)
            self._plan(self._zoom())
            self._begin(Views(self.model, frame))

    def _place(self, frame: np.ndarray, first: Tensor) -> None:
        """Where it begins."""
        self._frame, self._first, self._box = frame, first, first
        self._size, self._ratio = first[2:], 1.0

    def _begin(self, views: Views) -> None:
        self.similarity, self.lost = 1.0, False
        view = self._look(views)
        self._query = self._sought_query = self._recent = self._described(view, self._first)
        samples = regression_samples(self._first)
        self._regression = BoxRegression.fit(
            self._pool(view, samples), targets(samples, self._first), self.settings.alpha
        )
        # The target's usual similarity is not known before the second frame.
        self._usual, self._seen = 0.0, 0
        self._gap, self._pause = 1, 0
        if self.redetect:
            boxes, similarity = self._search_everywhere(views)
            apart = overlap(boxes, self._first) == 0
            self._background = max(similarity[apart].tolist(), default=0.0)

    @torch.inference_mode()
    def update(self, image: Any) -> np.ndarray:
        """The box in the next frame: float64 [4]."""
        with threads(self.settings.threads):
            frame = self._same_size(image)
            self._plan(self._zoom())
            return self._next(Views(self.model, frame))

    def _same_size(self, image: Any) -> np.ndarray:
        """The next frame, checked against the first one."""
        if self._box is None:
            raise ValueError("`init` must be called with the first frame and box before `update`")
        frame = copied("image", image)
        if frame.shape != self._frame.shape:
            was, now = (f"{f.shape[1]}x{f.shape[0]}" for f in (self._frame, frame))
            raise ValueError(f"`image` must be {was} as the first frame, got {now}")
        return frame

    def _next(self, views: Views) -> np.ndarray:
        before, self._frame = self._frame, views.frame
        view = self._look(views)
        box, similarity = self._search(view, before)
        stayed = True
        if self.redetect:
            threshold = (self._background + (self._usual if self._seen else similarity)) / 2
            if similarity < threshold and self._pause:
                self._pause -= 1
            elif similarity < threshold:
                self._pause, self._gap = self._gap - 1, min(2 * self._gap, self.settings.search_gap)
                boxes, everywhere = self._search_everywhere(views)
                best = int(everywhere.argmax())
                if everywhere[best] >= threshold:
                    last = self._ratio
                    self._box, self._ratio = boxes[best], (boxes[best, 2] / self._first[2]).item()
                    self._plan(self._zoom())
                    there = self._look(views)
                    found, again = self._search(there)
                    if again > similarity:
                        view, box, similarity, stayed = there, found, again, False
                    else:
                        self._ratio = last
            self.lost = similarity < threshold
            if not self.lost:
                self._gap, self._pause = 1, 0
                self._seen = min(self._seen + 1, 20)
                self._usual += (similarity - self._usual) / self._seen
        if self.settings.adapt and stayed and not self.lost:
            self._learn(view, box)
        if rate := self.settings.scale_rate:
            grown = (box[2] / self._first[2]).item()
            self._ratio = min(max(self._ratio ** (1 - rate) * grown**rate, 0.2), 5.0)
        self._box, self.similarity = box, similarity
        return self._steady(self._regression(box[None], self._pool(view, box[None]))[0]).numpy()

    def _described(self, view: View, box: Tensor) -> Tensor:
        """The description of a box, so that its inner product with the box's own is 1."""
        query = view.describe(box[None])[0]
        return query / query.square().sum().clamp(min=1e-12)

    def _learn(self, view: View, box: Tensor) -> None:
        """What the target looks like now, for the search in the next frame."""
        share, rate = self.settings.adapt, self.settings.adapt_rate
        self._recent = torch.lerp(self._recent, self._described(view, box), rate)
        self._sought_query = torch.lerp(self._query, self._recent, share)

    def _steady(self, box: Tensor) -> Tensor:
        """The box with a size that changes little from frame to frame, and not while the target is lost."""
        if self.settings.size_rate == 1:
            return box
        if not self.lost:
            self._size = self._size * (box[2:] / self._size) ** self.settings.size_rate
        return torch.cat([box[:2] + (box[2:] - self._size) / 2, self._size])

    def track(self, frames: Any, box: Any) -> np.ndarray:
        """All boxes of a video, starting with the given one: float64 [T, 4].

        Args:
            frames: a video file, a folder of images, or an iterable of images; read one by one.
            box: x, y, w, h in the first of them.

        Raises:
            ValueError: there is no frame; the others as above.
        """
        boxes: list[np.ndarray] = []
        for image in of_one_size(Frames(frames)):
            if not boxes:
                self.init(image, box)
                boxes.append(target(box, image).numpy())
            else:
                boxes.append(self.update(image))
        if not boxes:
            raise ValueError("`frames` must hold at least one frame, got none")
        return np.stack(boxes)

    @property
    def _cell(self) -> int:
        """Pixels a cell of the coarsest map."""
        return round(1 / min(self.model.spatial_scales))  # type: ignore[arg-type]

    def _sought(self) -> Tensor:
        """Width and height that are looked for."""
        return self._first[2:] * (self._ratio if self.settings.scale_rate else 1)

    def _inner(self) -> Tensor:
        """Width and height of what the candidates cover."""
        reach = torch.tensor(self._frame.shape[1] * self.settings.radius, dtype=torch.float64)
        return self._sought() * max(self.settings.scales) + 2 * reach

    def _zoom(self) -> float:
        """How much to enlarge the window; 0: there is none."""
        if self.settings.object_size is None:
            return 0.0
        most = (self.settings.longest_side - 2 * self.settings.margin) / self._inner().max().item()
        zoom = min(self.settings.object_size / self._sought().prod().sqrt().item(), most)
        if not self.settings.scale_rate:
            return zoom
        # In eighths of an octave, so that the pixels are not resized in another way in every frame.
        step = round(8 * math.log2(zoom))
        return 2 ** ((step if 2 ** (step / 8) <= most else step - 1) / 8)

    def _plan(self, zoom: float) -> None:
        """The size of the window at a zoom."""
        height, width = self._frame.shape[:2]
        self._zoomed = zoom
        if zoom:
            extent = self._inner() + 2 * self.settings.margin / zoom
            self._window = Window.of((0, 0), extent.tolist(), zoom, self._cell)
        else:
            self._window = Window((0, 0), (width, height), (FRAME_SIZE, FRAME_SIZE))

    def _wanted(self) -> Window:
        """The window around the last box."""
        assert self._box is not None
        if not self._zoomed:
            return self._window
        low = self._box[:2] + self._box[2:] / 2 - torch.tensor(self._window.extent, dtype=torch.float64) / 2
        return self._window.at((round(low[0].item()), round(low[1].item())))

    def _look(self, views: Views) -> View:
        return views.of(self._wanted())

    def _pool(self, view: View, boxes: Tensor) -> Tensor:
        features = view.pool(boxes)
        return F.normalize(features) if self.settings.normalize else features

    def _search(self, view: View, before: np.ndarray | None = None) -> tuple[Tensor, float]:
        """The best candidate around the last box, and its similarity to the first; `before` is the last frame, for its flow."""
        assert self._box is not None
        width = self._frame.shape[1]
        sought = torch.cat([self._first[:2], self._sought()])
        boxes = candidates(self._box, sought, width, radius=self.settings.radius, scales=self.settings.scales)
        boxes = self._inside(boxes)
        similarity = view.match(boxes, self._sought_query)
        if self.settings.near and self.settings.radius:
            away = (boxes[:, :2] + boxes[:, 2:] / 2 - self._box[:2] - self._box[2:] / 2).square().sum(1)
            similarity = similarity - self.settings.near * away / (width * self.settings.radius) ** 2
        best = int(similarity.argmax())
        if self.plus and before is not None:
            top = similarity.topk(min(5, len(boxes))).indices
            agree = self._flow_share(before, boxes[top]) > 0.25
            best = int(top[agree][0]) if agree.any() else best
        box = boxes[best]
        if self.settings.adapt or self.settings.near:
            similarity = view.match(boxes[best : best + 1], self._query)
            best = 0
        return self._refine(view, box, similarity[best].item())

    def _refine(self, view: View, box: Tensor, similarity: float) -> tuple[Tensor, float]:
        """A better box close by, and its similarity: places and scales between those of the candidates."""
        assert self._box is not None
        away = (box[:2] + box[2:] / 2 - self._box[:2] - self._box[2:] / 2).norm().item()
        # Half of what lies between neighbors on a circle of ten, or between circles.
        reach = max(STEP, 2 * math.pi * away / ANGLES) / 2
        scale = 2**0.25
        for _ in range(self.settings.refine):
            sizes = box[2:] * torch.tensor([1, 1 / scale, scale], dtype=torch.float64)[:, None]
            near = self._inside(around(box, circles(reach, reach / 2, 8), sizes))
            found = view.match(near, self._query)
            box, similarity = near[int(found.argmax())], found.max().item()
            reach, scale = reach / 2, math.sqrt(scale)
        return box, similarity

    def _inside(self, boxes: Tensor) -> Tensor:
        """Nothing is looked for beyond the frame: a center that would leave it stays at its border."""
        height, width = self._frame.shape[:2]
        center = (boxes[:, :2] + boxes[:, 2:] / 2).clamp(min=0).minimum(torch.tensor([width, height]))
        return torch.cat([center - boxes[:, 2:] / 2, boxes[:, 2:]], 1)

    def _flow_share(self, before: np.ndarray, boxes: Tensor) -> Tensor:
        """Share of the last box's pixels that the optical flow moves into each of the boxes [K, 4]: [K]."""
        assert self._box is not None
        height, width = before.shape[:2]
        # What can move into a candidate, and as much around it for the flow's own context; at least its 16 pixels.
        reach = width * self.settings.radius + 16
        x1, y1, x2, y2 = (
            int(side)
            for corner in (self._box[:2] - reach, self._box[:2] + self._box[2:] + reach)
            for side in corner.round().clamp(min=0).minimum(torch.tensor([width, height]))
        )
        if min(x2 - x1, y2 - y1) < 16:
            return torch.ones(len(boxes))
        pair = np.stack([f[y1:y2, x1:x2] for f in (before, self._frame)])
        flow = optical_flow(torch.from_numpy(pair))[0].double()
        low = (self._box[:2].round().long() - torch.tensor([x1, y1])).clamp(min=0)
        high = (self._box[:2] + self._box[2:]).round().long() - torch.tensor([x1, y1])
        rows = torch.arange(int(low[1]), min(int(high[1]), y2 - y1))
        columns = torch.arange(int(low[0]), min(int(high[0]), x2 - x1))
        if not len(rows) or not len(columns):
            return torch.ones(len(boxes))
        moved = flow[:, rows[:, None], columns]
        moved[0] += columns + x1
        moved[1] += rows[:, None] + y1
        inside = torch.ones(len(boxes), *moved.shape[1:], dtype=torch.bool)
        for axis in (0, 1):
            start, side = boxes[:, axis, None, None], boxes[:, axis + 2, None, None]
            inside &= (moved[axis] >= start) & (moved[axis] < start + side)
        return inside.double().mean((1, 2))

    def _search_everywhere(self, views: Views) -> tuple[Tensor, Tensor]:
        """Boxes of all scales on a grid over the frame, a quarter of the first box apart, and their similarities."""
        height, width = self._frame.shape[:2]
        window = self._window
        if self._zoomed:
            zoom = min(self._zoomed, self.settings.longest_side / max(height, width))
            size = Window.of((0, 0), (width, height), zoom, self._cell).size
            window = Window((0, 0), (width, height), size)
        view = views.of(window)
        # No more than 64 positions per side, however small the target.
        counts = [
            min(64, math.ceil(4 * side / own))
            for side, own in zip((width, height), self._first[2:].tolist(), strict=True)
        ]
        places = [
            (torch.arange(n, dtype=torch.float64) + 0.5) * (side / n)
            for n, side in zip(counts, (width, height), strict=True)
        ]
        sizes = self._first[2:] * torch.tensor(self.settings.scales, dtype=torch.float64)[:, None]
        boxes = around(torch.zeros(4, dtype=torch.float64), torch.cartesian_prod(*places), sizes)
        return boxes, view.match(boxes, self._query)
