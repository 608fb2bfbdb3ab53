"""How well maps of evidence find a region that is known exactly.

All metrics are of the positive part a = max(map, 0) of the raw map, at the size of the image. A
positive factor changes none of them. Subtracting a map's minimum, as scaling for display does,
changes those of mass and of thresholds, so maps must come as they were computed.

Three rules hold throughout:

- Equal values are ranked in no order: a rank metric is its expectation over all orders of the
  pixels that tie. So no result depends on a sort, and a uniform map scores chance.
- A map without a positive value, here a zero map, points nowhere and is never left out: it scores
  0, and 0.5 in `auc`, where 0 would say that it points away from the region.
- A map equal to the region's mask scores 1.
"""

# Legend: N maps, H height, W width, P = H W pixels, T thresholds, S the region, |S| its pixels.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.analysis.statistics import Interval, interval
from senet_lib.errors import DataError, SenetError, unknown

if TYPE_CHECKING:
    import pandas as pd

THRESHOLDS = tuple(i / 100 for i in range(1, 100))
"""Shares of a map's maximum at which it is cut."""
CHUNK = 256
"""Maps scored at a time; bounds the memory, not the result."""


def zero_maps(maps: np.ndarray) -> np.ndarray:
    """Which maps have no positive value.

    Args:
        maps: (N, H, W), any float.
    Returns:
        (N,) bool.
    """
    return ~(np.asarray(maps) > 0).any(axis=(1, 2))


def energy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the positive mass that lies in the region.

    With a grid's tile as the region this is the grid pointing score; with the two target tiles of
    a mosaic, Focus; with an object, the energy-based pointing game.

    Args:
        maps: (N, H, W), any float, finite.
        masks: (N, H, W) bool, none of them empty.
    Returns:
        (N,) float64 in [0, 1]; 0 for a zero map.
    Raises:
        DataError: the arrays do not fit together, a value is not finite or a mask is empty.
    Source: Böhle et al. 2021 (grid pointing); Arias-Duart et al. 2021 (Focus); Wang et al. 2020
        (Score-CAM, energy-based pointing game); Arras et al. 2022 (relevance mass accuracy).
    """
    a, inside = _checked(maps, masks)
    total = a.sum(axis=1)
    found = np.where(inside, a, 0.0).sum(axis=1)
    return np.divide(found, total, out=np.zeros_like(total), where=total > 0)


def relevance_rank_accuracy(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of the |S| highest pixels that lie in the region, |S| being the region's size.

    Args:
        maps, masks: as in `energy`.
    Returns:
        (N,) float64 in [0, 1], the expectation over ties; 0 for a zero map.
    Source: Arras et al. 2022 (CLEVR-XAI).
    """
    a, inside = _checked(maps, masks)
    return _expected_hits(a, inside) / inside.sum(axis=1)


