"""ROI align, position-sensitive pooling and ROI align over a pyramid: against torchvision and the plain form."""

import math

import pytest
import torch
import torch.nn.functional as F

import amstel
from amstel import ops, reference

torchvision = pytest.importorskip("torchvision", reason="the oracle of the extra [dev]")

NAN = math.nan


def _boxes(generator, count, images, spread=1.4, side=64.0, dtype=torch.float32):
    """Boxes inside and outside of a map, some of them without area, some with their ends swapped."""
    ends = (torch.rand(count, 4, generator=generator) - 0.2) * side * spread
    low, high = torch.minimum(ends[:, :2], ends[:, 2:]), torch.maximum(ends[:, :2], ends[:, 2:])
    corners = torch.cat([low, high], 1)
    corners[::7, 2:] = corners[::7, :2]
    corners[::11] = corners[::11].roll(2, 1)
    image = torch.randint(images, (count, 1), generator=generator).float()
    return torch.cat([image, corners], 1).to(dtype)


CASES = [
    # channels, size, output, scale, sampling, aligned
    (3, (16, 16), (7, 7), 0.25, -1, False),
    (40, (12, 19), (3, 5), 0.5, 2, True),
    (1, (16, 16), (2, 2), 0.25, 3, False),
    (17, (9, 31), (1, 4), 0.3, 0, True),
    (64, (16, 16), (7, 7), 0.25, 2, False),
    (33, (1, 1), (2, 2), 1.0, 1, True),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_roi_align_has_torchvisions_bits(case, last, dtype):
    channels, size, output, scale, sampling, aligned = case
    g = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, *size, generator=g, dtype=dtype)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    boxes = _boxes(g, 60, 2, dtype=dtype)
    expected = torchvision.ops.roi_align(x.contiguous(), boxes, output, scale, sampling, aligned)
    found = ops.roi_align(x, boxes, output, scale, sampling, aligned)
    assert torch.equal(found, expected)
    assert not last or 1 in (channels, size[0]) or found.is_contiguous(memory_format=torch.channels_last)
    plain = reference.roi_align(x, boxes, output, scale, sampling, aligned)
    torch.testing.assert_close(plain, expected, atol=1e-4 if dtype == torch.float32 else 1e-12, rtol=1e-4)


def test_random_cases_have_torchvisions_bits():
    """A thousand boxes in each of a hundred calls: 10^5 random boxes."""
    g = torch.Generator().manual_seed(0)
    for number in range(100):
        height, width, ph, pw = torch.randint(1, 9, (4,), generator=g).tolist()
        x = torch.randn(2, 2, 2 * height, 3 * width, generator=g)
        boxes = _boxes(g, 1000, 2, side=10 * max(height, width))
        scale, sampling, aligned = 0.1 + number % 7 / 5, number % 4 - 1, number % 2 == 1
        expected = torchvision.ops.roi_align(x, boxes, (ph, pw), scale, sampling, aligned)
        assert torch.equal(ops.roi_align(x, boxes, (ph, pw), scale, sampling, aligned), expected), number
        s = torch.randn(2, 2 * ph * pw, 2 * height, 3 * width, generator=g)
        expected = torchvision.ops.ps_roi_pool(s, boxes, (ph, pw), scale)
        assert torch.equal(ops.ps_roi_pool(s, boxes, (ph, pw), scale), expected), number


