"""Layers and models. Each is a thin wrapper around operators in `amstel.ops`."""

from amstel.nn.autoencoder import GAE, VGAE
from amstel.nn.backbone import SmallBackbone, VGG16Features
from amstel.nn.cheb import ChebConv
from amstel.nn.conv_gru import ConvGRU, ConvGRUCell
from amstel.nn.conv_lstm import ConvLSTM, ConvLSTMCell
from amstel.nn.conv_lstm_nd import ConvLSTM1d, ConvLSTM3d
from amstel.nn.drop_edge import DropEdge
from amstel.nn.efficientnet import EfficientNetLite
from amstel.nn.forecaster import ConvLSTMForecaster
from amstel.nn.gcn import GCN, GCNConv, sparse_dropout
from amstel.nn.graph_classifier import GraphClassifier
from amstel.nn.pooling import global_max_pool, global_mean_pool, global_sum_pool
from amstel.nn.pred_rnn import PredRNNCell
from amstel.nn.propagation import APPNP, GCN2Conv, SGConv
from amstel.nn.rim import RIM
from amstel.nn.roi_align import MultiScaleRoIAlign, PSRoIPool, RoIAlign
from amstel.nn.roi_pool import RoIPool
from amstel.nn.sint import SINT, MarginContrastiveLoss
from amstel.nn.spectral import SpectralConv, fourier_basis, graph_fourier, inverse_graph_fourier
from amstel.nn.video_baselines import FrameClassifier
from amstel.nn.video_lstm import (
    ALSTM,
    ConvALSTM,
    ConvLSTMClassifier,
    LSTMClassifier,
    VideoLSTM,
    fuse,
    predict,
)

__all__ = [
    "ALSTM",
    "APPNP",
    "GAE",
    "GCN",
    "RIM",
    "SINT",
    "VGAE",
    "ChebConv",
    "ConvALSTM",
    "ConvGRU",
    "ConvGRUCell",
    "ConvLSTM",
    "ConvLSTM1d",
    "ConvLSTM3d",
    "ConvLSTMCell",
    "ConvLSTMClassifier",
    "ConvLSTMForecaster",
    "DropEdge",
    "EfficientNetLite",
    "FrameClassifier",
    "GCN2Conv",
    "GCNConv",
    "GraphClassifier",
    "LSTMClassifier",
    "MarginContrastiveLoss",
    "MultiScaleRoIAlign",
    "PSRoIPool",
    "PredRNNCell",
    "RoIAlign",
    "RoIPool",
    "SGConv",
    "SmallBackbone",
    "SpectralConv",
    "VGG16Features",
    "VideoLSTM",
    "fourier_basis",
    "fuse",
    "global_max_pool",
    "global_mean_pool",
    "global_sum_pool",
    "graph_fourier",
    "inverse_graph_fourier",
    "predict",
    "sparse_dropout",
]


def _refuse_script(self: object) -> None:
    raise TypeError(
        f"torch.jit.script does not support amstel.nn.{type(self).__name__}, whose operators are called from Python: "
        "use torch.export, torch.compile or torch.jit.trace"
    )


# torch.jit.script asks every module for this first; without it the error would name a line in the middle of ours.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__prepare_scriptable__ = _refuse_script
