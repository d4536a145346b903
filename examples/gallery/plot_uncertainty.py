"""
Derivatives of a restoration
============================

Operators are differentiable in forward mode too. How much of a change in a pixel of the input reaches the same pixel of a
denoiser's output is the diagonal of its Jacobian. One Jacobian-vector product with random signs estimates it: its mean well,
single pixels only very roughly. It costs about as much as two calls.
"""

import torch
from matplotlib import pyplot as plt
from skimage import data

import amstel

clean = torch.from_numpy(data.camera()[128:224, 160:256]).float()[None, None] / 255
noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
model, physics = amstel.nn.RIM.pretrained("gray"), amstel.inverse.Denoising(25 / 255)
signs = torch.randint(0, 2, clean.shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1
restored, tangent = torch.func.jvp(lambda y: model(y, physics)[-1], (noisy,), (signs,))

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, image, title in zip(
    axes, (noisy, restored, (signs * tangent).abs()), ("noisy", "restored", "kept"), strict=True
):
    ax.imshow(image.detach()[0, 0], cmap="gray")
    ax.set(title=title, xticks=[], yticks=[])
print(f"trace of the Jacobian: {(signs * tangent).mean():.3f} per pixel")
