"""Link prediction: GAE and VGAE against PyG's, the split, AUC and average precision, training and its command."""

import csv
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import amstel
from amstel.apps.graphs import links, tasks, trials
from amstel.apps.graphs.settings import LinkSettings
from amstel.cli import main
from amstel.data import LinkData, split_links
from amstel.nn import GAE, VGAE, autoencoder

N = 30


def edges(seed=0, count=80):
    """Undirected, with parallel edges and loops."""
    index = torch.randint(0, N, (2, count), generator=torch.Generator().manual_seed(seed))
    return torch.cat([index, index.flip(0)], 1)


def features(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def dense_loss(z, index):
    """The paper's, with N x N matrices."""
    one = torch.zeros(N, N, dtype=z.dtype)
    one[index[0], index[1]] = 1
    one.fill_diagonal_(0)
    count = one.sum()
    one.fill_diagonal_(1)
    found = F.binary_cross_entropy_with_logits(z @ z.T, one, pos_weight=(N * N - count) / count)
    return found * (N * N / (2 * (N * N - count)))


@pytest.mark.parametrize("block", [autoencoder.BLOCK, 7 * N, 1])
@pytest.mark.parametrize("kind", [GAE, VGAE])
def test_the_loss_of_all_pairs(kind, block, monkeypatch):
    monkeypatch.setattr(autoencoder, "BLOCK", block)
    index, x = edges(), features(N, 5)
    graph = amstel.Graph.from_edge_index(index, N)
    model = kind(5, 8, 4).double()
    torch.manual_seed(3)
    found = model.loss(x, graph)
    torch.manual_seed(3)
    expected = dense_loss(model(x, graph), index)
    if kind is VGAE:
        mean, logstd = model.distribution(x, graph)
        normal = torch.distributions.Normal(mean, logstd.exp())
        prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
        expected = expected + torch.distributions.kl_divergence(normal, prior).sum() / N**2
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, list(model.parameters())),
        torch.autograd.grad(expected, list(model.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(
        model.eval().loss(x, index), model.loss(x, graph)
    )  # an edge_index in place of a Graph


def test_second_derivatives_of_blocks(monkeypatch):
    monkeypatch.setattr(autoencoder, "BLOCK", 3 * 5)
    z = features(5, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(autoencoder._of_all_pairs, z)


def test_pygs_autoencoders_agree():
    nn = pytest.importorskip("torch_geometric.nn")
    pytest.importorskip("sklearn", reason="PyG scores links with scikit-learn")
    index, x, w = edges(), features(N, 5), features(160).abs()
    graph = amstel.Graph.from_edge_index(index, N)
    negatives = torch.randint(0, N, (2, 50))
    model = GAE(5, 8, 4).double()

    class Encoder(torch.nn.Module):
        def forward(self, x, graph, w):
            return model(x, graph, w)

    theirs = nn.GAE(Encoder())
    z = theirs.encode(x, graph, w)
    pairs = torch.unique(index[:, index[0] != index[1]], dim=1)
    torch.testing.assert_close(
        model.loss(x, graph, w, negatives), theirs.recon_loss(z, pairs, negatives), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(model.decode(z, pairs).sigmoid(), theirs.decode(z, pairs))
    auc, precision = theirs.test(z, pairs, negatives)
    positive, negative = (model.decode(z, some).detach().numpy() for some in (pairs, negatives))
    assert links.auc(positive, negative) == pytest.approx(auc, abs=1e-12)
    assert links.average_precision(positive, negative) == pytest.approx(precision, abs=1e-12)

    variational, x = VGAE(5, 8, 4).double(), 0.1 * x  # PyG's logarithm ends where 1 - p is 1e-15
    mean, logstd = variational.distribution(x, graph)
    kl = nn.VGAE(Encoder()).kl_loss(mean, logstd) / N
    torch.manual_seed(0)
    z = variational(x, graph)
    torch.manual_seed(0)
    with_kl = variational.loss(x, graph, negatives=negatives)
    torch.testing.assert_close(with_kl, theirs.recon_loss(z, pairs, negatives) + kl, rtol=1e-6, atol=1e-9)


def test_inputs_of_every_kind():
    graph = amstel.Graph.from_edge_index(edges(), N)
    x = (features(N, 5) > 0).float()
    for kind in (GAE, VGAE):
        model = kind(5, 8, 4, dropout=0.5)
        assert torch.isfinite(model.loss(x.to_sparse_csr(), graph))
        model.eval()
        torch.testing.assert_close(model(x.to_sparse_csr(), graph), model(x, graph))
        torch.testing.assert_close(kind(N, 8, 4).eval()(None, graph).shape, torch.Size([N, 4]))
        lazy = kind(-1, 8, 4)
        assert torch.isfinite(lazy.loss(x, graph)) and lazy.in_channels == 5
        with torch.autocast("cpu", torch.bfloat16):
            assert model.loss(x, graph).dtype == torch.float32
        w = torch.rand(graph.num_edges, requires_grad=True)
        model.loss(x, graph, w).backward()
        assert w.grad.abs().sum() > 0


def test_pairs_of_a_vmap():
    g = torch.Generator().manual_seed(0)
    model = GAE(4, 3, 2)
    z, pairs = torch.randn(3, 5, 2, generator=g), torch.randint(0, 5, (3, 2, 7), generator=g)
    expected = torch.stack([(a[p[0]] * a[p[1]]).sum(1) for a, p in zip(z, pairs, strict=True)])
    torch.testing.assert_close(torch.vmap(model.decode)(z, pairs), expected)


def test_mistakes_are_named():
    graph, x, model = amstel.Graph.from_edge_index(edges(), N), torch.randn(N, 5), GAE(5, 8, 4)
    z = model(x, graph)
    alone = amstel.Graph.from_edge_index(torch.tensor([[0, 1], [0, 1]]), N)
    for call, message in (
        (lambda: model.decode(z, torch.tensor([[0], [N]])), "`edge_index` must be of nodes from 0"),
        (lambda: model.decode(z, torch.tensor([[-1], [0]])), "`edge_index` must be of nodes from 0"),
        (lambda: model.decode(z, torch.zeros(2, 1)), "`edge_index` must be an int64"),
        (lambda: model.loss(x, graph, negatives=torch.tensor([[0], [N]])), "`negatives` must be of nodes"),
        (
            lambda: model.loss(x, graph, negatives=torch.empty(2, 0, dtype=torch.int64)),
            "`negatives` must be at least",
        ),
        (lambda: model.loss(x, alone), "`graph` must have a link"),
        (lambda: model.loss(x[None], graph), "`x` must be"),
        (lambda: model((x, None), graph), "`x` must be a tensor"),
        (lambda: GAE(5, 8, 4, dropout=1), "`dropout` must be"),
        (lambda: GAE(5, 0, 4), "`hidden_channels` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="`edge_index` must be"):
        model.decode(z, [[0], [1]])


def keys(pairs):
    return set((pairs.amin(0) * N + pairs.amax(0)).tolist())


@pytest.mark.parametrize("weighted", [False, True])
def test_a_split_holds_out_whole_links(weighted):
    index = edges(count=120)
    w = torch.rand(index.shape[1]) if weighted else None
    graph = amstel.Graph.from_edge_index(index, N, w)
    data = split_links(graph, torch.ones(N, 2), val=0.1, test=0.3, seed=5, name="made up")
    apart = index[:, index[0] != index[1]]
    count = len(keys(apart))
    parts = [data.val, data.val_negative, data.test, data.test_negative]
    sizes = [part.shape[1] for part in parts]
    assert sizes == [int(0.1 * count)] * 2 + [int(0.3 * count)] * 2
    sets = [keys(part) for part in parts]
    assert [len(some) for some in sets] == sizes and len(set().union(*sets)) == sum(sizes)
    assert (sets[0] | sets[2]) <= keys(apart) and not (sets[1] | sets[3]) & keys(apart)
    assert all((part[0] < part[1]).all() for part in parts)
    held = sets[0] | sets[2]
    stays = [k for k, (a, b) in enumerate(index.T.tolist()) if min(a, b) * N + max(a, b) not in held]
    left, weight = data.graph.to_edge_index()
    assert torch.equal(left, index[:, stays])  # loops, parallels and order as they were
    assert (weight is None) if w is None else torch.equal(weight, w[stays])
    again = split_links(graph, None, val=0.1, test=0.3, seed=5)
    assert torch.equal(again.test, data.test) and torch.equal(again.test_negative, data.test_negative)
    assert not torch.equal(split_links(graph, val=0.1, test=0.3, seed=6).test, data.test)


def test_a_split_of_a_graph_that_is_nearly_complete():
    every = torch.combinations(torch.arange(10)).T
    graph = amstel.Graph.from_edge_index(every[:, :40], 10)  # 5 pairs are left
    data = split_links(graph, val=0.0, test=0.125)
    assert sorted(map(tuple, data.test_negative.T.tolist())) == sorted(map(tuple, every[:, 40:].T.tolist()))
    assert data.val.shape == (2, 0)
    with pytest.raises(ValueError, match="`graph` must have 6 pairs of nodes without a link"):
        split_links(graph, val=0.0, test=0.15)


def test_what_cannot_be_split():
    graph = amstel.Graph.from_edge_index(edges(), N)
    for arguments, message in (
        ({"val": 0.5, "test": 0.5}, "`val` \\+ `test` must be below 1"),
        ({"test": 0.0}, "`test` must be above 0"),
        ({"test": float("nan")}, "`test` must be in"),
        ({"seed": -1}, "`seed` must be"),
        ({"features": torch.ones(3, 2)}, "`features` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            split_links(graph, **arguments)
    with pytest.raises(ValueError, match="`graph` must be a Graph of as many"):
        split_links(amstel.Graph.from_csr(torch.tensor([0, 1]), torch.tensor([2]), num_cols=3))
    with pytest.raises(
        ValueError, match=r"`graph` must have at least 10 links .* to hold out 0.1 of them .* got 0 of"
    ):
        split_links(amstel.Graph.from_edge_index(torch.zeros(2, 0, dtype=torch.int64), 4))
    pairs = torch.tensor([[0], [0]])
    with pytest.raises(ValueError, match=r"`test` must be .* different ones, got \[0, 0\] at position 0"):
        LinkData("x", graph, None, pairs[:, :0], pairs[:, :0], pairs, pairs)


def test_scores_with_ties():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 9, 40) / 4.0 + 0.5, rng.integers(0, 9, 70) / 4.0
    truth, score = np.r_[np.ones(40), np.zeros(70)], np.r_[positive, negative]
    assert links.auc(positive, negative) == pytest.approx(metrics.roc_auc_score(truth, score), abs=1e-12)
    expected = metrics.average_precision_score(truth, score)
    assert links.average_precision(positive, negative) == pytest.approx(expected, abs=1e-12)
    for bad in (np.array([]), np.array([np.nan])):
        with pytest.raises(ValueError, match="`negative` must be"):
            links.auc(positive, bad)


@pytest.fixture
def small(monkeypatch):
    """Two groups, hardly linked; node numbers as features."""
    rng = torch.Generator().manual_seed(0)
    group = torch.arange(60) % 2
    near = (group[:, None] == group) & (torch.rand(60, 60, generator=rng) < 0.3)
    index = (near | (torch.rand(60, 60, generator=rng) < 0.02)).triu(1).nonzero().T
    graph = amstel.Graph.from_edge_index(torch.cat([index, index.flip(0)], 1), 60)
    nothing = torch.arange(0)
    data = amstel.data.NodeData("block model", graph, None, group, nothing, nothing, nothing, 2)
    monkeypatch.setattr(links, "block_model", lambda: data)
    monkeypatch.setattr(links, "load_data", lambda name, root: data)
    return data


def test_it_learns(small, one_thread):
    found = links.train(small, "gae", [0, 1], LinkSettings(hidden=8, latent=4, epochs=60))
    assert found.mean > 0.65 and found.loss[-1] < found.loss[0] and len(found.loss) == 60


def test_seeds_do_not_depend_on_each_other(small, tmp_path, one_thread):
    settings = LinkSettings(hidden=8, latent=4, epochs=5)
    whole = links.train(small, "gae", [0, 1, 2], settings, out=tmp_path / "whole")
    links.train(small, "gae", [0], settings, out=tmp_path / "parts")
    with pytest.raises(FileExistsError):
        links.train(small, "gae", [0], settings, out=tmp_path / "parts")
    parts = links.train(small, "gae", [0, 1, 2], settings, out=tmp_path / "parts", resume=True)
    assert parts.scores == whole.scores and parts.losses == whole.losses
    with pytest.raises(ValueError, match="`hidden` must be that of the checkpoint, 8, got 32"):
        links.train(small, "gae", [0], LinkSettings(epochs=3), out=tmp_path / "parts", resume=True)
    read = tasks.read(tmp_path / "whole" / "checkpoint.pt")
    found = links.evaluate(read, small)
    assert found["test_auc"] == pytest.approx(whole.scores["auc"][found["seed"]], abs=1e-9)
    pairs, probability = links.predict(read, small, count=5000)
    assert keys60(pairs).isdisjoint(keys60(small.graph.to_edge_index()[0]))
    assert len(keys60(pairs)) == 60 * 59 // 2 - small.graph.num_edges // 2 == pairs.shape[1]
    assert (probability.diff() <= 0).all() and (pairs[0] < pairs[1]).all()
    few, likely = links.predict(read, small, count=7)
    assert torch.equal(few, pairs[:, :7]) and torch.equal(likely, probability[:7])
    before = torch.get_rng_state()
    links.train(small, "vgae", [0], LinkSettings(epochs=2))
    assert torch.equal(torch.get_rng_state(), before)


def keys60(pairs):
    return set((pairs.amin(0) * 60 + pairs.amax(0)).tolist())


def test_other_data_and_damaged_checkpoints_are_refused(small, tmp_path):
    result = links.train(small, "gae", [0], LinkSettings(epochs=2), out=tmp_path)
    with pytest.raises(ValueError, match=r"the network is for 60 features, but .* has 34"):
        links.predict(result, amstel.data.karate_club())
    with pytest.raises(ValueError, match="`model` must be"):
        links.train(small, "gcn")
    with pytest.raises(ValueError, match="`seeds` must be"):
        links.train(small, seeds=[])
    with pytest.raises(TypeError, match="`settings` must be"):
        links.train(small, settings={"epochs": 1})
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for key, value in (
        ("task", "node"),
        ("scores", {}),
        ("losses", [[1.0], [2.0]]),
        ("best", None),
        ("facts", {}),
    ):
        torch.save({**state, key: value}, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=r"bad.pt is not a checkpoint of `amstel graphs train`"):
            trials.read(tmp_path / "bad.pt")


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command(small, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = [
        "graphs",
        "train",
        "--task",
        "link",
        "--dataset",
        "block-model",
        "--epochs",
        "20",
        "--hidden",
        "8",
    ]
    status, out, err = run(
        capsys, *train, "--seeds", "2", "--latent", "4", "--out", "run", "--json", "a.json"
    )
    assert (status, err) == (0, "") and "AUC" in out and "average precision" in out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["task"] == "link" and found["model"] == "vgae" and len(found["auc"]) == len(found["ap"]) == 2
    assert found["mean"] == pytest.approx(np.mean(found["auc"])) and len(found["loss"]) == 20
    status, out, _ = run(capsys, "graphs", "evaluate", "run/checkpoint.pt", "--json", "b.json")
    row = json.loads((tmp_path / "b.json").read_text())["rows"][0]
    assert status == 0 and row["test_auc"] == pytest.approx(found["auc"][row["seed"]])
    assert (
        max(map(len, out.splitlines())) <= 100
        and f"  over 2 seeds (± standard deviation): test AUC {100 * found['mean']:.2f} ± " in out
    )
    assert f"test AUC {100 * row['test_auc']:.2f}%, average precision {100 * row['test_ap']:.2f}%" in out
    status, out, _ = run(capsys, "graphs", "predict", "run/checkpoint.pt", "--count", "9")
    rows = list(csv.DictReader((tmp_path / "block-model_links.csv").open()))
    assert status == 0 and len(rows) == 9 and list(rows[0]) == ["source", "target", "probability"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gcn"], "--model of --task link must be one of gae, vgae, got 'gcn'"),
        (["--pool", "max"], "--pool is for another task, got --task link"),
        (["--early-stopping", "kipf"], "--early-stopping is for another task"),
        (["--plot", "x.png"], "--plot is for --task node"),
        (["--distributed"], "--distributed is for --task node"),
        (["--latent", "0"], "--latent should be an integer >= 1"),
        (["--task", "edge"], "--task should be one of node, link, graph"),
    ],
)
def test_options_of_other_tasks(arguments, said, capsys):
    status, _, err = run(capsys, "graphs", "train", "--task", "link", "--dataset", "block-model", *arguments)
    assert status == 2 and said in err and err.count("\n") == 1


@pytest.mark.data
@pytest.mark.slow  # 20 s: 200 epochs of Cora, as the paper has them
def test_cora(data_folder):
    data = links.load_data("cora", data_folder / "planetoid")
    found = links.train(data, "vgae", [0])
    assert found.mean > 0.914
