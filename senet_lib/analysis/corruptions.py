"""Errors of trained networks on images made worse: noise, blur and less contrast."""

# Legend: N images, H height, W width.

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from senet_lib.errors import SenetError, unknown
from senet_lib.evaluation import predict
from senet_lib.runs.records import RunRecord

STRENGTHS = {"noise": (0.02, 0.05, 0.1), "blur": (0.5, 0.8, 1.2), "contrast": (0.7, 0.4, 0.2)}
"""What each corruption takes: the noise's SD as a share of the range of values, a Gaussian blur's
SD in pixels, and the factor that the distance from an image's mean colour is multiplied by."""


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
    given = images.astype(np.float32)
    if kind == "noise":
        worse = given + rng.normal(0, 255 * strength, images.shape)
    elif kind == "contrast":
        mean = given.mean((1, 2), keepdims=True)
        worse = mean + strength * (given - mean)
    else:
        worse = gaussian_filter(given, (0, strength, strength, 0), mode="nearest")
    return worse.round().clip(0, 255).astype(np.uint8)


def robustness(
    runs: Sequence[RunRecord], images: np.ndarray, labels: np.ndarray, *, rng: np.random.Generator
) -> pd.DataFrame:
    """The error of stored networks on the same images, as they are and made worse.

    Args:
        runs: finished runs whose weights are on this disk.
        images, labels: (N, H, W, 3) uint8, and (N,) integer, as the networks number the classes;
            every network is shown the very same noise.
        rng: as in `corrupt`.
    Returns:
        A row a run, corruption and level: model, seed, kind, level (0: as they are, to 3),
        strength (NaN at level 0), images and error.
    """
    if not len(images):
        raise SenetError("there is no image to make worse")
    shown = {("", 0, np.nan): images}
    for kind, strengths in STRENGTHS.items():
        for level, strength in enumerate(strengths, 1):
            shown[kind, level, strength] = corrupt(images, kind, strength, rng=rng)
    rows = []
    for run in runs:
        model = run.load_model().to(memory_format=torch.channels_last)
        for (kind, level, strength), given in shown.items():
            said = predict(model, given, run.mean, run.std, batch_size=100).argmax(1).cpu().numpy()
            row = {"model": run.model, "seed": run.seed, "level": level, "strength": strength}
            row |= {"images": len(labels), "error": float((said != labels).mean())}
            rows += [{**row, "kind": name} for name in ([kind] if kind else STRENGTHS)]
    columns = ["model", "seed", "kind", "level", "strength", "images", "error"]
    return pd.DataFrame(rows, columns=columns)
