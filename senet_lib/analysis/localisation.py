"""How well maps of evidence find a region that is known exactly.

All metrics are of the positive part a = max(map, 0) of the raw map, at the size of the image. A
positive factor changes none of them; subtracting the minimum, as scaling for display does, would.

Three rules hold throughout:

- Equal values are ranked in no order: a rank metric is its expectation over all orders of the
  pixels that tie, so that a uniform map scores chance.
- A map without a positive value, here a zero map, points nowhere and is never left out: it scores
  0, and 0.5 in `auc`, where 0 would say that it points away from the region.
- A map equal to the region's mask scores 1.
"""

# Legend: N maps, H height, W width, P = H W pixels, T thresholds, S the region, |S| its pixels.
# A metric takes positive parts a, (N, P) float64, and masks, (N, P) bool, and gives (N,) in [0, 1].

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from senet_lib.errors import DataError

THRESHOLDS = tuple(i / 100 for i in range(1, 100))  # shares of the maximum at which a map is cut
CHUNK = 256  # maps scored at a time; bounds the memory, not the result


class Metric(NamedTuple):
    """One way to compare a map with a region."""

    label: str  # in tables
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # What a uniform map scores on regions that fill a share of the image.
    chance: Callable[[np.ndarray], np.ndarray] = lambda share: share


