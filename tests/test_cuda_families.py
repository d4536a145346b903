"""The four model families on a GPU: trained, used, under autocast and capture, and their command lines.

As in test_cuda_use.py every test has a variant on the CPU, which walks the same code everywhere.
"""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import amstel
from amstel import inverse
from tests.conftest import ROOT
from tests.cuda_cases import normal
from tests.test_cuda_use import DEVICES, capture, equal, exact, synchronize  # noqa: F401 (exact is a fixture)

pytestmark = [pytest.mark.parametrize("device", DEVICES), pytest.mark.usefixtures("exact", "one_thread")]


def gcn(device):
    """A model and a loss of its output on data that can be learned."""
    labels = torch.arange(90) % 3
    g = torch.Generator().manual_seed(0)
    index = torch.randint(0, 90, (2, 900), generator=g)
    index = index[:, labels[index[0]] == labels[index[1]]].to(device)
    x, labels = normal(90, 12).to(device), labels.to(device)
    graph = amstel.Graph.from_edge_index(index, 90)
    model = amstel.nn.GCN(12, 8, 3, dropout=0.0)
    return model, lambda model: model(x, graph), lambda out: F.cross_entropy(out, labels)


def video(device):
    x = normal(5, 6, 4, 7, 7).to(device)
    labels = (torch.arange(6) % 2).to(device)
    x[:, labels == 1] += 1.0
    model = amstel.nn.ConvALSTM(4, 8, 2, feature_size=(7, 7), head_channels=16, dropout=0.0)
    return model, lambda model: model(x)[0], lambda out: F.cross_entropy(out[-1], labels)


def tracker(device):
    """SINT's trunk and its margin loss on boxes that match or do not."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(device)
    boxes = [
        torch.tensor([[8.0, 8, 30, 30], [30, 28, 60, 60]], device=device),
        torch.tensor([[10.0, 8, 32, 30], [2, 30, 28, 60]], device=device),
    ]
    same = torch.tensor([1.0, 0.0], device=device)
    loss = amstel.nn.MarginContrastiveLoss(margin=1.0)
    model = amstel.nn.SINT(backbone="light")

    def forward(model):
        maps = model.features(images)
        found = [model.describe([m[k : k + 1] for m in maps], [boxes[k]]) for k in range(2)]
        return torch.stack(found)

    return model, forward, lambda out: loss(out[0], out[1], same).mean()


def rim(device):
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    y = x + 0.1 * normal(2, 1, 16, 16).to(device)
    physics = inverse.Denoising(0.1)
    model = amstel.nn.RIM(channels=1, features=8, steps=3)
    return model, lambda model: torch.stack(list(model(y, physics))), lambda out: (out - x).square().mean()


FAMILIES = {"gcn": gcn, "video": video, "sint": tracker, "rim": rim}
family = pytest.mark.parametrize("name", FAMILIES)


def made(name, device):
    torch.manual_seed(0)
    model, forward, loss = FAMILIES[name](device)
    return model.to(device), forward, loss


def train(name, device, steps=30):
    model, forward, loss = made(name, device)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(forward(model))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return model, losses


@family
def test_trains_and_predicts_as_on_the_cpu(name, device):
    """Proves: a training on the device lowers the loss, and its model predicts what it predicts on the CPU."""
    model, losses = train(name, device)
    assert np.isfinite(losses).all() and losses[-1] < 0.95 * losses[0], losses
    there = made(name, "cpu")[1]
    with torch.no_grad():
        ours = made(name, device)[1](model.eval())
        theirs = there(copy.deepcopy(model).cpu())
    torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@family
def test_first_losses_are_those_of_the_cpu(name, device):
    """Proves: gradients of whole models agree with the CPU's, as three steps of training do."""
    ours, theirs = train(name, device, 3)[1], train(name, "cpu", 3)[1]
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)


@family
def test_trainings_are_the_same_bits(name, device):
    """Proves: a training is bit-identical from run to run."""
    first, second = train(name, device, 4), train(name, device, 4)
    assert first[1] == second[1]
    assert equal(first[0].state_dict().values(), second[0].state_dict().values())


@family
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(name, dtype, device):
    """Proves: under autocast values and gradients are finite, and near those of float32."""
    model, forward, loss = made(name, device)
    with torch.no_grad():
        expected = loss(forward(model)).item()
    with torch.autocast(device, dtype):
        out = forward(model)
    value = loss(out.float())
    value.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert any(p.grad is not None for p in model.parameters())
    assert value.item() == pytest.approx(expected, rel=0.05, abs=0.02)


