"""Boxes: conversions there and back, overlap against torchvision and by hand."""

import math

import pytest
import torch

from amstel import tracking, video
from amstel.data.pairs import overlaps
from amstel.media import boxes as B

NAN = math.nan


def some(count=200, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=dtype) * 10
    return torch.cat([low, low + torch.rand(count, 2, generator=generator, dtype=dtype) * 5], 1)


def test_conversions_go_there_and_back():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        box = torch.tensor([[1, 2, 4, 8], [0, 0, 1, 1], [-3, 5, 5, 6]], dtype=dtype)
        for there, back in (
            (B.xyxy_to_xywh, B.xywh_to_xyxy),
            (B.xyxy_to_cxcywh, B.cxcywh_to_xyxy),
        ):
            assert torch.equal(back(there(box)), box) and there(box).dtype == dtype
    assert B.xyxy_to_xywh(torch.tensor([1.0, 2, 4, 8])).tolist() == [1, 2, 3, 6]
    assert B.xyxy_to_cxcywh(torch.tensor([1.0, 2, 4, 8])).tolist() == [2.5, 5, 3, 6]
    assert B.pixels_to_xyxy(torch.tensor([0.0, 0, 9, 19])).tolist() == [0, 0, 10, 20]
    assert B.pixels_to_xyxy(torch.tensor([1.0, 1, 10, 20]), origin=1).tolist() == [0, 0, 10, 20]
    assert B.xywh_to_xyxy(torch.tensor([NAN] * 4)).isnan().all()
    for bad in (torch.zeros(3), torch.zeros(2, 5), torch.zeros(4, dtype=torch.int64)):
        with pytest.raises(ValueError, match="`boxes` must be a floating tensor"):
            B.xywh_to_xyxy(bad)
    with pytest.raises(TypeError, match="`boxes`"):
        B.xywh_to_xyxy([1.0, 2, 3, 4])


def test_conversions_are_torchvisions():
    ops = pytest.importorskip("torchvision.ops")
    box = some()
    for ours, old, new in (
        (B.xyxy_to_xywh, "xyxy", "xywh"),
        (B.xywh_to_xyxy, "xywh", "xyxy"),
        (B.xyxy_to_cxcywh, "xyxy", "cxcywh"),
        (B.cxcywh_to_xyxy, "cxcywh", "xyxy"),
    ):
        torch.testing.assert_close(ours(box), ops.box_convert(box, old, new))
    torch.testing.assert_close(B.iou(box[:, None], box[None]), ops.box_iou(box, box))


def test_there_is_one_overlap():
    a, b = some(seed=1), some(seed=2)
    assert video.box_iou is B.iou and tracking.overlap is B.iou_xywh
    assert torch.equal(overlaps(a, b[0]), B.iou(a, b[0]))
    torch.testing.assert_close(B.iou_xywh(B.xyxy_to_xywh(a), B.xyxy_to_xywh(b)), B.iou(a, b))


def test_overlap_edges():
    box = torch.tensor([0.0, 0, 4, 2])
    others = torch.tensor(
        [[4.0, 0, 8, 2], [1, 1, 1, 1], [3, 2, 1, 0], [-1e30, -1e30, 1e30, 1e30], [NAN, 0, 1, 1]]
    )
    assert B.iou(box, others)[:4].tolist() == [0, 0, 0, 0] and B.iou(box, others)[4].isnan()
    # Exactly a half, for boxes at places that binary numbers do not hold.
    for x in (0.1, 0.3, 77.7):
        half = B.iou_xywh(torch.tensor([x, x, 2.0, 1.0]).double(), torch.tensor([x, x, 1.0, 1.0]).double())
        assert half <= 1 and abs(half - 0.5) < 1e-12
    moved = some() + 0.1
    assert (B.iou(moved, moved) <= 1).all()
    grad = box.clone().requires_grad_()
    B.iou(grad, torch.tensor([1.0, 0, 5, 2])).backward()
    assert grad.grad.isfinite().all() and (grad.grad != 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits(dtype):
    """The areas are beyond float16, 65504, and so is the sum of the lengths."""
    a = torch.tensor([[10, 10, 310, 310], [0, 0, 512, 512], [100, 0, 104, 2]], dtype=dtype)
    b = torch.tensor([[20, 10, 320, 310], [0, 0, 512, 256], [100, 0, 104, 4]], dtype=dtype)
    tube_a, tube_b = a.repeat(700, 1), b.repeat(700, 1)
    for overlap, one, other in (
        (video.box_iou, a, b),
        (tracking.overlap, B.xyxy_to_xywh(a), B.xyxy_to_xywh(b)),
        (video.tube_iou, tube_a, tube_b),
        (
            video.interval_iou,
            torch.tensor([0, 40000], dtype=dtype),
            torch.tensor([[0, 40000], [0, 30000]], dtype=dtype),
        ),
    ):
        found = overlap(one, other)
        assert found.dtype == dtype and torch.equal(found, overlap(one.double(), other.double()).to(dtype))
    assert video.box_iou(a, b.float()).dtype == torch.float32
    ops = pytest.importorskip("torchvision.ops")
    assert torch.equal(video.box_iou(a[:, None], b[None]), ops.box_iou(a, b).to(dtype))
    far = torch.tensor([40000, 2048, 40064, 2050], dtype=dtype)
    assert torch.equal(B.xyxy_to_cxcywh(far), B.xyxy_to_cxcywh(far.double()).to(dtype))
    for origin in (0, 1):
        whole = B.pixels_to_xyxy(far.double(), origin=origin).to(dtype)
        assert torch.equal(B.pixels_to_xyxy(far, origin=origin), whole)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.uint8, torch.float16])
def test_overlap_in_every_type(dtype):
    a, b = torch.tensor([10, 10, 10, 10], dtype=dtype), torch.tensor([12, 10, 10, 10], dtype=dtype)
    found = tracking.overlap(a, b)
    assert found.dtype == (dtype if dtype.is_floating_point else torch.float32)
    torch.testing.assert_close(found.double(), torch.tensor(2 / 3, dtype=torch.float64), atol=5e-4, rtol=0)
