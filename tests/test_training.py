"""The training engine: resuming, several processes, averaging, precision; killed and resumed runs of all four families."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from amstel.apps import ranks, training
from amstel.apps.task import Plan, Task
from tests import command, processes

pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = Plan(steps=12, every=4)


class Step(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        loss = (self.model(x)[:, 0] - y).square().mean()
        return loss, loss.detach().sqrt()[None]


class Regression(Task):
    """Ten samples, three a step; with dropout, so that the state of the generator matters."""

    metrics = ("loss", "rms")
    best = "score"

    def __init__(self, dropout=0.5, clip=0.0, group=None):
        self.group = group or ranks.Ranks()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.module, self.clip = Step(self.model), clip
        self.optimizer = torch.optim.Adam(self.model.parameters(), 0.02)
        generator = torch.Generator().manual_seed(1)
        self.x, self.y = (torch.randn(*s, generator=generator) for s in ((10, 5), (10,)))
        self.scores = []

    def items(self, step):
        epoch, number = divmod(step, 4)
        return np.random.default_rng(epoch).permutation(10)[3 * number : 3 * number + 3].tolist()

    def inputs(self, step, items):
        return self.x[items], self.y[items]

    def prepare(self, step):
        for group in self.optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)

    def seed(self, epoch, rank):
        return 100 * epoch + rank

    def validate(self):
        with torch.no_grad():
            self.model.eval()
            self.scores.append(-self.module(self.x, self.y)[0].item())
        return {"score": self.scores[-1]}

    def header(self, step):
        return {"format": "test"}


def _load(out, name=training.CHECKPOINT):
    return torch.load(out / name, weights_only=True)


def equal(a, b):
    """Bit for bit, all that is in it."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def _stops(task, step):
    """The task, interrupted in the middle of a step."""
    inputs, sent = task.inputs, []

    def interrupting(now, items):
        if now == step and not sent:
            sent.append(now)
            os.kill(os.getpid(), signal.SIGINT)
        return inputs(now, items)

    task.inputs = interrupting
    return task


