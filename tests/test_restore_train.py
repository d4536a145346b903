"""Training of recurrent inference machines: the settings of each network, the recipe of the U-Net, drawn patches."""

import dataclasses
import doctest

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from amstel.apps.restoration import train as recipe
from amstel.apps.restoration.settings import Settings
from amstel.data import synthetic
from amstel.data.mri import CoilImages
from amstel.inverse import Denoising, Inpainting, SuperResolution
from tests.command import is_refused

pytestmark = pytest.mark.usefixtures("one_thread")


def photographs(channels=1, count=3, seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :44] / 7
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 2, (count * channels, 3))]
    images = np.rint(127 + 100 * np.stack(waves)).astype(np.uint8).reshape(count, channels, 40, 44)
    return [image[0] if channels == 1 else image.transpose(1, 2, 0) for image in images]


SMALL = Settings(features=4, batch=4, size=16, iterations=20, warmup=2)


def test_each_task_has_its_network_and_each_network_its_settings():
    networks = {t: Settings(task=t).network for t in ("gray", "color", "3task", "sr", "mri")}
    assert networks == {"gray": "unet", "color": "unet", "3task": "unet", "sr": "conv", "mri": "conv"}
    unet, conv = Settings(), Settings(network="conv")
    assert (unet.features, unet.steps, unet.sigma, unet.size) == (16, 2, (0.0, 75.0), 48)
    assert (conv.features, conv.stride, conv.depth, conv.sigma) == (64, 2, 4, (5.0, 55.0))
    assert Settings(network="unet", steps=3).steps == 3 and Settings(sigma=(0, 10)).sigma == (0, 10)
    assert dataclasses.replace(conv, iterations=7).features == 64
    for bad, message in (
        ({"network": "vgg"}, "`network` must be one of conv, unet, got 'vgg'"),
        ({"features": 0}, "`features` must be an integer >= 1, got 0"),
        ({"sigma": (0, 0)}, "`sigma` must be two numbers"),
        ({"sigma": (50.0, 5.0)}, "0 <= lowest <= highest, > 0, got 50.0 5.0$"),
        ({"sigma": (-1, 5)}, "`sigma` must be two numbers"),
        ({"learning_rate": -1.0}, "`learning_rate` must be"),
        ({"rounded": 1.5}, "`rounded` must be a number between 0 and 1, got 1.5"),
        ({"drawn": -0.1}, "`drawn` must be a number between 0 and 1, got -0.1"),
        ({"fixed_size": 1}, "`fixed_size` must be True or False, got 1"),
        ({"task": "3task", "network": "conv"}, "`network` must be 'unet' for the task '3task', got 'conv'"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**bad)


def test_patches_grow():
    stages = [recipe.stage(SMALL, step) for step in range(20)]
    assert [(s.batch, s.size) for s in (stages[0], stages[9], stages[16])] == [(4, 16), (3, 21), (2, 32)]
    conv = dataclasses.replace(SMALL, network="conv")
    assert recipe.stage(conv, 19) is conv
    fixed = dataclasses.replace(SMALL, fixed_size=True)
    assert recipe.stage(fixed, 19) is fixed


def test_an_image_smaller_than_the_largest_patch_is_named_at_the_start(tmp_path, capsys):
    folder, out = tmp_path / "images", tmp_path / "run"
    folder.mkdir()
    for n in range(20):
        Image.new("L", (60, 60)).save(folder / f"{n:02d}.png")
    Image.new("L", (60, 30)).save(folder / "small.png")
    train = ["restore", "train", folder, "--out", out, "--features", 4, "--batch", 1, "--iterations", 2]
    grown = f"--size must fit into the 30 pixels of {folder / 'small.png'}, got"
    is_refused(
        capsys, [*train, "--size", 24], f"{grown} 24; patches grow to 32 pixels, --fixed-size keeps 24\n"
    )
    is_refused(capsys, [*train, "--size", 31], f"{grown} 31; patches grow to 41 pixels\n")
    is_refused(capsys, [*train, "--size", 31, "--fixed-size"], f"{grown} 31\n")
    assert not out.exists()
    # Each is as large as it needs: images for training as the last stage, those of a validation as the first.
    fits = dataclasses.replace(SMALL, size=30, iterations=1)
    assert recipe.train(folder, fits, validation=folder).model
    narrow = [photographs()[0][:15]]
    with pytest.raises(
        ValueError, match="`size` must fit into the 15 pixels of image 0 of `validation`, got 16"
    ):
        recipe.train(photographs(), SMALL, validation=narrow)
    scaled = Settings(task="sr", size=16, features=4, batch=1, iterations=1, scales=(3,))
    assert recipe.train(narrow, scaled).model
    with pytest.raises(ValueError, match="`validation` must be at least one image, got 'none'"):
        recipe.train(photographs(), SMALL, validation=[])


def test_noise_of_the_unet_is_clipped_and_rounded_in_one_patch_of_three():
    settings = Settings(batch=300, size=8)
    s = recipe.sample(photographs(), settings, 300, np.random.default_rng(0))
    eight_bit = ((s.y * 255 - (s.y * 255).round()).abs() < 1e-4).flatten(1).all(1)
    assert 0.25 < eight_bit.float().mean() < 0.45
    assert s.y[eight_bit].min() >= 0 and s.y[~eight_bit].min() < 0
    assert (
        isinstance(s.physics, Denoising) and s.physics.sigma.min() > 0 and s.physics.sigma.max() <= 75 / 255
    )
    drawn = recipe.sample([np.full((9, 9), 128, np.uint8)], settings, 300, np.random.default_rng(0))
    assert 3 <= (drawn.x != 128 / 255).flatten(1).any(1).sum() <= 30
    steps = [recipe.sample(photographs(), settings, 1, np.random.default_rng(n)).steps for n in range(60)]
    assert set(steps) == {1, 2, 3, 4} and steps.count(2) > 30


def test_shares_of_rounded_and_of_drawn_patches_are_settings():
    flat = [np.full((9, 9), 128, np.uint8)]
    for share in (0.0, 1.0):
        settings = Settings(batch=40, size=8, rounded=share, drawn=share, sigma=(20, 20))
        s = recipe.sample(flat, settings, 40, np.random.default_rng(0))
        eight_bit = ((s.y * 255 - (s.y * 255).round()).abs() < 1e-4).flatten(1).all(1)
        drawn = (s.x != 128 / 255).flatten(1).any(1)
        assert eight_bit.float().mean() == share and (drawn.float().mean() > 0.9) == bool(share)


def test_every_level_of_the_noise_counts_alike_in_db():
    settings = Settings(batch=3, size=8, sigma=(25, 25))
    weight = recipe.sample(photographs(), settings, 3, np.random.default_rng(0)).weight
    # A tenth of one over the usual squared error, 3.2 * 25² / 28.2 of 255².
    torch.testing.assert_close(weight, torch.full((3,), 0.1 * 255**2 * 28.2 / 2000))


def test_three_tasks_take_turns():
    settings = dataclasses.replace(SMALL, task="3task")
    kinds = {}
    for n in range(40):
        s = recipe.sample(photographs(), settings, 4, np.random.default_rng(n))
        kinds.setdefault(type(s.physics), []).append(s)
    assert {k: len(v) > 2 for k, v in kinds.items()} == dict.fromkeys(
        (Denoising, Inpainting, SuperResolution), True
    )
    s = kinds[Inpainting][0]
    unknown = s.physics.mask == 0
    assert 0 < unknown.float().mean() < 1 and not s.y[unknown].any()
    some = recipe.part(s, [2, 0])
    assert torch.equal(some.physics.mask, s.physics.mask[[2, 0]])
    assert torch.equal(some.physics.sigma, s.physics.sigma[[2, 0]])
    found = recipe.train(photographs(), dataclasses.replace(settings, iterations=6))
    assert all(p.isfinite().all() for p in found.model.parameters())


def test_the_loss_of_mri_is_the_logarithm_and_grows_with_the_step():
    settings = dataclasses.replace(SMALL, task="mri", network="unet", size=32)
    images = CoilImages(torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)), coils=(2, 2))
    model = recipe.network(settings)
    s = recipe.sample(images, settings, 2, np.random.default_rng(0))._replace(steps=2)
    loss, _ = recipe._Loss(model, False)(s)
    first, last = (
        ((e - s.x).abs().square().flatten(1).mean(1) + 1e-7).log().mean() for e in model(s.y, s.physics, 2)
    )
    torch.testing.assert_close(loss, (first + 2 * last) / 30)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawings(channels):
    images = photographs(channels)
    drawn = synthetic.drawings(images, 60, 24, np.random.default_rng(0))
    assert drawn.shape == (60, channels, 24, 24) and drawn.dtype == np.float32
    assert 0 <= drawn.min() and drawn.max() <= 1
    again = synthetic.drawings(images, 60, 24, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, again)
    flat = np.ptp(drawn, (2, 3)).max(1) == 0
    assert 4 <= flat.sum() <= 40  # of the flat ones, of two like colors, and little else
    assert not doctest.testmod(synthetic, extraglobs={"np": np}).failed