@pytest.mark.parametrize("last", [False, True])
def test_ps_roi_pool_has_torchvisions_bits(last):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, 21 * 12, 14, 17, generator=g)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    boxes = _boxes(g, 50, 2)
    expected = torchvision.ops.ps_roi_pool(x.contiguous(), boxes, (3, 4), 0.25)
    assert torch.equal(ops.ps_roi_pool(x, boxes, (3, 4), 0.25), expected)
    torch.testing.assert_close(reference.ps_roi_pool(x, boxes, (3, 4), 0.25), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_large_results_have_torchvisions_bits(last):
    """Results that are larger than the caches are written past them, and whole boxes at a time."""
    g = torch.Generator().manual_seed(10)
    x, boxes = torch.randn(1, 7 * 7 * 48, 9, 21, generator=g), _boxes(g, 1800, 1, side=20)
    layout = torch.channels_last if last else torch.contiguous_format
    for name, channels in (("roi_align", 48), ("ps_roi_pool", x.shape[1])):
        maps = x[:, :channels].contiguous()
        found = getattr(ops, name)(maps.contiguous(memory_format=layout), boxes, 7, 0.5)
        assert found.numel() * 4 > 1 << 24
        assert torch.equal(found, getattr(torchvision.ops, name)(maps, boxes, 7, 0.5))


def _align(f):
    return lambda x, boxes: f.roi_align(x, boxes, (2, 3), 0.5, 2, True)


def _pool(f):
    return lambda x, boxes: f.ps_roi_pool(x, boxes, (2, 3), 0.5)


@pytest.mark.parametrize("of", [_align, _pool])
@pytest.mark.parametrize("last", [False, True])
def test_gradients_are_those_of_the_forward_pass(of, last):
    """Of `ps_roi_pool` torchvision's are not: its backward pass counts the last row and column in, its forward does not."""
    g = torch.Generator().manual_seed(2)
    layout = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(2, 12, 9, 11, generator=g, dtype=torch.float64).contiguous(memory_format=layout)
    boxes = _boxes(g, 20, 2, side=24, dtype=torch.float64)
    found, expected = [], []
    for grads, f in ((found, ops), (expected, torchvision.ops if of is _align else reference)):
        own = x.clone().requires_grad_()
        y = of(f)(own, boxes)
        grads += torch.autograd.grad((y * torch.arange(y.numel(), dtype=y.dtype).view_as(y)).sum(), own)
    torch.testing.assert_close(found[0], expected[0], atol=1e-10, rtol=1e-10)
    assert found[0].is_contiguous(memory_format=layout)


def test_gradient_of_ps_roi_pool_is_torchvisions_away_from_the_last_row_and_column():
    from amstel.interop.torchvision import ps_roi_pool

    x = torch.randn(1, 9, 10, 10, dtype=torch.float64, requires_grad=True)
    for end, same in ((9.0, True), (10.0, False)):
        boxes = torch.tensor([[0, 4.0, 4, end, end]], dtype=torch.float64)
        theirs, ours = (
            torch.autograd.grad(f(x, boxes, (3, 3)).sum(), x)[0]
            for f in (torchvision.ops.ps_roi_pool, ps_roi_pool)
        )
        assert torch.equal(theirs, ours) == same
        assert torch.autograd.gradcheck(lambda t, boxes=boxes: ps_roi_pool(t, boxes, (3, 3)), x)


@pytest.mark.parametrize("of", [_align, _pool])
def test_every_derivative(of):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(2, 6, 4, 5, generator=g, dtype=torch.float64, requires_grad=True)
    boxes = _boxes(g, 5, 2, side=9, dtype=torch.float64)
    f = lambda x: of(ops)(x, boxes)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, (x,))
    several = torch.randn(3, *x.shape, generator=g, dtype=torch.float64)
    mapped = torch.vmap(f)(several)
    torch.testing.assert_close(mapped, torch.stack([f(one) for one in several]), atol=0, rtol=0)
    torch.testing.assert_close(torch.func.jacrev(f)(x), torch.func.jacfwd(f)(x))


def _adaptive(f):
    return lambda x, boxes: f.roi_align(x, boxes, (2, 3), 0.5, -1, True)


@pytest.mark.parametrize("of", [_adaptive, _align, _pool])
def test_derivatives_in_batches_of_boxes(of):
    """Each set of boxes has a number of samples of its own, which no one number for all can be."""
    from torch.func import grad, hessian, jacfwd, jacrev

    g = torch.Generator().manual_seed(11)
    x = torch.randn(2, 6, 4, 5, generator=g, dtype=torch.float64)
    boxes = torch.stack([_boxes(g, 3, 2, side=side, dtype=torch.float64) for side in (4, 9, 40)])
    f = of(ops)
    loss = lambda x, b: f(x, b).square().sum()  # noqa: E731
    total = lambda x: torch.vmap(loss, (None, 0))(x, boxes).sum()  # noqa: E731

    def each(function):
        return torch.stack([function(lambda x, b=b: of(reference)(x, b), x) for b in boxes])

    expected = each(lambda f, x: torch.autograd.functional.vjp(lambda x: f(x).square().sum(), x)[1])
    torch.testing.assert_close(torch.vmap(grad(loss), (None, 0))(x, boxes), expected)
    torch.testing.assert_close(grad(total)(x), expected.sum(0))
    jacobians = each(torch.autograd.functional.jacobian)
    for jacobian in (jacrev, jacfwd):
        torch.testing.assert_close(jacobian(lambda x: torch.vmap(f, (None, 0))(x, boxes))(x), jacobians)
        torch.testing.assert_close(torch.vmap(jacobian(f), (None, 0))(x, boxes), jacobians)
    second = each(lambda f, x: torch.autograd.functional.hessian(lambda x: f(x).square().sum(), x))
    torch.testing.assert_close(torch.vmap(hessian(loss), (None, 0))(x, boxes), second)
    torch.testing.assert_close(hessian(total)(x), second.sum(0))


