"""The fused operators as typed, documented, differentiable functions."""

from amstel.ops import _csr_cuda  # noqa: F401  (registers the graph structure on CUDA)
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.ops.roi_pool import roi_match, roi_pool
from amstel.ops.spmm import spmm

__all__ = ["conv_lstm", "conv_lstm_cell", "roi_match", "roi_pool", "spmm"]
