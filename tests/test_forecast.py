"""The next frames: bouncing digits, the encoder-forecaster, and `amstel video forecast`."""

import json

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.video import forecast
from amstel.apps.video.settings import ForecastSettings
from amstel.data import generate_bouncing_digits
from tests import command

pytestmark = pytest.mark.usefixtures("one_thread")
#: Learned in seconds: one digit in 16x16 pixels.
QUICK = {"size": 16, "digits": 1, "given": 5, "steps": 3, "hidden": 16, "layers": 1, "patch": 2}


def test_sequences_follow_from_seed_and_number():
    all_, part = (
        generate_bouncing_digits(5, 6, 24, 2, seed=3),
        generate_bouncing_digits(2, 6, 24, 2, seed=3, start=2),
    )
    assert all_.dtype == torch.uint8 and all_.shape == (5, 6, 24, 24)
    assert torch.equal(all_[2:4], part)
    assert not torch.equal(all_[:2], generate_bouncing_digits(2, 6, 24, 2, seed=4))
    assert generate_bouncing_digits(0).shape == (0, 20, 64, 64)


def test_digits_stay_inside_and_go_on():
    """All of a digit is in every frame: its light is the same in all, but for the edges of its strokes; and it moves."""
    frames = generate_bouncing_digits(6, 60, 32, 1, speed=(3.0, 5.0)).double()
    light = frames.sum((2, 3))
    assert (light.std(1) / light.mean(1)).max() < 0.03
    place = torch.arange(32).double()
    center = torch.stack([(frames.sum(k) @ place) / light for k in (3, 2)], 2)
    step = center.diff(dim=1).norm(dim=2)
    assert (step > 0.2).all() and step.max() < 2.6  # at most 5 / 2 pixels per frame at this size
    # It goes straight between the walls: most second differences are those of rounding.
    assert (center.diff(n=2, dim=1).norm(dim=2) < 0.1).double().mean() > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count"),
        ({"count": 1, "size": 8}, "size"),
        ({"count": 1, "digits": 0}, "digits"),
        ({"count": 1, "speed": 3}, "speed"),
        ({"count": 1, "speed": (3, 2)}, "speed"),
        ({"count": 1, "speed": ("3", 4)}, "speed"),
        ({"count": 1, "speed": (True, 4)}, "speed"),
        ({"count": 1, "start": -1}, "start"),
        ({"count": True}, "count"),
    ],
)
def test_the_generator_explains_itself(options, message):
    with pytest.raises((ValueError, TypeError), match=f"`{message}` must be"):
        generate_bouncing_digits(**options)


@pytest.mark.parametrize("widths", [6, [4, 6]])
def test_the_forecaster_is_two_stacks(widths):
    """By its parts: the encoder's states are the first of the forecaster, whose layers are all read out."""
    torch.manual_seed(0)
    model = amstel.nn.ConvLSTMForecaster(2, widths, patch=2).double()
    x = torch.rand(4, 3, 2, 8, 6, dtype=torch.float64)
    cut = torch.stack([x[..., i::2, j::2] for i in range(2) for j in range(2)], 3).flatten(2, 3)
    _, state = model.encoder(cut)
    outputs, _ = model.forecaster(x.new_zeros(5, 3, 1, 4, 3), state)
    maps = torch.cat(outputs, 2)
    logits = torch.einsum("tnchw,oc->tnohw", maps, model.readout.weight[..., 0, 0])
    logits = logits + model.readout.bias[:, None, None]
    expected = torch.empty(5, 3, 2, 8, 6, dtype=torch.float64)
    for c in range(2):
        for i in range(2):
            for j in range(2):
                expected[:, :, c, i::2, j::2] = logits[:, :, 4 * c + 2 * i + j]
    torch.testing.assert_close(model(x, 5), expected)
    first = amstel.nn.ConvLSTMForecaster(2, widths, patch=2, batch_first=True).double()
    first.load_state_dict(model.state_dict())
    torch.testing.assert_close(first(x.transpose(0, 1), 5).transpose(0, 1), expected)
    model(x, 2).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(torch.rand(4, 2, 3, 8, 8), 2), ValueError, "`frames` must be"),
        (lambda m: m(torch.rand(4, 2, 1, 9, 8), 2), ValueError, "`patch` = 2 divides"),
        (lambda m: m(torch.zeros(4, 2, 1, 8, 8).byte(), 2), ValueError, "`frames` must be floating"),
        (lambda m: m(torch.rand(0, 2, 1, 8, 8), 2), ValueError, "`frames` must be .* at least one step"),
        (lambda m: m(torch.rand(4, 2, 1, 8, 8), 0), ValueError, "`steps` must be"),
        (lambda m: m(torch.rand(4, 2, 1, 8, 8), True), TypeError, "`steps` must be"),
        (lambda m: m([1], 2), TypeError, "`frames` must be"),
        (lambda m: type(m)(1, 4, bidirectional=True), TypeError, "takes no `bidirectional`"),
        (lambda m: type(m)(1, 4, stride=2), TypeError, "takes no `stride`"),
        (lambda m: type(m)(1, 4, patch=0), ValueError, "`patch` must be"),
        (
            lambda m: type(m)(1, 4, patch=2, feature_size=(4, 5))(torch.rand(3, 1, 1, 10, 8), 1),
            ValueError,
            r"`frames` must be 8 pixels high and 10 wide \(`feature_size` is \(4, 5\), in patches of `patch` = 2\)",
        ),
        (
            lambda m: type(m)(1, 4, patch=2, peephole="full"),
            ValueError,
            r"`feature_size` must be \(H, W\) of the frames in patches",
        ),
    ],
)
def test_the_forecaster_explains_itself(call, error, message):
    with pytest.raises(error, match=message):
        call(amstel.nn.ConvLSTMForecaster(1, 4, patch=2))


