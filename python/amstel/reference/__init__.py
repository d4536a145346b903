"""The operators in plain PyTorch. The tests compare against them, and they show what is computed.

Arguments, shapes and dtypes are those of the function of the same name in `amstel.ops`, which also gives the formula and
its source. Almost nothing is checked here, and memory and speed do not matter: derivatives come from autograd.
"""

from amstel.reference.conv_gru import conv_gru_cell
from amstel.reference.conv_lstm import conv_lstm, conv_lstm_cell
from amstel.reference.mri import mri_gradient, mri_normal
from amstel.reference.rim import (
    bicubic_down,
    bicubic_down_adjoint,
    rim_denoise_input,
    rim_input,
    rim_super_resolve_input,
)
from amstel.reference.roi_align import ps_roi_pool, roi_align
from amstel.reference.roi_pool import roi_match, roi_pool
from amstel.reference.spmm import spmm

__all__ = [
    "bicubic_down",
    "bicubic_down_adjoint",
    "conv_gru_cell",
    "conv_lstm",
    "conv_lstm_cell",
    "mri_gradient",
    "mri_normal",
    "ps_roi_pool",
    "rim_denoise_input",
    "rim_input",
    "rim_super_resolve_input",
    "roi_align",
    "roi_match",
    "roi_pool",
    "spmm",
]
