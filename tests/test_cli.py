"""The command line: exit status, one line on bad input, what it writes; and the pictures."""

import itertools
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import amstel
from amstel import draw
from amstel.cli import _command, _main
from amstel.cli._errors import in_words_of_the_user
from tests import command

QUICK = ["gcn", "--dataset", "block-model", "--seeds", "3", "--epochs", "15"]


def _run(capsys, *arguments):
    return command.run(capsys, *arguments)


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
    assert _run(capsys, "--version")[:2] == (0, f"amstel {amstel.__version__}\n")
    module = subprocess.run([sys.executable, "-m", "amstel.info"], capture_output=True, text=True, check=True)
    assert "CPU kernels" in module.stdout


COMMANDS = [
    [],
    *(
        [name]
        for name in ("info", "demo", "bench", "gcn", "graphs", "video", "videolstm", "track", "restore")
    ),
    *(
        [family, verb]
        for family in ("graphs", "video", "track", "restore")
        for verb in ("train", "predict", "evaluate")
    ),
    ["video", "study"],
    ["videolstm", "predict"],
    ["track", "eval"],
    ["restore", "eval"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_one_screen(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = _run(capsys, *words, "--help")
    assert status == 0 and err == "" and out.startswith(" ".join(["Usage: amstel", *words]))
    assert len(out.splitlines()) <= 42 and max(map(len, out.splitlines())) <= 80
    assert not re.search(r"\[default: [^]]*\]\s*\[default: ", out)
    if len(words) == 2 or words in (["info"], ["demo"], ["bench"], ["gcn"]):
        drawing = words[-1] in ("train", "gcn", "demo") or words[0] == "restore"  # of random numbers
        on_the_cpu = words[-1] in ("info", "bench", "study")
        there = {"--device": not on_the_cpu, "--seed": drawing, "--threads": True, "--json": True}
        for option, wanted in (there | {"--quiet": True}).items():
            assert bool(re.search(rf"^  {option}\b", out, re.M)) == wanted, option


def test_help_says_the_defaults_that_are_used(capsys, monkeypatch):
    """Of the demo it said that --threads is PyTorch's, and of `video train` what is so for the small backbone only."""
    from amstel.apps.video.settings import Settings

    monkeypatch.setenv("COLUMNS", "80")

    def of(*words: str) -> str:
        return " ".join(_run(capsys, *words, "--help")[1].split())

    assert "--threads N CPU threads [default: 1]" in of("demo")
    assert "--threads N CPU threads [default: PyTorch's]" in of("bench")
    shown = of("video", "train")
    scratch, paper = Settings.from_scratch(), Settings(backbone="vgg16", frame_size=224)
    for name in (
        "frame_size",
        "steps",
        "batch",
        "optimizer",
        "learning_rate",
        "dropout",
        "shift",
        "brightness",
    ):
        both = (f"{x:g}" if isinstance(x, float) else x for x in (getattr(s, name) for s in (scratch, paper)))
        assert re.search(
            f"--{name.replace('_', '-')} X [^[]*\\[default: {'{}; vgg16 {}'.format(*both)}]", shown
        )
    assert "[default: $AMSTEL_DATA/planetoid; none for task graph]" in of("graphs", "train")
    assert "imagenet [default: bundled weights; none for vgg16]" in of("track", "train")
    assert "[default: that of --add-noise, else auto; inpaint: 1]" in of("restore", "predict")
    assert "[default: 15 25 50; --clean: estimated]" in of("restore", "evaluate")


@pytest.mark.parametrize("layout", ["otb", "got10k", "vot", "alov"])
def test_the_default_folder_of_sequences_is_that_of_every_layout(capsys, monkeypatch, tmp_path, layout):
    """--root is $AMSTEL_DATA/tracking, says --help; but of all layouts except otb it was not."""
    monkeypatch.setenv("AMSTEL_DATA", str(tmp_path))
    status, _, err = _run(capsys, "track", "evaluate", "--data", layout, "--out", tmp_path / "out")
    assert status == 2 and f"the folder {tmp_path / 'tracking'} does not exist" in err


def test_help_does_not_load_torch():
    code = (
        "import sys; sys.argv = ['amstel', 'video', 'train', '--help']\n"
        "from amstel.cli import main\n"
        "status = main()\n"
        "sys.exit(status or 3 * any(name in sys.modules for name in ('torch', 'numpy', 'matplotlib', 'av', 'cv2')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--learning-rate" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (["graphs", "train", "--out", __file__], "graphs train "),
        (["graphs", "train", "--epochs", "many", "--nothing"], "graphs train "),
        (["restore", "--json"], "restore predict "),
        (["graphs", "--nothing"], "graphs "),
        (["graphs", "trian"], "graphs "),
        (["track", "nowhere.mp4"], "track "),
        (["nothing"], ""),
        (["--nothing"], ""),
    ],
)
def test_help_wins(capsys, words, usage):
    """An error of a bad --out, or of anything else that was wrong, hid it."""
    for order in ([*words, "--help"], [*words, "--help", "--out", __file__]):
        status, out, err = _run(capsys, *order)
        assert status == 0 and out.split("\n")[0].startswith(f"Usage: amstel {usage}[OPTIONS]") and not err
    status, _, err = _run(capsys, "info", "--", "--help")
    assert status == 2 and "unexpected extra argument" in err


def test_settings_of_the_command_line_are_those_of_the_library():
    from amstel.apps.restoration import settings as restoration
    from amstel.apps.video import network, studies
    from amstel.apps.video import settings as video
    from amstel.cli import video as video_command
    from amstel.cli.restore import TASKS as SHOWN
    from amstel.inverse.restore import TASKS
    from amstel.nn.video_lstm import INITIAL_STATES

    assert tuple(network.MODELS) == video.MODELS and tuple(INITIAL_STATES) == video.INITIAL_STATES
    assert tuple(studies.STUDIES) == video_command.STUDIES and tuple(TASKS) == SHOWN
    assert set(restoration.TASKS) == {"gray", "color", "3task", "sr", "mri"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "COMMAND is missing: one of info, demo, bench, graphs, video, track, restore"),
        (["fly"], "No such command 'fly'"),
        (["grahps", "train"], "Did you mean 'graphs'"),
        (["graphs"], "COMMAND is missing"),
        (["graphs", "fit"], "No such command 'fit'"),
        (["gcn"], "Missing option '--dataset'"),
        (["gcn", "--dataset", "cora", "--root", "/nowhere"], "--root /nowhere does not exist"),
        (["gcn", "--dataset", "cora", "--root", __file__], "is a file; it should be a folder"),
        (["gcn", "--dataset", "core", "--root", "."], "core"),
        ([*QUICK, "--model", "gat"], "--model should be one of gcn"),
        ([*QUICK, "--seeds", "0"], "--seeds should be an integer >= 1, got 0"),
        ([*QUICK, "--seeds", "many"], "--seeds should be an integer >= 1, got 'many'"),
        ([*QUICK, "--seeds", "1.5"], "--seeds should be an integer"),
        ([*QUICK, "--first-seed", "-1"], "--seed should be an integer >= 0"),
        ([*QUICK, "--seed", str(2**80)], "--seed should be an integer >= 0 and < 2^63"),
        ([*QUICK, "--dropout", "2"], "--dropout should be a number in [0, 1), got 2"),
        ([*QUICK, "--dropout", "nan"], "--dropout should be a number in [0, 1), got nan"),
        ([*QUICK, "--learning-rate", "inf"], "--learning-rate should be a number >= 0, got inf"),
        ([*QUICK, "--epochs", "-3"], "--epochs should be an integer >= 1, got -3"),
        ([*QUICK, "--early-stopping", "soon"], "--early-stopping should be one of none, kipf, loss"),
        ([*QUICK, "--json", "/nowhere/x.json"], "--json cannot write /nowhere/x.json"),
        ([*QUICK, "--json", "."], "--json cannot write .: . is a folder"),
        ([*QUICK, "--json"], "--json needs a value"),
        ([*QUICK, "--json", "--quiet"], "--json needs a value"),
        ([*QUICK, "--plot", "x.txt"], "--plot x.txt must end in .png, .svg, .pdf, .jpg or .jpeg"),
        ([*QUICK, "--see", "3"], "No such option: --see"),
        ([*QUICK, "--resume"], "--resume needs --out"),
        ([*QUICK, "--resume", "--out", "nothing"], "nothing/checkpoint.pt does not exist"),
        ([*QUICK, "--out", __file__], "is a file; it should be a folder"),
        ([*QUICK, "--threads", "0"], "--threads should be an integer from 1 to"),
        ([*QUICK, "--threads", "1000000"], "--threads should be an integer from 1 to"),
        ([*QUICK, "--device", "abacus"], "--device: torch has no device abacus here"),
        ([*QUICK, "--device", "cuda:99"], "--device: torch has no device cuda:99 here"),
        (["graphs", "predict", "nothing.pt"], "CHECKPOINT nothing.pt does not exist"),
        (["graphs", "predict", __file__], "is not a checkpoint of `amstel graphs train`"),
        (["graphs", "predict", __file__, "-o", "x.png"], "must end in .csv or .json"),
        (["graphs", "evaluate"], "Missing argument 'CHECKPOINT"),
        (["graphs", "evaluate", "."], ". is a folder; it should be a file"),
        (["video", "evaluate", __file__, "nowhere"], "ROOT nowhere does not exist"),
        (["video", "predict", __file__, "nowhere.mp4"], "VIDEO nowhere.mp4 does not exist"),
        (["track", "predict", ".", "--box", "1,2,3"], "--box should be four numbers x,y,w,h, got '1,2,3'"),
        (["track", "predict", ".", "--box", "-5,90,40,-40"], "--box should have a positive width and height"),
        (["track", "trian", "."], "trian is neither a file that exists nor one of"),
        (
            ["restore", "evaluate", "--root", ".", "--sigma", "15", "0"],
            "--sigma should be a number > 0, got 0",
        ),
        (["bench", "--nodes", "-3"], "--nodes should be an integer >= 1, got -3"),
        (["bench", "--features", "16", "x"], "(x)"),
        (["bench", "--degree", "0"], "--degree should be a number > 0, got 0"),
        (["demo", "--output", __file__], "is a file; it should be a folder"),
        (["info", "--frob"], "--frob"),
        (["info", "more"], "(more)"),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else "",
)
def test_bad_input_is_one_line_and_status_2(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    command.is_refused(capsys, arguments, message)
    assert not list(tmp_path.iterdir())


def test_as_a_module_and_in_a_closed_pipe():
    done = subprocess.run(
        [sys.executable, "-m", "amstel", "gcn", "--dataset", "block-model", "--dropout", "2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("amstel gcn: --dropout should be")
    pipe = subprocess.run(
        f"{sys.executable} -m amstel info | true", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in pipe.stderr


def test_quiet_and_the_same_seeds_give_the_same_numbers(capsys, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for name, file in zip((["gcn"], ["graphs", "train"]), files, strict=True):
        status, out, err = _run(capsys, *name, *QUICK[1:], "--quiet", "--seed", "4", "--json", file)
        assert (status, out, err) == (0, "", "")
    a, b = (json.loads(file.read_text()) for file in files)
    assert a["accuracy"] == b["accuracy"] and a["loss"] == b["loss"] and a["first_seed"] == 4
    assert len(a["loss"]) == 15 and a["loss"][-1] < a["loss"][0]


def test_a_study_is_kept_resumed_and_used(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = ["graphs", "train", "--dataset", "block-model", "--epochs", "15", "--out", "run"]
    assert _run(capsys, *train, "--seeds", "2")[0] == 0
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    status, out, err = _run(capsys, *train, "--seeds", "2")
    assert status == 2 and "checkpoint.pt exists; --force overwrites it" in err
    assert _run(capsys, *train, "--seeds", "4", "--resume", "--json", "four.json")[0] == 0
    assert _run(capsys, *train, "--seeds", "4", "--force", "--json", "whole.json")[0] == 0
    parts, whole = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("four", "whole"))
    assert parts["accuracy"] == whole["accuracy"] and parts["loss"] == whole["loss"]
    status, out, _ = _run(capsys, "graphs", "evaluate", checkpoint, "--json", "scores.json")
    assert max(map(len, out.splitlines())) <= 100 and "\n  over 4 seeds" in out
    row = json.loads((tmp_path / "scores.json").read_text())["rows"][0]
    assert status == 0 and row["test"] == pytest.approx(whole["accuracy"][row["seed"]])
    status, out, _ = _run(capsys, "graphs", "predict", checkpoint)
    lines = (tmp_path / "block-model_classes.csv").read_text().splitlines()
    assert status == 0 and lines[0] == "node,class,probability" and len(lines) == 1201
    # A file that fails is named, and does not stop the others.
    (tmp_path / "other.pt").write_bytes(b"nothing of the kind")
    status, out, err = _run(capsys, "graphs", "evaluate", "other.pt", checkpoint)
    assert status == 1 and out.count("\n") == 2 and "other.pt is not a checkpoint" in err


def test_results_in_the_folder_that_a_training_makes(capsys, tmp_path):
    for n, (out, json_file, plot) in enumerate(
        (("a", "a/s.json", "a/p.png"), ("b/c", "b/s.json", "b/c/p.png"), ("d", "d/e/s.json", "d/f/p.png"))
    ):
        files = [tmp_path / str(n) / name for name in (out, json_file, plot)]
        for words in ([0, 1, 2], [2, 1, 0]):  # whatever comes first
            given = [(("--out", "--json", "--plot")[k], files[k]) for k in words]
            assert _run(capsys, *QUICK, *itertools.chain(*given), "--quiet", "--force")[:2] == (0, "")
            assert all(file.exists() for file in files)
            shutil.rmtree(tmp_path / str(n))
    status, _, err = _run(capsys, *QUICK, "--out", tmp_path / "x", "--json", tmp_path / "y" / "s.json")
    assert status == 2 and "to write s.json in does not exist" in err and not (tmp_path / "x").exists()


def test_one_message_for_what_nobody_foresaw(capsys, monkeypatch):
    def broken():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("amstel.info.report", broken)
    status, out, err = _run(capsys, "info")
    assert status == 1 and out == "" and err.startswith("amstel: RuntimeError: two lines")
    assert err.count("\n") == 1


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
        r"block model cheb2: test accuracy \d\d\.\d\d ± \d\.\d\d% over 3 seeds", out
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
        found["std"] == pytest.approx(torch.tensor(found["accuracy"]).std(correction=0).item(), abs=1e-6)
        and found["settings"]["early_stopping"] == "loss"
        and found["settings"]["epochs"] == 15
    )
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_plot_without_matplotlib_names_the_extra(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, _, err = _run(capsys, *QUICK, "--plot", str(tmp_path / "x.png"))
    assert status == 2 and 'pip install "amstel[cli]"' in err and err.count("\n") == 1


def test_json_on_standard_output(capsys):
    for words in (["info", "--json"], ["info", "--json", "-"], ["info", "--json", "--quiet"]):
        status, out, err = _run(capsys, *words)
        assert status == 0 and err == "" and json.loads(out)["torch"] == torch.__version__
    module = subprocess.run([sys.executable, "-m", "amstel.info", "--json"], capture_output=True, check=True)
    assert json.loads(module.stdout)["amstel"] == amstel.__version__
    status, out, _ = _run(capsys, *QUICK, "--json", "-")
    assert status == 0 and json.loads(out)["model"] == "gcn"


def test_progress_on_a_terminal(monkeypatch):
    import io

    from amstel.apps import progress

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    for total in (3, None):
        with progress.shown(total, "images", stream=(stream := Terminal())) as update:
            update(2)
        assert "images" in stream.getvalue()
    with progress.shown(1, "patches", stream=(stream := Terminal())) as update:
        update(1)
    assert "of 1 patch " in stream.getvalue()


def test_gcn_without_rich(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    status, out, err = _run(capsys, *QUICK)
    assert status == 0 and err == "" and "over 3 seeds" in out


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
    """What extras bring is named with the command that brings it, the rest is shown, and the status says so."""
    for name in (
        "matplotlib",
        "matplotlib.figure",
        "matplotlib.animation",
        "PIL",
        "PIL.Image",
        "skimage",
        "skimage.data",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("video", "tracking"):
        monkeypatch.setattr(f"amstel.apps.{name}.demo.run", lambda show: show.say("  shown"))
    status, out, err = _run(capsys, "demo", "--output", tmp_path / "new", "--json", tmp_path / "found.json")
    assert status == 1 and re.findall(r"^\[(\d)/4\]", out, re.M) == ["1", "2", "3", "4"]
    assert re.search(
        r"accuracy (\d\d\.\d)% on the 920 test documents; from their words alone (\d\d\.\d)%", out
    )
    lines = err.splitlines()
    assert all(line.startswith("amstel demo: no ") and 'pip install "amstel[' in line for line in lines)
    assert [line.split()[3].rstrip(":") for line in lines] == [
        "karate.gif",
        "gcn_embedding.png",
        "restoration",
    ]
    names = ["gcn_embedding.svg", "index.html", "karate.svg"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == names
    for picture in (tmp_path / "new").glob("*.svg"):
        ElementTree.parse(picture)
    page = (tmp_path / "new" / "index.html").read_text()
    assert page.count("data:image/svg+xml") == 2 and page.count('class="missing"') == 3
    assert (tmp_path / "new" / "karate.svg").read_text().count("repeatCount") > 100
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["graphs"]["figures"]["accuracy"] > 0.7 and len(found["restoration"]["missing"]) == 1


@pytest.mark.slow
def test_demo_shows_all_four_families(capsys, tmp_path):
    for name in ("matplotlib", "av", "cv2", "skimage", "safetensors", "scipy"):
        pytest.importorskip(name)
    status, out, err = _run(capsys, "demo", "--output", tmp_path)
    # On a slow machine how far it got is said once in a while.
    assert status == 0 and all(" clips, " in line for line in err.splitlines())
    found = re.search(r"accuracy (\d+\.\d)% on 100 new clips; (\d+\.\d)% from a single frame", out)
    assert float(found[1]) > 90 and float(found[2]) < 45
    for name in (
        "gcn_embedding.png",
        "karate.gif",
        "video_lstm.gif",
        "sint.gif",
        "rim_denoise.png",
        "rim_mri.png",
        "index.html",
    ):
        assert (tmp_path / name).stat().st_size > 1000 and f"wrote {tmp_path / name}" in out


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
    # A line for an edge, whichever way it goes, and for both ways one.
    edges = torch.tensor([[1, 2, 0, 2], [0, 1, 1, 2]])
    drawn = draw.svg(tmp_path / "e.svg", frames, torch.zeros(3).long(), edges=edges).read_text()
    assert drawn.count("<line") == 2
    for wrong in (
        lambda p: draw.svg(p / "a.png", frames, torch.zeros(3).long()),
        lambda p: draw.raster(p / "a.svg", frames, torch.zeros(3).long()),
    ):
        with pytest.raises(ValueError, match="`path` must be a file that ends in"):
            wrong(tmp_path)


def test_pictures_name_what_they_cannot_draw(tmp_path):
    frames, labels, edges = torch.rand(1, 3, 2), torch.zeros(3).long(), torch.tensor([[0], [1]])
    for write, file in ((draw.svg, tmp_path / "a.svg"), (draw.raster, tmp_path / "a.png")):
        for arguments, name in (
            ({"frames": frames * 1j}, "frames"),
            ({"frames": frames.to_sparse()}, "frames"),
            ({"labels": labels.to_sparse()}, "labels"),
            ({"edges": edges.float()}, "edges"),
            ({"edges": edges * 1j}, "edges"),
            ({"edges": edges.bool()}, "edges"),
            ({"captions": 3}, "captions"),
            ({"captions": [3]}, "captions"),
            ({"captions": None}, "captions"),
            ({"rescale": "no"}, "rescale"),
            ({"path": None}, "path"),
        ):
            given = {"path": file, "frames": frames, "labels": labels, "edges": edges, **arguments}
            with pytest.raises((TypeError, ValueError), match=f"`{name}` must be"):
                write(**given)
        write(file, frames, labels, edges[:, :0] * 1j)
        write(file, frames, labels, captions=(text for text in ["$5_ and \0\udc80 $x^{ <&"]))
    text = ElementTree.parse(tmp_path / "a.svg").getroot()[-1].text
    assert text == "$5_ and \ufffd\ufffd $x^{ <&"


@pytest.mark.slow
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


def test_a_reader_that_goes_away_is_no_error():
    for module in ("amstel.info", "amstel"):
        command_line = [sys.executable, "-u", "-m", module, *(["info"] if module == "amstel" else [])]
        with subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as info:
            info.stdout.close()  # before it says anything
            assert info.stderr.read() == b"" and info.wait() == 1


def test_an_error_keeps_its_subject():
    said = SimpleNamespace(params=[], said={"data": "--dataset"})
    for message, shown in {
        "`data` must have a class": "--dataset must have a class",
        "`frame_size` must be 64": "the frame size must be 64",
        "x.png: `image` must be finite": "x.png: must be finite",
        "of a and b, `image` should be a": "of a and b, the image should be a",
        "all 3 failed, the first with: `image` must be": "all 3 failed, the first with: the image must be",
        "Outside: `box` must lie in the frame": "Outside: the box must lie in the frame",
        "x.png: `data` must be finite": "x.png: --dataset must be finite",
    }.items():
        assert in_words_of_the_user(message, said) == shown


def test_a_warning_says_the_name_of_an_option(capsys, monkeypatch):
    said = SimpleNamespace(params=[SimpleNamespace(name="sigma", opts=["--sigma"])], said={})
    monkeypatch.setattr(_command.Command, "running", said)
    _main._warning(UserWarning("`sigma` is outside of what\nthe weights know"))
    assert capsys.readouterr().err == "amstel: warning: --sigma is outside of what the weights know\n"
