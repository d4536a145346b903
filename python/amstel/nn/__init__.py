"""Modules; each is a thin shell around operators of `amstel.ops`."""

from amstel.nn.backbone import SmallBackbone, VGG16Features
from amstel.nn.conv_gru import ConvGRUCell
from amstel.nn.conv_lstm import ConvLSTM, ConvLSTMCell
from amstel.nn.efficientnet import EfficientNetLite
from amstel.nn.gcn import GCN, ChebConv, GCNConv, sparse_dropout
from amstel.nn.pooling import global_max_pool, global_mean_pool, global_sum_pool
from amstel.nn.rim import RIM
from amstel.nn.roi_align import MultiScaleRoIAlign, PSRoIPool, RoIAlign
from amstel.nn.roi_pool import RoIPool
from amstel.nn.sint import SINT, MarginContrastiveLoss
from amstel.nn.spectral import SpectralConv, fourier_basis, graph_fourier, inverse_graph_fourier
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
    "GCN",
    "RIM",
    "SINT",
    "ChebConv",
    "ConvALSTM",
    "ConvGRUCell",
    "ConvLSTM",
    "ConvLSTMCell",
    "ConvLSTMClassifier",
    "EfficientNetLite",
    "GCNConv",
    "LSTMClassifier",
    "MarginContrastiveLoss",
    "MultiScaleRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
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
