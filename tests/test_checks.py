"""amstel.set_checks: when values of arguments are looked at, and that nothing is read outside of a tensor meanwhile."""

import pytest
import torch

import amstel
from amstel import _checks, ops
from tests.operator_samples import GRAPH

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
NAN = float("nan")
BAD_ROWS = [
    [2, 0, 0, 3, 3],
    [-1, 0, 0, 3, 3],
    [0.5, 0, 0, 3, 3],
    [NAN] * 5,
    [0, 0, NAN, 3, 3],
    [1e30, 0, 0, 1, 1],
]
W = torch.ones(4, 3, 1, 1), torch.ones(4, 1, 1, 1)


@pytest.fixture(autouse=True)
def as_before():
    yield
    amstel.set_checks("async")


def calls(device):
    """(argument, call of a bad value, call of a good one)"""
    x, w = X.to(device), [t.to(device) for t in W]
    boxes = torch.tensor([*BAD_ROWS, [1, 0, 0, 3, 3]], device=device)
    lengths = torch.tensor([0, 9], device=device)
    graph, weight = GRAPH.to(device), torch.ones(7, device=device)
    query, nodes = torch.ones(12, device=device), torch.ones(5, 2, device=device)
    hurt = torch.where(torch.arange(7, device=device) == 3, NAN, weight)
    return {
        "roi_pool": ("boxes", lambda b: ops.roi_pool(x, b, 2), boxes, boxes[-1:]),
        "roi_align": ("boxes", lambda b: ops.roi_align(x, b, 2), boxes, boxes[-1:]),
        "ps_roi_pool": ("boxes", lambda b: ops.ps_roi_pool(x, b, 1), boxes, boxes[-1:]),
        "roi_match": ("boxes", lambda b: ops.roi_match([x], b, query, 2, [1.0]), boxes, boxes[-1:]),
        "conv_lstm": (
            "lengths",
            lambda n: ops.conv_lstm(x[None].expand(3, -1, -1, -1, -1), *w, lengths=n)[0],
            lengths,
            lengths.clamp(1, 3),
        ),
        "spmm": ("edge_weight", lambda w: ops.spmm(graph, nodes, w, norm="none"), hurt, weight),
    }


NAMES = list(calls("cpu"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["sync", "async"])
def test_on_the_cpu_they_are_found_at_once(name, mode):
    argument, call, bad, good = calls("cpu")[name]
    amstel.set_checks(mode)
    with pytest.raises(ValueError, match=f"`{argument}` must"):
        call(bad)
    call(good)


def test_off_is_safe():
    """Bad boxes are pooled to 0 and get no gradient, bad lengths count as the nearest, NaN gives NaN."""
    amstel.set_checks("off")
    found = {name: call(bad) for name, (_, call, bad, _) in calls("cpu").items()}
    good = {name: call(good) for name, (_, call, _, good) in calls("cpu").items()}
    for name in ("roi_pool", "roi_match", "roi_align", "ps_roi_pool"):
        assert not found[name][:-1].any() and torch.equal(found[name][-1:], good[name])
    assert not found["conv_lstm"][:, 0].any() and torch.equal(
        found["conv_lstm"][:, 1], good["conv_lstm"][:, 1]
    )
    assert found["spmm"].isnan().any() and not found["spmm"].isnan().all()
    x = X.clone().requires_grad_()
    boxes = torch.tensor(BAD_ROWS)
    query = torch.ones(12, requires_grad=True)
    total = ops.roi_pool(x, boxes, 2).sum() + ops.roi_match([x], boxes, query, 2, [1.0]).sum()
    total = total + ops.roi_align(x, boxes, 2).sum() + ops.ps_roi_pool(x, boxes, 1).sum()
    total.backward()
    assert not x.grad.any() and not query.grad.any()


@pytest.mark.parametrize("mode", ["sync", "async", "off"])
def test_no_box_can_be_of_no_image(mode):
    amstel.set_checks(mode)
    none, query, some = X[:0], torch.ones(12), torch.zeros(2, 5)
    for call in (
        lambda boxes: ops.roi_pool(none, boxes, 2),
        lambda boxes: ops.roi_align(none, boxes, 2),
        lambda boxes: ops.ps_roi_pool(none, boxes, 1),
        lambda boxes: ops.roi_match([none], boxes, query, 2, [1.0]),
    ):
        with pytest.raises(ValueError, match=r"`boxes` must be \[0, 5\] .* got float32 \[2, 5\]"):
            call(some)
        assert len(call(some[:0])) == 0


def test_bad_modes():
    with pytest.raises(ValueError, match="`mode` must be one of 'sync', 'async', 'off'"):
        amstel.set_checks("none")
    with pytest.raises(TypeError, match="mode"):
        amstel.set_checks(True)


def test_notes_are_raised_once():
    notes = _checks.Notes(torch.device("cpu"))
    notes.note("lengths", torch.tensor([False, False]))
    notes.raise_found()
    notes.note("lengths", torch.tensor([False, True]))
    notes.note("lengths", torch.tensor([False]))  # does not undo it
    with pytest.raises(ValueError, match="`lengths` must be from 1 to T"):
        notes.raise_found()
    notes.raise_found()
    notes.slots["boxes"].fill_(4)
    notes.post()
    with pytest.raises(ValueError, match="`boxes` must have finite"):
        notes.raise_found()


@pytest.mark.cuda
@pytest.mark.parametrize("name", sorted({*NAMES} - {"roi_align", "ps_roi_pool"}))
def test_on_cuda_nothing_waits(name):
    """Proves: no check waits for the device, in eager calls and under capture, and each is raised later."""
    amstel.set_checks("async")
    argument, call, bad, good = calls("cuda")[name]
    amstel.set_checks("sync")
    with pytest.raises(ValueError, match=f"`{argument}` must"):
        call(bad)
    amstel.set_checks("async")
    call(good)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(bad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    with pytest.raises(ValueError, match=f"`{argument}` must .* earlier call"):
        amstel.raise_pending_checks()
    amstel.raise_pending_checks()
    call(bad)
    torch.cuda.synchronize()
    with pytest.raises(ValueError, match=f"`{argument}` must .* earlier call"):
        call(good)
    graph, value = torch.cuda.CUDAGraph(), good.clone()
    if len(bad) == len(good):
        with torch.cuda.graph(graph):
            call(value)
        graph.replay()
        amstel.raise_pending_checks()
        value.copy_(bad)
        graph.replay()
        with pytest.raises(ValueError, match=f"`{argument}` must"):
            amstel.raise_pending_checks()