def test_the_loss_is_of_the_last_step_and_less_of_those_before():
    model = recipe.network(SMALL)
    s = recipe.sample(photographs(), SMALL, 4, np.random.default_rng(0))._replace(steps=3)
    loss, psnr = recipe._Loss(model, False)(s)
    errors = [((e - s.x).square().flatten(1).mean(1) * s.weight).mean() for e in model(s.y, s.physics, 3)]
    torch.testing.assert_close(loss, errors[2] + 0.3 * (errors[0] + errors[1]) / 2)
    assert psnr.isfinite()


def test_a_unet_is_trained_averaged_and_loaded_the_same_every_time(tmp_path):
    small = dataclasses.replace(SMALL, iterations=6)
    whole = recipe.train(photographs(), small, tmp_path / "whole", average=0.9)
    again = recipe.train(photographs(), small, average=0.9)
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    found = recipe.load(tmp_path / "whole" / "checkpoint.pt")
    assert found.network == "unet" and found.trained_steps == 4 and found.trained_sigma == (0, 75 / 255)
    x = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(
        found(x, Denoising(0.1))[-1], whole.model(x, Denoising(0.1))[-1]
    )  # in another layout


def test_color_begins_from_gray():
    gray, color = recipe.network(SMALL), recipe.network(dataclasses.replace(SMALL, task="color"))
    state = recipe.adapt(gray.state_dict(), color)
    color.load_state_dict(state)
    assert state["unet.tail.weight"].shape[0] == 3
    assert torch.equal(state["unet.body.0.a.weight"], gray.state_dict()["unet.body.0.a.weight"])