@pytest.mark.parametrize("of", [_align, _pool])
def test_compiled_and_exported(of):
    g = torch.Generator().manual_seed(4)
    x, boxes = torch.randn(2, 12, 9, 11, generator=g), _boxes(g, 6, 2, side=20)

    class Model(torch.nn.Module):
        def forward(self, x, boxes):
            return of(ops)(x, boxes)

    program = torch.export.export(Model(), (x, boxes))
    assert "amstel.roi_align" in str(program.graph) or "amstel.ps_roi_pool" in str(program.graph)
    assert torch.equal(program.module()(x, boxes), of(ops)(x, boxes))
    plain = program.run_decompositions(ops.decompositions())
    assert "amstel" not in str(plain.graph)
    torch.testing.assert_close(plain.module()(x, boxes), of(ops)(x, boxes), atol=1e-5, rtol=1e-5)
    torch.library.opcheck(
        torch.ops.amstel.roi_align.default,
        (x, boxes, 0.5, 2, 3, 2, True),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize("of", [_align, _pool])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_types_round_once(of, dtype):
    g = torch.Generator().manual_seed(5)
    x, boxes = torch.randn(2, 12, 9, 11, generator=g).to(dtype), _boxes(g, 20, 2, side=20)
    wide = of(ops)(x.float(), boxes)
    assert torch.equal(of(ops)(x, boxes), wide.to(dtype))
    own = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(of(ops)(own, boxes).float().sum(), own)
    assert grad.dtype == dtype and grad.isfinite().all()


def test_nan_and_infinity_stay_where_they_are():
    x = torch.ones(1, 1, 8, 8)
    x[0, 0, 0, 0] = NAN
    boxes = torch.tensor([[0.0, 4, 4, 7, 7], [0, 40, 40, 60, 60], [0, 0, 0, 3, 3]])
    y = ops.roi_align(x, boxes, 2, 1.0, 2)
    assert torch.equal(y[0], torch.ones(1, 2, 2)) and torch.equal(y[1], torch.zeros(1, 2, 2))
    assert y[2, 0, 0, 0].isnan() and torch.equal(y[2, 0, 1], torch.ones(2))
    assert torch.equal(reference.roi_align(x, boxes, 2, 1.0, 2).isnan(), y.isnan())


def test_threads_and_runs_change_no_bit():
    g = torch.Generator().manual_seed(6)
    x, boxes = torch.randn(3, 70, 40, 40, generator=g), _boxes(g, 300, 3, side=160)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            own = x.clone().requires_grad_()
            y = ops.roi_align(own, boxes, 7, 0.25)
            found.append((y.detach(), torch.autograd.grad(y.square().sum(), own)[0]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_huge_box_takes_no_time_and_a_huge_map_no_memory():
    x = torch.ones(1, 1, 8, 8)
    y = ops.roi_align(x, torch.tensor([[0.0, -1e30, -1e9, 1e30, 1e9]]), 2, 1.0)
    assert y.isfinite().all()
    large = torch.arange(1100 * 1000.0).view(1, 1, 1100, 1000).expand(1, 33, -1, -1)
    large = large.contiguous(memory_format=torch.channels_last)
    boxes = torch.tensor([[0.0, 0, 0, 999, 1099], [0, 5, 5, 9, 9]] * 2)
    for f in (ops.roi_align, ops.roi_pool):
        wide = f(large, boxes, 2)
        assert torch.equal(wide, f(large[:, :1].contiguous(), boxes, 2).expand(-1, 33, -1, -1))


@pytest.mark.parametrize(
    "box", [[2.0, 0, 0, 1, 1], [-1, 0, 0, 1, 1], [0.5, 0, 0, 1, 1], [0, NAN, 0, 1, 1], [0, 0, 0, math.inf, 1]]
)
def test_bad_boxes_are_refused(box):
    x, boxes = torch.ones(2, 4, 4, 4), torch.tensor([box], dtype=torch.float32)
    for f in (ops.roi_align, ops.ps_roi_pool):
        with pytest.raises(ValueError, match="`boxes` must have finite coordinates and a whole batch index"):
            f(x, boxes, 2)


@pytest.mark.parametrize("ratio", [1.5, True, "2", -2, 1 << 16])
def test_bad_sampling_is_refused(ratio):
    with pytest.raises(ValueError, match="`sampling_ratio` must be an integer"):
        ops.roi_align(torch.ones(1, 1, 4, 4), torch.zeros(0, 5), 2, 1.0, ratio)


def test_bad_shapes_are_refused():
    x = torch.ones(1, 5, 4, 4)
    with pytest.raises(ValueError, match=r"`input` must be .* a multiple of 2 x 2 channels"):
        ops.ps_roi_pool(x, torch.zeros(0, 5), 2)
    with pytest.raises(TypeError, match="`aligned` must be True or False"):
        ops.roi_align(x, torch.zeros(0, 5), 2, aligned=1)
    assert ops.roi_align(x, torch.zeros(0, 5), 2).shape == (0, 5, 2, 2)
    assert ops.roi_align(x[:, :, :0], torch.tensor([[0.0, 0, 0, 1, 1]]), 2).eq(0).all()


def test_multi_scale_align_is_torchvisions():
    g = torch.Generator().manual_seed(8)
    maps = {name: torch.randn(2, 5, 64 >> k, 80 >> k, generator=g) for k, name in enumerate("0123")}
    maps["pool"] = torch.randn(2, 5, 4, 5, generator=g)
    boxes = [_boxes(g, 40, 1, spread=1.0, side=300)[:, 1:] for _ in range(2)]
    boxes[0][0] = torch.tensor([5.0, 5, 5, 5])
    sizes = [(250, 320), (256, 300)]
    for names in (["0", "1", "2", "3"], ["2"]):
        arguments = (names, 7, 2)
        theirs = torchvision.ops.MultiScaleRoIAlign(*arguments)
        ours = amstel.nn.MultiScaleRoIAlign(*arguments)
        # Swapped ends have an area with torchvision, or a NaN that has a level of its own: in order here.
        ordered = [torch.cat([b[:, :2].minimum(b[:, 2:]), b[:, :2].maximum(b[:, 2:])], 1) for b in boxes]
        assert torch.equal(ours(maps, ordered, sizes), theirs(maps, ordered, sizes))
    # Images of 33 x 500 in maps of 64 x 512: the heights tell the scales, though the widths say otherwise.
    low = {str(n): torch.randn(1, 5, 16 >> n, 128 >> n, generator=g) for n in range(4)}
    flat = [ordered[0] * torch.tensor([2, 0.1, 2, 0.1])]
    assert torch.equal(
        amstel.nn.MultiScaleRoIAlign(list(low), 7, 2)(low, flat, [(33, 500)]),
        torchvision.ops.MultiScaleRoIAlign(list(low), 7, 2)(low, flat, [(33, 500)]),
    )
    with pytest.raises(ValueError, match="`x` must hold a map of"):
        amstel.nn.MultiScaleRoIAlign(["a"], 7, 2)(maps, boxes, sizes)
    with pytest.raises(ValueError, match="one per image"):
        amstel.nn.MultiScaleRoIAlign(["0"], 7, 2)(maps, boxes[:1], sizes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_levels_of_short_boxes_are_torchvisions(dtype):
    """Sides up to and over the boundaries of levels, and areas that float16 does not hold."""
    maps = {str(n): torch.full((1, 1, 128 >> n, 128 >> n), float(n)) for n in range(4)}
    sides = torch.cat([torch.arange(100, 520), torch.tensor([895, 896, 1000])]).to(dtype).float()
    boxes = F.pad(torch.cartesian_prod(sides[::5], sides[::5]), (2, 0))
    boxes = torch.cat([boxes, F.pad(sides[:, None].expand(-1, 2), (2, 0))]).to(dtype)
    arguments = (list(maps), 1, 1)
    found = amstel.nn.MultiScaleRoIAlign(*arguments)(maps, [boxes], [(512, 512)]).flatten()
    # In float32, for its pooling takes no map of another type than the boxes.
    expected = torchvision.ops.MultiScaleRoIAlign(*arguments)(maps, [boxes.float()], [(512, 512)]).flatten()
    assert torch.equal(found.round(), expected.round()) and len(found.unique()) >= 3


def test_multi_scale_align_of_many_images_with_short_boxes():
    """bfloat16 has no 257, and float16 no 2049."""
    maps = {str(n): torch.arange(300.0)[:, None, None, None].expand(-1, 1, 8 >> n, 8 >> n) for n in range(2)}
    boxes = [torch.tensor([[0.0, 0, 8, 8]], dtype=torch.bfloat16)] * 300
    for names in (["0"], ["0", "1"]):
        found = amstel.nn.MultiScaleRoIAlign(names, 1, 1)(maps, boxes, [(8, 8)] * 300)
        assert torch.equal(found.flatten(), torch.arange(300.0))
    many = {"0": torch.zeros(2049, 1, 1, 1)}
    with pytest.raises(ValueError, match="`boxes` must be float32 for more than 2048 images, got float16"):
        amstel.nn.MultiScaleRoIAlign(["0"], 1, 1)(many, [boxes[0].half()] * 2049, [(8, 8)] * 2049)


def test_multi_scale_align_under_vmap():
    g = torch.Generator().manual_seed(12)
    maps = {name: torch.randn(1, 5, 64 >> k, 64 >> k, generator=g) for k, name in enumerate("012")}
    align = amstel.nn.MultiScaleRoIAlign(list(maps), 2, 2)
    boxes = torch.stack([_boxes(g, 9, 1, spread=1.0, side=side)[:, 1:] for side in (60, 250)])
    expected = torch.stack([align(maps, [b], [(256, 256)]) for b in boxes])
    assert torch.equal(torch.vmap(lambda b: align(maps, [b], [(256, 256)]))(boxes), expected)


def test_a_detector_of_torchvision_finds_the_same_boxes():
    from amstel.interop.torchvision import replace_

    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, box_score_thresh=0.0
    ).eval()
    picture = [torch.rand(3, 120, 160)]
    with torch.no_grad():
        expected = model(picture)[0]
        assert replace_(model) == 1
        found = model(picture)[0]
    assert isinstance(model.roi_heads.box_roi_pool, amstel.nn.MultiScaleRoIAlign)
    assert len(expected["boxes"]) and all(torch.equal(found[key], expected[key]) for key in expected)
    with pytest.raises(ValueError, match="`model` must hold"):
        replace_(model)

    class Doubled(torchvision.ops.RoIAlign):
        def forward(self, input, rois):
            return 2 * super().forward(input, rois)

    # What pools in a way of its own is none of torchvision's.
    both = torch.nn.ModuleList([Doubled(2, 1.0, 2), torchvision.ops.RoIAlign(2, 1.0, 2)])
    assert replace_(both) == 1
    assert type(both[0]) is Doubled and type(both[1]) is amstel.nn.RoIAlign


def test_hooks_and_methods_of_ones_own_survive_a_conversion():
    from amstel.interop.torchvision import convert

    g = torch.Generator().manual_seed(9)
    x, boxes = torch.randn(1, 8, 9, 9, generator=g), _boxes(g, 5, 1, side=9)
    model = torch.nn.Sequential(torchvision.ops.RoIAlign(2, 0.5, 2))
    hook = model[0].register_forward_hook(lambda module, args, out: -out)
    assert type(convert(model)[0]) is amstel.nn.RoIAlign
    torch.testing.assert_close(model[0](x, boxes), -ops.roi_align(x, boxes, 2, 0.5, 2))
    hook.remove()
    torch.testing.assert_close(model[0](x, boxes), ops.roi_align(x, boxes, 2, 0.5, 2))
    own = torchvision.ops.RoIAlign(2, 0.5, 2)
    own.forward = lambda x, boxes: 3 * x
    assert convert(own) is own


def test_modules():
    g = torch.Generator().manual_seed(9)
    x, boxes = torch.randn(1, 8, 9, 9, generator=g), _boxes(g, 5, 1, side=9)
    align, pool = amstel.nn.RoIAlign(2, 0.5, 2, True), amstel.nn.PSRoIPool((2, 2), 0.5)
    assert torch.equal(align(x, boxes), ops.roi_align(x, boxes, 2, 0.5, 2, True))
    assert torch.equal(pool(x, boxes), ops.ps_roi_pool(x, boxes, 2, 0.5))


@pytest.mark.parametrize("pool", ["roi_pool", "roi_align", "ps_roi_pool"])
def test_the_reference_takes_an_output_size_of_any_kind(pool):
    g = torch.Generator().manual_seed(9)
    x, boxes = torch.randn(1, 12, 9, 9, generator=g), _boxes(g, 5, 1, side=9)
    expected = getattr(ops, pool)(x, boxes, (2, 3))
    torch.testing.assert_close(getattr(amstel.reference, pool)(x, boxes, [2, 3]), expected)
