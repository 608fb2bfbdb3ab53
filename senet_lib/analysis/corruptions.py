"""Images made worse: noise, blur and less contrast."""

# Legend: N images, H height, W width.

import numpy as np
from scipy.ndimage import gaussian_filter

from senet_lib.analysis.statistics import check_rng
from senet_lib.errors import SenetError, unknown

STRENGTHS = {"noise": (0.02, 0.05, 0.1), "blur": (0.5, 0.8, 1.2), "contrast": (0.7, 0.4, 0.2)}
"""The noise's SD as a share of the range of values, a Gaussian blur's SD in pixels, and the factor
that the distance from an image's mean colour is multiplied by."""


def corrupt(
    images: np.ndarray, kind: str, strength: float, *, rng: np.random.Generator
) -> np.ndarray:
    """The images made worse; what leaves the range of values is cut.

    Args:
        images: (N, H, W, 3), uint8.
        kind: a key of `STRENGTHS`. The borders of a blurred image are continued outwards.
        strength: in the unit stated there, 0 or more.
        rng: draws the noise, each value of each image by itself.
    """
    if kind not in STRENGTHS:
        raise unknown("corruption", kind, STRENGTHS)
    if strength < 0:
        raise SenetError(f"strength is {strength}; it must be at least 0")
    check_rng(rng)
    given = images.astype(np.float32)
    if kind == "noise":
        worse = given + rng.normal(0, 255 * strength, images.shape)
    elif kind == "contrast":
        mean = given.mean((1, 2), keepdims=True)
        worse = mean + strength * (given - mean)
    else:
        worse = gaussian_filter(given, (0, strength, strength, 0), mode="nearest")
    return worse.round().clip(0, 255).astype(np.uint8)
