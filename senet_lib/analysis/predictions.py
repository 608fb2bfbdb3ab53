"""What the stored logits of finished runs say without any training: spread, calibration, classes.

A run stores the logits of every evaluated image. Over the seeds of a network they tell how much of
the spread of its error the finite test set makes, and how sure each prediction was of itself.
"""

# Legend: S seeds, N images, K classes.

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from senet_lib.errors import SenetError
from senet_lib.evaluation import probabilities
from senet_lib.runs.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

BINS = 15


def correct_matrix(runs: Sequence[RunRecord]) -> np.ndarray:
    """Which images each run classifies correctly.

    Args:
        runs: of one network, a seed each, evaluated on the same images.
    Returns:
        (S, N) bool, the runs in the order given.
    Raises:
        SenetError: the runs were evaluated on different images.
    """
    stored = [run.test_logits() for run in runs]
    labels = [one[1] for one in stored]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        raise SenetError("the runs were evaluated on different images, so that they do not compare")
    return np.array([logits.argmax(1) == truth for logits, truth in stored])


def split_variance(correct: np.ndarray) -> tuple[float, float]:
    """The variance of an error over seeds, and the part of it that the finite test set makes.

    An error is a mean over images, so its variance is that of single images, summed, and the
    covariances between them. Were each image got wrong with a chance of its own, independently of
    the others, only the first sum would be there: two networks that err equally often on endless
    data still differ by it on N images. What is left is what the networks really differ by. Both
    estimates are unbiased, so that what is left may come out below zero.

    Args:
        correct: (S, N) bool, two seeds or more.
    Returns:
        Variance (n - 1) of the error over seeds, and the part of the finite test set.
    Raises:
        SenetError: there are fewer than two seeds.
    Source: Jordan 2023 (arXiv:2304.01910), section 3.
    """
    if len(correct) < 2:
        raise SenetError(f"{len(correct)} seed has no spread to split; it takes two")
    images = correct.shape[1]
    total = correct.mean(1).var(ddof=1)
    return float(total), float(correct.var(0, ddof=1).sum() / images**2)


def spread_split(groups: "dict[str, Sequence[RunRecord]]") -> "pd.DataFrame":
    """The spread of every network over seeds, split by where it comes from.

    Args:
        groups: runs of each network, a seed each; those with one seed are left out.
    Returns:
        model, n, images, sd (over seeds), sd_images (what the finite test set makes), sd_networks
        (what the networks really differ by, 0 where its estimated variance is below zero) and
        share_images (the former's share of the variance, above 1 in that case). The last row, "all
        networks", pools the variances, by degrees of freedom.
    Raises:
        SenetError: runs of one network were evaluated on different images.
    """
    import pandas as pd

    rows, parts = [], []
    for model, runs in groups.items():
        if len(runs) < 2:
            continue
        correct = correct_matrix(runs)
        parts.append((len(runs) - 1, *split_variance(correct)))
        rows.append(_split_row(model, len(runs), correct.shape[1], *parts[-1][1:]))
    if rows:
        dfs, totals, finite = np.array(parts).T
        pooled = (dfs @ part / dfs.sum() for part in (totals, finite))
        n, images = sum(row["n"] for row in rows), max(row["images"] for row in rows)
        rows.append(_split_row("all networks", n, images, *map(float, pooled)))
    columns = ["model", "n", "images", "sd", "sd_images", "sd_networks", "share_images"]
    return pd.DataFrame(rows, columns=columns)


def _split_row(model: str, n: int, images: int, total: float, finite: float) -> dict[str, object]:
    return {
        "model": model,
        "n": n,
        "images": images,
        "sd": math.sqrt(total),
        "sd_images": math.sqrt(finite),
        "sd_networks": math.sqrt(max(total - finite, 0)),
        "share_images": finite / total if total else math.nan,
    }


def calibration(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> "pd.DataFrame":
    """A reliability diagram: how often predictions of each confidence are right.

    Args:
        logits: (N, K).
        labels: (N,), integer.
        bins: of equal width, over confidences from 0 to 1.
    Returns:
        A row a bin: low, high, count, confidence and accuracy (means; NaN in an empty bin). A
        confidence on a border belongs to the lower bin.
    Raises:
        SenetError: there is no bin, or no image.
    """
    import pandas as pd

    if bins < 1 or not len(labels):
        raise SenetError(f"{bins} bins and {len(labels)} images; both must be at least 1")
    confidence, right = probabilities(logits).max(1), logits.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    means = {
        name: np.divide(
            np.bincount(place, values, bins), count, np.full(bins, np.nan), where=count > 0
        )
        for name, values in (("confidence", confidence), ("accuracy", right))
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "count": count, **means})


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of confidence and accuracy over the bins of `calibration`, by their counts.

    Args:
        logits: (N, K).
        labels: (N,), integer.
        bins: as in `calibration`.
    Raises:
        SenetError: as in `calibration`.
    Source: Naeini et al. 2015 (AAAI); Guo et al. 2017 (arXiv:1706.04599).
    """
    table = calibration(logits, labels, bins)
    gaps = (table["confidence"] - table["accuracy"]).abs().fillna(0)
    return float((gaps * table["count"]).sum() / len(labels))


def calibration_frame(runs: Sequence[RunRecord], bins: int = BINS) -> "pd.DataFrame":
    """How well each run knows how often it is right.

    Args:
        runs: finished runs.
        bins: as in `calibration`.
    Returns:
        A row a run: model, seed, ece, confidence (mean) and accuracy.
    """
    import pandas as pd

    rows = []
    for run in runs:
        logits, labels = run.test_logits()
        rows.append(
            {
                "model": run.model,
                "seed": run.seed,
                "ece": expected_calibration_error(logits, labels, bins),
                "confidence": float(probabilities(logits).max(1).mean()),
                "accuracy": float((logits.argmax(1) == labels).mean()),
            }
        )
    return pd.DataFrame(rows, columns=["model", "seed", "ece", "confidence", "accuracy"])


def class_errors(runs: Sequence[RunRecord]) -> "pd.DataFrame":
    """The error of each run on each class.

    Args:
        runs: finished runs.
    Returns:
        A row a run and class: model, seed, class (its name), images and error.
    """
    import pandas as pd

    rows = []
    for run in runs:
        logits, labels = run.test_logits()
        wrong, images = logits.argmax(1) != labels, np.bincount(labels, minlength=len(run.classes))
        missed = np.bincount(labels, wrong, len(run.classes))
        rows += [
            {"model": run.model, "seed": run.seed, "class": name, "images": n, "error": errors / n}
            for name, n, errors in zip(run.classes, images.tolist(), missed, strict=True)
            if n
        ]
    return pd.DataFrame(rows, columns=["model", "seed", "class", "images", "error"])
