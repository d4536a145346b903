"""The command line: exit status, one line on bad input, what it writes; and the pictures."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

import amstel
from amstel import cli, draw

QUICK = ["gcn", "--dataset", "block-model", "--seeds", "3", "--epochs", "15"]


def _run(capsys, *arguments):
    try:
        status = cli.main(list(arguments))
    except SystemExit as exit:
        status = exit.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_info(capsys):
    status, out, _ = _run(capsys, "info")
    assert status == 0
    for line in (
        f"amstel +{amstel.__version__}",
        f"torch +{re.escape(torch.__version__)}",
        "CUDA library +.",
        "threads +[0-9]",
    ):
        assert re.search(f"^{line}", out, re.M), line
    assert torch.ops.amstel.cpu_isa() in out
    module = subprocess.run([sys.executable, "-m", "amstel.info"], capture_output=True, text=True, check=True)
    assert "CPU kernels" in module.stdout


@pytest.mark.parametrize("command", [[], ["info"], ["demo"], ["bench"], ["gcn"], ["videolstm"]])
def test_help(capsys, command):
    status, out, _ = _run(capsys, *command, "--help")
    assert status == 0 and out.startswith("usage: amstel")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["gcn"], "required: --dataset"),
        (["gcn", "--dataset", "cora", "--root", "/nowhere"], "/nowhere does not exist"),
        ([*QUICK, "--model", "gat"], "invalid choice: 'gat'"),
        ([*QUICK, "--seeds", "0"], "invalid integer >= 1 value: '0'"),
        ([*QUICK, "--seeds", "many"], "'many'"),
        ([*QUICK, "--first-seed", "-1"], "`seeds` must be"),
        ([*QUICK, "--dropout", "2"], "`dropout` must be in"),
        ([*QUICK, "--early-stopping", "soon"], "invalid choice: 'soon'"),
        ([*QUICK, "--json", "/nowhere/x.json"], "cannot write /nowhere/x.json"),
        (["bench", "--nodes", "-3"], "invalid integer >= 1 value: '-3'"),
        (["info", "--frob"], "--frob"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_bad_input_is_one_line_and_status_2(capsys, arguments, message):
    status, out, err = _run(capsys, *arguments)
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("amstel") and message in err


def test_no_root_known(capsys, monkeypatch):
    monkeypatch.delenv("AMSTEL_DATA", raising=False)
    status, _, err = _run(capsys, "gcn", "--dataset", "cora")
    assert status == 2 and "AMSTEL_DATA" in err and err.count("\n") == 1


def test_gcn_writes_json_and_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file, plot = tmp_path / "study.json", tmp_path / "study.png"
    status, out, _ = _run(
        capsys,
        *QUICK,
        "--model",
        "cheb",
        "--first-seed",
        "5",
        "--threads",
        "1",
        "--json",
        str(file),
        "--plot",
        str(plot),
        "--early-stopping",
        "loss",
    )
    assert status == 0 and re.search(
        r"block model cheb2: test accuracy \d\d\.\d\d ± \d\.\d\d % over 3 seeds", out
    )
    found = json.loads(file.read_text())
    assert (found["dataset"], found["model"], found["seeds"], found["first_seed"]) == (
        "block model",
        "cheb2",
        3,
        5,
    )
    assert len(found["accuracy"]) == 3 and found["mean"] == pytest.approx(sum(found["accuracy"]) / 3)
    assert (
        found["std"] >= 0
        and found["settings"]["early_stopping"] == "loss"
        and found["settings"]["epochs"] == 15
    )
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_names_the_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = _run(capsys, *QUICK, "--plot", str(tmp_path / "x.png"))
    assert status == 2 and 'pip install "amstel[cli]"' in err and err.count("\n") == 1


def test_gcn_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    status, _, err = _run(capsys, *QUICK)
    assert status == 0 and err == ""


def test_bench(capsys, tmp_path):
    file = tmp_path / "bench.json"
    status, out, _ = _run(
        capsys,
        "bench",
        "--nodes",
        "300",
        "--degree",
        "4",
        "--features",
        "8",
        "--repeats",
        "2",
        "--json",
        str(file),
    )
    assert status == 0 and "forward + backward" in out
    assert len(json.loads(file.read_text())["rows"]) == 2


def test_demo_without_extras(capsys, monkeypatch, tmp_path):
    for name in ("matplotlib", "matplotlib.animation", "PIL", "PIL.Image", "scipy", "scipy.ndimage", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    status, out, err = _run(capsys, "demo", "--output", str(tmp_path / "new"))
    assert status == 0 and err == ""
    assert re.search(
        r"accuracy (\d\d\.\d)% on the 920 test documents; from their words alone (\d\d\.\d)%", out
    )
    assert 'pip install "amstel[cli]"' in out
    found = re.search(r"accuracy (\d+\.\d)% on 100 new clips; from one frame (\d+\.\d)%", out)
    assert float(found[1]) > 90 and float(found[2]) < 45
    assert 'no video_lstm.gif: amstel.video needs scipy.ndimage here: pip install "amstel[video]"' in out
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["gcn_embedding.svg", "karate.svg"]
    for picture in (tmp_path / "new").iterdir():
        ElementTree.parse(picture)
    assert (tmp_path / "new" / "karate.svg").read_text().count("repeatCount") > 100


def test_svg(tmp_path):
    frames = torch.tensor([[[0.0, 0], [1, 0], [1, 1]], [[0, 0], [2, 0], [1, 4]]])
    file = draw.svg(
        tmp_path / "a.svg",
        frames,
        torch.tensor([0, 1, 9]),
        edges=torch.tensor([[0, 1], [1, 0]]),
        captions=["one <b>", "two & more"],
        marked=[2],
    )
    root = ElementTree.parse(file).getroot()
    names = [element.tag.split("}")[1] for element in root]
    assert names == ["rect", "line", "circle", "circle", "circle", "text", "text"]
    circles = [element for element in root if element.tag.endswith("circle")]
    # The picture stands at its last frame; y points up; marked ones come last.
    assert [(c.get("cx"), c.get("cy")) for c in circles] == [
        ("30.0", "450.0"),
        ("450.0", "450.0"),
        ("240.0", "30.0"),
    ]
    assert circles[2].get("r") == "8"
    animate = circles[1][0]
    assert animate.get("values") == "240.0;450.0;450.0"
    assert len(animate.get("keyTimes").split(";")) == 3
    still = draw.svg(tmp_path / "b.svg", frames[:1], torch.zeros(3).long(), captions=["c"])
    assert "animate" not in still.read_text()
    own = ElementTree.parse(
        draw.svg(tmp_path / "c.svg", frames, torch.zeros(3).long(), rescale=True)
    ).getroot()
    assert own[2][0].get("values") == "450.0;450.0;450.0"
    with pytest.raises(ValueError, match="`frames`"):
        draw.svg(tmp_path / "d.svg", frames[0], torch.zeros(3).long())


def test_example_draws_a_gif(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    example = Path(__file__).parent.parent / "examples" / "karate.py"
    assert len(example.read_text().splitlines()) < 80
    frames = torch.rand(3, 4, 2)
    draw.raster(
        tmp_path / "a.gif", frames, torch.arange(4), torch.tensor([[0, 1], [1, 2]]), ["x", "y", "z"], [1]
    )
    with image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 3
    draw.raster(tmp_path / "a.png", frames[:1], torch.arange(4))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    done = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "k.svg")], capture_output=True, text=True, check=True
    )
    assert "accuracy on the other 30 members" in done.stdout and (tmp_path / "k.svg").exists()
