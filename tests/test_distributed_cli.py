"""`torchrun -m amstel graphs train --distributed`: the losses of one process, one line on errors, and runs that go on."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs import distributed as application

pytestmark = pytest.mark.slow
TRAIN = [
    "graphs",
    "train",
    "--dataset",
    "block-model",
    "--epochs",
    "8",
    "--seed",
    "0",
    "--seeds",
    "3",
    "--quiet",
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def _torchrun(ranks, *words):
    return subprocess.run(
        [*TORCHRUN, f"--nproc-per-node={ranks}", "-m", "amstel", *map(str, words)],
        capture_output=True,
        text=True,
    )


def _said(done):
    return [line for line in done.stderr.splitlines() if line.startswith("amstel graphs")]


@pytest.mark.parametrize("how", [[], ["--sampler", "neighbor", "--fanouts", "5,5", "--batch-size", "30"]])
def test_torchrun_writes_the_same_losses(tmp_path, how):
    words = [*TRAIN, *how]
    subprocess.run([sys.executable, "-m", "amstel", *words, "--json", str(tmp_path / "1.json")], check=True)
    whole = json.loads((tmp_path / "1.json").read_text())
    assert len(whole["loss"]) == 8
    for ranks in (1, 2, 3):
        file = tmp_path / f"parts-{ranks}.json"
        done = _torchrun(ranks, *words, "--distributed", "--json", file)
        assert done.returncode == 0, done.stderr
        found = json.loads(file.read_text())
        np.testing.assert_allclose(found["loss"], whole["loss"], rtol=0, atol=1e-6)
        assert found["accuracy"] == pytest.approx(whole["accuracy"], abs=0.01)


def test_torchrun_says_what_is_wrong_once(tmp_path):
    application.write(amstel.data.block_model(), 3, tmp_path / "three")
    done = _torchrun(2, *TRAIN, "--distributed", "--parts", tmp_path / "three")
    assert (
        done.returncode != 0 and len(_said(done)) == 1 and "holds 3 parts, but there are 2" in _said(done)[0]
    )


def test_what_is_wrong_with_the_options_is_said_once():
    done = _torchrun(2, *TRAIN, "--distributed", "--hidden", "0")
    assert done.returncode != 0 and len(_said(done)) == 1 and "--hidden" in _said(done)[0]


def _kill_one(folder, run):
    """Kill a rank of a run as soon as a checkpoint is there."""
    running = folder / "running" / "checkpoint.pt"
    while not running.exists() and run.poll() is None:
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]), signal.SIGKILL)


def _killed(folder, ranks, words, *more):
    """A run of which a rank is killed: its exit status and what it said."""
    run = subprocess.Popen(
        [*TORCHRUN, *more, f"--nproc-per-node={ranks}", "-m", "amstel", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    _kill_one(folder, run)
    _, err = run.communicate(timeout=240)
    return run.returncode, [line for line in err.splitlines() if line.startswith("amstel graphs")], err


def test_a_killed_rank_is_said_and_resume_goes_on(tmp_path):
    """Killed in the middle of the only chunk: the run goes on from the last epoch that was saved, to the same numbers
    with as many ranks, and to those that another order of the sums gives with fewer."""
    out = tmp_path / "out"
    words = [*TRAIN, "--epochs", "400", "--distributed", "--out", str(out)]
    status, said, err = _killed(out, 3, words)
    assert status != 0 and len(said) == 1, err
    assert "another rank" in said[0] and "--resume continues" in said[0]
    assert 0 < torch.load(out / "running" / "checkpoint.pt")["training"]["step"] < 400
    shutil.copytree(out, tmp_path / "again")
    losses = {}
    for name, ranks, folder in (("same", 3, tmp_path / "again"), ("fewer", 2, out)):
        file = tmp_path / f"{name}.json"
        done = _torchrun(ranks, *words[:-1], folder, "--resume", "--json", file)
        assert done.returncode == 0, done.stderr
        assert not (folder / "running").exists()
        losses[name] = json.loads(file.read_text())["loss"]
    done = _torchrun(3, *words[:-2], "--json", tmp_path / "whole.json")
    assert done.returncode == 0, done.stderr
    whole = json.loads((tmp_path / "whole.json").read_text())["loss"]
    assert len(whole) == 400 and losses["same"] == whole
    np.testing.assert_allclose(losses["fewer"][:200], whole[:200], rtol=0, atol=1e-4)


def test_a_restart_of_torchrun_goes_on(tmp_path):
    out, file = tmp_path / "out", tmp_path / "parts.json"
    words = [*TRAIN, "--epochs", "400", "--distributed", "--out", str(out), "--json", str(file)]
    status, _, err = _killed(out, 2, words, "--max-restarts=1")
    assert status == 0, err
    done = _torchrun(2, *TRAIN, "--epochs", "400", "--distributed", "--json", tmp_path / "whole.json")
    assert done.returncode == 0, done.stderr
    found, whole = (json.loads(f.read_text())["loss"] for f in (file, tmp_path / "whole.json"))
    assert found == whole


def test_two_nodes_of_which_one_loses_a_rank_go_on(tmp_path):
    """Two torchruns of two ranks with one rendezvous; both start their ranks again, at the epoch that was saved."""
    out, file = tmp_path / "out", tmp_path / "parts.json"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meet = ["--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *meet, "--rdzv-id=test", "--max-restarts=2"]
    words = [
        "-m",
        "amstel",
        *TRAIN,
        "--epochs",
        "400",
        "--distributed",
        "--out",
        str(out),
        "--json",
        str(file),
    ]
    nodes = [subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        _kill_one(out, nodes[1])
        said = [node.communicate(timeout=240)[1] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], said
    done = _torchrun(4, *TRAIN, "--epochs", "400", "--distributed", "--json", tmp_path / "whole.json")
    assert done.returncode == 0, done.stderr
    found, whole = (json.loads(f.read_text())["loss"] for f in (file, tmp_path / "whole.json"))
    assert found == whole


def test_a_disk_that_is_full_is_said_once_and_nothing_is_lost(tmp_path):
    """Files may not grow beyond 24 KB: neither a checkpoint nor a partition is half written, and a run goes on."""
    out = tmp_path / "out"
    words = [*TRAIN, "--epochs", "120", "--distributed", "--out", str(out)]
    limited = ["bash", "-c", 'ulimit -f 24; exec "$@"', "-", *TORCHRUN, "--nproc-per-node=2", "-m", "amstel"]
    application.write(amstel.data.block_model(), 2, out / "parts-2")
    for place in ([], ["--parts", str(tmp_path / "new")]):
        done = subprocess.run([*limited, *words, *place], capture_output=True, text=True, timeout=240)
        said = _said(done)
        assert done.returncode != 0 and len(said) == 1 and "File too large" in said[0], done.stderr
        assert not (tmp_path / "new").exists() and not list(out.rglob("*.partial*"))
    done = _torchrun(2, *words, "--json", tmp_path / "r.json")
    assert done.returncode == 0 and len(json.loads((tmp_path / "r.json").read_text())["loss"]) == 120
