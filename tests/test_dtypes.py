"""Inputs of another dtype than the weights are refused by name, and leveled by autocast; and the dtype of lengths."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.utils import prune

from amstel import nn
from amstel.interop import convolutional_rnn, ndrplz, openstl
from amstel.nn._like import check_like_model
from tests.module_samples import CASES, sample

F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
NAMES = {"ConvLSTMForecaster": "frames", "SINT": "image", "VideoLSTM": "rgb_features"}
NAMES |= dict.fromkeys(["RIM", "RIM, super", "RIM of a U-Net"], r"physics.adjoint\(y\)")
NAMES |= dict.fromkeys(
    ["FrameClassifier", "LSTMClassifier", "ALSTM", "ConvLSTMClassifier", "ConvALSTM"], "features"
)
# Those that have no weights, or one that goes along with any x.
FREE = {"APPNP", "APPNP that learns λ", "MarginContrastiveLoss", "MultiScaleRoIAlign"}
FREE |= {"PSRoIPool", "RoIAlign", "RoIPool"}
WEIGHTED = sorted(set(CASES) - FREE)


def short(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("weights, given", [(F32, F64), (F64, F32), (F32, BF16), (BF16, F32)])
def test_another_dtype_is_refused_by_name(name, weights, given):
    module, x = sample(name, dtype=weights)
    expected = f"`{NAMES.get(name, 'x')}` must be {short(weights)} .*got {short(given)} "
    with pytest.raises(ValueError, match=expected):
        module(x.to(given))


@pytest.mark.parametrize("name", WEIGHTED)
def test_autocast_levels_all_but_float64(name):
    module, x = sample(name, dtype=F32)
    with torch.autocast("cpu", BF16):
        module(x)
        module(x.bfloat16())
        with pytest.raises(ValueError, match=r"must be float32 .*got float64 "):
            module(x.double())
        with pytest.raises(ValueError, match=r"must be float64 .*got float32 "):
            module.double()(x)


def test_flow_features_are_named_too():
    model = nn.VideoLSTM(4, 3, 2, feature_size=3)
    x = torch.randn(2, 1, 4, 3, 3)
    with pytest.raises(ValueError, match=r"`flow_features` must be float32 .*got float64"):
        model(x, x.double())


def test_frames_that_are_normalized_may_be_narrower():
    with torch.device("meta"):
        whole, short = nn.VGG16Features(), nn.VGG16Features(normalize=False)
        frames = torch.zeros(1, 3, 32, 32, dtype=BF16)
    assert whole(frames).dtype == F32
    with pytest.raises(ValueError, match=r"`x` must be float32 .*got bfloat16"):
        short(frames)
    with pytest.raises(ValueError, match=r"`x` must be float32 .*got float64"):
        whole(frames.double())


CONFIGS = SimpleNamespace(
    in_shape=(2, 1, 4, 4), patch_size=1, filter_size=3, stride=1, layer_norm=0, pre_seq_length=2,
    aft_seq_length=1, reverse_scheduled_sampling=0,
)  # fmt: skip
X4, X5 = torch.randn(1, 3, 4, 4), torch.randn(2, 1, 3, 4, 4)
H4 = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    "name, make, call",
    [
        ("input", lambda: convolutional_rnn.Conv2dLSTM(3, 2, 3), lambda m: m(X5.double())),
        ("input", lambda: convolutional_rnn.Conv2dGRU(3, 2, 3), lambda m: m(X5.double())),
        ("input", lambda: convolutional_rnn.Conv2dLSTMCell(3, 2, 3), lambda m: m(X4.double())),
        ("hx", lambda: convolutional_rnn.Conv2dLSTM(3, 2, 3), lambda m: m(X5, [H4[None].double()] * 2)),
        ("hx", lambda: convolutional_rnn.Conv2dGRU(3, 2, 3), lambda m: m(X5, H4[None].double())),
        ("input_tensor", lambda: ndrplz.ConvLSTM(3, 2, (3, 3), 1), lambda m: m(X5.double())),
        ("input_tensor", lambda: ndrplz.ConvLSTMCell(3, 2, 3, True), lambda m: m(X4.double(), (H4, H4))),
        ("x_t", lambda: openstl.ConvLSTMCell(3, 2, 4, 4, 3), lambda m: m(X4.double(), H4, H4)),
        (
            "frames_tensor",
            lambda: openstl.ConvLSTM_Model(1, [2], CONFIGS),
            lambda m: m(torch.zeros(1, 3, 4, 4, 1).double(), torch.zeros(1, 0, 4, 4, 1)),
        ),
    ],
)
def test_modules_of_others_name_it_too(name, make, call):
    with pytest.raises(ValueError, match=f"`{name}` must be float32 .*got float64"):
        call(make())


class Sharded(torch.Tensor):
    """As a DTensor is: of another dtype than what it gives to the part that it is of."""


def test_what_others_do_with_parts_of_a_model_is_not_held_against_x():
    """A pruned weight is of the old dtype until the part runs; a quantized part has none, and a replica no parameter."""
    layers, model = nn.ConvGRU(4, 3), nn.ConvALSTM(4, 3, 2, feature_size=3)
    prune.l1_unstructured(layers.layers[0], "weight_ih", 0.5)
    prune.l1_unstructured(model.head[0], "weight", 0.5)
    for pruned in (layers, model):
        assert pruned.double()(torch.randn(2, 1, 4, 3, 3, dtype=F64))[0].dtype == F64
    x = torch.zeros(1, dtype=F64)
    check_like_model("x", x, torch.nn.ReLU())
    for weight in (torch.zeros(1, dtype=torch.int8), torch.zeros(1).as_subclass(Sharded)):
        model = torch.nn.Module()
        model.weight = torch.nn.Parameter(weight, requires_grad=False)
        check_like_model("x", x, model)


@pytest.mark.parametrize("wrong", [torch.tensor([1, 1], dtype=torch.uint8), torch.tensor([1.0, 1.0])])
def test_lengths_are_int32_or_int64(wrong):
    x = torch.randn(3, 2, 4, 3, 3)
    message = f"`lengths` must be .*(int32 or int64|int64 or int32).*got {short(wrong.dtype)}"
    for call in (
        lambda n: nn.ConvLSTM(4, 3)(x, lengths=n),
        lambda n: nn.ConvLSTM(4, 3, zoneout=0.1)(x, lengths=n),
        lambda n: nn.ConvGRU(4, 3)(x, lengths=n),
        lambda n: nn.ConvALSTM(4, 3, 2, feature_size=3)(x, n),
        lambda n: nn.predict(torch.zeros(3, 2, 5), n),
    ):
        call(wrong.int())
        with pytest.raises(ValueError, match=message):
            call(wrong)