@pytest.mark.parametrize(
    "options", [{}, {"average": 0.9}, {"accumulate": 2}, {"precision": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("step", [1, 5, 7])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, options, step):
    plan = replace(PLAN, **options)
    whole, parts = (replace(plan, out=tmp_path / name) for name in ("whole", "parts"))
    history = training.fit(Regression(clip=0.1), whole)
    with pytest.raises(KeyboardInterrupt, match=f"--resume continues from {parts.out / 'checkpoint.pt'}"):
        training.fit(_stops(Regression(clip=0.1), step), parts)
    state = _load(parts.out)
    assert state["training"]["step"] == step + 1
    task = Regression(clip=0.1)
    task.model.load_state_dict(state["model"])
    # How it was trained comes from the checkpoint.
    assert training.fit(task, replace(PLAN, out=parts.out), state=state) == history
    for name in ("checkpoint.pt", "best.pt"):
        assert equal(_load(whole.out, name), _load(parts.out, name))
    lines = [json.loads(line) for line in (parts.out / "log.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": n + 1, **entry} for n, entry in enumerate(history)]
    assert (whole.out / "log.jsonl").read_text() == (parts.out / "log.jsonl").read_text()


def test_a_second_interrupt_ends_at_once(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts without one
    task = Regression()

    def twice(step, items):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)  # else both may arrive as one
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        raise AssertionError("went on")

    task.inputs = twice
    with pytest.raises(KeyboardInterrupt):
        training.fit(task, replace(PLAN, out=tmp_path))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_parts_of_a_batch_have_its_gradient():
    alone, parts = Regression(0.0), Regression(0.0)
    a, b = training.fit(alone, PLAN), training.fit(parts, replace(PLAN, accumulate=2))
    for p, q in zip(alone.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert a[0]["loss"] == pytest.approx(b[0]["loss"])
    x, y, order = alone.x, alone.y, alone.items(0)
    fresh = Regression(0.0)
    first = (fresh.model(x[order])[:, 0] - y[order]).square().mean().item()
    one = training.fit(Regression(0.0), Plan(1, 4))
    assert one[0]["loss"] == pytest.approx(first) and one[0]["rms"] == pytest.approx(first**0.5)


def test_the_average_is_the_result_and_the_best_is_kept(tmp_path):
    task, seen = Regression(), []
    step = task.optimizer.step

    def noting(*args, **options):
        found = step(*args, **options)
        seen.append([p.detach().clone() for p in task.model.parameters()])
        return found

    start = [p.detach().clone() for p in task.model.parameters()]
    task.optimizer.step = noting
    history = training.fit(task, replace(PLAN, average=0.75, out=tmp_path))
    expected = start
    for now in seen:
        expected = [0.75 * e + 0.25 * n for e, n in zip(expected, now, strict=True)]
    for p, e in zip(task.model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), e)
    assert equal(_load(tmp_path)["model"], task.model.state_dict())
    scores = [entry["score"] for entry in history]
    assert scores == task.scores and _load(tmp_path, "best.pt")["history"][-1]["score"] == max(scores)


def test_random_numbers_of_the_caller_stay():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    training.fit(Regression(), PLAN)
    assert torch.equal(torch.rand(2), expected)


def test_a_run_is_not_overwritten_unasked(tmp_path):
    assert training.begin(None, False, False) is None and training.begin(tmp_path, False, False) == tmp_path
    training.fit(Regression(), replace(PLAN, out=tmp_path))
    with pytest.raises(FileExistsError, match=r"checkpoint\.pt exists: resume"):
        training.begin(tmp_path, False, False)
    assert training.begin(tmp_path, True, False) == training.begin(tmp_path, False, True) == tmp_path
    with pytest.raises(ValueError, match="`out`"):
        training.begin(None, True, False)


def _files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def _again(out, **changes):
    """Another run in the folder of one, which has a record beside it."""
    training.fit(Regression(0.1), replace(PLAN, out=out, beside={"record.json": "new"}, **changes))


@pytest.fixture
def run(tmp_path):
    training.fit(Regression(), replace(PLAN, out=tmp_path / "run", beside={"record.json": "old"}))
    before = _files_of(tmp_path / "run")
    assert set(before) == {"checkpoint.pt", "best.pt", "log.jsonl", "record.json"}
    return tmp_path / "run", before


@pytest.mark.parametrize("call", [1, 2])
def test_a_run_that_cannot_write_its_first_checkpoint_leaves_the_old_one(run, monkeypatch, call):
    """On a disk that is full while best.pt or checkpoint.pt is written."""
    (out, before), save, calls = run, torch.save, []

    def full(state, file):
        calls.append(file)
        if len(calls) == call:
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/(best|checkpoint)\.pt'"):
        _again(out)
    assert _files_of(out) == before and len(list(out.iterdir())) == len(before)


@pytest.mark.parametrize("failed", [False, True], ids=["killed", "failed"])
def test_runs_are_never_mixed(run, tmp_path, failed):
    """Whichever rename of the first checkpoint was the last: an error leaves one run whole, a kill the checkpoint of one
    and nothing of the other."""
    out, old = run
    _again(tmp_path / "new", steps=4)
    new = _files_of(tmp_path / "new")
    ended = set()
    for last in range(8):
        for path in out.iterdir():
            path.unlink()
        for name, content in old.items():
            (out / name).write_bytes(content)
        child = os.fork()
        if not child:
            rename, calls = os.replace, []

            def stopping(*paths, rename=rename, calls=calls, last=last):
                if len(calls) == last:
                    if failed:
                        calls.append(paths)
                        raise OSError(5, "no rename")
                    os._exit(9)
                calls.append(paths)
                rename(*paths)

            os.replace = stopping
            try:
                _again(out, steps=4)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        found = _files_of(out)
        whole = old if found["checkpoint.pt"] == old["checkpoint.pt"] else new
        assert found.items() <= whole.items(), last
        assert not failed or found == whole
        ended.add(whole is new)
    assert ended == {False, True} and found == new


def test_a_run_that_goes_on_never_misses_a_file(run):
    """Killed at whichever rename of its first checkpoint, it leaves all four files, each of before or after."""
    (out, old), names = run, ("checkpoint.pt", "best.pt", "log.jsonl", "record.json")
    state = torch.load(out / "checkpoint.pt")
    for last in range(5):
        child = os.fork()
        if not child:
            rename, calls = os.replace, []

            def stopping(*paths, rename=rename, calls=calls, last=last):
                calls.append(paths)
                if len(calls) > last:
                    os._exit(9)
                rename(*paths)

            os.replace = stopping
            try:
                plan = replace(PLAN, steps=PLAN.steps + PLAN.every, out=out, beside={"record.json": "new"})
                training.fit(Regression(), plan, state=state)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        found = _files_of(out)
        assert set(found) == set(names)
        torch.load(out / "checkpoint.pt"), torch.load(out / "best.pt")
    assert found["record.json"] == b"new" and found["checkpoint.pt"] != old["checkpoint.pt"]


def test_of_two_runs_at_once_the_second_is_refused(tmp_path):
    """Both began while the folder was empty."""
    assert training.begin(tmp_path, False, False) == tmp_path
    training.fit(Regression(), replace(PLAN, out=tmp_path))
    before = _files_of(tmp_path)
    with pytest.raises(FileExistsError, match=r"checkpoint\.pt exists: resume"):
        _again(tmp_path, force=False)
    assert _files_of(tmp_path) == before


def test_a_run_goes_on_with_its_own_data(tmp_path):
    """Of data that may grow, with all of its own; where it had no validation, with any."""

    def task(own, validation=None, more=()):
        made = Regression()
        made.given = {"clips": [torch.full((2,), n) for n in own], "validation": validation}
        made.may_grow = more
        return made

    plan = replace(PLAN, out=tmp_path)
    training.fit(task([1, 2]), plan)
    for own, more, message in (
        ([1, 3], (), "2 items, got 2, of which 1 are among them"),
        ([2, 1], (), "2 items, got them in another order"),
        ([1, 2, 3], (), "2 items, got 3, of which 2 are among them"),
        ([1, 3, 4], ("clips",), "2 items, got 3, of which 1 are among them"),
    ):
        with pytest.raises(ValueError, match=f"`clips` must be that of the run in .*, {message}"):
            training.fit(task(own, more=more), plan, state=_load(tmp_path))
    plan = replace(plan, steps=16)
    training.fit(task([3, 1, 2], range(3), ("clips",)), plan, state=_load(tmp_path))
    for validation, said in (
        (None, "3 items, got none: give it again"),
        (range(4), "3 of range, got 4 of range"),
    ):
        with pytest.raises(ValueError, match=f"`validation` must be that .*, {said}"):
            training.fit(task([3, 1, 2], validation), plan, state=_load(tmp_path))


def test_a_checkpoint_that_knows_no_data_says_so(capsys, commands, tmp_path):
    """Those of versions before do not, and any data are taken for theirs."""
    words, more = commands["restore"]
    assert command.run(capsys, *words, "--iterations", 10, "--out", tmp_path)[0] == 0
    state = _load(tmp_path)
    del state["training"]["data"]
    torch.save(state, tmp_path / "checkpoint.pt")
    said = "it was written by a version that did not record its data, so they could not be compared"
    for expected, iterations in ((1, 20), (0, 30)):
        status, _, err = command.run(capsys, *more, "--iterations", iterations, "--out", tmp_path)
        assert status == 0 and err.count(said) == expected, err


def test_data_are_told_from_others(tmp_path):
    """By what is in memory, else by names and sizes below a folder that may move."""
    from PIL import Image

    from amstel import data as readers
    from amstel.apps import identity
    from amstel.apps.video.samples import Subset

    def differ(make, *others):
        found = [identity.of(some)["items"].tolist() for some in (make, *others)]
        return [one != found[0] for one in found[1:]]

    for root, shade in (("a", 0), ("moved", 0), ("b", 90)):
        for kind in ("x", "y"):
            (tmp_path / root / kind).mkdir(parents=True)
            pixels = np.full((8, 64, 3), shade, np.uint8)
            pixels[:, ::7] = np.arange(10)[:, None] * (shade > 0)
            Image.fromarray(pixels).save(tmp_path / root / kind / "1.png")
    folders = [readers.ClipFolder(tmp_path / root) for root in ("a", "moved", "b")]
    slower = readers.ClipFolder(tmp_path / "a")
    slower.fps = 5.0
    assert differ(*folders, slower) == [False, True, True]
    assert differ(*(Subset(some, [1]) for some in folders), Subset(folders[0], [0])) == [False, True, True]
    clips = [
        [readers.Clip(torch.full((3, 4, 4, 3), n).byte(), label, "")]
        for n, label in ((1, 0), (1, 0), (2, 0), (1, 1))
    ]
    assert differ(*clips) == [False, True, True]
    images = [np.full((64, 64, 3), n, np.uint8) for n in (1, 1, 2)]
    assert differ(*(readers.StillPairs([image]) for image in images)) == [False, True]
    stills = [readers.StillPairs([tmp_path / root / "x"]) for root in ("a", "moved", "b")]
    assert differ(*stills, readers.StillPairs([tmp_path / "a" / "x"], size=160)) == [False, True, True]
    truth = torch.tensor([[1.0, 2, 30, 40]] * 3)
    videos = [
        readers.tracking.TrackingSequence(name, [""] * 3, truth + d)
        for name, d in (("s", 0), ("s", 0), ("t", 0), ("s", 1))
    ]
    assert differ(*(readers.SequencePairs([one]) for one in videos)) == [False, True, True]
    scans = [torch.full((2, 32, 32), n) for n in (0.5, 0.5, 0.6)]
    assert differ(*(readers.mri.CoilImages(some) for some in scans)) == [False, True]


def test_parts_that_only_their_address_tells_apart_are_not_compared():
    """With it no run could be resumed; and of clips that know no identity, none is read for it."""
    from amstel.apps import identity
    from amstel.apps.video.samples import Subset
    from amstel.data import Clip

    class Clips:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise AssertionError

    clip = Clip(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), 0, "a")
    odd = Clip(clip.frames, 0, object())
    ragged = np.array([[1], [2, 3]], dtype=object)
    for data in (
        [odd],
        [clip, odd],
        [ragged],
        [torch.eye(2).to_sparse()],
        Subset(Clips(), [1]),
        Subset([odd], [0]),
    ):
        found = identity.of(data)
        assert found == {"kind": type(data).__name__, "count": len(data), "items": None}
        identity.check("clips", found, identity.of(data), None)
    assert identity.of(Subset((clip,), [0]))["items"] is not None


def test_what_is_wrong_with_a_plan_is_said():
    for options in ({"precision": "int8"}, {"accumulate": 0}, {"average": 1.0}, {"accumulate": True}):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            replace(PLAN, **options)


def _process(rank, world, folder):
    group = ranks.current()
    task = Regression(0.0, group=group)
    history = training.fit(task, PLAN, group)
    outcomes = ranks.each([3, 0, 2], lambda n: 6 // n, group)
    torch.save({"model": task.model.state_dict(), "history": history}, f"{folder}/{rank}.pt")
    assert [o.value for o in outcomes] == [2, None, 3] and "ZeroDivisionError" in outcomes[1].error
    assert group.merge(group.share(range(5))) == list(range(5))


def test_two_processes_are_one(tmp_path):
    """Batches of three, of which one process takes two, and a last one of one, of which the second takes none."""
    alone = Regression(0.0)
    history = training.fit(alone, PLAN)
    processes.run(_process, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert equal(found[0], found[1])
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(found[0]["model"][name], value, rtol=1e-4, atol=1e-6)
    assert [e["loss"] for e in found[0]["history"]] == pytest.approx([e["loss"] for e in history], rel=1e-4)


# ---------------------------------------------------------------------------- the four families, killed and spread


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """What trains each family for a moment, all but --out: {family: (words, words that resume it)}."""
    from amstel import video
    from amstel.apps.restoration import files
    from amstel.data import generate_moving_shapes

    root = tmp_path_factory.mktemp("data")
    for clip in generate_moving_shapes(10, frames=5, size=32, classes=2):
        folder = root / "clips" / clip.name.split("_")[0]
        folder.mkdir(exist_ok=True, parents=True)
        video.write(folder / f"{clip.name}.png", clip.frames)
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        values = rng.random((20, 24, 3)).repeat(8, 0).repeat(8, 1).astype(np.float32)
        files.write(root / "images" / f"{number}.png", files.Picture(values))
    graphs = ["graphs", "train", "--dataset", "block-model", "--seeds", "48", "--epochs", "40"]
    small = ["--frame-size", "32", "--hidden", "4", "--steps", "4", "--motion", "difference", "--epochs", "8"]
    video_ = ["video", "train", root / "clips", *small, "--dropout", "0", "--batch", "3"]
    track = [
        "track",
        "train",
        root / "images",
        "--epochs",
        "4",
        "--batch",
        "3",
        "--boxes",
        "8",
        "--mining",
        "1",
    ]
    net = ["--features", "8", "--steps", "2", "--batch", "5", "--size", "16", "--iterations", "200"]
    restore = ["restore", "train", root / "images", *net, "--network", "conv"]
    return {
        "graphs": (graphs, [*graphs, "--resume"]),
        "video": (video_, [*video_[:3], "--resume"]),
        "track": (track, [*track[:3], "--resume"]),
        "restore": (restore, [*restore[:3], "--resume"]),
    }


FAMILIES = ("graphs", "video", "track", "restore")


def _results(out):
    state = _load(out)
    for key in ("seconds", "training"):
        state.pop(key, None)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_killed_run_is_resumed_bit_for_bit(capsys, commands, tmp_path, family):
    words, again = ([*map(str, some), "--threads", "1"] for some in commands[family])
    assert command.run(capsys, *words, "--out", tmp_path / "whole")[0] == 0
    out = tmp_path / "parts"
    run = subprocess.Popen(
        [sys.executable, "-m", "amstel", *words, "--out", str(out)], stdout=subprocess.DEVNULL
    )
    while not (out / "checkpoint.pt").exists() and run.poll() is None:
        time.sleep(0.01)
    run.kill()
    run.wait()
    assert run.returncode == -signal.SIGKILL, "it was through before it could be killed"
    remains = out / ".checkpoint.0123abcd.partial.pt"  # as of a kill while it writes
    remains.write_bytes(b"half")
    os.utime(remains, (0, 0))
    status, _, err = command.run(capsys, *again, "--out", out)
    assert status == 0 and err == "" and not remains.exists()
    assert equal(_results(out), _results(tmp_path / "whole"))


@pytest.mark.parametrize("family", [*FAMILIES, "colored graphs"])
def test_a_run_that_is_complete_says_so(capsys, commands, tmp_path, family):
    """`--resume` said that it wrote a checkpoint, where nothing was trained."""
    colored = "graphs train --task graph --dataset colored-graphs --seeds 2 --epochs 1".split()
    all_of_them = commands | {"colored graphs": (colored, [*colored, "--resume"])}
    words, again = (list(map(str, some)) for some in all_of_them[family])
    for some in (words, again):
        for option, value in (("--epochs", "1"), ("--iterations", "2"), ("--seeds", "2")):
            if option in some:
                some[some.index(option) + 1] = value
    out = tmp_path / "out"
    status, said, _ = command.run(capsys, *words, "--out", out)
    assert status == 0 and re.search(r"^wrote .*checkpoint\.pt", said, re.M)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    status, said, err = command.run(capsys, *again, "--out", out)
    assert status == 0 and err == ""
    how_far = {"restore": "2 batches", "video": "1 epoch", "track": "1 epoch"}
    message = f"nothing to do: the run was already complete, at {how_far.get(family, '2 seeds')}"
    assert message in said.splitlines() and "checkpoint.pt" not in said
    assert {name: (out / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("family", ["video", "track", "restore"])
def test_a_resumed_run_refuses_other_data(capsys, commands, tmp_path, family):
    """It went on with them, and best.pt was chosen by scores of different validations."""
    words, again = (list(map(str, some)) for some in commands[family])
    for option, value in (("--epochs", "1"), ("--iterations", "2")):
        if option in words:
            words[words.index(option) + 1] = value
    root = tmp_path / "data"
    shutil.copytree(words[2], root)
    words[2] = again[2] = str(root)
    out, tested = ["--out", tmp_path / "out"], []
    if family != "video":
        tested = ["--validation", tmp_path / "tested"]
        shutil.copytree(root, tested[1])
    assert command.run(capsys, *words, *out, *tested)[0] == 0
    assert command.run(capsys, *again, *out, *tested)[0] == 0  # as it was
    if family != "video":
        command.is_refused(capsys, [*again, *out], "4 items, got none: give it again\n")
        file = sorted(tested[1].rglob("*.png"))[0]
        shutil.copy(sorted(root.rglob("*.png"))[-1], file)
        message = f"--validation must be that of the run in {out[1]}, 4 items, got 4, of which 3"
        # In memory, as a training of restoration has them, it is the same picture as another one.
        command.is_refused(capsys, [*again, *out, *tested], message if family == "track" else message[:-1])
    else:
        held = json.loads((out[1] / "training.json").read_text())["held_out"]
        file = root / f"{held[0]}.png"
        file.write_bytes(file.read_bytes() + b"more")
        message = "the held-out part of ROOT must be that of the run in"
        command.is_refused(capsys, [*again, *out], message)
        file.write_bytes(file.read_bytes()[:-4])
    file = next(
        f for f in sorted(root.rglob("*.png")) if family != "video" or f"{f.parent.name}/{f.stem}" not in held
    )
    file.unlink()
    command.is_refused(capsys, [*again, *out, *tested], "ROOT must be that of the run in")


def _close(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(a, torch.Tensor) and a.is_floating_point():
        return bool((a - b).norm() <= 0.02 * b.norm() + 1e-5)
    if isinstance(a, float):
        return a == pytest.approx(b, rel=0.01, abs=1e-3)
    return equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_of_torchrun_are_one(capsys, commands, tmp_path, family):
    """The same batches: equal but for the order of sums, which a training makes grow; graphs bit for bit."""
    words = [*map(str, commands[family][0]), "--threads", "1"]
    for option in ("--epochs", "--iterations"):
        if option in words and family != "graphs":
            words[words.index(option) + 1] = "2" if option == "--epochs" else "20"
    assert command.run(capsys, *words, "--out", tmp_path / "one")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "amstel", *words, "--out", str(tmp_path / "two")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint.pt") == 1  # one of them says it
    one, two = (_results(tmp_path / name) for name in ("one", "two"))
    assert equal(one, two) if family == "graphs" else _close(two, one)


@pytest.mark.slow
def test_two_processes_train_a_unet_as_one_does(capsys, commands, tmp_path):
    """Some of its batches have one step, in which the parameters of what is handed on have no part."""
    words = [*map(str, commands["restore"][0][:3]), "--features", "8", "--batch", "4", "--size", "16"]
    words += ["--iterations", "40", "--threads", "1", "--out"]
    assert command.run(capsys, *words, tmp_path / "one")[0] == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "amstel", *words, str(tmp_path / "two")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = (_results(tmp_path / name) for name in ("one", "two"))
    assert _close(two["history"], one["history"]) and _close(two["model"], one["model"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, count", [*((family, 2) for family in FAMILIES), ("restore", 1), ("graphs", 1)]
)
def test_a_restart_of_torchrun_goes_on(commands, tmp_path, family, count):
    """It ended with the error that there is a checkpoint; one that was there before is no other run's."""
    words = [*map(str, commands[family][0]), "--threads", "1", "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    torchrun += ["--max-restarts=1", "-m", "amstel", *words]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert subprocess.run([*torchrun, whole], capture_output=True).returncode == 0
    before = _files_of(whole)
    done = subprocess.run([*torchrun, whole], capture_output=True, text=True)
    assert done.returncode != 0 and "checkpoint.pt exists; --force overwrites it" in done.stderr
    assert _files_of(whole) == before
    run = subprocess.Popen([*torchrun, out], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoint.pt").exists() and run.poll() is None:
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)
    _, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    assert sum(line.startswith("amstel") for line in err.splitlines()) <= 1, err
    assert equal(_results(out), _results(whole))


@pytest.mark.slow
def test_interrupted_at_the_terminal(commands, tmp_path):
    words, _ = commands["restore"]
    out = tmp_path / "out"
    run = subprocess.Popen(
        [sys.executable, "-m", "amstel", *map(str, words), "--iterations", "100000", "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "checkpoint.pt").exists() and run.poll() is None:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert err == f"amstel restore train: interrupted; --resume continues from {out / 'checkpoint.pt'}\n"


@pytest.mark.parametrize("how", ["interrupted", "saved"])
def test_weights_that_are_not_finite_never_replace_a_checkpoint(tmp_path, how):
    """Within an epoch either, where Ctrl-C or `save_every` writes one."""
    training.fit(Regression(), replace(PLAN, steps=4, out=tmp_path))
    before = (tmp_path / training.CHECKPOINT).read_bytes()
    task = Regression()
    for group in task.optimizer.param_groups:
        group["lr"] = float("inf")
    task.prepare = lambda step: None
    plan = replace(PLAN, steps=12, out=tmp_path, save_every=2 if how == "saved" else 0)
    state = _load(tmp_path)
    with pytest.raises(ValueError, match=r"training diverged.*checkpoint\.pt is from before"):
        training.fit(
            _stops(task, 5) if how == "interrupted" else task,
            plan,
            state={**state, "optimizer": task.optimizer.state_dict()},
        )
    assert (tmp_path / training.CHECKPOINT).read_bytes() == before
    state["model"] = {name: value * float("nan") for name, value in state["model"].items()}
    with pytest.raises(ValueError, match=r"the weights in x\.pt are not finite"):
        training.check_finite("x.pt", state["model"])