@pytest.mark.parametrize("name", ["gcn", "video", "rim"])
def test_inference_is_captured(name, device):
    """Proves: a model's forward pass is captured in a graph and replays."""
    model, forward, _ = made(name, device)
    model.eval()
    with torch.no_grad():
        outputs, replay = capture(device, lambda: [forward(model)])
        for p in model.parameters():
            p.mul_(0.5)
        replay()
        synchronize(device)
        torch.testing.assert_close(outputs[0], forward(model))


def amstel_command(*arguments):
    """`python -m amstel ...`: (exit status, what it printed)."""
    run = subprocess.run(
        [sys.executable, "-m", "amstel", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=140
    )  # fmt: skip
    return run.returncode, run.stdout + run.stderr


@pytest.mark.slow
def test_command_of_graphs(device, tmp_path):
    """Proves: node classification runs on the device from the command line and learns."""
    file = tmp_path / "study.json"
    status, said = amstel_command(
        "gcn", "--dataset", "block-model", "--seeds", 2, "--epochs", 60, "--json", file, "--device", device
    )
    assert status == 0, said
    assert json.loads(file.read_text())["mean"] > 0.5


@pytest.mark.slow
def test_command_of_video(device, tmp_path):
    """Proves: a training on clips and a prediction run on the device from the command line."""
    pytest.importorskip("PIL", reason="clips are read from PNG strips")
    pytest.importorskip("scipy", reason="boxes need scipy")
    from amstel import video as videos
    from amstel.data import generate_moving_shapes

    for clip in generate_moving_shapes(6, frames=5, size=32, classes=2):
        folder = tmp_path / "clips" / clip.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        videos.write(folder / f"{clip.name}.png", clip.frames)
        last = folder / f"{clip.name}.png"
    small = ["--frame-size", 32, "--hidden", 4, "--steps", 4, "--motion", "difference", "--epochs", 1]
    status, said = amstel_command(
        "videolstm", "train", tmp_path / "clips", "--out", tmp_path / "run", *small, "--device", device
    )
    assert status == 0, said
    status, said = amstel_command(
        "videolstm", "predict", tmp_path / "run" / "checkpoint.pt", last, "-o", tmp_path / "out.gif", "--device", device
    )  # fmt: skip
    assert status == 0 and (tmp_path / "out.gif").stat().st_size > 0, said


@pytest.mark.slow
def test_command_of_tracking(device, tmp_path):
    """Proves: the tracker follows a moving square on the device from the command line."""
    Image = pytest.importorskip("PIL.Image", reason="frames are written as PNG")
    pytest.importorskip("safetensors", reason="the shipped weights are safetensors")
    g = np.random.default_rng(0)
    background, target = g.integers(0, 90, (96, 128, 3)), g.integers(150, 255, (24, 24, 3))
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in range(3):
        frame = background.copy()
        frame[30:54, 40 + 3 * k : 64 + 3 * k] = target
        Image.fromarray(frame.astype(np.uint8)).save(frames / f"{k:04d}.png")
    out = tmp_path / "boxes.txt"
    status, said = amstel_command("track", frames, "--box", "40,30,24,24", "-o", out, "--device", device)
    assert status == 0, said
    boxes = np.loadtxt(out, delimiter=",")
    assert boxes.shape == (3, 4) and abs(boxes[2, 0] - 46) < 12


@pytest.mark.slow
def test_command_of_restoration(device, tmp_path):
    """Proves: a noisy image is restored on the device from the command line."""
    Image = pytest.importorskip("PIL.Image", reason="the image is a PNG")
    pytest.importorskip("safetensors", reason="the shipped weights are safetensors")
    y, x = np.mgrid[0:48, 0:64]
    clean = 127 + 100 * np.sin(x / 9.0) * np.cos(y / 7.0)
    noisy = np.clip(clean + 25 * np.random.default_rng(0).standard_normal(clean.shape), 0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "noisy.png")
    status, said = amstel_command(
        "restore", tmp_path / "noisy.png", "--sigma", 25, "-o", tmp_path / "clean.png", "--device", device
    )
    assert status == 0, said
    found = np.asarray(Image.open(tmp_path / "clean.png").convert("L"), float)
    assert np.square(found - clean).mean() < 0.5 * np.square(noisy - clean).mean()
