// The steps of a ConvLSTM, for whoever has prepared a sequence.
#pragma once
#include <vector>

#include "common/check.h"

namespace amstel {

void conv_lstm_steps(Tensor h, Tensor c, OptionalTensor x, OptionalTensor gates, Tensor weight,
                     OptionalTensor bias, OptionalTensor mask, OptionalTensor peephole,
                     OptionalTensor activated, std::vector<int64_t> kernel, int64_t dilation,
                     int64_t first);

}  // namespace amstel
