"""ConvLSTM over a whole sequence: public functions, gradients, fake kernels. (Being built.)"""

from amstel.reference.conv_lstm import conv_lstm, conv_lstm_cell

__all__ = ["conv_lstm", "conv_lstm_cell"]