def test_it_is_made_where_it_is_asked_for():
    made = amstel.nn.ConvLSTMForecaster(
        1, [4, 4], device="meta", dtype=torch.bfloat16, padding_mode="circular"
    )
    assert {(p.device.type, p.dtype) for p in made.parameters()} == {("meta", torch.bfloat16)}
    assert made.encoder.padding_mode == made.forecaster.padding_mode == "circular"
    model = amstel.nn.ConvLSTMForecaster(1, 4)
    before = [p.clone() for p in model.parameters()]
    model.reset_parameters()
    assert not torch.equal(before[0], next(model.parameters()))


def test_it_beats_the_last_frame_and_a_network_that_sees_one():
    """Where a digit goes lies in several frames, and in no single one."""
    found = forecast.train(ForecastSettings(**QUICK, iterations=200, batch=16, learning_rate=1e-2))
    error = {name: float(np.mean(each)) for name, each in forecast.evaluate(found, 100).items()}
    assert error["ConvLSTM"] < 0.9 * error["CNN on one frame"] < error["last frame"], error


@pytest.mark.parametrize(("given", "steps", "size"), [(1, 1, 36), (1, 2, 64), (10, 10, 64)])
def test_headers_of_the_picture_have_room(tmp_path, monkeypatch, given, steps, size):
    from PIL import Image, ImageDraw, ImageFont

    said, write = {}, ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, **more: said.update({text: xy}) or write(self, xy, text, **more),
    )
    settings = ForecastSettings(given=given, steps=steps, size=size, hidden=2)
    found = forecast.Forecast(forecast.forecaster(settings), forecast.FrameCNN(settings), settings, [])
    with Image.open(forecast.strip(found, tmp_path / "a.png", count=1)) as picture:
        width = picture.width
    font = ImageFont.load_default(12)
    (before, first), (after, second) = list(said.items())[:2]
    assert before == ("1 input frame" if given == 1 else "10 input frames") and after == f"the next {steps}"
    assert first[0] >= 0 and first[0] + font.getlength(before) <= second[0] - 8
    assert second[0] + font.getlength(after) <= width


def test_forecast_on_the_command_line(capsys, tmp_path):
    from PIL import Image

    options = [f"--{name}={value}" for name, value in QUICK.items()] + ["--batch", 2]
    out = tmp_path / "run"
    status, said, err = command.run(capsys, "video", "forecast", "--out", out, "--iterations", 2, *options)
    assert status == 0 and err == "" and "mean squared error" in said
    record = json.loads((out / "forecast.json").read_text())
    assert len(record["of_each_frame"]["ConvLSTM"]) == 3 and record["settings"]["size"] == 16
    assert np.asarray(Image.open(out / "forecast.png")).std() > 10
    refused = ["video", "forecast", "--out", out, *options]
    command.is_refused(capsys, refused, "--force overwrites it")
    again = ["video", "forecast", "--out", out, "--resume"]
    command.is_refused(capsys, [*again, "--hidden", 3], "only change --iterations")
    assert command.run(capsys, *again, "--iterations", 4)[0] == 0
    assert len(json.loads((out / "forecast.json").read_text())["loss"]) == 2
    status, said, _ = command.run(capsys, *again)
    assert (
        status == 0 and "\nthe run was already complete, at 4 batches\n" in said and "checkpoint" not in said
    )
    command.is_refused(
        capsys, ["video", "forecast", "--out", tmp_path / "a", "--size", 18], "multiple of patch = 4"
    )
    command.is_refused(capsys, ["video", "forecast", "--out", tmp_path / "b", "--resume"], "does not exist")
