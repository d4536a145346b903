"""
Where in an image is this?
==========================

:func:`amstel.ops.roi_match` compares many boxes with one query without storing their pooled features. Here the query
is the target in a synthetic frame, and the map shows the score of a box centered at each position.
"""

import torch
from matplotlib import pyplot as plt

import amstel

frames, truth, _ = amstel.tracking.generate_sequence(frames=2)
model = amstel.nn.SINT.pretrained()
x, y, w, h = truth[0].tolist()
rows, columns = torch.meshgrid(torch.arange(0, 240 - h, 8), torch.arange(0, 320 - w, 8), indexing="ij")
corners = torch.stack([columns, rows, columns + w - 1, rows + h - 1], -1).view(-1, 4)
boxes = torch.cat([torch.zeros(len(corners), 1), corners], 1)

with torch.no_grad():
    maps = model.features(frames[:1].permute(0, 3, 1, 2) / 255)
    query = model.describe(maps, torch.tensor([[0, x, y, x + w - 1, y + h - 1]]))[0]
    scores = model.match(maps, boxes, query).view(rows.shape)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
amstel.plot.tracks(frames[0], {"query": truth[0]}, axes=left)
n, m = rows.shape
left_edge, top_edge = w / 2 - 4, h / 2 - 4  # a cell of 8 x 8 pixels around each center
right.imshow(scores, extent=(left_edge, left_edge + 8 * m, top_edge + 8 * n, top_edge))
right.set(
    xlim=(0, 320), ylim=(240, 0), title=f"score of {len(boxes)} boxes, by their center", xticks=[], yticks=[]
)
