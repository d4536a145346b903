"""SINT's networks, loss, training and shipped weights."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import amstel
from amstel import weights
from amstel.apps.tracking import initial, samples
from amstel.apps.tracking import train as recipe
from amstel.data.pairs import FramePair, overlaps
from amstel.nn import SINT, EfficientNetLite, MarginContrastiveLoss
from tests import processes

BOXES = torch.tensor([[0.0, 10, 12, 50, 60], [0, 14, 9, 57, 50], [0, 0, 0, 63, 63], [0, 40, 30, 60, 80]])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    return SINT().eval()


@pytest.fixture(scope="module")
def vgg():
    torch.manual_seed(0)
    return SINT("vgg16", output_size=1).eval()


# ------------------------------------------------------------------------------------------------- VGG-16


def torchvision_names(output_size):
    """The names and shapes of torchvision's vgg16, as (name, shape)."""
    widths = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
    before, index = 3, 0
    for width in widths:
        if width == "M":
            index += 1
            continue
        yield f"features.{index}", (width, before, 3, 3)
        before, index = width, index + 2
    yield "classifier.0", (4096, 512 * output_size**2)
    yield "classifier.3", (4096, 4096)
    yield "classifier.6", (1000, 4096)


def test_vgg16_has_54272_numbers():
    with torch.device("meta"):
        model = SINT("vgg16")
    assert model.size == 2 * 512 * 49 + 4096 == 54272 and model.layers == 3
    assert model.spatial_scales == (0.25, 0.25)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    expected = {}
    for name, shape in torchvision_names(7):
        if name not in ("classifier.3", "classifier.6"):
            own = name.replace("classifier.0", "fc6") if name == "classifier.0" else f"backbone.{name}"
            expected |= {f"{own}.weight": shape, f"{own}.bias": shape[:1]}
    assert shapes == expected


def test_torchvision_weights_load():
    with torch.device("meta"):
        model = SINT("vgg16", output_size=2)
    state = {}
    for number, (name, shape) in enumerate(torchvision_names(2)):
        state |= {f"{name}.weight": torch.full(shape, number / 100), f"{name}.bias": torch.zeros(shape[0])}
    assert not any(model.load_state_dict(state, assign=True))
    assert (model.backbone.features[28].weight == 0.12).all()
    assert (model.fc6.weight == 0.13).all()
    del state["features.28.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*backbone\.features\.28\.weight"):
        model.load_state_dict(state)


def test_vgg16_describes_conv4_conv5_and_fc6(vgg):
    image = torch.rand(1, 3, 72, 64)
    with torch.no_grad():
        conv4, conv5 = vgg.features(image)
        assert conv4.shape == conv5.shape == (1, 512, 18, 16)
        # The same network step by step.
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
        x = (image - mean) / std
        convs = [layer for layer in vgg.backbone.features if isinstance(layer, nn.Conv2d)]
        for number, conv in enumerate(convs, 1):
            x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
            if number in (2, 4):
                x = F.max_pool2d(x, 2)
            if number == 10:
                torch.testing.assert_close(conv4, x)
        torch.testing.assert_close(conv5, x)
        found = vgg.describe([conv4, conv5], BOXES)
        pooled = [amstel.reference.roi_pool(x, BOXES, 1, 0.25).flatten(1) for x in (conv4, conv5)]
        parts = [*pooled, vgg.fc6(pooled[1])]
        torch.testing.assert_close(found, torch.cat([F.normalize(p) for p in parts], 1))


# ------------------------------------------------------------------------------------------------- light


def test_light_maps(light):
    maps = light.features(torch.rand(2, 3, 64, 80))
    assert [tuple(m.shape) for m in maps] == [(2, 24, 16, 20), (2, 40, 8, 10), (2, 64, 4, 5)]
    assert light.spatial_scales == (1 / 4, 1 / 8, 1 / 16) and light.layers == 3
    assert light.size == (24 + 40 + 64) * 49
    # Sizes that no stride divides: every pixel has its cell.
    assert [tuple(m.shape[2:]) for m in light.features(torch.rand(1, 3, 33, 49))] == [(9, 13), (5, 7), (3, 4)]


