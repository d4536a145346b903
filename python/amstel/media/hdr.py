"""Frames with a high dynamic range (HDR10, HLG) on an ordinary screen."""

from __future__ import annotations

from typing import Any

import numpy as np

_PQ = 16
#: Light of a white page, ITU-R BT.2408, in cd/m2.
_WHITE = 203.0
#: Linear BT.2020 to BT.709, ITU-R BT.2087.
_TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)


def pq(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of a PQ signal in [0, 1]: SMPTE ST 2084."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def hlg(signal: np.ndarray) -> np.ndarray:
    """Light in cd/m2 of an HLG signal [..., 3] in [0, 1] on a screen of 1000 cd/m2: ITU-R BT.2100."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return 1000 * scene * (scene @ _LUMA)[..., None] ** 0.2


def tone_map(frame: Any, converter: Any) -> np.ndarray:
    """A frame of PyAV with PQ or HLG colors as uint8 sRGB [H, W, 3]; `converter` changes its format.

    A white page becomes 191 of 255, and what is brighter, up to 1000 cd/m2, is pressed into the rest: Reinhard's
    curve on the largest channel, so that colors keep their hue.
    """
    av_colors = {"src_colorspace": 9} if frame.colorspace in (2, 9) else {}
    code = converter.reformat(frame, format="rgb48le", **av_colors).to_ndarray().astype(np.float32) / 65535
    table = (pq if frame.color_trc == _PQ else hlg)(code)
    light = np.maximum(table @ _TO_709.T.astype(np.float32), 0) / _WHITE
    peak = light.max(-1, keepdims=True)
    white = 1000 / _WHITE
    scale = np.where(peak > 0, (1 + peak / white**2) / (1 + peak), 1.0)
    linear = np.clip(light * scale, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * srgb).astype(np.uint8)
