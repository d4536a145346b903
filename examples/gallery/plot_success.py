"""
Success and precision plots
===========================

Three simulated trackers are scored by the OTB protocol. Their boxes are the true ones with different amounts of noise.
"""

import torch
from matplotlib import pyplot as plt

import amstel

torch.manual_seed(0)
truth = torch.cat([torch.rand(200, 2) * 200, torch.full((200, 2), 40.0)], 1)
noise = torch.randn(200, 4) * torch.tensor([1.0, 1.0, 0.1, 0.1])
scores = {
    f"off by {pixels} pixels": amstel.tracking.evaluate(truth + pixels * noise, truth)
    for pixels in (2, 6, 20)
}

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
amstel.plot.success(scores, axes=left)
amstel.plot.precision(scores, axes=right)