def iou_at_area(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of the region with as many of the highest pixels as it has.

    Two sets of |S| pixels that share h have an IoU of h / (2 |S| - h). Where pixels tie, h is its
    expectation, so that IoU = RRA / (2 - RRA) always holds, RRA being the relevance rank accuracy.
    The mean of the IoU over all orders of the ties lies a little higher, by 5e-5 for a uniform map
    on a 2 x 2 grid of 32-pixel tiles.

    Args:
        maps, masks: as in `energy`.
    Returns:
        (N,) float64 in [0, 1]; 0 for a zero map.
    """
    a, inside = _checked(maps, masks)
    hits = _expected_hits(a, inside)
    return hits / (2 * inside.sum(axis=1) - hits)


def iou_curve(
    maps: np.ndarray, masks: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> np.ndarray:
    """Intersection over union of the region with {a >= t max(a)}, for each threshold t.

    Args:
        maps, masks: as in `energy`.
        thresholds: T shares of each map's own maximum, ascending, in (0, 1].
    Returns:
        (N, T) float64 in [0, 1]; 0 for a zero map.
        SenetError: the thresholds are out of range or not ascending.
    """
    levels = np.asarray(thresholds, np.float64)
    if not levels.size or levels[0] <= 0 or levels[-1] > 1 or (np.diff(levels) <= 0).any():
        raise SenetError("thresholds must ascend and lie above 0 and up to 1")
    a, inside = _checked(maps, masks)
    curve = np.zeros((len(a), len(levels)))
    for i in np.flatnonzero(a.any(axis=1)):
        # Of each pixel, how many thresholds it reaches; then, pixels that reach each of them.
        reached = np.searchsorted(levels * a[i].max(), a[i], side="right")
        kept, both = (
            np.bincount(some, minlength=len(levels) + 1)[::-1].cumsum()[::-1][1:]
            for some in (reached, reached[inside[i]])
        )
        curve[i] = both / (kept + inside[i].sum() - both)
    return curve


def iou_at_half(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of the region with the pixels at or above half the map's maximum.

    Args:
        maps, masks: as in `energy`.
    Returns:
        (N,) float64 in [0, 1]; 0 for a zero map.
    """
    return iou_curve(maps, masks, (0.5,))[:, 0]


def iou_best(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Highest intersection over union at any of `THRESHOLDS`, chosen for each map by the region.

    An upper end, for the choice knows the answer.

    Args:
        maps, masks: as in `energy`.
    Returns:
        (N,) float64 in [0, 1]; 0 for a zero map.
    """
    return iou_curve(maps, masks).max(axis=1)


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether the map's highest pixel lies in the region; no tolerance around it.

    Args:
        maps, masks: as in `energy`.
    Returns:
        (N,) float64: 0 or 1, or the share in the region of the pixels that tie for the highest
        value; 0 for a zero map.
    Source: Zhang et al. 2018 (excitation backprop).
    Differs from the paper: it grants 15 pixels of tolerance, half of a CIFAR image.
    """
    a, inside = _checked(maps, masks)
    highest = a == a.max(axis=1, keepdims=True)
    hits = (highest & inside).sum(axis=1) / highest.sum(axis=1)
    return np.where(a.any(axis=1), hits, 0.0)


def auc(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of the pixels, those of the region being the positives.

    It is the chance that a pixel of the region lies above one outside it, ties counting half.

    Args:
        maps: as in `energy`.
        masks: as in `energy`; none of them covers the whole image.
    Returns:
        (N,) float64 in [0, 1]; 0.5 for a zero map.
    Raises:
        DataError: as in `energy`, or a mask leaves no pixel outside.
    """
    from scipy.stats import rankdata

    a, inside = _checked(maps, masks)
    size = inside.sum(axis=1)
    outside = a.shape[1] - size
    if not outside.all():
        raise DataError("a mask covers its whole image; the AUC needs pixels outside it")
    ranks = np.where(inside, rankdata(a, axis=1), 0.0).sum(axis=1)
    return (ranks - size * (size + 1) / 2) / (size * outside)


# What a map that knows nothing scores


def _share(masks: np.ndarray) -> np.ndarray:
    """Part of the image that the region fills, (N,)."""
    return np.asarray(masks, bool).mean(axis=(1, 2))


def _share_iou(masks: np.ndarray) -> np.ndarray:
    """IoU of two regions of the same size that overlap as chance has it, (N,)."""
    share = _share(masks)
    return share / (2 - share)


def _half(masks: np.ndarray) -> np.ndarray:
    return np.full(len(masks), 0.5)


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to compare a map with a region; its key in `METRICS` is its column in `score`."""

    label: str
    """Its name in tables."""
    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """(maps, masks) to (N,)."""
    chance: Callable[[np.ndarray], np.ndarray]
    """Masks (N, H, W) to what a uniform map scores on each, (N,)."""


METRICS: dict[str, Metric] = {
    "energy": Metric("energy", energy, _share),
    "relevance_rank_accuracy": Metric("relevance rank accuracy", relevance_rank_accuracy, _share),
    "iou_at_area": Metric("IoU at the region's area", iou_at_area, _share_iou),
    "iou_at_half": Metric("IoU at half the maximum", iou_at_half, _share),
    "iou_best": Metric("IoU at the best threshold", iou_best, _share),
    "pointing_game": Metric("pointing game", pointing_game, _share),
    "auc": Metric("AUC", auc, _half),
}
"""Chance here is the score of a uniform map. A cut at a threshold keeps all of it, which makes its
IoU |S| / P. Maps that have peaks score far less where they know nothing, so the chance to print
is what the same maps score on a wrong region, and what maps of an untrained network do."""

ENERGY_LABELS = {"grid": "grid pointing score", "focus": "Focus", "objects": "energy"}
"""What the energy is called, by what the regions are: a tile, two tiles, an object."""


def chance(metric: str, masks: np.ndarray) -> np.ndarray:
    """What a uniform map scores on each mask.

    Args:
        metric: a name in `METRICS`.
        masks: (N, H, W) bool.
    Returns:
        (N,) float64.
    Raises:
        UnknownNameError: no metric has the name.
    """
    return _metric(metric).chance(masks)


def score(
    maps: np.ndarray, masks: np.ndarray, metrics: Sequence[str] = tuple(METRICS)
) -> "pd.DataFrame":
    """Score every map by every metric.

    Args:
        maps: (N, H, W), any float, finite.
        masks: (N, H, W) bool, none of them empty or full.
        metrics: names in `METRICS`.
    Returns:
        One row a map in the order given: a column for each metric, and `zero`, whether it is a
        zero map. Zero maps have their rows and scores like any other.
        UnknownNameError: no metric has one of the names.
    """
    import pandas as pd

    chosen = {name: _metric(name) for name in metrics}
    if np.shape(maps) != np.shape(masks):
        raise _misfit(maps, masks)
    columns = {name: np.empty(len(maps)) for name in chosen}
    for start in range(0, len(maps), CHUNK):
        part = slice(start, start + CHUNK)
        for name, metric in chosen.items():
            columns[name][part] = metric.function(maps[part], masks[part])
    return pd.DataFrame({**columns, "zero": zero_maps(maps)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One number a seed, summarised."""

    seeds: tuple[int, ...]
    """Ascending."""
    mean: float | None
    """Mean over the seeds, in the unit of the values; None without a seed."""
    interval: Interval | None
    """Of the mean, from Student's t; None where it does not exist."""


def summarise(per_seed: Mapping[int, float], level: float = 0.95) -> Summary:
    """Mean over the seeds, and its interval from `statistics.interval`.

    Args:
        per_seed: one number a seed, such as the mean score of its maps.
        level: nominal coverage, in (0, 1).
    Raises:
        SenetError: a value is not a finite number, or the level is out of range.
    """
    seeds = tuple(sorted(per_seed))
    values = [float(per_seed[seed]) for seed in seeds]
    found = interval(values, level)
    mean = float(np.mean(values)) if values else None
    return Summary(seeds=seeds, mean=mean, interval=found)


def _metric(name: str) -> Metric:
    """The metric of that name, or an error that offers the nearest."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]


def _checked(maps: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive parts (N, P) float64 and masks (N, P) bool; refuses what cannot be scored."""
    maps, masks = np.asarray(maps), np.asarray(masks)
    if maps.ndim != 3 or maps.shape != masks.shape or masks.dtype != bool:
        raise _misfit(maps, masks)
    a, inside = (array.reshape(len(array), -1) for array in (maps, masks))
    if not np.isfinite(a).all():
        raise DataError("a map has a value that is not a finite number")
    if not inside.any(axis=1).all():
        raise DataError("a mask is empty: there is nothing to find")
    return np.maximum(a, 0.0, dtype=np.float64), inside


def _misfit(maps: np.ndarray, masks: np.ndarray) -> DataError:
    """What is wrong with the shapes or types."""
    return DataError(
        f"maps {np.shape(maps)} and {np.asarray(masks).dtype} masks {np.shape(masks)} do not fit: "
        "both must be (N, H, W), and the masks bool"
    )


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
