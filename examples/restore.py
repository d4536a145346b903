"""RIM: restore an image with a network trained on noise and a forward model, and look at every step.

The forward model describes how the image was measured; the network only sees how far an estimate is from the measurement.
For your own images: amstel restore photo.png --task denoise --sigma 25 -o clean.png

    pip install "amstel[restore]"
    python examples/restore.py [FILE.png]
"""

import sys

import numpy as np
import torch
from skimage import data

import amstel
from amstel.apps.restoration import evaluate as evaluation
from amstel.apps.restoration import files
from amstel.apps.restoration.files import Picture

clean = data.astronaut()[:256, 96:352] / np.float32(255)
noisy = clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape, np.float32)

# One call. It takes arrays and tensors, works on large images in tiles, and returns the type that it was given.
restored = amstel.restore(noisy, "denoise", sigma=0.1)
print(f"denoised: {evaluation.psnr(noisy, clean):.2f} dB -> {evaluation.psnr(restored, clean):.2f} dB")

# The same by hand: a forward model, the network, and one estimate per step.
physics = amstel.inverse.Denoising(sigma=0.1)
model = amstel.nn.RIM.pretrained("color")
y = torch.from_numpy(noisy).permute(2, 0, 1)[None]
with torch.no_grad():
    steps = model(y, physics)
for number, x in enumerate(steps, start=1):
    print(f"  step {number}: {evaluation.psnr(x[0].permute(1, 2, 0).numpy(), clean):.2f} dB")

# Your own forward model needs `forward` and `adjoint`; this test checks that they match.
print(f"adjointness of SuperResolution: {amstel.inverse.SuperResolution(3).adjointness_test():.1e}")

small = amstel.inverse.SuperResolution(2)(torch.from_numpy(clean).permute(2, 0, 1)[None])
larger = amstel.restore(small, "sr", scale=2)[0].permute(1, 2, 0).numpy()
print(f"enlarged twice: {evaluation.psnr(larger, clean):.2f} dB")

file = sys.argv[1] if len(sys.argv) > 1 else "restored.png"
files.write(file, Picture(np.concatenate([noisy, restored, clean], 1)))
print("wrote", file)
