"""The operators in plain PyTorch: the oracle of the tests, the export path, the explanation."""

from amstel.reference.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.reference.roi_pool import roi_match, roi_pool
from amstel.reference.spmm import spmm

__all__ = ["conv_lstm", "conv_lstm_cell", "roi_match", "roi_pool", "spmm"]
