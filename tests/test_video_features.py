"""`amstel video extract`, trainings on what it wrote, and the table of all models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import amstel
from amstel import video
from amstel.apps import ranks
from amstel.apps.video import evaluate, features, network, samples, settings, table
from amstel.data import ClipFolder, SplitClips, generate_moving_shapes
from tests import command, processes

pytest.importorskip("PIL", reason="clips are read from PNG strips")
pytest.importorskip("scipy", reason="boxes need scipy")
pytestmark = pytest.mark.usefixtures("one_thread")


class Tiny(amstel.nn.VGG16Features):
    """In the place of VGG-16, whose 15 (or 134) million weights would make these tests slow."""

    def __init__(self, normalize=True, layer="pool5"):
        nn.Module.__init__(self)
        self.normalize, self.layer, self.classifier = False, layer, None
        self.out_channels = 4096 if layer == "fc7" else 512
        self.features = nn.Sequential(nn.Conv2d(3, self.out_channels, 16, stride=32, padding=0), nn.ReLU())

    def forward(self, x):
        maps = super().forward(x)
        return maps.mean((-2, -1)) if self.layer == "fc7" else maps


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """VGG-16 is tiny; its weights in a file."""
    monkeypatch.setattr(amstel.nn, "VGG16Features", Tiny)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        torch.save(Tiny().state_dict(), tmp_path / "vgg.pt")
    return tmp_path / "vgg.pt"


@pytest.fixture
def root(tmp_path):
    """Strips in two class folders, lists of two splits."""
    for clip in generate_moving_shapes(8, frames=5, size=64, classes=2):
        folder = tmp_path / "clips" / clip.name.split("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    names = [f"{p.parent.name}/{p.name}" for p in sorted((tmp_path / "clips").rglob("*.png"))]
    (tmp_path / "lists").mkdir()
    for number in (1, 2):
        test = names[number - 1 :: 4]
        train = [name for name in names if name not in test]
        (tmp_path / "lists" / f"testlist0{number}.txt").write_text("\n".join(test))
        (tmp_path / "lists" / f"trainlist0{number}.txt").write_text("\n".join(train))
    return tmp_path / "clips"


EXTRACT = ["--frame-size", 64]
BOTH = [*EXTRACT, "--stream", "both", "--motion", "difference"]


def _run(capsys, *arguments):
    return command.run(capsys, "video", *arguments)


def test_features_are_those_of_the_backbone(capsys, tiny, root, tmp_path):
    out, record = tmp_path / "features", tmp_path / "said.json"
    words = ["extract", root, "--weights", tiny, "--out", out, *BOTH]
    status, said, err = _run(capsys, *words, "--json", record)
    assert status == 0 and err == "" and "pool5 of 40 frames of 8 clips, rgb and flow: 328 kB in" in said
    assert json.loads(record.read_text())["bytes"] == 2 * 40 * 512 * 2 * 2 * 2
    folder, clips = features.FeatureFolder(out), ClipFolder(root)
    assert folder.names == clips.names and folder.labels == clips.labels and folder.classes == clips.classes
    assert folder.check() == []
    how = settings.Settings(model="videolstm", backbone="vgg16", frame_size=64, motion="difference", steps=3)
    net = network.Network(how, clips.classes).eval()
    net.load_backbone(torch.load(tiny))
    raw = samples._prepare(clips[3].frames, how)
    stream = net.streams["rgb"]
    with torch.no_grad():
        maps = stream.features(raw.frames.float()[:, None] / 255, False)[:, 0]
        flow = stream.features(raw.motion[:, None], True)[:, 0]
    torch.testing.assert_close(folder[3].frames.float(), maps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(folder[3].motion.float(), flow, rtol=1e-3, atol=1e-4)
    # A network says of the features what it says of the clips.
    of_maps, of_clips = (evaluate.evaluate(net, some, 3) for some in (folder, clips))
    torch.testing.assert_close(of_maps.probabilities, of_clips.probabilities, rtol=1e-3, atol=1e-3)
    assert of_maps.names == of_clips.names


def test_an_extraction_goes_on_where_it_was(capsys, tiny, root, tmp_path, monkeypatch):
    out = tmp_path / "features"
    words = ["extract", root, "--weights", tiny, "--out", out, *EXTRACT]
    (root / "left" / "broken.png").write_bytes(b"")
    status, said, err = _run(capsys, *words)
    assert status == 1 and "1 clip was left out" in said and "broken.png" in err
    files = sorted(out.rglob("*.npy"))
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    assert _run(capsys, *words)[0] == 1
    assert sorted(out.rglob("*.npy")) == files
    assert [f for f in files if f.stat().st_mtime_ns != times[f]] == files[:1]
    facts = json.loads((out / "features.json").read_text())
    facts["settings"]["motion"] = "difference"  # which earlier releases took for features of frames too
    (out / "features.json").write_text(json.dumps(facts))
    assert _run(capsys, *words)[0] == 1
    # Of other settings or weights nothing is mixed in.
    command.is_refused(capsys, ["video", *words, "--stride", 2], "features with other settings")
    other = tmp_path / "other.pt"
    torch.save(Tiny().state_dict(), other)
    words[3] = other
    command.is_refused(capsys, ["video", *words], "features with other weights")
    before = {file: file.read_bytes() for file in out.rglob("*.*")}
    with monkeypatch.context() as patched:  # a full disk costs nothing of what was there
        patched.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert _run(capsys, *words, "--force")[0] == 2
    assert {file: file.read_bytes() for file in out.rglob("*.*")} == before
    assert _run(capsys, *words, "--force")[0] == 1
    # What was cut, or is something else, is found before the first epoch.
    files[1].write_bytes(files[1].read_bytes()[:200])
    files[2].unlink()
    np.save(files[3], np.zeros((5, 7), np.float16))
    options = ["--model", "convlstm", "--hidden", 4, "--steps", 3, "--epochs", 1]
    status, said, err = _run(capsys, "train", out, "--out", tmp_path / "run", *options)
    assert status == 0 and "3 clips were left out" in said and err.count("\n") == 3, (said, err)
    assert f"{files[2]} does not exist; amstel video extract, run again, creates it" in err
    for wrong, message in (("{", "is not what"), ('{"format": 1}', "is not what")):
        (out / "features.json").write_text(wrong)
        command.is_refused(capsys, ["video", "train", out, "--out", tmp_path / "b"], message)


def test_features_of_another_backbone_are_refused(capsys, tiny, root, tmp_path):
    own, other, run, weights = (tmp_path / name for name in ("own", "other", "run", "other.pt"))
    torch.save({name: value + 0.1 for name, value in torch.load(tiny).items()}, weights)
    for out, file in ((own, tiny), (other, weights)):
        assert _run(capsys, "extract", root, "--weights", file, "--out", out, *EXTRACT)[0] == 0
    options = ["--model", "convlstm", "--hidden", 4, "--steps", 3, "--epochs", 1]
    assert _run(capsys, "train", own, "--out", run, *options)[0] == 0
    message = f"{other} must hold features of the network's own backbone"
    again = ["video", "train", "--out", run, "--resume", "--epochs", 2]
    command.is_refused(capsys, [*again, other], message)
    command.is_refused(capsys, ["video", "evaluate", run / "checkpoint.pt", other], message)
    assert _run(capsys, *again[1:], own)[0] == 0
    assert _run(capsys, "evaluate", run / "checkpoint.pt", own)[0] == 0


def test_an_extraction_that_goes_on_keeps_the_splits(capsys, tiny, root, tmp_path):
    out, lists = tmp_path / "features", tmp_path / "lists"
    words = ["extract", root, "--weights", tiny, "--out", out, *EXTRACT]
    broken = sorted(root.rglob("*.png"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(b"")
    assert _run(capsys, *words, "--lists", lists)[0] == 1
    broken.write_bytes(whole)
    expected = SplitClips(root, lists)
    for more in (["--lists", lists], []):  # the one that could not be read before, and then nothing new
        assert _run(capsys, *words, *more)[0] == 0
        found = features.FeatureFolder(out)
        assert found.numbers == [1, 2]
        for number in (1, 2):
            for ours, theirs in zip(found.split(number), expected.split(number), strict=True):
                assert [found.names[k] for k in ours] == [expected.names[k] for k in theirs]
    before = (out / "features.json").read_bytes()
    for kind in ("test", "train"):
        (lists / f"{kind}list01.txt").write_bytes((lists / f"{kind}list02.txt").read_bytes())
    command.is_refused(capsys, ["video", *words, "--lists", lists], "features of another split 1")
    assert (out / "features.json").read_bytes() == before
    assert _run(capsys, *words, "--lists", lists, "--force")[0] == 0
    assert features.FeatureFolder(out).split(1) == features.FeatureFolder(out).split(2)


def test_a_network_trained_on_features_reads_videos(capsys, tiny, root, tmp_path):
    out, run = tmp_path / "features", tmp_path / "run"
    lists = tmp_path / "lists"
    words = ["extract", root, "--weights", tiny, "--out", out, "--lists", lists, *EXTRACT]
    assert _run(capsys, *words)[0] == 0
    small = ["--hidden", 4, "--steps", 3, "--epochs", 2, "--batch", 4, "--model", "convalstm"]
    for more, message in (
        (["--weights", tiny], "leave out --backbone and --weights"),
        (["--shift", 3], "--shift must be left out"),
        (["--frame-size", 128], "--frame-size must be 64, as for the features"),
        (["--stream", "flow"], "extract those of flow too"),
        (["--model", "videolstm"], "extract those of flow too"),
        (["--split", 3], "a split of"),
        (["--lists", lists, "--split", 1], "holds features, whose lists"),
    ):
        command.is_refused(capsys, ["video", "train", out, "--out", run, *small, *more], message)
    assert not run.exists()
    status, said, _ = _run(capsys, "train", out, "--out", run, "--split", 2, *small)
    assert status == 0 and "on 6 clips" in said
    held = json.loads((run / "training.json").read_text())["held_out"]
    assert held == [n.removesuffix(".png") for n in (lists / "testlist02.txt").read_text().splitlines()]
    picture, answers = tmp_path / "x.gif", []
    clip = root / f"{held[0]}.png"
    assert _run(capsys, "predict", run / "checkpoint.pt", clip, "-o", picture)[0] == 0
    assert len(video.read(picture)) == 5
    for place, more in ((out, []), (root, ["--lists", lists])):
        said = tmp_path / "evaluated.json"
        words = ["evaluate", run / "checkpoint.pt", place, "--split", 2, *more, "--json", said]
        assert _run(capsys, *words)[0] == 0
        answers.append(json.loads(said.read_text())["answers"])
    assert answers[0] == answers[1] and answers[0].keys() == set(held)
    facts = json.loads((out / "features.json").read_text())
    facts["settings"]["stride"] = 2
    (out / "features.json").write_text(json.dumps(facts))
    words = ["video", "evaluate", run / "checkpoint.pt", out, "--split", 2]
    command.is_refused(capsys, words, "evaluate: the stride of CHECKPOINT must be 2, as for")


def test_vectors_of_fc7(capsys, tiny, root, tmp_path):
    torch.save(Tiny(layer="fc7").state_dict(), tiny)
    out = tmp_path / "features"
    words = ["extract", root, "--weights", tiny, "--out", out, "--layer", "fc7", *EXTRACT]
    assert _run(capsys, *words)[0] == 0
    assert features.FeatureFolder(out)[0].frames.shape == (5, 4096)
    small = ["--steps", 3, "--epochs", 1]
    for model in ("cnn", "lstm"):
        status, said, _ = _run(capsys, "train", out, "--out", tmp_path / model, "--model", model, *small)
        assert status == 0 and f"{model} (rgb)" in said
    command.is_refused(
        capsys,
        ["video", "train", out, "--out", tmp_path / "x", "--model", "convlstm", *small],
        "the layer must be pool5 but for",
    )


def test_fc7_is_that_of_torchvision():
    """Names, shapes and order of its layers; the weights are one number each, without memory of their own."""
    model = amstel.nn.VGG16Features(layer="fc7", device="meta")
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if k.startswith("classifier")}
    assert shapes == {
        "classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,),
        "classifier.3.weight": (4096, 4096), "classifier.3.bias": (4096,),
    }  # fmt: skip
    assert model(torch.zeros(2, 5, 3, 224, 224, device="meta")).shape == (2, 5, 4096)
    assert model.out_channels == 4096 and amstel.nn.VGG16Features(device="meta").out_channels == 512
    with pytest.raises(ValueError, match="`layer` must be"):
        amstel.nn.VGG16Features(layer="fc6")


def test_memory_of_a_frozen_backbone_does_not_grow_with_the_batch(tiny, monkeypatch):
    """VGG-16 reads a batch of 128 clips of 30 frames in parts; at once its maps would take 139 GB."""
    seen = []
    monkeypatch.setattr(
        Tiny, "forward", lambda self, x: seen.append(len(x)) or torch.zeros(len(x), 512, 2, 2)
    )
    how = settings.Settings(model="convlstm", backbone="vgg16", frame_size=64, hidden=2)
    net = network.Network(how, ["a", "b"])
    net(torch.rand(10, 9, 3, 64, 64), None)
    assert sum(seen) == 90 and max(seen) <= 32


def _probabilities(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_the_table_by_hand():
    """Accuracies of each stream, fused by the product, and their means over splits."""
    labels = torch.tensor([0, 1])
    rgb = _probabilities([[0.9, 0.1], [0.6, 0.4]])  # one of two
    flow = _probabilities([[0.6, 0.4], [0.1, 0.9]])  # both
    poor = _probabilities([[0.1, 0.9], [0.9, 0.1]])  # none

    def tested(model, split, **streams):
        first = next(iter(streams.values()))
        return table.Tested(model, split, evaluate.Evaluation(first, labels, ["a", "b"], streams))

    rows = table.rows(
        [
            tested("lstm", 1, rgb=rgb),
            tested("lstm", 2, rgb=poor),
            tested("lstm", 1, flow=flow),
            tested("cnn", None, rgb=rgb),
        ]
    )
    assert [row["model"] for row in rows] == ["cnn", "lstm"]
    assert rows[0] == {"model": "cnn", "rgb": {"mean": 0.5, "splits": {"held out": 0.5}}}
    assert rows[1]["rgb"] == {"mean": 0.25, "splits": {"1": 0.5, "2": 0.0}}
    assert rows[1]["flow"]["mean"] == 1 and rows[1]["fused"] == {"mean": 1.0, "splits": {"1": 1.0}}
    text = table.markdown(rows).splitlines()
    assert text[0].split() == ["|", "model", "|", "rgb", "|", "flow", "|", "fused", "|"]
    assert "25.0 (2 splits)" in text[3] and text[2].count("-") == 2 and len({len(line) for line in text}) == 1
    with pytest.raises(ValueError, match="two of the networks are lstm on rgb of split 1"):
        table.rows([tested("lstm", 1, rgb=rgb), tested("lstm", 1, rgb=rgb)])
    other = tested("lstm", 1, flow=flow)
    other.evaluation.names = ["a", "c"]
    with pytest.raises(ValueError, match="the same clips"):
        table.rows([tested("lstm", 1, rgb=rgb), other])
    confusion = evaluate.Evaluation(rgb, labels, ["a", "b"]).confusion
    assert confusion.tolist() == [[1, 0], [1, 0]]


def test_the_table_of_trained_networks(capsys, root, tmp_path):
    """Each on the test list of its own split, or on what it held out."""
    lists, runs = tmp_path / "lists", []
    common = [
        "--frame-size",
        16,
        "--steps",
        3,
        "--epochs",
        1,
        "--shift",
        1,
    ]
    both = ["--hidden", 4, "--stream", "both", "--motion", "difference"]
    for name, words in (
        ("cnn", ["--model", "cnn", "--split", 1, "--lists", lists]),
        ("cnn2", ["--model", "cnn", "--split", 2, "--lists", lists, "--balanced"]),
        ("lstm", ["--model", "lstm", *both, "--split", 1, "--lists", lists]),
        ("own", ["--model", "convlstm", "--hidden", 4, "--hold-out", 0.5]),
    ):
        assert _run(capsys, "train", root, "--out", tmp_path / name, *common, *words)[0] == 0
        runs.append(tmp_path / name / "checkpoint.pt")
    out, record = tmp_path / "table.md", tmp_path / "table.json"
    words = ["evaluate", *runs, root, "--segments", 2, "--table", out, "--json", record]
    status, said, err = _run(capsys, *words)
    assert status == 0 and err == "" and out.read_text() in said
    rows = {row["model"]: row for row in json.loads(record.read_text())["table"]}
    assert set(rows) == {"cnn", "lstm", "convlstm"} and set(rows["cnn"]["rgb"]["splits"]) == {"1", "2"}
    assert {"rgb", "flow", "fused"} < rows["lstm"].keys() and "held out" in rows["convlstm"]["rgb"]["splits"]
    command.is_refused(capsys, ["video", *words], "--force overwrites it")
    picture = tmp_path / "confusion.png"
    pytest.importorskip("matplotlib")
    words = ["evaluate", runs[3], root, "--segments", 1, "--confusion", picture, "--json", record]
    assert _run(capsys, *words)[0] == 0
    found = json.loads(record.read_text())
    assert np.array(found["confusion"]).sum() == 8 and picture.stat().st_size > 1000
    assert found["class_mean"] == pytest.approx(np.mean(list(found["classes"].values())))
    more = [*runs[:2], root, "--confusion", tmp_path / "b.png"]
    command.is_refused(capsys, ["video", "evaluate", *more], "--confusion needs one CHECKPOINT")


def test_balanced_classes():
    """Each class as often as the others, whatever it has; in another order and with other crops."""
    labels = [0] * 10 + [1] * 2
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    found = samples.balanced(order, labels)
    assert len(found) == 12 and len(set(found)) == 12
    own = [labels[k % 12] for k in found]
    assert own.count(0) == own.count(1) == 6
    assert sorted(k for k in found if labels[k % 12] == 1) == [10, 11, 22, 23, 34, 35]
    assert [k for k in found if labels[k % 12] == 0] == [k for k in order if labels[k] == 0][:6]


def test_a_network_sees_the_same_of_another_rate(capsys, tmp_path):
    """With fps, a clip with every frame twice as often is the same clip."""
    pytest.importorskip("av")
    frames = generate_moving_shapes(2, frames=8, size=32, classes=2)
    for clip in frames:
        (tmp_path / "clips" / clip.name.split("_")[0]).mkdir(parents=True)
        video.write(tmp_path / "clips" / clip.name.split("_")[0] / "a.mp4", clip.frames, fps=10)
        twice = clip.frames.repeat_interleave(2, 0)
        video.write(tmp_path / "clips" / clip.name.split("_")[0] / "b.mp4", twice, fps=20)
    common = [
        "--model",
        "convalstm",
        "--frame-size",
        16,
        "--hidden",
        4,
        "--steps",
        3,
        "--epochs",
        1,
        "--fps",
        10,
    ]
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", tmp_path / "clips", "--out", run, "--hold-out", 0, "--shift", 1, *common]
    assert _run(capsys, *words)[0] == 0
    clips = ClipFolder(tmp_path / "clips")
    clips.fps = 10
    assert [len(clip) for clip in clips] == [8, 8, 8, 8]
    files = [clips.paths[0], clips.paths[1]]
    record = tmp_path / "x.json"
    assert _run(capsys, "predict", run / "checkpoint.pt", *files, "-o", out, "--json", record)[0] == 0
    a, b = json.loads(record.read_text())["videos"]
    assert len(a["boxes"]) == 8 and len(b["boxes"]) == 16
    for name, value in a["probabilities"].items():
        assert b["probabilities"][name] == pytest.approx(value, abs=0.02)  # two codings of the same pictures
    strip = tmp_path / "clips" / "left" / "strip.png"
    video.write(strip, frames[0].frames)
    command.is_refused(
        capsys,
        ["video", "predict", run / "checkpoint.pt", strip, "-o", tmp_path / "s.gif"],
        "when its frames",
    )
    status, said, err = _run(capsys, *words, "--force")
    assert status == 0 and "1 clip was left out" in said and "does not say when" in err


def test_gaps_between_models():
    """By hand: differences 1, 2, 3 have the mean 2 and a standard error of 1 / sqrt(3); t of 2 degrees is 4.3027."""
    from amstel.apps.video.intervals import gap, with_gaps

    found = gap([2, 4, 6], [1, 2, 3])
    assert found["mean"] == 2 and found["high"] - 2 == pytest.approx(4.30265 / 3**0.5, abs=1e-4)
    assert found["noise"] and not gap([9, 9.1, 9.2], [1, 1, 1])["noise"]
    with pytest.raises(ValueError, match="as many seeds"):
        gap([1, 2], [1])
    lines = []
    runs = [
        {"model": m, "accuracy": a} for m, a in (("a", [0.9, 0.91]), ("b", [0.1, 0.1]), ("c", [0.1, 0.09]))
    ]
    gaps = with_gaps({"runs": runs}, lines.append)["gaps"]
    assert [g["noise"] for g in gaps] == [False, True] and "beyond noise" in lines[0] and "within" in lines[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_frames_of_any_precision_are_normalized_in_that_of_the_weights(dtype):
    model, x = Tiny(), torch.rand(2, 3, 32, 40).to(dtype)
    model.normalize = True
    found = amstel.nn.backbone._normalized(x, next(model.parameters()))
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    assert found.dtype == torch.float32 and torch.equal(found, (x.float() - mean) / std)
    assert model(x).dtype == torch.float32
    last = amstel.nn.backbone._normalized(x.contiguous(memory_format=torch.channels_last), x)
    assert last.is_contiguous(memory_format=torch.channels_last) and last.dtype == dtype


def _extract(rank, world, folder):
    weights = amstel.nn.VGG16Features
    amstel.nn.VGG16Features = Tiny
    try:
        torch.manual_seed(0)
        state, clips = Tiny().state_dict(), ClipFolder(f"{folder}/clips")
        how = settings.Settings(model="convlstm", backbone="vgg16", frame_size=64)
        for force in (False, True):
            out = features.extract(
                clips, how, Path(folder, "out"), state, streams=("rgb",), ranks=ranks.current(), force=force
            )
            assert all(each.error is None for each in out)
            torch.distributed.barrier()
            assert len(list(Path(folder, "out").rglob("*.npy"))) == len(clips)
            torch.distributed.barrier()
    finally:
        amstel.nn.VGG16Features = weights


def test_processes_extract_anew_together(root, tmp_path):
    processes.run(_extract, tmp_path)