def energy(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Share of the positive mass that lies in the region.

    Of a grid's tile, the grid pointing score; of a mosaic's two, Focus; of an object, the
    energy-based pointing game.

    Source: Böhle et al. 2021 (grid pointing); Arias-Duart et al. 2021 (Focus); Wang et al. 2020
        (Score-CAM, energy-based pointing game); Arras et al. 2022 (relevance mass accuracy).
    """
    total = a.sum(axis=1)
    found = np.where(inside, a, 0.0).sum(axis=1)
    return np.divide(found, total, out=np.zeros_like(total), where=total > 0)


def relevance_rank_accuracy(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Share of the `|S|` highest pixels that lie in the region S.

    Source: Arras et al. 2022 (CLEVR-XAI).
    """
    return _expected_hits(a, inside) / inside.sum(axis=1)


def iou_at_area(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Intersection over union of the region with as many of the highest pixels as it has.

    Two sets of `|S|` pixels that share h have an IoU of `h / (2 |S| - h)`. Where pixels tie, h is
    its expectation; the mean of the IoU over all orders of the ties lies a little higher, by 5e-5
    for a uniform map on a 2 x 2 grid of 32-pixel tiles.
    """
    hits = _expected_hits(a, inside)
    return hits / (2 * inside.sum(axis=1) - hits)


def iou_at_half(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Intersection over union of the region with the pixels at or above half the map's maximum."""
    return _iou_curve(a, inside, (0.5,))[:, 0]


def iou_best(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Highest intersection over union at any of `THRESHOLDS`: the choice knows the answer."""
    return _iou_curve(a, inside, THRESHOLDS).max(axis=1)


def pointing_game(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Whether the map's highest pixel lies in the region, or the share in it of those that tie.

    Source: Zhang et al. 2018 (excitation backprop).
    Differs from the paper: no tolerance; it grants 15 pixels, half of a CIFAR image.
    """
    highest = a == a.max(axis=1, keepdims=True)
    hits = (highest & inside).sum(axis=1) / highest.sum(axis=1)
    return np.where(a.any(axis=1), hits, 0.0)


def auc(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of the pixels, those of the region being the positives: the chance
    that a pixel of the region lies above one outside it, ties counting half."""
    size = inside.sum(axis=1)
    outside = a.shape[1] - size
    ranks = np.where(inside, rankdata(a, axis=1), 0.0).sum(axis=1)
    return (ranks - size * (size + 1) / 2) / (size * outside)


METRICS: dict[str, Metric] = {
    "energy": Metric("energy", energy),
    "relevance_rank_accuracy": Metric("relevance rank accuracy", relevance_rank_accuracy),
    "iou_at_area": Metric(
        "IoU at the region's area", iou_at_area, lambda share: share / (2 - share)
    ),
    "iou_at_half": Metric("IoU at half the maximum", iou_at_half),
    "iou_best": Metric("IoU at the best threshold", iou_best),
    "pointing_game": Metric("pointing game", pointing_game),
    "auc": Metric("AUC", auc, lambda share: np.full(len(share), 0.5)),
}
"""By the names of `score`'s columns. Of a uniform map, a cut at a threshold keeps all, so that its
IoU is `|S| / P`. Maps that have peaks score far less where they know nothing, so the chance to
print is what the same maps score on a wrong region, and what maps of an untrained network do."""


def chance(metric: str, masks: np.ndarray) -> np.ndarray:
    """What a uniform map scores on each mask by a metric of `METRICS`: (N, H, W) bool to (N,)."""
    return METRICS[metric].chance(np.asarray(masks, bool).mean(axis=(1, 2)))


def score(maps: np.ndarray, masks: np.ndarray) -> pd.DataFrame:
    """Score every map by every metric.

    Args:
        maps: (N, H, W), any float, finite.
        masks: (N, H, W) bool, none of them empty or full.
    Returns:
        One row a map: a column for each of `METRICS`, and `zero`, whether it is a zero map.
    Raises:
        DataError: the arrays do not fit together, a value is not finite or a mask does not do.
    """
    frames = []
    for start in range(0, max(len(maps), 1), CHUNK):
        a, inside = _checked(maps[start : start + CHUNK], masks[start : start + CHUNK])
        columns = {name: metric.function(a, inside) for name, metric in METRICS.items()}
        frames.append(pd.DataFrame({**columns, "zero": ~a.any(axis=1)}))
    return pd.concat(frames, ignore_index=True)


def iou_curve(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of the region with {a >= t max(a)}, for each t of `THRESHOLDS`: (N,
    T), 0 for a zero map; arguments and errors as in `score`."""
    return _iou_curve(*_checked(maps, masks), THRESHOLDS)


def _iou_curve(a: np.ndarray, inside: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    levels, curve = np.array(thresholds), np.zeros((len(a), len(thresholds)))
    for i in np.flatnonzero(a.any(axis=1)):
        # Of each pixel, how many thresholds it reaches; then, pixels that reach each of them.
        reached = np.searchsorted(levels * a[i].max(), a[i], side="right")
        kept, both = (
            np.bincount(some, minlength=len(levels) + 1)[::-1].cumsum()[::-1][1:]
            for some in (reached, reached[inside[i]])
        )
        curve[i] = both / (kept + inside[i].sum() - both)
    return curve


def _checked(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive parts (N, P) float64 and masks (N, P) bool; refuses what cannot be scored."""
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != bool:
        found = f"{maps.shape} and {masks.shape} {masks.dtype}"
        raise DataError(f"maps and masks do not fit: (N, H, W), the masks bool, not {found}")
    a, inside = (array.reshape(len(array), -1) for array in (maps, masks))
    if not np.isfinite(a).all():
        raise DataError("a map has a value that is not a finite number")
    if (inside == inside[:, :1]).all(axis=1).any():
        raise DataError("a mask is empty or covers its whole image")
    return np.maximum(a, 0.0, dtype=np.float64), inside


def _expected_hits(a: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """How many of the |S| highest pixels lie in S, expected over all orders of ties, (N,)."""
    size = inside.sum(axis=1)
    place = a.shape[1] - size
    ordered = np.partition(a, np.unique(place), axis=1)
    lowest = np.take_along_axis(ordered, place[:, None], axis=1)  # the |S|-th highest value
    above, tied = a > lowest, a == lowest
    part = (size - above.sum(axis=1)) / tied.sum(axis=1)
    hits = (above & inside).sum(axis=1) + part * (tied & inside).sum(axis=1)
    return np.where(a.any(axis=1), hits, 0.0)