def test_a_crop_with_the_receptive_field_has_the_same_maps(light):
    margin, stride = 80, 16
    assert light.receptive_field <= margin
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        whole = light.features(image)
        part = light.features(image[:, :, 16:240, 32:256])
    for a, b, scale in zip(whole, part, light.spatial_scales, strict=True):
        s = round(1 / scale)
        k = -(-light.receptive_field // s)  # cells without the whole context
        a = a[:, :, 16 // s : 240 // s, 32 // s :]
        inner = (..., slice(k, a.shape[2] - k), slice(k, a.shape[3] - k))
        assert a[inner].shape[2] >= 1
        torch.testing.assert_close(a[inner], b[inner], rtol=1e-4, atol=1e-4)
    assert stride == round(1 / min(light.spatial_scales))


@pytest.mark.parametrize("name", ["light", "vgg16"])
def test_the_receptive_field_is_tight(name):
    """The gradient of a cell reaches as far as the attribute says, and no further."""
    model = SINT(name, output_size=1).double()
    for p in model.parameters():  # nothing may be cut by an activation
        nn.init.uniform_(p, 1e-3, 2e-3)
    side = 160 if name == "light" else 112
    image = torch.full((1, 3, side, side), 0.9, dtype=torch.double, requires_grad=True)
    reach = 0
    for x, scale in zip(model.features(image), model.spatial_scales, strict=True):
        s, cell = round(1 / scale), round(side / 2 * scale)
        (grad,) = torch.autograd.grad(x[0, :, cell, cell].sum(), image, retain_graph=True)
        columns = grad[0].abs().sum((0, 1)).nonzero().flatten()
        reach = max(reach, cell * s - int(columns[0]), int(columns[-1]) - (cell * s + s - 1))
    assert reach == model.receptive_field


def test_cells_see_the_middle_of_their_pixels():
    trunk = EfficientNetLite()
    stride, left, right = 1, 0, 0
    for conv in [trunk.stem, *(block.depthwise for block in trunk.blocks)]:
        left += stride * conv.before
        right += stride * (conv.kernel_size[0] - 1 - conv.before)
        stride *= conv.stride[0]
        assert abs(left - (right - (stride - 1))) / 2 <= 0.25 * stride


def efficientnet_state(trunk):
    """A made-up state_dict of the package of weights, and the same trunk with its normalizations apart."""
    generator = torch.Generator().manual_seed(0)
    state, parts = {}, [(trunk.stem, "_conv_stem", "_bn0")]
    for n, block in enumerate(trunk.blocks):
        for k, part in enumerate(("expand", "depthwise", "project")):
            if getattr(block, part) is not None:
                parts.append((getattr(block, part), f"_blocks.{n}._{part}_conv", f"_blocks.{n}._bn{k}"))
    for conv, name, norm in parts:
        state[f"{name}.weight"] = torch.randn(conv.weight.shape, generator=generator) * 0.3
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{key}"] = torch.rand(len(conv.weight), generator=generator) + 0.1
    return state, parts


def test_imagenet_weights_are_folded():
    trunk = EfficientNetLite((1,))
    state, parts = efficientnet_state(trunk)
    trunk.load_imagenet(state | {"_fc.weight": torch.zeros(3)})
    for conv, name, norm in parts:
        x = torch.randn(2, conv.in_channels, 9, 9)
        normed = F.batch_norm(
            nn.Conv2d.forward(conv, x) - conv.bias[:, None, None],
            *(torch.zeros(len(conv.weight)), torch.ones(len(conv.weight))),
            eps=0.0,
        )
        y = F.conv2d(x, state[f"{name}.weight"], None, conv.stride, conv.padding, 1, conv.groups)
        keys = ("running_mean", "running_var", "weight", "bias")
        expected = F.batch_norm(y, *(state[f"{norm}.{key}"] for key in keys), eps=1e-3)
        torch.testing.assert_close(normed + conv.bias[:, None, None], expected, rtol=1e-4, atol=1e-4)
    del state["_blocks.1._bn2.running_var"]
    with pytest.raises(ValueError, match=r"`state_dict` must hold .*_blocks\.1\._bn2\.running_var"):
        trunk.load_imagenet(state)
    state, _ = efficientnet_state(trunk)
    state["_conv_stem.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"_conv_stem\.weight \[32, 3, 3, 3\], got float32 \[3\]"):
        trunk.load_imagenet(state)
    for taps in ((), (3, 2), (11,), (-1, 2)):
        with pytest.raises(ValueError, match="`taps`"):
            EfficientNetLite(taps)


# ------------------------------------------------------------------------------------- describe and match


@pytest.mark.parametrize("name", ["light", "vgg"])
def test_match_is_the_product_of_descriptions(name, request):
    model = request.getfixturevalue(name)
    with torch.no_grad():
        features = model.features(torch.rand(2, 3, 96, 80))
        boxes = torch.cat([BOXES, torch.cat([torch.ones(4, 1), BOXES[:, 1:]], 1)])
        described = model.describe(features, boxes)
        assert described.shape == (8, model.size)
        torch.testing.assert_close(described.square().sum(1), torch.full((8,), float(model.layers)))
        query = described[1]
        scores = model.match(features, boxes, query)
        torch.testing.assert_close(scores, described @ query, rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            short = model.match(features, boxes, query.bfloat16())
        torch.testing.assert_close(short.float(), scores, rtol=0.05, atol=0.05)
        assert scores.argmax() == 1 and scores[1] == pytest.approx(model.layers, rel=1e-4)
        assert model.match(features, boxes[:0], query).shape == (0,)
        torch.testing.assert_close(
            model(torch.zeros(1, 3, 64, 64), BOXES)[0].isfinite().all(), torch.tensor(True)
        )


def test_maps_are_those_of_the_network_in_their_order(light):
    maps, boxes = light.features(torch.rand(1, 3, 64, 96)), torch.tensor([[0, 8.0, 8, 40, 40]])
    query = light.describe(maps, boxes)[0]
    for wrong, error in (
        (maps[:2], ValueError),
        (maps[::-1], ValueError),
        ([], ValueError),
        (maps[0], TypeError),
    ):
        for call in (lambda: light.describe(wrong, boxes), lambda: light.match(wrong, boxes, query)):  # noqa: B023
            with pytest.raises(error, match=r"`features` must be a list of maps .* of 24, 40, 64 channels"):
                call()


def test_boxes_as_a_list(light):
    with torch.no_grad():
        features = light.features(torch.rand(2, 3, 64, 64))
        boxes = torch.cat([BOXES, torch.cat([torch.ones(4, 1), BOXES[:, 1:]], 1)])
        listed = [BOXES[:, 1:], BOXES[:, 1:]]
        assert torch.equal(light.describe(features, listed), light.describe(features, boxes))


class Own(nn.Module):
    """A backbone that returns the image itself and its halves."""

    channels, strides, receptive_field = (3, 3), (1, 2), 0

    def forward(self, x):
        return [x, F.avg_pool2d(x, 2)]


def test_own_backbone():
    model = SINT(Own(), output_size=3)
    image = torch.rand(1, 3, 64, 64)
    found = model(image, BOXES)
    pooled = [
        amstel.reference.roi_pool(x, BOXES, 3, s).flatten(1)
        for x, s in zip(Own()(image), (1, 0.5), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat([F.normalize(p) for p in pooled], 1))
    assert (
        model.receptive_field == 0 and model.spatial_scales == (1, 0.5) and model.trainable() == [(1.0, [])]
    )
    # A black image has no direction: zeros, and no NaN in the gradient.
    image = torch.zeros(1, 3, 64, 64, requires_grad=True)
    found = model(image, BOXES)
    found.sum().backward()
    assert not found.any() and not image.grad.any()


def test_gradients_flow_to_all_that_is_trained():
    torch.manual_seed(0)
    model = SINT()
    optimizer = recipe._optimizer(model, recipe.Settings())
    found = model(torch.rand(1, 3, 64, 64), BOXES)
    (found @ torch.randn(model.size)).sum().backward()
    for name, p in model.named_parameters():
        assert p.requires_grad and p.grad is not None and p.grad.abs().sum() > 0, name
    assert [group["factor"] for group in optimizer.param_groups] == [0.3, 1.0]


def test_the_first_layers_of_vgg16_are_frozen():
    with torch.device("meta"):
        model = SINT("vgg16")
    optimizer = recipe._optimizer(model, recipe.Settings())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    convs = {f"backbone.features.{n}.{part}" for n in (21, 24, 26, 28) for part in ("weight", "bias")}
    assert trained == convs | {"fc6.weight", "fc6.bias"}
    assert [group["factor"] for group in optimizer.param_groups] == [0.01, 1.0]


def test_sint_explains_itself(light):
    for options, message in (
        ({"backbone": "resnet"}, "'light', 'vgg16' or a module, got 'resnet'"),
        ({"backbone": nn.Identity()}, "a module with the attribute channels"),
        ({"output_size": 0}, "`output_size` must be an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SINT(**options)
    for image in (torch.rand(3, 8, 8), torch.rand(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"`image` must be .*RGB in \[0, 1\]"):
            light.features(image)
    with pytest.raises(TypeError, match="`image`"):
        light.features(np.zeros((1, 3, 8, 8)))
    with torch.no_grad():
        features = light.features(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"`query` must be float32 \[6272\]"):
        light.match(features, BOXES, torch.zeros(10))


# -------------------------------------------------------------------------------------------------- loss


def test_loss_is_equation_1():
    torch.manual_seed(0)
    a, b = (F.normalize(torch.randn(20, 5, dtype=torch.double)) for _ in range(2))
    y = torch.arange(20) % 2
    for margin in (1.0, 2.5):
        each = []
        for u, v, same in zip(a, b, y, strict=True):
            square = sum((p - q) ** 2 for p, q in zip(u.tolist(), v.tolist(), strict=True))
            each.append(0.5 * square if same else 0.5 * max(0.0, margin - square))
        expected = torch.tensor(each, dtype=torch.double)
        for reduction, value in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
            torch.testing.assert_close(MarginContrastiveLoss(margin, reduction)(a, b, y), value)
    torch.testing.assert_close(
        MarginContrastiveLoss()(a[:1], b, y.bool()), MarginContrastiveLoss()(a[:1].expand(20, 5), b, y)
    )


def test_gradient_of_the_loss():
    torch.manual_seed(0)
    a, b = (torch.randn(6, 4, dtype=torch.double, requires_grad=True) for _ in range(2))
    y = torch.tensor([1, 0, 1, 0, 0, 1])
    loss = MarginContrastiveLoss(8.0)
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, y), (a, b))
    same = torch.ones(2, 4, requires_grad=True)
    MarginContrastiveLoss()(same, same.detach().clone(), torch.tensor([0, 1])).backward()
    assert same.grad.isfinite().all()


def test_loss_explains_itself():
    a = torch.rand(3, 4)
    for margin in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="`margin`"):
            MarginContrastiveLoss(margin)
    with pytest.raises(ValueError, match="`reduction`"):
        MarginContrastiveLoss(reduction="max")
    with pytest.raises(ValueError, match=r"`b` must be \[\.\.\., 4\]"):
        MarginContrastiveLoss()(a, torch.rand(3, 5), torch.ones(3))
    with pytest.raises(ValueError, match=r"`y` must be \[3\]"):
        MarginContrastiveLoss()(a, a, torch.ones(4))
    for bad in (torch.tensor([1, -1, 1]), torch.tensor([1, 0.5, 0]), torch.tensor([0, torch.nan, 1])):
        with pytest.raises(
            ValueError, match="`y` must be 1 for a pair of the same target and 0 for another, got"
        ):
            MarginContrastiveLoss()(a, a, bad)


# ---------------------------------------------------------------------------------------------- training


class Squares:
    """A target with a pattern of its own on noise, shown twice."""

    def __init__(self, count=6):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index, rng):
        pattern = np.random.default_rng(index).integers(0, 256, (4, 4, 3))
        pattern = pattern.repeat(6, 0).repeat(6, 1)
        frames, boxes = rng.integers(80, 176, (2, 64, 64, 3)), []
        for frame in frames:
            x, y = rng.integers(8, 32, 2)
            frame[y : y + 24, x : x + 24] = pattern
            boxes.append([x, y, x + 24, y + 24])
        pixels = torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.uint8))
        return FramePair(pixels, torch.tensor(boxes).float(), (torch.empty(0, 4), torch.empty(0, 4)))


TINY = recipe.Settings(boxes=16, mining=2, epochs=2, batch=4, output_size=3, learning_rate=3e-3)


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(1)
    return SINT(output_size=3).state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("loss", ["ranking", "margin"])
def test_training_lowers_the_loss(start, loss):
    done = recipe.train(Squares(), replace(TINY, epochs=6, loss=loss), initial=start)
    share = 0.97 if loss == "ranking" else 0.8  # of which the entropy of the overlaps is no one's to lower
    assert done.history[-1]["loss"] < share * done.history[0]["loss"]
    first, last = done.history[0], done.history[-1]
    assert last["same"] - last["other"] > first["same"] - first["other"]
    assert not done.model.training and set(first) == {"loss", "same", "other"}


def test_training_repeats_and_resumes_bit_for_bit(start, tmp_path):
    whole = recipe.train(Squares(), TINY, initial=start)
    seen = []

    def interrupt(n):
        seen.append(n)
        if sum(seen) > 6:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.train(Squares(), TINY, tmp_path, initial=start, progress=interrupt)
    assert seen == [4, 2, 4]
    resumed = recipe.train(Squares(), replace(TINY, seed=5), tmp_path, resume=True)
    assert equal(resumed.model.state_dict(), whole.model.state_dict()) and resumed.history == whole.history
    assert equal(recipe.load(tmp_path / recipe.CHECKPOINT).state_dict(), whole.model.state_dict())
    assert recipe.read(tmp_path / recipe.CHECKPOINT).settings == TINY
    other = recipe.train(Squares(), replace(TINY, seed=5), initial=start)
    assert not equal(other.model.state_dict(), whole.model.state_dict())


def _process(rank, world, folder, settings, start):
    done = recipe.train(Squares(5), settings, initial=start)
    grad = {name: p.grad for name, p in done.model.named_parameters()}
    torch.save({"grad": grad, "history": done.history}, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(start, tmp_path):
    # Five pairs in one batch: shares of three and two, which count by their size.
    settings = replace(TINY, epochs=1, batch=5, clip_gradient=0.0, mining=1)
    alone = recipe.train(Squares(5), settings, initial=start)
    processes.run(_process, tmp_path, settings, start)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, p in alone.model.named_parameters():
        torch.testing.assert_close(found[0]["grad"][name], p.grad, rtol=1e-3, atol=1e-5)
        assert torch.equal(found[0]["grad"][name], found[1]["grad"][name])
    assert found[0]["history"] == found[1]["history"]
    assert found[0]["history"][0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=1e-5)


def test_losses_of_a_step_by_hand(start):
    model = SINT(output_size=3)
    model.load_state_dict(start)
    settings = replace(TINY, mining=1)
    frames, targets, boxes, y = samples._batch(Squares(), [0, 1], settings, 0, torch.device("cpu"))
    with torch.no_grad():
        ranking, means = recipe._Step(model, settings)(frames, targets, boxes, y)
        margin, _ = recipe._Step(model, replace(settings, loss="margin", margin=0.7))(
            frames, targets, boxes, y
        )
        by_rank, by_margin, same = [], [], []
        for n in range(4):
            other = n ^ 1  # the other frame of the pair
            query = model(frames[other, None], samples._rois([targets[other, None]], frames.device))[0]
            found = model(frames[n, None], samples._rois([boxes[n]], frames.device))
            score, overlap = found @ query / 3, overlaps(boxes[n], targets[n])
            by_rank.append(F.cross_entropy(16 * score, (10 * overlap).softmax(0)))
            square = (found - query).square().sum(1)
            by_margin.append(torch.where(overlap > 0.7, square, (2.1 - square).clamp_min(0)) / 2)
            same.append(score[overlap > 0.7].mean())
    torch.testing.assert_close(ranking, torch.stack(by_rank).mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(margin, torch.cat(by_margin).mean(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(means[0], torch.stack(same).mean(), rtol=1e-4, atol=1e-4)


def test_the_hardest_others_are_kept(start):
    model = SINT(output_size=3)
    model.load_state_dict(start)
    settings = replace(TINY, boxes=16, mining=4)
    step = recipe._Step(model, settings)
    frames, targets, drawn, y = samples._batch(Squares(), [0, 1], settings, 0, torch.device("cpu"))
    assert frames.shape == (4, 3, 64, 64) and drawn.shape == (4, 4 + 4 * 12, 4)
    with torch.no_grad():
        features = model.features(frames)
        queries = model.describe(features, samples._rois(list(targets[:, None]), frames.device))
        boxes, labels = step._hardest(features, drawn, y, queries)
        assert boxes.shape == (4, 16, 4) and labels.shape == (4, 16) and labels.sum() == 16
        assert torch.equal(boxes[:, :4], drawn[:, :4])
        for n in range(4):
            everything = model.describe(
                features, samples._rois([drawn[n, 4:]], frames.device) + torch.tensor([n, 0, 0, 0, 0])
            )
            scores = everything @ queries[n]
            kept = (drawn[n, 4:, None] == boxes[n, 4:10]).all(2).any(1)
            assert scores[kept].min() >= scores[~kept].max() - 1e-4


def test_matching_finds_what_it_knows(start):
    found = recipe.matching(SINT(Own(), 5), Squares(), 12)
    assert found.accuracy >= 0.75 and 0.6 < found.iou <= found.reachable <= 1
    assert found == recipe.matching(SINT(Own(), 5), Squares(), 12)


def test_a_start_from_imagenet_is_white_and_centered(monkeypatch):
    trunk = EfficientNetLite()
    state, _ = efficientnet_state(trunk)
    trunk.load_imagenet(state)
    pairs = Squares(8)
    model = initial.from_imagenet(state, pairs, output_size=3, count=8)
    assert equal(trunk.state_dict(), model.backbone.trunk.state_dict())
    cells, pooled = [[], [], []], [[], [], []]
    begun = {key: value.clone() for key, value in model.state_dict().items()}
    bias = [begun[f"backbone.projections.{k}.bias"] for k in range(3)]
    with torch.no_grad():
        for project in model.backbone.projections:
            project.bias.zero_()
        for n in range(8):
            rng = np.random.default_rng([0, n])
            pair = pairs.sample(n, rng)
            boxes, _ = samples._draw(pair, recipe.Settings(mining=1), rng)
            for k, x in enumerate(model.features(pair.frames.float() / 255)):
                cells[k].append(x.transpose(0, 1).flatten(1))
                rois = samples._rois(list(boxes), x.device)
                pooled[k].append(amstel.ops.roi_pool(x, rois, 3, model.spatial_scales[k]).mean((0, 2, 3)))
    for k in range(3):
        spread = torch.cat(cells[k], 1).cov()
        off = spread - spread.diagonal().diag()
        assert off.abs().max() < 1e-2 * spread.diagonal().max() and spread.diagonal().max() < 1.01
        torch.testing.assert_close(torch.stack(pooled[k]).mean(0), -bias[k], rtol=1e-4, atol=1e-4)
    whiten = initial.from_imagenet
    monkeypatch.setattr(initial, "from_imagenet", lambda *args, **options: whiten(*args, count=8, **options))
    monkeypatch.setattr(initial, "imagenet_weights", lambda: state)
    done = recipe.train(pairs, replace(TINY, epochs=1, learning_rate=0.0), initial="imagenet")
    assert equal(done.model.state_dict(), begun)
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"amstel\[track-train\]"):
        recipe.train(pairs, TINY, initial="imagenet")


def test_training_explains_itself(tmp_path, start):
    with pytest.raises(ValueError, match="`pairs` must be at least one pair"):
        recipe.train(Squares(0), TINY)
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.pt does not exist"):
        recipe.train(Squares(), TINY, tmp_path, resume=True)
    with pytest.raises(ValueError, match="`out` must be"):
        recipe.train(Squares(), TINY, resume=True)
    with pytest.raises(ValueError, match="`initial` must be torchvision's"):
        recipe.train(Squares(), replace(TINY, backbone="vgg16"))
    with pytest.raises(ValueError, match="or 'imagenet' for the light network, got 'zeros'"):
        recipe.train(Squares(), TINY, initial="zeros")
    (tmp_path / recipe.CHECKPOINT).write_bytes(b"broken")
    with pytest.raises(ValueError, match="is not a checkpoint of `amstel track train`"):
        recipe.load(tmp_path / recipe.CHECKPOINT)
    for name, value in {
        "backbone": "x",
        "boxes": 3,
        "mining": 0,
        "epochs": 0,
        "batch": 1.5,
        "margin": -1.0,
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            replace(TINY, **{name: value})


# --------------------------------------------------------------------------------------- shipped weights


def test_shipped_weights():
    pytest.importorskip("safetensors")
    assert "sint_light" in weights.names()
    assert weights.path("sint_light").stat().st_size < 20e6
    state = weights.load("sint_light")
    model = SINT.pretrained()
    assert equal(state, model.state_dict()) and not model.training
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in state.values())
    said = weights.metadata("sint_light")
    assert said["format"] == "amstel sint 1" and "Apache-2.0" in said["license"] and said["seed"].isdigit()
    card = weights.path("sint_light").with_suffix(".md").read_text()
    assert "Apache" in card and "bsd300_train" in card
    with pytest.raises(ValueError, match=r"`name` must be one of .*sint_light.*, got 'other'"):
        weights.load("other")


def test_shipped_weights_match_a_moved_patch():
    pytest.importorskip("safetensors")
    found = recipe.matching(SINT.pretrained(), Squares(), 12)
    assert found.accuracy >= 0.75


def test_importing_the_models_needs_no_extra():
    code = (
        "import sys\n"
        "for name in ('cv2', 'safetensors', 'PIL', 'scipy', 'av'): sys.modules[name] = None\n"
        "import amstel, amstel.nn, amstel.weights, amstel.data.pairs, amstel.apps.tracking.train\n"
        "try: amstel.nn.SINT.pretrained()\n"
        "except ImportError as error: assert 'amstel[track]' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
