"""Every module of `amstel.nn` as small as it gets, with a call and an input: one table for the tests of all of them."""

import networkx
import torch

import amstel
from amstel import nn

GRAPH = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2, 1], [1, 2, 0, 0]]), 3)
RING = amstel.Graph.from_networkx(networkx.cycle_graph(6))
BOXES = torch.tensor([[0, 0, 0, 9.0, 9], [0, 4, 4, 20, 16]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 2])
NODES, MAPS, CLIPS = (3, 4), (2, 4, 5, 5), (3, 2, 4, 3, 3)


def video(name):
    return lambda: getattr(nn, name)(4, 3, num_classes=2, feature_size=(3, 3), head_channels=5, dropout=0.0)


def estimates(physics):
    return lambda m, x: torch.stack(m(x, physics))


class Estimate(torch.nn.Module):
    """A RIM as a module of one tensor: the last estimate of a denoiser."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, y):
        return self.model(y, amstel.inverse.Denoising(0.3))[-1]


def _pyramid(m, x):
    return m({"0": x, "1": x[:, :, ::2, ::2]}, [BOXES[:, 1:].to(x.dtype)], [(32, 32)])


# name: (constructor, call, shape of the input)
CASES = {
    "GCNConv": (lambda: nn.GCNConv(4, 3, self_weight=True), lambda m, x: m(x, GRAPH), NODES),
    "ChebConv": (lambda: nn.ChebConv(4, 3, K=2), lambda m, x: m(x, GRAPH), NODES),
    "SpectralConv": (lambda: nn.SpectralConv(4, 3, modes=3), lambda m, x: m(x, RING), (6, 4)),
    "GCN": (lambda: nn.GCN(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "SGConv": (lambda: nn.SGConv(4, 3, K=2), lambda m, x: m(x, GRAPH), NODES),
    "APPNP": (lambda: nn.APPNP(3, 0.2), lambda m, x: m(x, GRAPH), NODES),
    "APPNP that learns λ": (lambda: nn.APPNP(2, 0.2, self_loops=torch.nn.Parameter(torch.tensor(1.3))), lambda m, x: m(x, GRAPH), NODES),
    "GCN2Conv": (lambda: nn.GCN2Conv(4, 0.1, 0.5, 2, shared_weights=False), lambda m, x: m(x, x.cos(), GRAPH), NODES),
    "GAE": (lambda: nn.GAE(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "GAE's loss": (lambda: nn.GAE(4, 5, 3, dropout=0.0), lambda m, x: m.loss(x, GRAPH), NODES),
    "VGAE": (lambda: nn.VGAE(4, 5, 3, dropout=0.0), lambda m, x: torch.stack(m.distribution(x, GRAPH)), NODES),
    "GraphClassifier": (lambda: nn.GraphClassifier(4, 5, 3, dropout=0.0), lambda m, x: m(x, GRAPH), NODES),
    "ConvLSTMCell": (lambda: nn.ConvLSTMCell(4, 3, peephole=True), lambda m, x: m(x)[0], MAPS),
    "ConvLSTM": (lambda: nn.ConvLSTM(4, 3, num_layers=2, bidirectional=True), lambda m, x: m(x, lengths=LENGTHS)[0], CLIPS),
    "ConvLSTM1d": (lambda: nn.ConvLSTM1d(4, 3), lambda m, x: m(x)[0], (2, 2, 4, 5)),
    "ConvLSTM3d": (lambda: nn.ConvLSTM3d(4, 3), lambda m, x: m(x, lengths=LENGTHS)[0], (3, 2, 4, 2, 3, 3)),
    "ConvLSTMForecaster": (lambda: nn.ConvLSTMForecaster(4, 3), lambda m, x: m(x, 2), CLIPS),
    "ConvGRUCell": (lambda: nn.ConvGRUCell(4, 3, kernel_size=3), lambda m, x: m(x), MAPS),
    "ConvGRUCell before": (lambda: nn.ConvGRUCell(4, 3, kernel_size=3, reset="before"), lambda m, x: m(x, x[:, :3]), MAPS),
    "ConvGRUCell 1x1": (lambda: nn.ConvGRUCell(4, 3, kernel_size=1), lambda m, x: m(x, x[:, :3]), MAPS),
    "ConvGRU": (lambda: nn.ConvGRU(4, 3, bidirectional=True), lambda m, x: m(x, lengths=LENGTHS)[0], CLIPS),
    "PredRNNCell": (lambda: nn.PredRNNCell(4, 3), lambda m, x: torch.stack(m(x, (x[:, :3], x[:, 1:], x[:, :3].sin()))), MAPS),
    "RoIPool": (lambda: nn.RoIPool(2, 0.5), lambda m, x: m(x, BOXES), (1, 3, 8, 8)),
    "RoIAlign": (lambda: nn.RoIAlign(2, 0.5, 2), lambda m, x: m(x, BOXES), (1, 3, 8, 8)),
    "PSRoIPool": (lambda: nn.PSRoIPool(2, 0.5), lambda m, x: m(x, BOXES), (1, 8, 8, 8)),
    "MultiScaleRoIAlign": (lambda: nn.MultiScaleRoIAlign(["0", "1"], 2, 2, canonical_scale=10, canonical_level=3), _pyramid, (1, 3, 8, 8)),
    "MarginContrastiveLoss": (lambda: nn.MarginContrastiveLoss(3.0), lambda m, x: m(x, x.flip(0), torch.tensor([1, 0, 0])), NODES),
    "RIM": (lambda: nn.RIM(1, 4, 2, network="conv"), estimates(amstel.inverse.Denoising(0.3)), (1, 1, 8, 8)),
    "RIM, super": (lambda: nn.RIM(1, 4, 2, network="conv"), estimates(amstel.inverse.SuperResolution(2, 0.3)), (1, 1, 4, 4)),
    "RIM of a U-Net": (lambda: nn.RIM(1, 4, 2, network="unet"), estimates(amstel.inverse.Denoising(0.3)), (1, 1, 16, 16)),
    "SINT": (lambda: nn.SINT(output_size=2), lambda m, x: m.features(x)[0], (1, 3, 32, 32)),
    "SmallBackbone": (lambda: nn.SmallBackbone(3, (4, 8), 2), lambda m, x: m(x), (2, 3, 8, 8)),
    "EfficientNetLite": (lambda: nn.EfficientNetLite((2,)), lambda m, x: m(x)[0], (1, 3, 32, 32)),
    "FrameClassifier": (video("FrameClassifier"), lambda m, x: m(x)[0], CLIPS),
    "LSTMClassifier": (video("LSTMClassifier"), lambda m, x: m(x)[0], CLIPS),
    "ALSTM": (video("ALSTM"), lambda m, x: m(x)[0], CLIPS),
    "ConvLSTMClassifier": (video("ConvLSTMClassifier"), lambda m, x: m(x)[0], CLIPS),
    "ConvALSTM": (video("ConvALSTM"), lambda m, x: m(x)[0], CLIPS),
    "VideoLSTM": (video("VideoLSTM"), lambda m, x: m(x, x.sin())[0], CLIPS),
}  # fmt: skip

#: Modules that are not in the table, and why.
ASIDE = {
    "DropEdge": "draws edges at random and gives their weights, which are tested with those of GCN",
    "VGG16Features": "has 15 million parameters and nothing but layers of PyTorch",
}


class Called(torch.nn.Module):
    """A module as a function of one tensor."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


def sample(name, seed=0, dtype=torch.float64):
    """The module of a case, which is in eval mode, and an input."""
    make, call, shape = CASES[name]
    torch.manual_seed(seed)
    module = Called(make().to(dtype).eval(), call)
    torch.manual_seed(9)
    return module, torch.randn(shape, dtype=dtype)
