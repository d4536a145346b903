"""amstel.distributed: what several processes compute of a graph in parts is what one computes of the whole."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import distributed

import amstel
from amstel.apps.graphs import distributed as application
from amstel.apps.graphs import train
from amstel.distributed import (
    DistributedGraph,
    Exchange,
    NodeDropout,
    key,
    node_dropout,
    partition,
    sum_gradients,
)
from tests import processes

N, FEATURES, CLASSES = 120, 6, 3
WORLDS = (1, 2, 3, 4)
NORMS = ("sym", "row", "sym_inout", "none")
MODELS = ("gcn", "cheb")


def _problem(kind):
    """A directed graph with weights and a node without edges, or one of two far pieces, with features and labels."""
    generator = torch.Generator().manual_seed(7)
    index = torch.randint(N - 1, (2, 500), generator=generator)
    if kind == "pieces":  # no part needs another one
        index = index // 60 * 60 + torch.randint(60, (2, 500), generator=generator)
    weight = torch.rand(500, generator=generator, dtype=torch.float64) + 0.1
    graph = amstel.Graph.from_edge_index(index, N, weight if kind == "weighted" else None)
    x = torch.randn(N, FEATURES, generator=generator, dtype=torch.float64)
    y = torch.randint(CLASSES, (N,), generator=generator)
    return graph, x, y, torch.randperm(N, generator=generator)[:40]


KINDS = ("weighted", "plain", "pieces")
DATA = {"nodes": 300, "classes": 3, "words": 60, "seed": 3}
SETTINGS = {"epochs": 6, "hidden": 5}
SAMPLED = {
    "all neighbors": {"sampler": "neighbor", "fanouts": (-1, -1)},
    "few neighbors": {"sampler": "neighbor", "fanouts": (3, 4), "batch_size": 11},
}


def _learn(kind, dtype, graph, x, y, rows, total, reduce, epochs=15):
    """Losses of full-batch training, and the logits in the end."""
    torch.manual_seed(0)
    if kind == "gcn":
        model = amstel.nn.GCN(FEATURES, 8, CLASSES, dropout=0.0, bias=True, dtype=dtype)
    else:
        model = amstel.nn.ChebConv(FEATURES, CLASSES, K=3, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(epochs):
        loss = F.cross_entropy(model(x, graph)[rows], y[rows], reduction="sum") / total
        optimizer.zero_grad()
        loss.backward()
        losses.append(reduce(model, loss.detach()))
        optimizer.step()
    return torch.stack(losses), model(x, graph).detach()


def _outputs(graph, x, grad):
    """Products and their gradients under every norm, and a second derivative."""
    found = []
    for norm in NORMS:
        x = x.detach().requires_grad_()
        bias = torch.linspace(-1, 1, FEATURES, dtype=x.dtype).requires_grad_()
        y = amstel.ops.spmm(graph, x, norm=norm, self_loops=0.5, bias=bias, activation="relu")
        (first,) = torch.autograd.grad((y**2 * grad).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), x)
        found += [y.detach(), first.detach(), second]
    batch = torch.stack([x.detach(), -2 * x.detach()])
    return [*found, amstel.ops.spmm(graph, batch)[1]]


def _work(rank, most, folder):
    for world in WORLDS:
        group = distributed.new_group(list(range(world)))
        if rank < world:
            found = _of_world(folder, world, rank, group)
            if rank == 0:
                torch.save(found, f"{folder}/found-{world}.pt")
    distributed.barrier()
    _fail_together(folder, rank)


def _of_world(folder, world, rank, group):
    found = {}
    for kind in KINDS:
        graph = DistributedGraph.load(f"{folder}/{kind}-{world}", group)
        assert graph.world == world and graph.total_nodes == N
        grad = torch.arange(N * FEATURES, dtype=torch.float64).view(N, FEATURES).sin()[graph.nodes]
        outputs = _outputs(graph, graph.x, grad)
        found[kind] = [graph.gather(t) for t in outputs]
        with pytest.MonkeyPatch.context() as patch:  # as if the halo were large
            patch.setattr("amstel.distributed.graph.ROOM", 0)
            patch.setattr("amstel.distributed.graph.NARROWEST", 4)
            torch.testing.assert_close(_outputs(graph, graph.x, grad), outputs, rtol=1e-14, atol=1e-14)
        halved = DistributedGraph.load(f"{folder}/{kind}-{world}", group, exchange_dtype=torch.bfloat16)
        found[kind, "bfloat16"] = graph.gather(amstel.ops.spmm(halved, graph.x))
        rows = graph.splits["train"]

        def reduce(model, loss, group=group):
            sum_gradients(model, group)
            distributed.all_reduce(loss, group=group)
            return loss

        for dtype in (torch.float64, torch.float32):
            for name in MODELS:
                losses, logits = _learn(
                    name, dtype, graph, graph.x.to(dtype), graph.y, rows, graph.totals["train"], reduce
                )
                found[kind, name, dtype] = losses, graph.gather(logits)
        torch.manual_seed(11 if rank == 0 else rank)  # only the first one's counts
        model = amstel.nn.GCN(FEATURES, 8, CLASSES, dtype=torch.float64)
        for p in model.parameters():
            torch.nn.init.ones_(p)
        found[kind, "dropout"] = graph.gather(model(graph.x, graph).detach())
        sparse = graph.dropout(graph.x.to_sparse_csr(), 0.3).to_dense()
        found[kind, "sparse dropout"] = graph.gather(sparse)
    return found


def _with_another_torch(other, folder):
    with pytest.MonkeyPatch.context() as patch:
        if other:
            patch.setattr(torch, "__version__", "1.0")
        return DistributedGraph.load(folder)


def _fail_together(folder, rank):
    """With all four ranks: what is wrong in one of them is said by all, and nobody waits."""
    said = []
    for call in (
        lambda: DistributedGraph.load(f"{folder}/missing"),
        lambda: DistributedGraph.load(f"{folder}/{'plain' if rank < 3 else 'weighted'}-4"),
        lambda: DistributedGraph.load(f"{folder}/plain-3"),
        lambda: Exchange(torch.tensor([3, 2] if rank == 1 else [2]), [0, 1, 2, 3, 4]),
        lambda: _with_another_torch(rank == 2, f"{folder}/plain-4"),
    ):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            call()
        said.append(f"{error.type.__name__}: {error.value}")
    everyone = [None] * 4
    distributed.all_gather_object(everyone, said)
    if rank == 0:
        torch.save(everyone, f"{folder}/said.pt")
    # The whole study, all models, on all four.
    graph = DistributedGraph.load(f"{folder}/study-4")
    found = {}
    for model in train.MODELS:
        result = train.study(graph, model, [4, 7], train.Settings(**SETTINGS))
        found[model] = result.losses, result.accuracy
    stopped = train.Settings(early_stopping="kipf", epochs=60, learning_rate=0.05, weight_decay=0.0)
    result = train.study(graph, seeds=[0, 1], settings=stopped)
    found["kipf"] = result.losses, result.epochs
    for name, how in SAMPLED.items():
        result = train.study(graph, seeds=[4, 7], settings=train.Settings(**SETTINGS | how))
        found[name] = result.losses, result.accuracy
    if rank == 0:
        torch.save(found, f"{folder}/study.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What four processes found, in files."""
    folder = tmp_path_factory.mktemp("distributed")
    for world in WORLDS:
        for kind in KINDS:
            graph, x, y, rows = _problem(kind)
            # Ranges, and parts that are scattered.
            method = "ranges" if kind != "plain" else torch.arange(N) * 7 % world
            partition(
                graph, world, folder / f"{kind}-{world}", x=x, y=y, splits={"train": rows}, method=method
            )
    application.write(amstel.data.block_model(**DATA), 4, folder / "study-4")
    shutil.copytree(folder / "plain-4", folder / "missing")
    shutil.rmtree(folder / "missing" / "part-2")
    processes.run(_work, folder, world=max(WORLDS))
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return {world: torch.load(folder / f"found-{world}.pt") for world in WORLDS}


