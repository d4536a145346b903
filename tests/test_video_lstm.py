"""The video models against a plain re-implementation, their causality and lengths; backbones; the training recipe."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

import amstel.nn
from amstel.apps.video import network, samples
from amstel.apps.video import settings as settings_of
from amstel.apps.video import train as recipe
from amstel.apps.video.predict import predict
from amstel.data import generate_moving_shapes
from amstel.nn import (
    ALSTM,
    ConvALSTM,
    ConvLSTMClassifier,
    FrameClassifier,
    LSTMClassifier,
    SmallBackbone,
    VGG16Features,
    VideoLSTM,
)
from tests import processes

T, N, C, SIDE, K = 5, 3, 6, 4, 3
ATTENTIVE = [ALSTM, ConvALSTM, VideoLSTM]
ALL = [FrameClassifier, LSTMClassifier, ConvLSTMClassifier, *ATTENTIVE]


def _model(kind, dtype=torch.float64, **options):
    torch.manual_seed(0)
    return kind(C, 4, K, feature_size=SIDE, head_channels=8, **{"dropout": 0.0, **options}).to(dtype)


def _features(kind, seed=1, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(seed)
    count = 2 if kind is VideoLSTM else 1
    return [torch.randn(T, N, C, SIDE, SIDE, generator=generator, dtype=dtype) for _ in range(count)]


# ----------------------------------------------------------------- the formulas again, one clip and step at a time


def _cell(gates, c):
    i, f, g, o = gates.chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _conv(x, weight, bias=None):
    return F.conv2d(x[None], weight, bias, padding=weight.shape[-1] // 2)[0]


def _head(model, h):
    one, _, _, two = model.head
    return two.weight @ torch.tanh(one.weight @ h.flatten() + one.bias) + two.bias


def _attend(model, x, h):
    """1x1 convolutions as sums over channels at every place, softmax by its definition."""
    hidden = torch.einsum("ac,chw->ahw", model.attend_x.weight[:, :, 0, 0], x)
    hidden = hidden + model.attend_x.bias[:, None, None]
    if isinstance(model, ALSTM):
        hidden = hidden + (model.attend_h.weight @ h)[:, None, None]
    else:
        hidden = hidden + torch.einsum("ac,chw->ahw", model.attend_h.weight[:, :, 0, 0], h)
    scores = torch.einsum("a,ahw->hw", model.attend.weight[0, :, 0, 0], hidden.tanh())
    return scores.exp() / scores.exp().sum()


def _plain(model, features, lengths, initial):
    """Logits and attention [T, N, ...] as lists of lists, nothing hoisted, nothing batched, nothing padded."""
    logits = [[torch.zeros(K, dtype=torch.float64)] * N for _ in range(T)]
    attention = [[torch.zeros(SIDE, SIDE, dtype=torch.float64)] * N for _ in range(T)]
    for n in range(N):
        clips = [x[: lengths[n], n] for x in features]
        x = clips[0]
        seen = [{"first": clip[0], "mean": clip.mean(0), "zeros": None}[initial] for clip in clips]
        zeros = torch.zeros(4, SIDE, SIDE, dtype=torch.float64)
        h = c = h_m = c_m = zeros
        if isinstance(model, (LSTMClassifier, ALSTM)):
            h = c = torch.zeros(4, dtype=torch.float64)
        if isinstance(model, ALSTM) and seen[0] is not None:
            h, c = (model.initial.weight @ seen[0].mean((1, 2)) + model.initial.bias).tanh().chunk(2)
        if isinstance(model, ConvALSTM) and seen[0] is not None:
            h, c = _conv(seen[0], model.initial.weight, model.initial.bias).tanh().chunk(2)
        if isinstance(model, VideoLSTM) and seen[0] is not None:
            h_m, c_m = _conv(seen[1], model.motion_initial.weight, model.motion_initial.bias).tanh().chunk(2)
        for t in range(lengths[n]):
            a = None
            if isinstance(model, FrameClassifier):
                h = x[t].mean((1, 2))
            elif isinstance(model, LSTMClassifier):
                p = dict(model.lstm.named_parameters())
                gates = p["weight_ih_l0"] @ x[t].mean((1, 2)) + p["bias_ih_l0"]
                h, c = _cell(gates + p["weight_hh_l0"] @ h + p["bias_hh_l0"], c)
            elif isinstance(model, ALSTM):
                a = _attend(model, x[t], h)
                p = model.lstm
                gates = p.weight_ih @ (a * x[t]).sum((1, 2)) + p.bias_ih + p.weight_hh @ h + p.bias_hh
                h, c = _cell(gates, c)
            else:
                gates = model.lstm.layers[0] if isinstance(model, ConvLSTMClassifier) else model.lstm
                frame = x[t]
                if isinstance(model, VideoLSTM):
                    motion = model.motion
                    own, top = motion.weight_hh[:, :4], motion.weight_hh[:, 4:]
                    moved = _conv(clips[1][t], motion.weight_ih, motion.bias)
                    h_m, c_m = _cell(moved + _conv(h_m, own) + _conv(h, top), c_m)
                if isinstance(model, ConvALSTM):
                    a = _attend(model, frame, h_m if isinstance(model, VideoLSTM) else h)
                    frame = a * frame
                h, c = _cell(_conv(frame, gates.weight_ih, gates.bias) + _conv(h, gates.weight_hh), c)
            logits[t][n] = _head(model, h)
            if a is not None:
                attention[t][n] = a
    return torch.stack([torch.stack(row) for row in logits]), torch.stack(
        [torch.stack(row) for row in attention]
    )


@pytest.mark.parametrize(
    "kind, initial",
    [(FrameClassifier, "zeros"), (LSTMClassifier, "zeros"), (ConvLSTMClassifier, "zeros")]
    + [(kind, initial) for kind in ATTENTIVE for initial in ("first", "mean", "zeros")],
)
def test_models_are_their_formulas(kind, initial):
    model = _model(kind, **({"initial_state": initial, "attention_channels": 5} if kind in ATTENTIVE else {}))
    for p in model.parameters():  # zeros would hide a mistake
        torch.nn.init.normal_(p, std=0.4)
    features = [x.requires_grad_() for x in _features(kind)]
    lengths = [T, 2, 4]
    ours, attention = model(*features, lengths=torch.tensor(lengths))
    plain, maps = _plain(model, features, lengths, initial)
    torch.testing.assert_close(ours, plain)
    assert ours.shape == (T, N, K)
    if kind in ATTENTIVE:
        torch.testing.assert_close(attention, maps)
    else:
        assert attention is None
    wanted = [*features, *model.parameters()]
    weight = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), wanted),
        torch.autograd.grad((plain * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ALL)
def test_models_are_causal(kind):
    model, features = _model(kind), _features(kind)
    logits, attention = model(*features)
    for t in range(1, T):
        changed = [torch.cat([x[:t], torch.full_like(x[t:], torch.nan)]) for x in features]
        part, maps = model(*changed)
        torch.testing.assert_close(part[:t], logits[:t], rtol=0, atol=0)
        if maps is not None:
            torch.testing.assert_close(maps[:t], attention[:t], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ATTENTIVE)
def test_the_mean_as_initial_state_is_not_causal(kind):
    model, features = _model(kind, initial_state="mean"), _features(kind)
    before = model(*features)[0][0]
    assert not torch.allclose(model(*[torch.cat([x[:-1], x[-1:] + 1]) for x in features])[0][0], before)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_past_the_end_plays_a_part(kind):
    model, features, lengths = _model(kind), _features(kind), torch.tensor([2, T, 1])
    past = torch.arange(T)[:, None] >= lengths
    clean, _ = model(*features, lengths=lengths)
    dirty = [torch.where(past[..., None, None, None], torch.nan, x).requires_grad_() for x in features]
    logits, attention = model(*dirty, lengths=lengths)
    torch.testing.assert_close(logits, clean, rtol=0, atol=0)
    assert (logits[past] == 0).all() and (logits[~past] != 0).all()
    logits.sum().backward()
    for x in dirty:
        assert (x.grad[past] == 0).all() and (x.grad[~past] != 0).any()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if attention is not None:
        torch.testing.assert_close(attention.sum((2, 3)), (~past).double())
    # Alone and cut to its length, a clip gives the same.
    alone, _ = model(*[x[:2, :1] for x in features])
    torch.testing.assert_close(alone[:, 0], logits[:2, 0])


@pytest.mark.parametrize("kind", ALL)
def test_batch_first(kind):
    features = _features(kind)
    logits, attention = _model(kind)(*features)
    turned, maps = _model(kind, batch_first=True)(*[x.transpose(0, 1) for x in features])
    torch.testing.assert_close(turned.transpose(0, 1), logits)
    assert (attention is None) == (maps is None) and (maps is None or maps.shape == (N, T, SIDE, SIDE))


def test_lstm_classifier_takes_vectors():
    model, (x,) = _model(LSTMClassifier), _features(LSTMClassifier)
    torch.testing.assert_close(model(x.mean((3, 4)))[0], model(x)[0])


def test_the_attention_of_video_lstm_follows_the_flow():
    model, (x, m) = _model(VideoLSTM), _features(VideoLSTM)
    assert not torch.allclose(model(x, m + 1)[1], model(x, m)[1])
    # And the flow has no other way to the classes.
    with torch.no_grad():
        model.attend.weight.zero_()
    torch.testing.assert_close(model(x, m + 1)[0], model(x, m)[0])


def test_flow_channels_and_rectangular_maps():
    model = VideoLSTM(6, 4, 2, flow_channels=2, feature_size=(3, 5), kernel_size=(1, 3), head_channels=7)
    logits, attention = model(torch.randn(2, 1, 6, 3, 5), torch.randn(2, 1, 2, 3, 5))
    assert logits.shape == (2, 1, 2) and attention.shape == (2, 1, 3, 5)


def test_bfloat16_and_autocast():
    model, (x, m) = _model(VideoLSTM, torch.float32), _features(VideoLSTM, dtype=torch.float32)
    expected = model(x, m)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x, m)[0].float(), expected, rtol=0.1, atol=0.05)
    low = _model(VideoLSTM, torch.bfloat16)(x.bfloat16(), m.bfloat16())[0]
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x: ConvALSTM(6, 4, 3, feature_size=4)(x[0]), r"`features` must be floating-point \[T, N, 6, 4, 4\]"),
        (lambda x: ConvALSTM(5, 4, 3, feature_size=4)(x), r"`features` must be .*\[T, N, 5, 4, 4\].*got float32"),
        (lambda x: ConvLSTMClassifier(6, 4, 3)(x), r"`features` must be .*`feature_size` is \(7, 7\)"),
        (lambda x: LSTMClassifier(5, 4, 3)(x), r"or \[T, N, 5\]"),
        (lambda x: ALSTM(6, 4, 3)(x[:0]), "at least one step"),
        (lambda x: ALSTM(6, 4, 3)(x.long()), "`features` must be floating-point"),
        (lambda x: ALSTM(6, 4, 3)(x, torch.tensor([1, 2, 6])), r"`lengths` .* from 1 to T = 5, got \[1, 2, 6\]"),
        (lambda x: ALSTM(6, 4, 3)(x, torch.tensor([0, 2, 5])), "`lengths` .* from 1 to T"),
        (lambda x: ALSTM(6, 4, 3)(x, torch.tensor([1.0, 2, 5])), "`lengths`"),
        (lambda x: ALSTM(6, 4, 3)(x, torch.tensor([1, 2])), "`lengths` must be None or 3 integers"),
        (lambda x: VideoLSTM(6, 4, 3, feature_size=4)(x, x[:4]), r"`flow_features` must be of the \[5, 3\]"),
        (lambda x: VideoLSTM(6, 4, 3, feature_size=4, flow_channels=2)(x, x), "`flow_features` must be"),
        (lambda x: ConvALSTM(6, 0, 3), "`hidden_channels` must be an integer >= 1"),
        (lambda x: ConvALSTM(6, 4, 3, attention_channels=0), "`attention_channels` must be"),
        (lambda x: ConvALSTM(6, 4, 3, feature_size=0), "`feature_size` must be"),
        (lambda x: ConvALSTM(6, 4, 3, dropout=1.0), r"`dropout` must be in \[0, 1\)"),
        (lambda x: ConvALSTM(6, 4, 3, initial_state="last"), "`initial_state` must be one of 'first', 'mean'"),
        (lambda x: amstel.nn.predict(x), r"`logits` must be \[T, N, K\]"),
        (lambda x: amstel.nn.fuse(x, x[0]), "`flow_logits` must be of the shape"),
        (lambda x: VGG16Features()(x), "`x` must be floating-point"),
        (lambda x: SmallBackbone(3)(x), r"`x` must be floating-point \[..., 3, H, W\]"),
        (lambda x: SmallBackbone(channels=()), "`channels` must be"),
        (lambda x: SmallBackbone(channels=(6,)), "`groups` must be 0 or a divisor"),
    ],
)  # fmt: skip
def test_models_explain_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(T, N, C, SIDE, SIDE))


@pytest.mark.parametrize(
    "call", [lambda: ConvALSTM(6, 4, 3)("x"), lambda: VideoLSTM(6, 4, 3)(torch.zeros(1), None)]
)
def test_a_tensor_is_expected(call):
    with pytest.raises((TypeError, ValueError), match="features` must be"):
        call()


def test_fuse_and_predict():
    a, b = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    product = a.softmax(-1) * b.softmax(-1)
    torch.testing.assert_close(amstel.nn.fuse(a, b), product / product.sum(-1, keepdim=True))
    lengths = torch.tensor([4, 2])
    mean = amstel.nn.predict(a, lengths)
    torch.testing.assert_close(mean[0], a[:, 0].softmax(-1).mean(0))
    torch.testing.assert_close(mean[1], a[:2, 1].softmax(-1).mean(0))
    torch.testing.assert_close(amstel.nn.predict(a.transpose(0, 1), lengths, batch_first=True), mean)


# ------------------------------------------------------------------------------------------------------ backbones

CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]  # where torchvision's vgg16 has them


def test_vgg16_loads_what_torchvision_saved():
    model = VGG16Features()
    names = [f"features.{n}.{part}" for n in CONVOLUTIONS for part in ("weight", "bias")]
    assert sorted(model.state_dict()) == sorted(names)
    assert sum(p.numel() for p in model.parameters()) == 14_714_688  # of the 138,357,544 of the whole network
    saved = {
        **VGG16Features().state_dict(),
        "classifier.0.weight": torch.zeros(1),
        "classifier.0.bias": torch.zeros(1),
    }
    model.load_state_dict(saved)
    torch.testing.assert_close(model.features[28].weight, saved["features.28.weight"])
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"features.0.weight": saved["features.0.weight"]})


def test_vgg16_from_the_meta_device():
    """Nothing but the weights is needed, whichever way they come."""
    model, x = VGG16Features().eval(), torch.rand(1, 3, 32, 32)
    state, expected = model.state_dict(), model(x)
    for assign in (False, True):
        other = VGG16Features(device="meta")
        if not assign:
            other.to_empty(device="cpu")
            other.reset_parameters()
        other.load_state_dict(state, assign=assign)
        assert not list(other.buffers()) and torch.equal(other(x), expected)


def test_vgg16_is_its_layers():
    model = VGG16Features().eval()
    x = torch.rand(2, 3, 64, 64)
    y = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    state, after = model.state_dict(), {2, 7, 14, 21, 28}
    for n in CONVOLUTIONS:
        y = F.conv2d(y, state[f"features.{n}.weight"], state[f"features.{n}.bias"], padding=1).relu()
        if n in after:
            y = F.max_pool2d(y, 2)
    torch.testing.assert_close(model(x), y)
    assert y.shape == (2, 512, 2, 2) and model(x[None]).shape == (1, 2, 512, 2, 2)
    with torch.device("meta"):
        assert VGG16Features(normalize=False)(torch.rand(1, 3, 224, 224)).shape == (1, 512, 7, 7)


def test_small_backbone_sees_one_frame_at_a_time():
    model, x = SmallBackbone(2, (8, 12)), torch.rand(3, 2, 2, 36, 64)
    assert model(x).shape == (3, 2, 12, 9, 16) and (model.out_channels, model.stride) == (12, 4)
    torch.testing.assert_close(model(x)[1, 1], model(x[1, 1][None])[0], rtol=1e-4, atol=1e-5)
    assert SmallBackbone(groups=0)(torch.rand(1, 3, 64, 64)).shape == (1, 32, 8, 8)


def test_a_place_of_the_small_backbones_maps_sees_its_own_square():
    model = SmallBackbone(channels=(4, 4), groups=0).double()
    for name, parameter in model.named_parameters():
        (torch.nn.init.ones_ if "weight" in name else torch.nn.init.zeros_)(parameter)
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    model(x)[0, 0, 3, 5].backward()
    seen = x.grad[0, 0]
    places = torch.arange(32) + 0.5
    assert (seen.sum(1) @ places.double() / seen.sum()).item() == pytest.approx(3.5 * 4 + 0.5)
    assert (seen.sum(0) @ places.double() / seen.sum()).item() == pytest.approx(5.5 * 4 + 0.5)


# --------------------------------------------------------------------------------------------------------- recipe


pytestmark = pytest.mark.usefixtures("one_thread")


CLASSES = ["right", "left"]
TINY = recipe.Settings.from_scratch(
    model="videolstm", motion="difference", frame_size=32, channels=(4, 8), hidden=4, head=8, steps=4, epochs=2, batch=4,
    flip=False, shift=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips():
    return generate_moving_shapes(10, frames=6, size=32, classes=2)


def _changed(**changes):
    return dataclasses.replace(TINY, **changes)


def _same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_resume_repeats_the_uninterrupted_run(clips, tmp_path, optimizer):
    settings = _changed(optimizer=optimizer, epochs=4, schedule="constant")
    whole = recipe.train(clips, CLASSES, settings)
    recipe.train(clips, CLASSES, dataclasses.replace(settings, epochs=2), out=tmp_path)
    torch.rand(17)  # the state of the global generator plays no part
    resumed = recipe.train(clips, CLASSES, settings, out=tmp_path, resume=True)
    assert resumed.history == whole.history and len(whole.history) == 4
    _same(resumed.network.state_dict(), whole.network.state_dict())
    _same(network.load(tmp_path / recipe.CHECKPOINT).state_dict(), whole.network.state_dict())


def test_an_interrupted_epoch_is_repeated(clips, tmp_path):
    whole = recipe.train(clips, CLASSES, TINY)
    seen = []

    def interrupt(n):
        seen.append(n)
        if sum(seen) > len(clips):  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.train(clips, CLASSES, TINY, out=tmp_path, progress=interrupt)
    resumed = recipe.train(clips, CLASSES, TINY, out=tmp_path, resume=True)
    _same(resumed.network.state_dict(), whole.network.state_dict())


def test_training_leaves_the_generator_of_its_caller_alone(clips):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    recipe.train(clips, CLASSES, _changed(epochs=1))
    assert torch.equal(torch.rand(2), expected)


def _process(rank, world, folder, settings, clips):
    done = recipe.train(clips, CLASSES, settings)
    state = {name: p.grad for name, p in done.network.named_parameters()}
    torch.save({"grad": state, "history": done.history}, f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(clips, tmp_path):
    # Nine clips in one batch: shares of five and four, which count by their size.
    settings = _changed(epochs=1, batch=9, dropout=0.0, clip_gradient=0.0)
    alone = recipe.train(clips[:9], CLASSES, settings)
    processes.run(_process, tmp_path, settings, clips[:9])
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, parameter in alone.network.named_parameters():
        torch.testing.assert_close(found[0]["grad"][name], parameter.grad, rtol=1e-3, atol=1e-5)
        assert torch.equal(found[0]["grad"][name], found[1]["grad"][name])
    for result in found:
        assert result["history"] == found[0]["history"]
        assert result["history"][0]["loss"] == pytest.approx(alone.history[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("model", list(network.MODELS))
@pytest.mark.parametrize("stream", settings_of.STREAMS)
def test_every_model_trains_on_every_stream(clips, model, stream):
    done = recipe.train(clips[:4], CLASSES, _changed(model=model, stream=stream, epochs=1))
    found = predict(done.network, clips[0].frames) if model in ("alstm", "convalstm", "videolstm") else None
    evaluation = recipe.evaluate(done.network, clips[:2], segments=2)
    torch.testing.assert_close(evaluation.probabilities.sum(1), torch.ones(2))
    if found is not None:
        assert found.attention.shape == (6, 8, 8) and found.boxes.shape == (6, 4)
        torch.testing.assert_close(found.attention.sum((1, 2)), torch.ones(6))


def test_streams_that_are_sure_of_different_classes_do_not_agree_on_the_first():
    sure = 300 * torch.eye(3)
    outputs = {"rgb": (sure[None, [1]], None), "flow": (sure[None, [2]], None)}
    p = [logits[0, 0].double().softmax(0) for logits, _ in outputs.values()]
    assert (p[0] * p[1]).argmin() == 0
    batch = samples._Batch(torch.zeros(1, 1), None, torch.tensor([1]), torch.tensor([0]))
    assert recipe._loss(outputs, batch)[1] == 0


def test_the_loss_goes_down_and_the_classes_are_learned():
    clips = generate_moving_shapes(60, frames=6, size=32, classes=2, speed=(2.0, 3.0), noise=0.0)
    settings = _changed(
        model="convlstm", hidden=8, steps=6, epochs=12, batch=10, learning_rate=5e-3, shift=0, dropout=0.0
    )
    done = recipe.train(clips, CLASSES, settings)
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]
    assert recipe.evaluate(done.network, clips).accuracy > 0.75


def test_evaluation_is_the_mean_over_25_segments(clips):
    network = recipe.train(clips[:4], CLASSES, _changed(model="convlstm", epochs=1)).network
    clip = generate_moving_shapes(1, frames=40, size=32, classes=2)[0]
    starts = torch.linspace(0, 36, 25).round().long().tolist()
    pixels = clip.frames.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        each = [network(pixels[s : s + 4, None], None)["rgb"][0].softmax(-1).mean(0)[0] for s in starts]
    found = recipe.evaluate(network, [clip])
    torch.testing.assert_close(found.probabilities[0], torch.stack(each).mean(0))
    with torch.no_grad():
        last = [network(pixels[s : s + 4, None], None)["rgb"][0][-1, 0].softmax(-1) for s in starts]
    torch.testing.assert_close(
        recipe.evaluate(network, [clip], vote="last").probabilities[0], torch.stack(last).mean(0)
    )
    assert found.labels.tolist() == [clip.label] and found.names == [clip.name]


def test_streams_are_fused_by_product(clips):
    network = recipe.train(clips[:4], CLASSES, _changed(stream="both", epochs=1)).network
    found = recipe.evaluate(network, clips[:1]).probabilities[0]
    video = samples._prepare(clips[0].frames, network.settings)
    products = []
    for start in range(3):
        part = slice(start, start + 4)
        with torch.no_grad():
            outputs = network(video.frames[part, None].float() / 255, video.motion[part, None])
        a, b = (logits.softmax(-1).mean(0)[0] for logits, _ in outputs.values())
        products.append(a * b / (a * b).sum())
    torch.testing.assert_close(found, torch.stack(products).mean(0))


def test_clips_of_every_length_and_size(clips):
    short = generate_moving_shapes(2, frames=1, size=48, classes=2)
    done = recipe.train([*clips[:3], *short], CLASSES, _changed(epochs=1))
    assert predict(done.network, short[0].frames).boxes.shape == (1, 4)
    assert len(recipe.evaluate(done.network, short).labels) == 2


def test_stride_keeps_every_other_frame(clips):
    done = recipe.train(clips[:4], CLASSES, _changed(epochs=1, stride=2))
    assert predict(done.network, clips[0].frames[:5]).boxes.shape == (5, 4)


def test_augmentation():
    video = samples._Video(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, 2, 8, 8))
    video.frames[:, :, 4, 3], video.motion[:, 0, 4, 3], video.motion[:, 1, 4, 3] = 255, 1.0, 2.0
    settings = _changed(frame_size=8, shift=2, flip=True, brightness=0.0, motion="dis")
    places, mirrored = set(), 0
    for seed in range(200):
        crop = samples._crop(video, settings, torch.Generator().manual_seed(seed))
        y, x = divmod(int(crop.frames[0, 0].argmax()), 8)
        u, v = crop.motion[0, :, y, x].tolist()
        assert (abs(u), v) == (1.0, 2.0)
        mirrored += u < 0
        places.add((y, x if u > 0 else 7 - x))
    assert places == {(y, x) for y in range(2, 7) for x in range(1, 6)} and 60 < mirrored < 140


def test_vgg16_is_frozen(clips):
    settings = _changed(
        backbone="vgg16", frame_size=32, epochs=1, model="lstm", stream="rgb", shift=0, brightness=0.0
    )
    weights = VGG16Features().state_dict()
    done = recipe.train(clips[:2], CLASSES, settings, backbone_weights=weights)
    _same(done.network.streams["rgb"].backbone.state_dict(), weights)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda c: recipe.Settings(model="gcn"), "`model` must be one of lstm, alstm"),
        (lambda c: recipe.Settings(stream="sound"), "`stream` must be one of rgb, flow, both"),
        (lambda c: recipe.Settings(epochs=0), "`epochs` must be an integer >= 1"),
        (lambda c: recipe.Settings(dropout=1.0), "`dropout` must be in"),
        (lambda c: recipe.Settings(frame_size=60), "`frame_size` must be a multiple of 8"),
        (lambda c: recipe.Settings(learning_rate=-1.0), "`learning_rate` must be a finite number"),
        (lambda c: recipe.train([], CLASSES, TINY), "`clips` must be at least one clip"),
        (lambda c: recipe.train(c, ["one"], TINY), "`classes` must be two or more names"),
        (lambda c: recipe.train([dataclasses.replace(c[0], label=5)], CLASSES, TINY), "labeled 0 to 1"),
        (lambda c: recipe.train(c, CLASSES, TINY, resume=True), "`out` must be the folder"),
        (lambda c: recipe.evaluate(network.Network(TINY, CLASSES), []), "`clips` must be"),
        (lambda c: recipe.evaluate(network.Network(TINY, CLASSES), c, vote="most"), "`vote` must be 'mean'"),
        (lambda c: predict(network.Network(TINY, CLASSES), c[0].frames.float()), "`frames` must be uint8"),
        (lambda c: predict(network.Network(TINY, CLASSES), c[0].frames[:0]), "`frames` must be uint8"),
    ],
)  # fmt: skip
def test_recipe_explains_bad_input(clips, call, message):
    with pytest.raises(ValueError, match=message):
        call(clips)


def test_checkpoints_explain_themselves(clips, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        recipe.train(clips, CLASSES, TINY, out=tmp_path, resume=True)
    (tmp_path / recipe.CHECKPOINT).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        network.load(tmp_path / recipe.CHECKPOINT)
    recipe.train(clips[:2], CLASSES, _changed(epochs=1), out=tmp_path, force=True)
    with pytest.raises(ValueError, match="`classes` must be those of the checkpoint"):
        recipe.train(clips, ["up", "down"], TINY, out=tmp_path, resume=True)
