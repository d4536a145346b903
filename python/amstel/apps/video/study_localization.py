"""The experiment on boxes from attention behind benchmarks/results/video/localization.json."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from amstel import video
from amstel.apps.video.evaluate import _segments
from amstel.apps.video.network import Network
from amstel.apps.video.predict import predict
from amstel.apps.video.samples import _generator, _Video
from amstel.apps.video.settings import Settings
from amstel.apps.video.study_settings import AMONG, Say, root_of, small
from amstel.apps.video.train import train
from amstel.data import UCF101, Clip, generate_moving_shapes
from amstel.data.clips import DIRECTIONS

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def _center_boxes(truth: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes as large as the true ones in the middle of the frame (height, width)."""
    half = (truth[:, 2:] - truth[:, :2]) / 2
    middle = torch.tensor([size[1] / 2, size[0] / 2])
    return torch.cat([middle - half, middle + half], 1)


def _scores(iou: Tensor, center: Tensor) -> dict[str, Any]:
    return {
        "mean_iou": iou.mean().item(),
        "center_box_mean_iou": center.mean().item(),
        "ratio": (iou.mean() / center.mean()).item(),
        "thresholds": list(THRESHOLDS),
        "recall": video.recall(iou, THRESHOLDS).tolist(),
        "center_box_recall": video.recall(center, THRESHOLDS).tolist(),
    }


def _panned(clip: Clip, index: int) -> Clip:
    """The clip through a camera that moves: every frame rolled on by the camera's way so far."""
    generator = _generator(9, index)
    velocity = torch.randn(2, generator=generator) * 1.5
    frames: list[Tensor] = []
    boxes: list[Tensor] = []
    way = torch.zeros(2)
    assert clip.boxes is not None
    for frame in clip.frames:
        dy, dx = way.round().int().tolist()
        frames.append(frame.roll((dy, dx), (0, 1)))
        boxes.append(_rolled(clip.boxes[len(boxes)], dx, dy, frame.shape[0]))
        way = way + velocity + 0.3 * torch.randn(2, generator=generator)
    return Clip(torch.stack(frames), clip.label, clip.name, torch.stack(boxes))


def _rolled(box: Tensor, dx: int, dy: int, side: int) -> Tensor:
    """The box of what was rolled on; none where it lies on both sides of the picture then."""
    low = (box[:2] + torch.tensor([dx, dy])) % side
    high = low + box[2:] - box[:2]
    return torch.cat([low, high]) if bool((high <= side).all()) else torch.full((4,), float("nan"))


def localization(root: Path | None = None, say: Say = print) -> dict[str, Any]:
    """Boxes from attention, which has never seen a box, against boxes of the true size in the middle of the frame; and
    those of ConvALSTM, called "_boxes", whose attention has learned from true boxes.

    On generated clips: ConvALSTM and VideoLSTM, trained to name the direction. On the clip of UCF101: ConvALSTM on
    the flow stream, trained on generated clips through a moving camera, reads the TV-L1 flow that comes with the clip; it has
    seen no real video, and this clip only in the test.
    """
    classes = list(DIRECTIONS[4])
    found: dict[str, Any] = {"study": "localization", "task": AMONG, "generated": {}}
    new = generate_moving_shapes(200, seed=1000, **AMONG)
    labels = torch.tensor([clip.label for clip in new])
    for model in ("convalstm", "videolstm", "convalstm_boxes"):
        start = time.perf_counter()
        given = small(model.removesuffix("_boxes"), box_weight=float(model.endswith("_boxes")))
        network = train(generate_moving_shapes(400, seed=0, **AMONG), classes, given).network
        iou, center, tubes, probability = [], [], torch.zeros(len(new), len(new)), []
        for i, clip in enumerate(new):
            assert clip.boxes is not None
            result = predict(network, clip.frames, segments=1)
            assert result.boxes is not None
            probability.append(result.probabilities)
            iou.append(video.box_iou(result.boxes, clip.boxes))
            center.append(video.box_iou(_center_boxes(clip.boxes, (32, 32)), clip.boxes))
            tubes[i, i] = video.tube_iou(result.boxes, clip.boxes)
        score, answer = torch.stack(probability).max(1)
        one = found["generated"][model] = _scores(torch.cat(iou), torch.cat(center)) | {
            "clips": len(new),
            "accuracy": (answer == labels).double().mean().item(),
            "map": video.mean_average_precision(score, answer, tubes, labels, THRESHOLDS).tolist(),
            "settings": asdict(network.settings),
            "seconds": time.perf_counter() - start,
        }
        say(
            f"generated clips, {model}: mean IoU {one['mean_iou']:.3f}, center box {one['center_box_mean_iou']:.3f} "
            f"({one['ratio']:.1f}x); recall {_list(one['recall'])}, mAP {_list(one['map'])} at IoU {THRESHOLDS}"
        )

    folder = root_of(root, "ucf101_clip")
    clip = UCF101(folder)[0]
    assert clip.boxes is not None
    seen = generate_moving_shapes(400, seed=2, frames=6, speed=(2.0, 4.0), noise=0.02)
    known = [_panned(c, i) for i, c in enumerate(seen)]
    for name, weight in (("ucf101_clip", 0.0), ("ucf101_clip_boxes", 1.0)):
        settings = Settings.from_scratch(
            model="convalstm",
            stream="flow",
            channels=(16, 16),
            hidden=16,
            steps=6,
            epochs=12,
            learning_rate=3e-3,
            dropout=0.2,
            box_weight=weight,
        )
        network = train(known, classes, settings).network
        flow = video.read_flow_images(folder / "tvl1_gpu")
        drawn = localize_flow(network, flow, clip.frames.shape[1:3], len(clip))
        true = ~clip.boxes.isnan().any(1)
        truth = clip.boxes[true]
        middle = _center_boxes(truth, (int(clip.frames.shape[1]), int(clip.frames.shape[2])))
        real = found[name] = _scores(video.box_iou(drawn[true], truth), video.box_iou(middle, truth)) | {
            "frames": int(true.sum()),
            "tube_iou": video.tube_iou(drawn[true], truth).item(),
            "settings": asdict(settings),
        }
        say(
            f"{name}: mean IoU {real['mean_iou']:.3f}, center box {real['center_box_mean_iou']:.3f} "
            f"({real['ratio']:.2f}x); recall {_list(real['recall'])}"
        )
    return found


def _list(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:.2f}" for v in values) + "]"


def flow_video(flow: Tensor, side: int, frames: int) -> _Video:
    """Flow in pixels [T, 2, H, W] as the flow stream of a network reads it; the last one repeated up to `frames`."""
    height, width = flow.shape[2:]
    small = F.interpolate(flow, (side, side), mode="bilinear", antialias=True)
    small = small * (16 / torch.tensor([float(width), float(height)]))[:, None, None]
    small = torch.cat([small, small[-1:].expand(max(0, frames - len(small)), -1, -1, -1)])[:frames]
    return _Video(torch.zeros(len(small), 3, side, side, dtype=torch.uint8), small)


def localize_flow(network: Network, flow: Tensor, frame_size: Sequence[int], frames: int) -> Tensor:
    """Boxes of a video of which only the flow is known, by a network with a flow stream."""
    _, attention, _ = _segments(network, flow_video(flow, network.settings.frame_size, frames), 25)
    assert attention is not None
    return video.localize(attention, frame_size)
