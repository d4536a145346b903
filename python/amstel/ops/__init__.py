"""The fused operators, as typed and differentiable functions."""

from amstel.ops._plain import decompositions
from amstel.ops.conv_gru import conv_gru_cell
from amstel.ops.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.ops.mri import mri_gradient, mri_normal
from amstel.ops.rim import (
    bicubic_down,
    bicubic_down_adjoint,
    rim_denoise_input,
    rim_input,
    rim_super_resolve_input,
)
from amstel.ops.roi_align import ps_roi_pool, roi_align
from amstel.ops.roi_pool import roi_match, roi_pool
from amstel.ops.segment import segment_reduce
from amstel.ops.spmm import spmm

__all__ = [
    "bicubic_down",
    "bicubic_down_adjoint",
    "conv_gru_cell",
    "conv_lstm",
    "conv_lstm_cell",
    "decompositions",
    "mri_gradient",
    "mri_normal",
    "ps_roi_pool",
    "rim_denoise_input",
    "rim_input",
    "rim_super_resolve_input",
    "roi_align",
    "roi_match",
    "roi_pool",
    "segment_reduce",
    "spmm",
]