@pytest.mark.parametrize("kind", KINDS)
def test_products_and_gradients_are_those_of_the_whole(found, kind):
    graph, x, _, _ = _problem(kind)
    grad = torch.arange(N * FEATURES, dtype=torch.float64).view(N, FEATURES).sin()
    expected = _outputs(graph, x, grad)
    for world in WORLDS:
        for ours, theirs in zip(found[world][kind], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            found[world][kind, "bfloat16"], amstel.ops.spmm(graph, x), rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_training_is_that_of_one_process(found, kind, name, dtype, tolerance):
    graph, x, y, rows = _problem(kind)
    losses, logits = _learn(name, dtype, graph, x.to(dtype), y, rows, len(rows), lambda model, loss: loss)
    assert losses[-1] < losses[0]
    for world in WORLDS:
        ours = found[world][kind, name, dtype]
        torch.testing.assert_close(ours[0], losses, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(ours[1], logits, rtol=10 * tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_follows_the_node(found, kind):
    x = _problem(kind)[1]
    for what in ("dropout", "sparse dropout"):
        for world in WORLDS[1:]:
            torch.testing.assert_close(found[world][kind, what], found[1][kind, what], rtol=1e-12, atol=1e-12)
    dropped = (found[1][kind, "sparse dropout"] == 0) & (x != 0)
    assert 0.2 < dropped.double().mean() < 0.4


@pytest.mark.parametrize("model", train.MODELS)
def test_a_study_in_parts_is_the_study(folder, model):
    losses, accuracy = torch.load(folder / "study.pt")[model]
    whole = train.study(amstel.data.block_model(**DATA), model, [4, 7], train.Settings(**SETTINGS))
    np.testing.assert_allclose(losses, whole.losses, rtol=0, atol=1e-6)
    assert accuracy == pytest.approx(whole.accuracy, abs=0.02)


def test_a_sampled_study_in_parts(folder):
    """With all neighbors it is the study of the full batch; with some, that of one process on sampled batches."""
    found, data = torch.load(folder / "study.pt"), amstel.data.block_model(**DATA)
    (losses, accuracy), (full, of_full) = found["all neighbors"], found["gcn"]
    np.testing.assert_allclose(losses, full, rtol=0, atol=1e-6)
    assert accuracy == pytest.approx(of_full, abs=0.02)
    whole = train.study(data, seeds=[4, 7], settings=train.Settings(**SETTINGS | SAMPLED["few neighbors"]))
    losses, accuracy = found["few neighbors"]
    np.testing.assert_allclose(losses, whole.losses, rtol=0, atol=1e-5)
    assert losses[0][-1] < losses[0][0] and np.mean(accuracy) > np.mean(of_full) - 0.05


def test_early_stopping_in_parts(folder):
    losses, epochs = torch.load(folder / "study.pt")["kipf"]
    settings = train.Settings(early_stopping="kipf", epochs=60, learning_rate=0.05, weight_decay=0.0)
    whole = train.study(amstel.data.block_model(**DATA), seeds=[0, 1], settings=settings)
    assert epochs == whole.epochs and max(epochs) < 60
    for ours, theirs in zip(losses, whole.losses, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_what_is_wrong_in_one_rank_ends_all(folder):
    everyone = torch.load(folder / "said.pt")
    assert all(said == everyone[0] for said in everyone)
    for said, part in zip(
        everyone[0],
        (
            "part 2 of 4 is missing",
            "the ranks disagree about the partition",
            "holds 3 parts, but there are 4",
            "`wanted` must be",
            "the ranks disagree about the release of torch",
        ),
        strict=True,
    ):
        assert part in said


# ---- Dropout by node


def test_masks_depend_on_the_key_and_the_node_alone():
    nodes = torch.randperm(50)
    for rate in (0.5, 0.3):
        whole = NodeDropout(rate, torch.arange(50), 70).draw([key(1, 2, 0), key(1, 3, 0)]).view(2, 50, 70)
        some = NodeDropout(rate, nodes, 70).draw([key(1, 2, 0), key(1, 3, 0)]).view(2, 50, 70)
        assert torch.equal(some, whole[:, nodes]) and not torch.equal(whole[0], whole[1])
        assert sorted(set(whole.flatten().tolist())) == pytest.approx([0.0, 1 / (1 - rate)])
        # Of a sparse row the k-th value has the k-th feature's fate.
        sizes = torch.arange(50) % 7 * 11
        ragged = NodeDropout(rate, torch.arange(50), sizes).draw([key(1, 2, 0)])[0].split(sizes.tolist())
        assert all(torch.equal(part, whole[0, i, : len(part)]) for i, part in enumerate(ragged))
    assert (NodeDropout(0.0, nodes, 3).draw([1]) == 1).all()
    assert NodeDropout(0.5, nodes[:0], 3).draw([1, 2]).shape == (2, 0)


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_masks_look_random(rate):
    keys = [key(seed, epoch, layer) for seed in range(4) for epoch in range(4) for layer in range(2)]
    kept = (NodeDropout(rate, torch.arange(2000), 64).draw(keys) > 0).double().view(len(keys), 2000, 64)
    spread = (rate * (1 - rate)) ** 0.5
    z = (kept - (1 - rate)) / spread
    assert abs(z.mean()) * z.numel() ** 0.5 < 4
    for neighbors in (
        z[1:] * z[:-1],
        z[:, 1:] * z[:, :-1],
        z[:, :, 1:] * z[:, :, :-1],
        z[:, :-64] * z[:, 64:],
    ):
        assert abs(neighbors.mean()) * neighbors.numel() ** 0.5 < 4.5
    for sums in (z.sum(1), z.sum(2), z.sum(0)):  # as spread as those of independent bits
        count = z.numel() / sums.numel()
        assert (sums.square().mean() / count).item() == pytest.approx(1, abs=0.1)


def test_node_dropout_has_the_gradient_of_its_mask():
    x = torch.randn(2, 5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: node_dropout(x, 0.3, torch.arange(5), key(3)), (x,))
    y = node_dropout(torch.ones(2, 5, 9), 0.5, torch.arange(5), key(3))
    assert not torch.equal(y[0], y[1])


# ---- The folder


def _write(folder, parts=2, **more):
    graph, x, y, rows = _problem("plain")
    return partition(graph, parts, folder, x=x, y=y, splits={"train": rows}, **more)


def test_parts_hold_the_whole(tmp_path):
    graph, x, y, rows = _problem("weighted")
    meta = partition(
        graph, 3, tmp_path / "p", x=x.to_sparse_csr(), y=y, splits={"train": rows}, name="made up"
    )
    assert meta == json.loads((tmp_path / "p" / "meta.json").read_text())
    assert meta["nodes"] == N and meta["offsets"][0] == 0 and meta["offsets"][-1] == N
    assert meta["classes"] == CLASSES and meta["splits"] == {"train": 40} and len(meta["halo"]) == 3
    read = [{f.stem: np.load(f) for f in (tmp_path / "p" / f"part-{k}").glob("*.npy")} for k in range(3)]
    assert sorted(np.concatenate([a["nodes"] for a in read])) == list(range(N))
    assert sum(len(a["own_col"]) + len(a["halo_col"]) for a in read) == graph.num_edges
    for a in read:
        assert (a["y"] == y[a["nodes"]].numpy()).all()
        assert set(a["nodes"][a["split_train"]]) <= set(rows.tolist())
        assert len(a["x_value"]) == FEATURES * len(a["nodes"])


def test_ranges_share_nodes_and_edges(tmp_path):
    star = amstel.Graph.from_edge_index(
        torch.stack([torch.arange(50), torch.zeros(50, dtype=torch.int64)]), 50
    )
    assert partition(star, 4, tmp_path / "star")["offsets"] == [0, 1, 2, 24, 50]
    assert partition(star, 50, tmp_path / "each")["offsets"] == list(range(51))


def test_memory_maps_are_features(tmp_path):
    graph, x, _, _ = _problem("plain")
    np.save(tmp_path / "x.npy", x.numpy())
    meta = partition(graph, 1, tmp_path / "p", x=np.load(tmp_path / "x.npy", mmap_mode="r"))
    loaded = DistributedGraph.load(tmp_path / "p")
    assert torch.equal(loaded.gather(loaded.x), x) and meta["features"] == FEATURES
    assert meta["graph"] == partition(graph, 2, tmp_path / "q", x=x)["graph"]


def test_a_partition_is_replaced_only_when_asked(tmp_path):
    first = _write(tmp_path / "p")
    with pytest.raises(FileExistsError, match="exists"):
        _write(tmp_path / "p", 3)
    assert json.loads((tmp_path / "p" / "meta.json").read_text()) == first
    assert _write(tmp_path / "p", 3, force=True)["parts"] == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(FileExistsError, match="not a partition"):
        _write(tmp_path / "mine", force=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["mine", "p"]


def test_an_error_leaves_nothing(tmp_path, monkeypatch):
    from amstel.distributed import folder

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_write", full)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path / "p")
    assert not list(tmp_path.iterdir())


def _edit(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda p: shutil.rmtree(p / "part-0"), "part 0 of 1 is missing"),
        (lambda p: (p / "meta.json").unlink(), "holds no partition"),
        (lambda p: (p / "meta.json").write_text("{}"), "is not the meta.json"),
        (lambda p: _edit(p / "meta.json", classes=10**12), '"classes" must be an integer from 0 to 16777216'),
        (lambda p: _edit(p / "meta.json", features=-1), '"features" must be an integer from 0 to .*, got -1'),
        (
            lambda p: _edit(p / "meta.json", nodes=10**30),
            'json: "nodes" must be [0-9]+, the last of "offsets", got 10{30}',
        ),
        (
            lambda p: _edit(p / "meta.json", offsets=[0, 10**30]),
            'json: "offsets" must be ascending .*, got .0, 10{30}',
        ),
        (
            lambda p: _edit(p / "meta.json", parts="1"),
            'json: "offsets" must be ascending integers, one more than "parts", .1.',
        ),
        (lambda p: (p / "part-0" / "halo_col.npy").unlink(), "part 0 of 1 is damaged"),
        (lambda p: (p / "part-0" / "y.npy").write_bytes(b"\x93NUMPY"), "part 0 of 1 is damaged"),
        (lambda p: np.save(p / "part-0" / "y.npy", np.zeros(3)), "should hold"),
        (lambda p: (p / "part-0" / "part.json").write_text("[]"), "is damaged"),
        (lambda p: (p / "part-0" / "part.json").write_text("[" * 100_000), "is damaged"),
        (lambda p: (p / "meta.json").write_text("[" * 100_000), "is not the meta.json"),
        (lambda p: np.save(p / "part-0" / "own_col.npy", np.full(500, N, np.int32)), "Graph"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, spoil, message):
    graph, x, y, _ = _problem("plain")
    partition(graph, 1, tmp_path / "p", x=x, y=y)
    DistributedGraph.load(tmp_path / "p")
    spoil(tmp_path / "p")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DistributedGraph.load(tmp_path / "p")


def test_a_part_of_another_graph_is_refused(tmp_path):
    graph, x, _, _ = _problem("plain")
    partition(graph, 1, tmp_path / "p", x=x)
    partition(graph, 1, tmp_path / "q", x=x + 1)
    shutil.rmtree(tmp_path / "p" / "part-0")
    shutil.copytree(tmp_path / "q" / "part-0", tmp_path / "p" / "part-0")
    with pytest.raises(ValueError, match="to another graph"):
        DistributedGraph.load(tmp_path / "p")


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"parts": 0}, ValueError, "`parts` must be"),
        ({"parts": N + 1}, ValueError, "`parts` must be"),
        ({"parts": True}, TypeError, "`parts` must be"),
        ({"graph": 3}, TypeError, "`graph` must be"),
        ({"graph": amstel.Graph.from_csr([0, 1], [4], num_cols=5)}, ValueError, "`graph` must be"),
        ({"x": torch.zeros(3, 2)}, ValueError, "`x` must be"),
        ({"x": [1]}, TypeError, "`x` must be"),
        ({"y": torch.zeros(3)}, ValueError, "`y` must be"),
        ({"splits": {"train": [N]}}, ValueError, "must be numbers of nodes"),
        ({"method": "spectral"}, ValueError, "`method` must be"),
        ({"method": torch.full((N,), 2)}, ValueError, "`method` must be"),
        ({"method": torch.full((N,), 0.5)}, ValueError, "`method` must be"),
        ({"x": np.zeros((N, 2), object)}, ValueError, "`x` must be floating point"),
        ({"x": np.zeros((N, 2), complex)}, ValueError, "`x` must be floating point"),
        ({"x": torch.zeros(N, 2, dtype=torch.int64)}, ValueError, "`x` must be floating point"),
        ({"y": np.full(N, "a")}, ValueError, "`y` must be classes"),
        ({"y": torch.full((N,), float("nan"))}, ValueError, "`y` must be classes"),
        ({"y": torch.zeros(N, dtype=torch.bool)}, ValueError, "`y` must be classes"),
        ({"y": torch.full((N,), 4), "num_classes": 4}, ValueError, "`num_classes` must be"),
        ({"splits": {"train": [3, 3]}}, ValueError, "must name a node once, got 3"),
        ({"splits": {"../x": [3]}}, ValueError, "`splits` must be"),
        ({"splits": [3]}, TypeError, "`splits` must be"),
        ({"name": 3}, TypeError, "`name` must be"),
    ],
)
def test_what_is_wrong_with_arguments_is_said(tmp_path, change, error, message):
    arguments = {"graph": _problem("plain")[0], "parts": 2, "folder": tmp_path / "p"} | change
    with pytest.raises(error, match=message):
        partition(**arguments)
    assert not list(tmp_path.iterdir())


def test_gradients_of_what_has_none_are_not_summed():
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    for model in (parameter, 3):  # the rows of a parameter would pass for parameters
        with pytest.raises(TypeError, match=r"`model` must be a torch\.nn\.Module or a list of parameters"):
            sum_gradients(model)


def test_what_is_wrong_with_a_call_is_said(tmp_path):
    graph, x, _, _ = _problem("plain")
    partition(graph, 1, tmp_path / "p", x=x)
    part = DistributedGraph.load(tmp_path / "p")
    for call, message in (
        (lambda: amstel.ops.spmm(part, x[1:]), "`x` must be"),
        (lambda: amstel.ops.spmm(part, x, torch.ones(500, dtype=x.dtype)), "`edge_weight` must be None"),
        (lambda: amstel.ops.spmm(part, x, norm="left"), "`norm` must be"),
        (lambda: amstel.ops.spmm(part, x, activation="tanh"), "`activation` must be"),
        (lambda: amstel.ops.spmm(part, x, bias=x[0, :2]), "`bias` must be"),
        (
            lambda: DistributedGraph.load(tmp_path / "p", exchange_dtype=torch.int8),
            "`exchange_dtype` must be",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_unknown_classes_are_not_trained_on(tmp_path):
    """A class below 0 is unknown: to train on it, or to count it as wrong, would say something false."""
    graph, x, y, rows = _problem("plain")
    splits = {"train": rows[:20], "test": rows[20:]}
    for part, changed in (("train", rows[0]), ("test", rows[20])):
        unknown = y.clone()
        unknown[changed] = -1
        folder = tmp_path / part
        partition(graph, 1, folder, x=x.float(), y=unknown, splits=splits)
        with pytest.raises(ValueError, match=f"classes of its {part} nodes"):
            train.study(DistributedGraph.load(folder), seeds=[0], settings=train.Settings(**SETTINGS))


@pytest.mark.parametrize("how", [{}, SAMPLED["few neighbors"]], ids=["whole", "sampled"])
def test_a_run_goes_on_as_what_it_was(tmp_path, how):
    """Of a run that was stopped, another model or other settings are an error, and nothing of it is lost."""
    graph, x, y, rows = _problem("plain")
    splits = {"train": rows[:20], "test": rows[20:]}
    partition(graph, 1, tmp_path / "p", x=x.float(), y=y, splits=splits, name="plain")
    part, out = DistributedGraph.load(tmp_path / "p"), tmp_path / "out"

    def stop(_):
        if (out / "running" / "checkpoint.pt").exists():
            raise KeyboardInterrupt

    settings = {"epochs": 60, "hidden": 5} | how
    with pytest.raises(KeyboardInterrupt):
        train.study(part, "gcn", [0], train.Settings(**settings), stop, out=out)
    saved = (out / "running" / "checkpoint.pt").read_bytes()
    for model, changed in (("gcn", {"hidden": 4}) if how else ("single", {}), ("gcn", {"epochs": 61})):
        with pytest.raises(ValueError, match="cannot continue"):
            train.study(part, model, [0], train.Settings(**settings | changed), out=out, resume=True)
    assert (out / "running" / "checkpoint.pt").read_bytes() == saved
    found = train.study(part, "gcn", [0], train.Settings(**settings), out=out, resume=True)
    whole = train.study(part, "gcn", [0], train.Settings(**settings))
    assert found.losses == whole.losses and len(found.loss) == 60


def test_metis_cuts_little(tmp_path):
    pytest.importorskip("pymetis", reason="the extra [metis] brings it")
    graph = amstel.data.block_model(nodes=400, mixing=0.0).graph
    cut = {
        method: sum(partition(graph, 4, tmp_path / method, method=method)["halo"])
        for method in ("ranges", "metis")
    }
    assert cut["metis"] < 0.8 * cut["ranges"]