@pytest.mark.parametrize("network", ["conv", "unet"])
def test_ablations_are_trained_by_settings_and_loaded_again(tmp_path, network):
    small = {"network": network, "iterations": 1, "batch": 1, "size": 16, "features": 4, "steps": 2}
    whole = recipe.network(Settings(**small))
    for name, option in (("without_estimate", "use_estimate"), ("without_state", "recurrent")):
        settings = Settings(**small, **{name: True})
        result = recipe.train(photographs(), settings, tmp_path / name)
        loaded = recipe.load(tmp_path / name / recipe.CHECKPOINT)
        assert loaded.options[option] is False and whole.options[option] is True
        for key, value in result.model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key])
        with pytest.raises(ValueError, match="`initial` must be the weights of a network like this one"):
            recipe.train(photographs(), settings, initial=whole.state_dict())


def test_training_begins_from_weights_that_ship_or_a_checkpoint(tmp_path):
    from amstel.cli._values import shipped, weights_there
    from amstel.nn import RIM

    assert {"gray", "color", "sr", "mri", "complex"} <= set(shipped())
    assert weights_there("gray") == "gray"
    for name in shipped():
        assert recipe.weights(name).keys() == RIM.pretrained(name).state_dict().keys()
    with pytest.raises(typer.BadParameter, match="nowhere does not exist"):
        weights_there("nowhere")
